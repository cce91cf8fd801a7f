"""What processing made of a dataset's pictures, as the later steps see it: result of the step `process`."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from itemforge.dataset.store import Store, now
from itemforge.dataset.store_results import Result, ResultState, results, save_results

STEP = "process"
#: Below the dataset's folder: `pictures`, `cutouts`, `masks`, `before`, `records`.
FOLDER = "processed"


@dataclass(frozen=True)
class Processed:
    """What became of one picture. Paths are relative to the dataset's folder, and empty for what was set aside.

    `group` is the same for copies and variants of one drawing; of copies one alone is `kept`. `held_out` says that it is
    for validation.
    """

    sha256: str
    state: ResultState
    reason: str
    picture: str
    cutout: str
    mask: str
    before: str
    group: str
    kept: bool
    held_out: bool
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it belongs into a training set, once its caption is approved."""
        return self.state != "aside" and self.kept


def save_processed(store: Store, found: Processed, recipe: str) -> None:
    """Write it down as the picture's result by a recipe."""
    save_all_processed(store, [found], recipe)


def save_all_processed(store: Store, found: Iterable[Processed], recipe: str) -> None:
    """Several of them, all or none: groups and sides belong together."""
    save_results(store, [_result(each, recipe) for each in found])


def _result(found: Processed, recipe: str) -> Result:
    output = asdict(found)
    for key in ("sha256", "state", "reason"):
        del output[key]
    return Result(found.sha256, STEP, recipe, found.state, found.reason, output, now())


def all_processed(store: Store) -> dict[str, Processed]:
    """By sha256, in their order; pictures that were not processed yet are not there."""
    return {each.sha256: _processed(each) for each in results(store, STEP)}


def _processed(result: Result) -> Processed:
    output = dict(result.output) | {"notes": tuple(result.output.get("notes", ()))}
    return Processed(sha256=result.sha256, state=result.state, reason=result.reason, **output)


def path_of(store: Store, relative: str) -> Path:
    """A file of the dataset."""
    return store.folder / relative
