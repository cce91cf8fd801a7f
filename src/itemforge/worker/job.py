"""One claimed request in the worker's hands."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Literal, TypeVar
from uuid import UUID

from itemforge.broker.face import Delivery
from itemforge.contract import ATTEMPT_HEADER, HeartbeatRow, JobParams, Upload
from itemforge.engine.rows import Finished
from itemforge.errors import EngineFailed
from itemforge.telemetry.attempts import Attempt, Picture

T = TypeVar("T")
#: How a job left the worker's hands; `broken` by a mistake of ours.
Outcome = Literal["completed", "failed", "retried", "stale", "dropped", "given_back", "broken"]

_serial = itertools.count()


def attempt_of(delivery: Delivery) -> int:
    """The message's own count of failed tries."""
    value = delivery.headers.get(ATTEMPT_HEADER, 0)
    return value if isinstance(value, int) and 0 <= value < 1000 else 0


class Interrupted(Exception):
    """The worker stops a job on purpose."""


class Dropped(Interrupted):
    """The request was cancelled, or another attempt has it: forget the work."""


class GivenBack(Interrupted):
    """The worker goes away: somebody else shall do it, and it is not charged."""


class EngineLost(EngineFailed):
    """The engine process ended with this job's rows in it."""


@dataclass
class Drawing:
    """One image of a job while the engine has it."""

    n: int
    steps: int
    done: "asyncio.Future[Finished]"
    trace: Picture
    step: int = 0
    preview: str | None = None
    watched: bool = False
    submitted: bool = False

    @property
    def in_engine(self) -> bool:
        """Whether the engine may still have its row: it was given there, and no picture has come back."""
        drawn = self.done.done() and not self.done.cancelled() and self.done.exception() is None
        return self.submitted and not drawn

    def fail(self, reason: Exception) -> None:
        """End it without a picture, unless it has ended."""
        if not self.done.done():
            self.done.set_exception(reason)
            self.done.exception()  # heard: it may have been failed before anybody waited for it


@dataclass
class Job:
    """`attempt` is the fencing token; None where the gateway has no claims.

    `tries` is the message's own count of failures, which chooses the retry delay. `waits` while storage or
    gateway do not take what is done, until `give_up_at` (the event loop's time). `uploads` are the signed
    ones of the claim, None where the gateway gave none. `trace` is this attempt's span.
    """

    request_id: UUID
    params: JobParams
    attempt: int | None
    alone: bool
    delivery: Delivery
    trace: Attempt
    uploads: list[Upload] | None = None
    interruption: Interrupted | None = None
    drawings: dict[str, Drawing] = field(default_factory=dict)
    waits: bool = False
    give_up_at: float | None = None
    outcome: Outcome = "broken"
    _interrupted: asyncio.Event = field(default_factory=asyncio.Event)
    _serial: int = field(default_factory=lambda: next(_serial))
    _began: float = field(default_factory=time.monotonic)

    def age(self) -> float:
        """Seconds since it was claimed."""
        return time.monotonic() - self._began

    @property
    def key(self) -> tuple[UUID, int | None]:
        """Two jobs of one key at once are two copies of one message."""
        return self.request_id, self.attempt

    @property
    def about(self) -> dict[str, str | int]:
        """What stands on the log's lines about this job."""
        known: dict[str, str | int | None] = {
            "request_id": str(self.request_id),
            "attempt": self.attempt,
            "style": self.params.style,
            "traceparent": self.trace.traceparent,
        }
        return {name: value for name, value in known.items() if value is not None}

    @property
    def tries(self) -> int:
        return attempt_of(self.delivery)

    @property
    def started(self) -> bool:
        return any(d.step > 0 or d.done.done() for d in self.drawings.values())

    @property
    def rows_in_engine(self) -> int:
        """Images that wait for the engine or are in it."""
        if not self.drawings:
            return self.params.num_images
        return sum(not d.done.done() for d in self.drawings.values())

    def row_id(self, n: int) -> str:
        """Of this job alone, so that what the engine says of an earlier one is never taken for it."""
        return f"{self.request_id}/{self._serial}/{n}"

    def interrupt(self, reason: Interrupted) -> None:
        """Stop wherever it is, at its next `unless_interrupted` or its next try at the latest."""
        self.interruption = self.interruption or reason
        self._interrupted.set()
        self.fail_drawings(reason)

    async def unless_interrupted(self, work: Coroutine[None, None, T]) -> T:
        """The result of `work`, which is cancelled when the job is interrupted.

        Raises:
            Interrupted: why.
        """
        task = asyncio.ensure_future(work)
        interrupted = asyncio.ensure_future(self._interrupted.wait())
        try:
            await asyncio.wait((task, interrupted), return_when=asyncio.FIRST_COMPLETED)
            if self.interruption:
                raise self.interruption
            return await task
        finally:
            interrupted.cancel()
            task.cancel()
            await asyncio.gather(task, interrupted, return_exceptions=True)

    async def pause(self, seconds: float) -> None:
        """Sleep, but not through an interruption."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._interrupted.wait(), seconds)

    def engine_lost(self, reason: str) -> None:
        """What was in the engine is lost; what still waits at its door is not."""
        if any(d.submitted and not d.done.done() for d in self.drawings.values()):
            self.fail_drawings(EngineLost(reason))

    def fail_drawings(self, reason: Exception) -> None:
        for drawing in self.drawings.values():
            drawing.fail(reason)

    def heartbeat_rows(self) -> list[HeartbeatRow]:
        """Progress of each image; a job without drawings (from the spool) still renews its lease."""
        if self.attempt is None:
            return []
        drawings = list(self.drawings.values())
        if not drawings:
            steps = self.params.num_inference_steps
            return [HeartbeatRow(request_id=self.request_id, attempt=self.attempt, step=0, steps=steps)]
        rows = [
            HeartbeatRow(
                request_id=self.request_id,
                attempt=self.attempt,
                step=d.step,
                steps=d.steps,
                image=d.n,
                preview=d.preview,
            )
            for d in drawings
        ]
        for drawing in drawings:
            drawing.preview = None  # each is sent once
        return rows
