"""The calls of `/v1/batches`: many things times variations in one style."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict
from urllib.parse import quote
from uuid import UUID

import httpx

from itemforge.client.answers import Answer, Named, Picture, id_of
from itemforge.client.calls import EXPORT_TIME, AtlasOptions, Call, given
from itemforge.contract import Output, SeedText, Status

_PATH = "/v1/batches"
#: Things of a page, the most that the gateway gives.
PAGE = 500


class Counts(Answer):
    """Cells by what became of them."""

    status: dict[Status, int]
    verdict: dict[str, int]
    gone: int = 0


class Batch(Answer):
    """A batch, and how it stands; `done`: nothing waits and nothing is being drawn."""

    id: str
    name: str
    style: str
    things: int
    size: int
    counts: Counts
    done: bool
    created_at: datetime


class Cell(Answer):
    """One variation; `id` is its generation's, `status` None when that is gone."""

    variation: int
    id: str
    status: Status | None = None
    verdict: str
    tries: int
    seed: SeedText | None = None
    image: Picture | None = None
    error: str | None = None


class Thing(Answer):
    thing: int
    name: str
    prompt: str | None = None
    cells: tuple[Cell, ...]


class Part(Batch):
    """A batch with some of its things; `next` is where the next part begins."""

    items: tuple[Thing, ...]
    next: int | None = None


class ThingOptions(TypedDict, total=False):
    """What may be said of one thing, or of all of a batch; what is absent or None is the style's to say."""

    name: str | None
    variations: int | None
    negative_prompt: str | None
    num_inference_steps: int | None
    guidance_scale: float | None
    scheduler: str | None
    seed: int | str | None
    width: int | None
    height: int | None
    lora_weight: float | None


class ThingToDraw(ThingOptions):
    """A thing that says more than its prompt."""

    prompt: str


class BatchOptions(ThingOptions, total=False):
    """What is said for all things; 4 variations when absent."""

    style: str | None
    output: Output | None


Verdict = Literal["none", "approved", "rejected"]
#: What names a batch: its id, or itself.
NamedBatch = Batch | UUID | str


def asked(things: Iterable[str | ThingToDraw], options: BatchOptions) -> dict[str, Any]:
    """The body of `submit`."""
    items = [each if isinstance(each, str) else given(each) for each in things]
    return {"items": items, **given(options)}


def submit(body: dict[str, Any], key: UUID | str) -> Call[Batch]:
    """The same `key` and body never make two batches."""
    headers = {"Idempotency-Key": str(key)}
    return Call("POST", _PATH, _batch, body=body, headers=headers, timeout=120.0)


def look(batch: NamedBatch, first: int = 0, limit: int = PAGE) -> Call[Part]:
    read = Part.model_validate_json
    return Call("GET", _path(batch), lambda answer: read(answer.content), {"first": first, "limit": limit})


def judge(batch: NamedBatch, verdict: Verdict, ids: Sequence[Named] | None = None) -> Call[Batch]:
    """Without `ids` all drawn pictures that have no verdict yet."""
    return Call("POST", _path(batch, "verdicts"), _changed, body={"verdict": verdict, **_ids(ids)})


def reroll(batch: NamedBatch, ids: Sequence[Named] | None = None) -> Call[Batch]:
    """New seeds; without `ids` for all that are rejected or Failed."""
    return Call("POST", _path(batch, "reroll"), _changed, body=_ids(ids))


def cancel(batch: NamedBatch) -> Call[Batch]:
    """Cancel all that waits or is being drawn."""
    return Call("POST", _path(batch, "cancel"), _changed)


def export(
    batch: NamedBatch,
    which: Literal["approved", "drawn"],
    form: Literal["zip", "atlas"],
    output: Output | None,
    atlas: AtlasOptions | None,
) -> Call[bytes]:
    """A ZIP of its pictures."""
    body = {"which": which, "form": form, **given({"output": output, "atlas": atlas})}
    return Call("POST", _path(batch, "export"), lambda answer: answer.content, body=body, timeout=EXPORT_TIME)


def _path(batch: NamedBatch, *parts: str) -> str:
    name = batch.id if isinstance(batch, Batch) else str(batch)
    return "/".join((_PATH, quote(name, safe=""), *parts))


def _ids(these: Sequence[Named] | None) -> dict[str, Any]:
    return {} if these is None else {"ids": [id_of(each) for each in these]}


def _batch(answer: httpx.Response) -> Batch:
    return Batch.model_validate_json(answer.content)


def _changed(answer: httpx.Response) -> Batch:
    return Batch.model_validate(answer.json()["batch"])
