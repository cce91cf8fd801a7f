"""Rows as the program sees them: frozen, typed, with the database clock's judgements on them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Row, and_

from itemforge.contract import Image, JobParams, Status, WorkerFacts, WorkerState
from itemforge.jobs.clock import now
from itemforge.jobs.tables import requests

_images = TypeAdapter(tuple[Image, ...])


class Progress(NamedTuple):
    """Denoising steps done, of all steps of all images."""

    step: int
    steps: int


class Change(NamedTuple):
    """What is counted of a request once its transaction is committed. `seconds` since it was created."""

    what: Literal["created", "claimed", "ended"]
    status: Status
    style: str | None
    images: int
    attempt: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class NewRequest:
    """What a request begins with. `prompt` is the user's; `params.prompt` is composed.

    `quota`: images that the owner may ask for within 24 hours; 0: any number. `flagged`: the rule of the
    block list that the prompt breaks.
    """

    id: UUID
    owner: str
    prompt: str
    params: JobParams
    body_hash: str
    idempotency_key: str | None = None
    retry_of: UUID | None = None
    quota: int = 0
    traceparent: str | None = None
    webhook: str | None = None
    flagged: str | None = None


@dataclass(frozen=True)
class Request:
    """A request. `leased` and `watched` were true by the database's clock when it was read."""

    id: UUID
    owner: str
    status: Status
    prompt: str
    style: str | None
    params: JobParams
    images: tuple[Image, ...]
    image_url: str | None
    error: str | None
    attempt: int
    charged: int
    lease_until: datetime | None
    worker_id: str | None
    reported: str | None
    progress: dict[str, dict[str, Any]]
    published_at: datetime | None
    body_hash: str | None
    retry_of: UUID | None
    webhook: str | None
    flagged: str | None
    traceparent: str | None
    attempt_traceparent: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    deleted_at: datetime | None
    leased: bool
    watched: bool

    @property
    def done(self) -> Progress | None:
        """Progress over all images, or None before the first step was told."""
        if not self.progress:
            return None
        shown = self.progress.values()
        steps = max(image["steps"] for image in shown) * self.params.num_images
        # The last step is seldom told: the picture itself comes instead.
        ended = self.status is Status.COMPLETED
        return Progress(step=steps if ended else sum(image["step"] for image in shown), steps=steps)


@dataclass(frozen=True)
class Created:
    """`new` is False when the id or idempotency key was there already: then it is the old request.

    `position` is a new request's place in line; 1 is next.
    """

    request: Request
    new: bool
    position: int | None = None


@dataclass(frozen=True)
class Event:
    """One line of a request's history."""

    id: int
    request_id: UUID
    type: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Worker:
    """A worker by its last heartbeat; `live` by the database's clock."""

    worker_id: str
    state: WorkerState
    free: int
    in_hand: int
    held: int
    facts: WorkerFacts | None
    first_seen: datetime
    last_seen: datetime
    live: bool


def change(what: Literal["claimed", "ended"], request: Request) -> Change:
    """The change that a request has just gone through."""
    seconds = (request.updated_at - request.created_at).total_seconds()
    return Change(
        what, request.status, request.style, request.params.num_images, request.attempt, max(0.0, seconds)
    )


def request_columns() -> list[ColumnElement[Any]]:
    """What to select or return for `to_request`."""
    leased = and_(requests.c.lease_until.is_not(None), requests.c.lease_until > now())
    watched = and_(requests.c.watched_until.is_not(None), requests.c.watched_until > now())
    return [*_STORED, leased.label("leased"), watched.label("watched")]


_STORED = [requests.c[name] for name in Request.__dataclass_fields__ if name not in ("leased", "watched")]


def to_request(row: Row[Any]) -> Request:
    values = dict(row._mapping)
    values["status"] = Status(values["status"])
    values["params"] = JobParams.model_validate(values["params"])
    values["images"] = _images.validate_python(values["images"] or ())
    values["progress"] = values["progress"] or {}
    return Request(**values)
