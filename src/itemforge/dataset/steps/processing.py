"""Processes the pictures of a dataset that need it, then groups and splits all of them.

What was made is told by the records beside it, so a run that was killed goes on from there. What is known of the
pictures changes in one transaction at the end: groups and sides of one run, never a mixture.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from itemforge.dataset.locks import only_one
from itemforge.dataset.manifest import Manifest
from itemforge.dataset.naming import item_name
from itemforge.dataset.process.arranging import Arrangement, arrange
from itemforge.dataset.process.files import Files
from itemforge.dataset.process.recipe import Reason, Record, State
from itemforge.dataset.process.report import write_report
from itemforge.dataset.process.run import Limits, Outcome, process_all
from itemforge.dataset.processed import FOLDER, STEP, Processed, all_processed, save_all_processed
from itemforge.dataset.store import Picture, Store
from itemforge.dataset.store_results import results
from itemforge.errors import ConfigurationError

REPORT = "report.html"
#: Result of the step `import`: the side that somebody gave a picture, `{"held_out": bool}`.
GIVEN = "import"

#: Hears a stage's name, how much of it is done, and of how much.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Summary:
    """What became of all pictures. `worked` are those that this run had to make; `reasons` by state and reason."""

    worked: int
    pictures: int
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    kept: int = 0
    copies: int = 0
    variants: int = 0
    held_out: int = 0


def recipe_label(manifest: Manifest) -> str:
    """What the results depend on besides the pictures."""
    return f"{manifest.recipe().key} validation {manifest.validation:g}"


def process_dataset(
    store: Store,
    manifest: Manifest,
    processes: int | None = None,
    tell: Tell = lambda stage, done, of: None,
    *,
    report: bool = False,
    limits: Limits | None = None,
) -> Summary:
    """Make, group and split; nothing is done where nothing is new. `processes` and `limits` as of `process_all`.

    Raises:
        ConfigurationError: the folder cannot be written, or another process is at it.
    """
    out, pictures = store.folder / FOLDER, store.pictures()
    with _alone(out):
        outcomes = {each.sha256: _known(store, out, each, manifest) for each in pictures}
        todo = [each for each in pictures if outcomes[each.sha256] is None]
        made = process_all(
            [store.path(each) for each in todo],
            out,
            manifest.recipe(),
            processes,
            limits=limits,
            tell=lambda done, of, outcome: tell("pictures", done, of),
        )
        whole = outcomes | {each.sha256: _checked(each, one) for each, one in zip(todo, made, strict=True)}
        found = {sha256: outcome for sha256, outcome in whole.items() if outcome is not None}
        changed = _changed(store, found, recipe_label(manifest))
        if changed or report:
            arrangement = _arranged(store, found.values(), manifest.validation)
            tell("groups", 1, 1)
            if changed:
                save_all_processed(store, _told(store, found, arrangement), recipe_label(manifest))
            if report:
                write_report(
                    out / REPORT,
                    list(found.values()),
                    arrangement,
                    name=lambda one: item_name(store.sources(one.path.stem)) or one.path.name,
                )
    return _summary(all_processed(store).values(), len(todo))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One process at a time: what a killed one left half-written can be taken away then."""
    with only_one(out / ".lock", f"another process works on {out.parent}; wait until it is done"):
        for left in out.glob("*/.*.writing"):
            left.unlink(missing_ok=True)
        try:
            yield
        except OSError as error:
            raise ConfigurationError(f"{out} cannot be written or read ({error.strerror or error})") from None


def _known(store: Store, out: Path, picture: Picture, manifest: Manifest) -> Outcome | None:
    """What is there of a picture already."""
    files = Files.of(out, picture.sha256, manifest.recipe().key)
    record = files.read()
    return None if record is None else Outcome(store.path(picture), record, files)


def _checked(picture: Picture, outcome: Outcome) -> Outcome:
    """Set aside where the file is no longer the one that came."""
    if outcome.record.sha256 in ("", picture.sha256):
        return outcome
    changed = Record(picture.sha256, State.ASIDE, Reason.DAMAGED, "its bytes are not those that came")
    return replace(outcome, record=changed)


def _changed(store: Store, outcomes: Mapping[str, Outcome], label: str) -> bool:
    """Whether what the dataset knows is not what became of the pictures."""
    known = {each.sha256: (each.recipe, each.state, each.reason) for each in results(store, STEP)}
    return known != {sha256: (label, one.record.state, one.record.reason) for sha256, one in outcomes.items()}


def _arranged(store: Store, outcomes: Iterable[Outcome], fraction: float) -> Arrangement:
    """Groups and sides. A side that somebody gave a picture holds for its whole group; validation, if both were given."""
    given = {each.sha256: bool(each.output["held_out"]) for each in results(store, GIVEN)}
    arrangement = arrange(outcomes, fraction)
    for group in arrangement.groups:
        sides = [given[sha256] for key in group.keys if (sha256 := key.partition("-")[0]) in given]
        if sides:
            arrangement.validation.update(dict.fromkeys(group.keys, any(sides)))
    return arrangement


def _told(store: Store, outcomes: Mapping[str, Outcome], arrangement: Arrangement) -> list[Processed]:
    group_of = {key: group for group in arrangement.groups for key in group.keys}
    told = []
    for sha256, one in outcomes.items():
        record, group = one.record, group_of.get(one.key) if one.record.made else None

        def place(path: Path, there: bool = record.made) -> str:
            return path.relative_to(store.folder).as_posix() if there else ""

        told.append(
            Processed(
                sha256=sha256,
                state=record.state.value,
                reason=record.reason.value,
                picture=place(one.files.picture),
                cutout=place(one.files.cutout),
                mask=place(one.files.mask),
                before=place(one.files.before, one.files.before.is_file()),
                group=group.canonical if group else "",
                kept=group is not None and one.key in group.kept,
                held_out=group is not None and arrangement.validation[one.key],
                notes=tuple(filter(None, (record.detail, *record.notes))),
            )
        )
    return told


def _summary(found: Collection[Processed], worked: int) -> Summary:
    made = [each for each in found if each.state != "aside"]
    kept = [each for each in made if each.kept]
    return Summary(
        worked,
        len(found),
        Counter((each.state, each.reason) for each in found),
        kept=len(kept),
        copies=len(made) - len(kept),
        variants=len(kept) - len({each.group for each in kept}),
        held_out=sum(each.held_out for each in kept),
    )
