"""The inference worker: one loop that consumes, claims and delivers until it is told to stop.

The parent process does I/O only; the engine is a child (`engine_process`). The load order is engine
first, queue last, so a worker that takes a message can draw it.
"""

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import Awaitable, Coroutine

import structlog

from itemforge.broker.face import Broker, Consumer
from itemforge.contract import Claim, Heartbeat, WorkerState
from itemforge.engine.rows import Event
from itemforge.errors import (
    EngineFailed,
    GatewayRefused,
    GatewayUnavailable,
    ItemForgeError,
    StorageUnavailable,
)
from itemforge.settings import WorkerSettings
from itemforge.storage.face import ObjectStore
from itemforge.styles.cache import StyleCache
from itemforge.telemetry.worker_metrics import WorkerMetrics
from itemforge.worker.breaker import Breaker
from itemforge.worker.delivery import Courier
from itemforge.worker.engine_child import Happened
from itemforge.worker.engine_process import DEFAULT_FACTORY, EngineProcess
from itemforge.worker.facts import Facts
from itemforge.worker.gateway_client import Gateway, GatewayStyles, HttpCaller, find_gateway
from itemforge.worker.in_hand import JobsInHand, obey
from itemforge.worker.intake import Intake, Waiting, send_back
from itemforge.worker.job import GivenBack, Job
from itemforge.worker.metering import MeteredBroker, MeteredGateway, MeteredUploads, count_work
from itemforge.worker.plan import Planner
from itemforge.worker.uploads import Uploads, open_uploads

log = structlog.get_logger(__name__)

#: The worker claims while its images are fewer than this many batches.
BATCHES_IN_HAND = 2
#: Seconds to give jobs back in after the drain ended or was cut short.
_LAST_WORDS = 5.0


class Worker:
    """`run` returns when the worker was stopped and has drained."""

    def __init__(
        self,
        settings: WorkerSettings,
        broker: Broker,
        store: ObjectStore,
        engine_factory: str = DEFAULT_FACTORY,
        caller: HttpCaller | None = None,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._settings = settings
        self.metrics = metrics or WorkerMetrics(price_per_hour=settings.price_per_hour)
        self._broker: Broker = MeteredBroker(broker, self.metrics)
        self._store = store
        self.worker_id = settings.worker_id or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self.state = WorkerState.STARTING
        self._caller = caller or HttpCaller(settings)
        self._styles = StyleCache(settings.home, GatewayStyles(self._caller))
        self._engine = EngineProcess(
            settings,
            self._on_event,
            self._on_engine_lost,
            self._wake,
            engine_factory,
            self._on_work,
            self.worker_id,
        )
        self._breaker = Breaker(settings.breaker_after, self.metrics.infrastructure_failed)
        self._gateway: Gateway | None = None
        self._uploads: Uploads | None = None
        self._consumer: Consumer | None = None
        self._intake: Intake | None = None
        self._courier: Courier | None = None
        self._facts = Facts()
        self._jobs = JobsInHand(self._facts.drew, settings.default_style)
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._batch_size = 1
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Warm, and registered at the queue."""
        return self._consumer is not None and self._consumer.ready and self._engine.info is not None

    @property
    def engine_pid(self) -> int | None:
        return self._engine.pid

    def stop(self) -> None:
        """Drain and end; called again: give everything back and end at once."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            ModelError: the model cannot be used.
        """
        with structlog.contextvars.bound_contextvars(worker_id=self.worker_id):
            await self._run()

    async def _run(self) -> None:
        serving = asyncio.create_task(self._serve())
        beats = asyncio.create_task(self._beat_forever())
        try:
            # Neither ends by itself: whichever does has broken, and the jobs in hand are given back still.
            await asyncio.wait((serving, beats), return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            await asyncio.wait((serving,))
            await self._drain()
        finally:
            for task in (serving, beats, *self._tasks):
                task.cancel()
            ended = await asyncio.gather(serving, beats, *self._tasks, return_exceptions=True)
            await self._engine.stop()
            if self._uploads is not None:
                await self._uploads.close()
            await self._caller.close()
            log.info("worker_stopped")
        for error in (self._engine.failure, *ended):
            if isinstance(error, Exception):
                raise error

    async def _serve(self) -> None:
        starting = asyncio.create_task(self._start())
        try:
            await self._first_of(starting, self._stopping.wait())
            if not starting.done():
                return
            gateway = await starting
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        while not self._stopping.is_set():
            await self._consume(gateway)
            if not self._stopping.is_set():
                await self._recover(gateway)

    async def _start(self) -> Gateway:
        info = await self._engine.start()
        self._facts.ready(info)
        self._batch_size = info.batch_size
        await self._broker.start()
        pause = self._settings.retry_pause
        while True:
            try:
                self._gateway = await find_gateway(self._caller, self._settings, self.worker_id)
                break
            except GatewayUnavailable as error:
                log.warning("gateway_not_found", error=error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)
        planner = Planner(self._styles, self._settings.default_style)
        uploads = self._uploads = MeteredUploads(
            open_uploads(self._settings, self._gateway, self._store), self.metrics
        )
        self._gateway = MeteredGateway(self._gateway, self.metrics)
        self._courier = Courier(
            self._settings, self._broker, uploads, self._gateway, self._engine, planner, self._breaker
        )
        log.info("worker_ready", batch_size=info.batch_size, base=info.base)
        return self._gateway

    async def _consume(self, gateway: Gateway) -> None:
        """Take jobs until stopped or until the breaker opens."""
        intake = Intake(
            self._broker, gateway, self._breaker, self._room, self._begin, self._settings.retry_pause
        )
        self._intake = intake
        self._consumer = self._broker.consume(self._batch_size + self._settings.upload_places)
        self._enter(WorkerState.READY)
        await intake.run(self._consumer, self._first_of(self._stopping.wait(), self._breaker.wait_open()))
        self._intake = None

    async def _recover(self, gateway: Gateway) -> None:
        """Probe what every job needs until all of it answers."""
        self._enter(WorkerState.PAUSED)
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._settings.breaker_probe)
                return
            probe = asyncio.create_task(self._probe(gateway))
            await self._first_of(probe, self._stopping.wait())
            if not probe.done():
                probe.cancel()
                return
            try:
                await probe
            except ItemForgeError as error:
                log.warning("still_broken", error=error)
                continue
            self._breaker.close()
            log.info("consuming_resumed")
            return

    async def _probe(self, gateway: Gateway) -> None:
        await gateway.ping()
        if self._uploads is not None:
            await self._uploads.probe()
        if self._engine.info is None:
            raise EngineFailed("the engine is not warm yet")
        # What answers a question may still refuse a picture (a full disk, a missing right).
        if waiting := self._jobs.waiting:
            raise StorageUnavailable(f"{waiting} finished jobs wait for storage or gateway")

    async def _drain(self) -> None:
        """Finish what the engine has begun, give the rest back."""
        self._enter(WorkerState.DRAINING)
        self._jobs.interrupt(GivenBack("the worker stops"), started=False)
        if self._tasks:
            log.info("draining", jobs=len(self._jobs))
            ended = asyncio.wait(set(self._tasks))
            await self._first_of(ended, self._at_once.wait(), within=self._settings.drain_timeout)
        self._jobs.interrupt(GivenBack("the worker stops at once"), started=True)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_LAST_WORDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        """A last heartbeat: who ends on purpose shall not count as silent."""
        if self._gateway is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await self._beat(self._gateway)

    async def _first_of(self, *work: Awaitable[object], within: float | None = None) -> None:
        """Wait for the first to end; those made here from coroutines are cancelled, tasks are not."""
        tasks = [asyncio.ensure_future(w) for w in work]
        ours = [task for task, given in zip(tasks, work, strict=True) if task is not given]
        try:
            await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)

    # ── Jobs ───────────────────────────────────────────────────────────────────────────────────

    def _room(self) -> int:
        """How many more images may be claimed."""
        if self._engine.info is None:
            return 0
        return max(0, BATCHES_IN_HAND * self._batch_size - self._jobs.images)

    def _held(self) -> int:
        """Messages that wait unclaimed."""
        return self._intake.held if self._intake else 0

    def _begin(self, waiting: Waiting, claim: Claim) -> None:
        params = claim.params or waiting.message.params
        delivery, trace = waiting.delivery, waiting.trace
        job = Job(claim.request_id, params, claim.attempt, claim.alone, delivery, trace, claim.uploads)
        if job in self._jobs:  # a second copy, where no claim tells them apart
            self._spawn(send_back(self._broker, delivery, job.tries, delay="30s"))
            return
        about = {name: value for name, value in job.about.items() if name != "traceparent"}
        trace.claimed(claim.traceparent, claim.previous, {**about, "worker_id": self.worker_id})
        self._jobs.add(job)
        self._news.set()
        self._spawn(self._deliver(job))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, job: Job) -> None:
        if self._courier is None:
            raise AssertionError("jobs begin after the start")
        about = {name: value for name, value in job.about.items() if name != "traceparent"}
        with structlog.contextvars.bound_contextvars(**about), job.trace.active():
            params = job.params
            log.info(
                "job_started",
                images=params.num_images,
                steps=params.num_inference_steps,
                prompt=params.prompt,
            )
            began = time.monotonic()
            try:
                await self._courier.deliver(job)
            finally:
                self.metrics.job_ended(
                    job.outcome, job.params.style, job.params.num_images, time.monotonic() - began
                )
                self._facts.ended(job.outcome)
                self._jobs.remove(job)
                self.metrics.holds(self._jobs.images, self._held(), self._batch_size)
                self._wake()

    def _wake(self) -> None:
        if self._intake:
            self._intake.wake()

    # ── The engine ─────────────────────────────────────────────────────────────────────────────

    def _on_event(self, event: Event) -> None:
        if self._jobs.hear(event):
            self._wake()

    def _on_work(self, happened: Happened) -> None:
        count_work(self.metrics, happened, self._batch_size)
        self._facts.worked(happened)

    def _on_engine_lost(self, reason: str) -> None:
        self.metrics.engine_lost()
        self._breaker.failure("engine", reason)
        self._jobs.engine_lost(reason)
        if self._engine.failure:
            self.stop()
        self._wake()

    # ── Heartbeats ─────────────────────────────────────────────────────────────────────────────

    async def _beat_forever(self) -> None:
        """Every second while busy, seldom while idle, and at once when a job begins or the state changes."""
        while True:
            await self._first_of(self._news.wait(), within=self._beat_interval())
            self._news.clear()
            if self._gateway is not None:
                await self._beat(self._gateway)
            await asyncio.sleep(self._settings.heartbeat_interval)  # so many jobs are no storm of heartbeats

    def _beat_interval(self) -> float:
        return 0.0 if self._jobs else self._settings.heartbeat_idle

    def _enter(self, state: WorkerState) -> None:
        self.state = state
        self.metrics.enter(state)
        self._news.set()

    async def _beat(self, gateway: Gateway) -> None:
        jobs = list(self._jobs)
        rows = [row for job in jobs for row in job.heartbeat_rows()]
        free = max(0, self._batch_size - self._jobs.images) if self.state is WorkerState.READY else 0
        held = self._held()
        self.metrics.holds(self._jobs.images, held, self._batch_size)
        beat = Heartbeat(
            worker_id=self.worker_id,
            state=self.state,
            free=free,
            held=held,
            facts=self._facts.told(),
            rows=rows,
        )
        try:
            answers = await gateway.heartbeat(beat)
        except (GatewayUnavailable, GatewayRefused) as error:
            log.warning("heartbeat_not_delivered", error=error)
            return
        obey(self._engine, answers, jobs)
