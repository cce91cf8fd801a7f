"""Looks at a dataset before anything is trained on it: what is wrong, and how each is mended."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from itemforge.dataset.captioning.rendering import render
from itemforge.dataset.captioning.tokens import MAX_TOKENS
from itemforge.dataset.manifest import MANIFEST, Manifest
from itemforge.dataset.naming import item_name
from itemforge.dataset.processed import Processed, all_processed, path_of
from itemforge.dataset.ready import APPROVED, fields_of, why_not
from itemforge.dataset.steps.processing import recipe_label
from itemforge.dataset.store import Store
from itemforge.dataset.store_captions import Caption, captions
from itemforge.dataset.store_results import without_result
from itemforge.errors import InvalidInput


@dataclass
class Findings:
    """`wrong` keeps a set from being ready, `notes` do not; pictures' names by what is said of them and how to mend it."""

    train: int = 0
    validation: int = 0
    wrong: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def report(self, most: int = 5) -> str:
        """What a person reads."""
        lines = [f"{self.train} pictures to train on, {self.validation} for validation"]
        for kind, found in (("", self.wrong), ("note: ", self.notes)):
            for (what, mend), names in found.items():
                more = f", and {len(names) - most} more" if len(names) > most else ""
                lines.append(f"{kind}{len(names)} × {what}: {', '.join(names[:most])}{more}; {mend}")
        return "\n".join(lines)


def examine(store: Store, manifest: Manifest) -> Findings:
    """Everything that can be said of a dataset without a model."""
    look = _Look(store, manifest)
    for picture in store.pictures():
        look.at(picture.sha256)
    look.at_groups()
    return look.found


def check(found: Findings, folder: Path) -> None:
    """Whether the set is ready.

    Raises:
        InvalidInput: it is not; the text is the whole report.
    """
    if found.wrong or not found.train:
        raise InvalidInput(f"the dataset {folder} is not ready:\n{found.report()}")


class _Look:
    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest, self.look = store, manifest, manifest.look()
        self.found = Findings()
        self.processed = all_processed(store)
        self.captions = {each.sha256: each for each in captions(store)}
        self.stale = set(without_result(store, "process", recipe_label(manifest)))

    def at(self, sha256: str) -> None:
        folder = self.store.folder
        made, caption = self.processed.get(sha256), self.captions.get(sha256)
        raw = self.store.picture(sha256)
        if raw is None or not self.store.path(raw).is_file():
            self._wrong(sha256, "the original is missing", "restore it, or crawl or import it again")
        if made is None or sha256 in self.stale:
            what = "not processed" if made is None else f"processed by other settings than {MANIFEST}'s"
            self._wrong(sha256, what, f"itemforge data process {folder}")
        if made is None or made.state == "aside":
            if made is not None:
                self._note(sha256, f"set aside, {made.reason}", "find a better picture, or let it be")
            return
        if not made.kept:
            self._at_copy(sha256, caption)
            return
        if not all(path_of(self.store, each).is_file() for each in (made.picture, made.cutout, made.mask)):
            self._wrong(sha256, "the processed picture is missing", f"itemforge data process {folder}")
        self._at_caption(sha256, made, caption)

    def _at_copy(self, sha256: str, caption: Caption | None) -> None:
        if caption is not None and caption.state in ("approved", "edited"):
            mend = "the better one needs its own caption"
            self._note(sha256, f"a copy of another, with a caption that is {caption.state}", mend)

    def _at_caption(self, sha256: str, made: Processed, caption: Caption | None) -> None:
        folder, review = self.store.folder, f"itemforge data review {self.store.folder}"
        decided = caption is not None and caption.state in ("approved", "rejected")
        if made.state == "flagged" and not decided:
            self._wrong(sha256, f"flagged, {made.reason}", f"approve or reject it: {review}")
        if caption is None:
            self._wrong(sha256, "no caption", f"itemforge data caption {folder}, or write one: {review}")
            return
        if caption.state != "rejected":
            self._at_text(sha256, caption)
        if reason := why_not(made, caption, APPROVED):
            if caption.state != "rejected":
                self._wrong(sha256, f"{reason}, not approved", f"look at it: {review}")
            return
        if made.held_out:
            self.found.validation += 1
        else:
            self.found.train += 1
        if not any(each.licence for each in self.store.sources(sha256)):
            self._note(
                sha256, "no licence is known", "ask its owner before you publish what is trained on it"
            )

    def _at_text(self, sha256: str, caption: Caption) -> None:
        try:
            written = render(fields_of(caption), self.look)
        except InvalidInput as error:
            self._wrong(sha256, f"no caption can be written ({error})", f"mend it, or {MANIFEST}")
            return
        if not written.text.startswith(self.look.trigger):
            self._wrong(
                sha256, "the trigger is not first", f"begin the template with {{trigger}} in {MANIFEST}"
            )
        if written.dropped:
            what = f"a caption of more than {MAX_TOKENS} tokens, shortened"
            self._note(sha256, what, "say it in fewer words, or shorten the tail")

    def at_groups(self) -> None:
        sides: dict[str, set[bool]] = defaultdict(set)
        for made in self.processed.values():
            if made.usable:
                sides[made.group].add(made.held_out)
        for sha256, made in self.processed.items():
            if made.usable and len(sides[made.group]) > 1:
                mend = f"itemforge data process {self.store.folder}"
                self._wrong(sha256, "variants of one thing in training and in validation", mend)

    def _wrong(self, sha256: str, what: str, mend: str) -> None:
        self.found.wrong[what, mend].append(self._name(sha256))

    def _note(self, sha256: str, what: str, mend: str) -> None:
        self.found.notes[what, mend].append(self._name(sha256))

    def _name(self, sha256: str) -> str:
        return f"{item_name(self.store.sources(sha256)) or 'nameless'} ({sha256[:8]})"
