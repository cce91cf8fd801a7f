"""What the steps after the crawl made of each picture, and by which recipe.

A step skips what has a result by its present recipe, so changing a recipe makes exactly that step's work again.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from itemforge.dataset.store import Store, now

#: In the dataset, kept out of it, or in it for a person to look at.
ResultState = Literal["ok", "aside", "flagged"]


@dataclass(frozen=True)
class Result:
    """`output` is what the step says of what it made; JSON."""

    sha256: str
    step: str
    recipe: str
    state: ResultState
    reason: str
    output: Mapping[str, Any]
    at: str


_RESULT = "sha256, step, recipe, state, reason, output, at"


def save_result(
    store: Store,
    sha256: str,
    step: str,
    recipe: str,
    state: ResultState,
    output: Mapping[str, Any],
    reason: str = "",
) -> None:
    """The step's result for a picture; the one of an earlier recipe goes."""
    save_results(store, [Result(sha256, step, recipe, state, reason, output, now())])


def save_results(store: Store, found: Iterable[Result]) -> None:
    """Several of them, all or none."""
    with store.change() as db:
        db.executemany(
            f"INSERT OR REPLACE INTO results ({_RESULT}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
            [
                (
                    each.sha256,
                    each.step,
                    each.recipe,
                    each.state,
                    each.reason,
                    json.dumps(each.output, ensure_ascii=False),
                    each.at,
                )
                for each in found
            ],
        )


def result(store: Store, sha256: str, step: str) -> Result | None:
    row = store.db.execute(
        f"SELECT {_RESULT} FROM results WHERE sha256 = ? AND step = ?",  # noqa: S608 - a constant
        (sha256, step),
    ).fetchone()
    return None if row is None else _result(row)


def results(store: Store, step: str) -> list[Result]:
    """All results of a step, in the order of the pictures' sha256."""
    rows = store.db.execute(f"SELECT {_RESULT} FROM results WHERE step = ? ORDER BY sha256", (step,))  # noqa: S608 - a constant
    return [_result(row) for row in rows]


def without_result(store: Store, step: str, recipe: str) -> list[str]:
    """sha256 of the pictures that the step has still to see."""
    rows: sqlite3.Cursor = store.db.execute(
        "SELECT sha256 FROM pictures EXCEPT SELECT sha256 FROM results WHERE step = ? AND recipe = ? ORDER BY 1",
        (step, recipe),
    )
    return [sha256 for (sha256,) in rows]


def _result(row: tuple[Any, ...]) -> Result:
    sha256, step, recipe, state, reason, output, at = row
    return Result(sha256, step, recipe, state, reason, json.loads(output), at)
