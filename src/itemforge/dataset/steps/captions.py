"""Captions for the pictures of a dataset that have none, by a provider. What a person wrote is left alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from itemforge.dataset.captioning.face import Captioned
from itemforge.dataset.captioning.face import Picture as Asked
from itemforge.dataset.captioning.ledger import Outcome, Progress
from itemforge.dataset.naming import item_name
from itemforge.dataset.processed import all_processed, path_of
from itemforge.dataset.store import Store
from itemforge.dataset.store_captions import caption, captions, save_caption
from itemforge.errors import StaleEdit

#: In the dataset's folder: what providers answered.
CACHE = "answers.sqlite"


@dataclass(frozen=True)
class Todo:
    """What to ask for, and why the others are left: they have a caption, or are not usable."""

    pictures: list[Asked]
    by_person: int
    by_provider: int
    not_usable: int


def find_todo(store: Store, *, again: bool = False) -> Todo:
    """The usable pictures without a caption; `again`: those with one that no person has looked at, too."""
    processed = all_processed(store)
    said = {each.sha256: each for each in captions(store)}
    pictures, by_person, by_provider, not_usable = [], 0, 0, 0
    for picture in store.pictures():
        made, known = processed.get(picture.sha256), said.get(picture.sha256)
        if made is None or not made.usable:
            not_usable += 1
        elif known is not None and known.state != "auto":
            by_person += 1
        elif known is not None and not again:
            by_provider += 1
        else:
            name = item_name(store.sources(picture.sha256))
            pictures.append(Asked(picture.sha256, path_of(store, made.picture).read_bytes, name))
    return Todo(pictures, by_person, by_provider, not_usable)


@dataclass
class Saving:
    """Writes each caption down as it comes. `stale` counts those that a person has written meanwhile."""

    store: Store
    provider: str
    tell: Callable[[int, int], None] = lambda done, of: None
    stale: int = 0
    saved: int = field(default=0)

    def __call__(self, progress: Progress) -> None:
        self._save(progress.outcome)
        self.tell(progress.done, progress.total)

    def _save(self, outcome: Outcome) -> None:
        if not isinstance(outcome.answer, Captioned):
            return
        before = caption(self.store, outcome.sha256)
        fields = outcome.answer.fields.model_dump(mode="json")
        said = (fields, outcome.key.model, outcome.key.prompt)
        if before is not None and (
            before.state != "auto" or said == (dict(before.fields), before.provider, before.prompt_version)
        ):
            self.stale += before.state != "auto"
            return
        try:
            save_caption(
                self.store,
                outcome.sha256,
                fields,
                provider=outcome.key.model,
                prompt_version=outcome.key.prompt,
                state="auto",
                who=self.provider,
                seen=before.version if before else 0,
            )
            self.saved += 1
        except StaleEdit:
            self.stale += 1


def cache_of(folder: Path) -> Path:
    return folder / CACHE
