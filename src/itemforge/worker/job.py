"""One claimed request in the worker's hands."""

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from itemforge.broker.face import Delivery
from itemforge.contract import ATTEMPT_HEADER, HeartbeatRow, JobParams
from itemforge.engine.rows import Finished
from itemforge.errors import EngineFailed


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
    step: int = 0
    preview: str | None = None
    watched: bool = False
    submitted: bool = False


@dataclass
class Job:
    """`attempt` is the fencing token; None where the gateway has no claims.

    `tries` is the message's own count of failures, which chooses the retry delay.
    """

    request_id: UUID
    params: JobParams
    attempt: int | None
    alone: bool
    delivery: Delivery
    interruption: Interrupted | None = None
    drawings: dict[str, Drawing] = field(default_factory=dict)

    @property
    def tries(self) -> int:
        value = self.delivery.headers.get(ATTEMPT_HEADER, 0)
        return value if isinstance(value, int) else 0

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
        """Names the attempt too, so that what an engine says of an older one is never taken for this."""
        return f"{self.request_id}/{self.attempt or 0}/{n}"

    def interrupt(self, reason: Interrupted) -> None:
        """Stop wherever it is: in the engine now, else before the next try of an upload or a report."""
        self.interruption = self.interruption or reason
        self.fail_drawings(reason)

    def engine_lost(self, reason: str) -> None:
        """What was in the engine is lost; what still waits at its door is not."""
        if any(d.submitted and not d.done.done() for d in self.drawings.values()):
            self.fail_drawings(EngineLost(reason))

    def fail_drawings(self, reason: Exception) -> None:
        for drawing in self.drawings.values():
            if not drawing.done.done():
                drawing.done.set_exception(reason)

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
