"""From claimed to acknowledged: draw, upload, report, ack, in this order and no other.

Drawing and delivering are tried apart: a picture is never drawn again because storage or gateway were
away. Such a job waits unacknowledged, its lease renewed, for at most `spool_time`; then its pictures go
to the spool and its message back to the queue.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from itemforge.broker.face import Broker
from itemforge.contract import MAX_CHARGED, Image, Report, ReportStatus, clean_text
from itemforge.engine.rows import Finished, Row
from itemforge.errors import EngineFailed, ItemForgeError, ModelError, PermanentError, RetryableError
from itemforge.imaging.png import encode_png
from itemforge.settings import WorkerSettings
from itemforge.telemetry import traces
from itemforge.telemetry.attempts import Picture
from itemforge.worker.breaker import Breaker
from itemforge.worker.engine_child import Ready
from itemforge.worker.engine_process import EngineProcess
from itemforge.worker.gate import Gate
from itemforge.worker.gateway_client import Gateway
from itemforge.worker.intake import bury, send_back
from itemforge.worker.job import Drawing, Dropped, EngineLost, GivenBack, Interrupted, Job
from itemforge.worker.plan import Planner
from itemforge.worker.spool import Spool
from itemforge.worker.uploads import Stored, Uploads

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: Longest pause between two tries of an upload or a report, in seconds.
_LONGEST_PAUSE = 30.0


class Courier:
    """Carries one job after another to its end; `deliver` never raises."""

    def __init__(
        self,
        settings: WorkerSettings,
        broker: Broker,
        uploads: Uploads,
        gateway: Gateway,
        engine: EngineProcess,
        planner: Planner,
        breaker: Breaker,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._uploads = uploads
        self._gateway = gateway
        self._engine = engine
        self._planner = planner
        self._breaker = breaker
        self._spool = Spool(settings.home / "spool")
        self._gate = Gate()
        self._places = asyncio.Semaphore(settings.upload_places)

    async def deliver(self, job: Job) -> None:
        """Everything that happens to a claimed job."""
        try:
            await self._bring_to_an_end(job)
        except Exception:  # a bug of ours on the way out must not keep the message in our hands
            log.exception("job_not_ended")
            job.trace.ended("not ended", "a bug of the worker")
            await job.delivery.requeue()
        finally:
            for row_id, drawing in job.drawings.items():
                drawing.trace.ended("not drawn" if not drawing.done.done() else _why(drawing.done))
                if drawing.in_engine:
                    self._engine.cancel(row_id)

    async def _bring_to_an_end(self, job: Job) -> None:
        try:
            await self._deliver(job)
        except Dropped as reason:
            job.outcome = "dropped"
            log.info("job_dropped", reason=str(reason))
            job.trace.ended("dropped")
            await job.delivery.ack()
        except GivenBack as reason:
            await self._give_back(job, str(reason))
        except RetryableError as error:
            if isinstance(error, EngineFailed) and not isinstance(error, EngineLost):
                self._breaker.failure("engine", error)  # a lost engine is counted once, not by its rows
            await self._retry(job, error)
        except PermanentError as error:
            await self._fail(job, str(error))
        except Exception as error:  # a bug of ours must cost one job, not the worker
            log.exception("job_broke")
            await self._fail(job, f"the worker failed: {type(error).__name__}: {error}")

    async def _deliver(self, job: Job) -> None:
        if await self._stored_before(job):
            return
        rows = await job.unless_interrupted(self._rows(job))
        for n, row in enumerate(rows):
            drawn: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
            job.drawings[row.row_id] = Drawing(n, row.steps, drawn, Picture(job.trace, n))
        # Every future is awaited below, also when a sibling has failed.
        images = await asyncio.gather(
            *(self._image(job, n, row) for n, row in enumerate(rows)), return_exceptions=True
        )
        for image in images:
            if isinstance(image, BaseException):
                raise image
        await self._complete(job, [i for i in images if isinstance(i, Image)])

    async def _rows(self, job: Job) -> list[Row]:
        return await self._planner.rows(job, await self._warm_engine())

    async def _image(self, job: Job, n: int, row: Row) -> Image:
        try:
            png = self._spool.get(job.request_id, n, job.params)
            if png is None:
                png = await job.unless_interrupted(self._draw(job, row))
            else:
                log.info("picture_from_spool", image=n)
                job.drawings[row.row_id].done.cancel()
            return await self._upload(job, n, row, png)
        except Exception as error:
            # One image's failure is the job's: the engine need not draw the others.
            job.fail_drawings(error if isinstance(error, ItemForgeError) else Interrupted(str(error)))
            raise

    async def _draw(self, job: Job, row: Row) -> bytes:
        drawing = job.drawings[row.row_id]
        async with self._gate.enter(row.alone):
            await self._warm_engine()  # nothing awaits between here and the submit: the row has an engine
            if not drawing.done.done():
                self._engine.submit(row)
                drawing.submitted = True
                drawing.trace.submitted()
                if drawing.watched:  # the engine knows only rows that it has
                    self._engine.watch(row.row_id, True)
            finished: Finished = await drawing.done
        drawing.trace.ended()
        return await asyncio.to_thread(encode_png, finished.pixels, finished.recipe)

    async def _warm_engine(self) -> Ready:
        try:
            return await self._engine.ready()
        except ModelError as error:
            raise GivenBack(f"this worker's engine is beyond help: {error}") from error

    async def _upload(self, job: Job, n: int, row: Row, png: bytes) -> Image:
        async def put() -> Stored:
            async with self._places:
                stored = await self._uploads.put(job, n, png)
            log.info("picture_stored", image=n, key=stored.key, created=stored.created, bytes=len(png))
            return stored

        def keep() -> None:
            self._spool.put(job.request_id, n, job.params, png)

        with traces.span("upload", image=n, bytes=len(png)):
            stored = await self._persist(job, "storage", put, keep)
        self._spool.drop(job.request_id, n, job.params)
        return _image_of(stored, n, row.seed, row.width, row.height)

    async def _complete(self, job: Job, images: list[Image]) -> None:
        report = self._report_of(job, ReportStatus.COMPLETED, images=images)
        with traces.span("report", status=report.status):
            code = await self._persist(job, "report", lambda: self._gateway.report(report))
        job.outcome = "completed" if code == 200 else "stale"
        if code == 200:
            log.info(
                "job_completed", code=code, seconds=job.age(), result="success", prompt=job.params.prompt
            )
        else:
            log.info("result_stale", code=code, seconds=job.age())
        job.trace.ended(job.outcome)
        await job.delivery.ack()

    async def _stored_before(self, job: Job) -> bool:
        """Without claims a redelivered message may have been served: then its objects are there."""
        if job.attempt is not None or not job.delivery.redelivered:
            return False
        images = []
        for n in range(job.params.num_images):
            found = await self._persist(job, "storage", lambda n=n: self._uploads.find(job, n))  # type: ignore[misc]  # the loop's value
            if found is None:
                return False
            params = job.params
            images.append(_image_of(found, n, params.seed + n, params.width or 0, params.height or 0))
        await self._complete(job, images)
        return True

    async def _fail(self, job: Job, reason: str) -> None:
        job.outcome = "failed"
        log.warning("job_failed", error=reason, seconds=job.age(), result="failure", prompt=job.params.prompt)
        job.trace.ended("failed", reason)
        report = self._report_of(job, ReportStatus.FAILED, error=reason)
        try:
            with traces.span("report", status=report.status):
                code = await self._persist(job, "report", lambda: self._gateway.report(report))
        except Dropped:
            job.outcome = "dropped"
            await job.delivery.ack()
        except GivenBack as interruption:
            await self._give_back(job, str(interruption))
        else:
            if code == 409:  # another attempt has it, or it has ended: no message for the dead queue
                job.outcome = "stale"
                log.info("result_stale", code=code)
                await job.delivery.ack()
                return
            await bury(self._broker, job.delivery, reason, job.trace.headers())

    async def _retry(self, job: Job, error: Exception) -> None:
        tries = job.tries + 1
        if job.attempt is None and tries >= MAX_CHARGED:
            await self._fail(job, f"failed {tries} times, the last time: {error}")
            return
        job.outcome = "retried"
        log.warning("job_to_retry", error=error, tries=tries, seconds=job.age(), result="failure")
        job.trace.ended("retry", str(error))
        await self._tell(job, ReportStatus.RETRY, str(error))
        await send_back(self._broker, job.delivery, tries, headers=job.trace.headers())

    async def _give_back(self, job: Job, reason: str) -> None:
        job.outcome = "given_back"
        log.info("job_given_back", reason=reason, seconds=job.age())
        job.trace.ended("released")
        await self._tell(job, ReportStatus.RELEASED, reason)
        await job.delivery.requeue()

    async def _tell(self, job: Job, status: ReportStatus, error: str) -> None:
        """One try: without it the lease runs out by itself."""
        try:
            with traces.span("report", status=status):
                await self._gateway.report(self._report_of(job, status, error=error))
        except ItemForgeError as failure:
            log.warning("report_not_delivered", status=str(status), error=failure)

    def _report_of(
        self, job: Job, status: ReportStatus, images: list[Image] | None = None, error: str | None = None
    ) -> Report:
        return Report(
            request_id=job.request_id,
            attempt=job.attempt or 0,
            status=status,
            images=images or [],
            error=clean_text(error) if error else None,
        )

    async def _persist(
        self, job: Job, what: str, call: Callable[[], Awaitable[T]], keep: Callable[[], None] | None = None
    ) -> T:
        """Call until it works. A refusal counts as away too: a wrong key or bucket is the operator's to
        mend, and no reason to fail every job of the queue.

        Raises:
            Interrupted: the job was dropped or given back meanwhile.
            GivenBack: the job's `spool_time` is over; `keep` was called.
        """
        now = asyncio.get_running_loop().time
        pause = self._settings.retry_pause
        while True:
            if job.interruption:
                raise job.interruption
            try:
                result = await call()
            except ItemForgeError as error:
                self._breaker.failure(what, error)
                traces.happened("away", what=what, kind=type(error).__name__)
                job.waits = True
                if keep:
                    await asyncio.to_thread(keep)
                    keep = None
                job.give_up_at = job.give_up_at or now() + self._settings.spool_time
                if now() >= job.give_up_at:
                    raise GivenBack(f"{what} was away for too long: {error}") from error
            else:
                job.waits = False
                if what == "storage":
                    self._breaker.success()
                return result
            # Jitter, so that a fleet does not come back in step.
            await job.pause(min(pause * random.uniform(0.75, 1.25), job.give_up_at - now()))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)


def _why(done: "asyncio.Future[Finished]") -> str | None:
    """The kind of error that a drawing ended by; None if it has its picture."""
    if done.cancelled():
        return None
    error = done.exception()
    return type(error).__name__ if error else None


def _image_of(stored: Stored, n: int, seed: int, width: int, height: int) -> Image:
    return Image(
        n=n, seed=seed, bucket=stored.bucket, key=stored.key, url=stored.url, width=width, height=height
    )
