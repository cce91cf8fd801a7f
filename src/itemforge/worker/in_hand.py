"""The jobs in the worker's hands: what the engine and the gateway say reaches the right one here."""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from uuid import UUID

from itemforge.contract import HeartbeatAnswer
from itemforge.engine.rows import Cancelled, Event, Failed, Finished, Preview, Progress, Staged
from itemforge.errors import EngineFailed, InvalidInput
from itemforge.worker.engine_process import EngineProcess
from itemforge.worker.job import Drawing, Dropped, Interrupted, Job


class JobsInHand:
    """Claimed jobs from `add` until `remove`; no two with the same request and attempt."""

    def __init__(self, drew: Callable[[str], None], default_style: str) -> None:
        """`drew` hears the style of each step; that of a job that names none is `default_style`."""
        self._drew = drew
        self._default_style = default_style
        self._jobs: dict[tuple[UUID, int | None], Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def __contains__(self, job: Job) -> bool:
        return job.key in self._jobs

    def add(self, job: Job) -> None:
        self._jobs[job.key] = job

    def remove(self, job: Job) -> None:
        del self._jobs[job.key]

    @property
    def images(self) -> int:
        """Images that wait for the engine or are in it."""
        return sum(job.rows_in_engine for job in self)

    @property
    def waiting(self) -> int:
        """Jobs whose pictures are drawn and wait for storage or gateway."""
        return sum(job.waits for job in self)

    def interrupt(self, reason: Interrupted, *, started: bool) -> None:
        """Stop those that have not started, or all with `started`."""
        for job in self:
            if started or not job.started:
                job.interrupt(reason)

    def hear(self, event: Event) -> bool:
        """Take what the engine says of a row; True when that row is over."""
        job = next((job for job in self if event.row_id in job.drawings), None)
        if job is None:
            return False  # of a job that has ended
        drawing = job.drawings[event.row_id]
        if isinstance(event, Progress):
            self._drew(job.params.style or self._default_style)
        _take(drawing, event)
        return drawing.done.done()

    def engine_lost(self, reason: str) -> None:
        for job in self:
            job.engine_lost(reason)


def _take(drawing: Drawing, event: Event) -> None:
    match event:
        case Progress(step=step, steps=steps, at=at):
            drawing.step, drawing.steps = step, steps
            drawing.trace.step(step, at)
        case Staged(stage=stage, began=began, ended=ended):
            drawing.trace.stage(stage, began, ended)
        case Preview(jpeg=jpeg):
            drawing.preview = base64.b64encode(jpeg).decode()
        case Finished():
            drawing.step = drawing.steps
            if not drawing.done.done():
                drawing.done.set_result(event)
        case Failed(error=error, retryable=retryable):
            drawing.fail(EngineFailed(error) if retryable else InvalidInput(error))
        case Cancelled():
            drawing.fail(EngineFailed("the engine cancelled a row that nobody gave up"))


def obey(engine: EngineProcess, answers: Iterable[HeartbeatAnswer], jobs: Sequence[Job]) -> None:
    """Do what the gateway asks of the jobs that its heartbeat told of.

    Not of those that were begun meanwhile: a newer attempt is not lost because an older one is.
    """
    for answer in answers:
        for job in (job for job in jobs if job.request_id == answer.request_id):
            if answer.cancel or answer.lost:
                job.interrupt(Dropped("cancelled" if answer.cancel else "another attempt has it"))
                for row_id in job.drawings:
                    engine.cancel(row_id)
            for row_id, drawing in job.drawings.items():
                if drawing.watched != answer.watch and not drawing.done.done():
                    drawing.watched = answer.watch
                    engine.watch(row_id, answer.watch)
