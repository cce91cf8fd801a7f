"""Keeps one engine process alive: starts it, hears it, and replaces it when it dies or goes silent.

A hung device is not told from a slow one by patience alone: the child beats at every stage border, so
silence for ten times its longest stage (at least `engine_silence`) means that it hangs. What it was
drawing is lost with it, and the owner is told at once so that the rows go elsewhere.
"""

import asyncio
import multiprocessing
import multiprocessing.resource_tracker
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import structlog

from itemforge.engine.rows import Event, Row
from itemforge.errors import ModelError
from itemforge.settings import EngineSettings, WorkerSettings
from itemforge.worker.engine_child import (
    Beat,
    Cancel,
    Command,
    Fatal,
    Happened,
    Message,
    Ready,
    Submit,
    Watch,
    main,
)

log = structlog.get_logger(__name__)

DEFAULT_FACTORY = "itemforge.engine.loop:Engine.load"
#: Silence is judged against this many times the longest stage.
_LONGEST_FACTOR = 10.0
#: Seconds before each new try after a process that never became warm; after the last one it is given up.
_RESTART_PAUSES = (1.0, 2.0, 4.0, 8.0)
#: Seconds that a killed process gets to be gone; one that hangs in its driver may never be.
_KILLED = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EngineProcess:
    """The engine as seen from the event loop.

    `on_event` gets what rows do, `on_work` what one step did as a whole; `on_lost` is called when the process was lost with all its rows, and
    `on_ready` when a process, the first or a later one, is warm.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        on_event: Callable[[Event], None],
        on_lost: Callable[[str], None],
        on_ready: Callable[[], None],
        factory: str = DEFAULT_FACTORY,
        on_work: Callable[[Happened], None] = lambda happened: None,
        worker_id: str = "",
    ) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._on_event = on_event
        self._on_lost = on_lost
        self._on_ready = on_ready
        self._factory = factory
        self._on_work = on_work
        self._life: _Life | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        #: Why no new process would help; None while one would.
        self.failure: ModelError | None = None

    @property
    def info(self) -> Ready | None:
        """What the engine said when it became ready; None while it is not."""
        return self._life.info if self._life else None

    @property
    def pid(self) -> int | None:
        return self._life.process.pid if self._life else None

    async def start(self) -> Ready:
        """Start the process and wait until it is warm.

        Raises:
            ModelError: the model cannot be used; a new process would not change that.
        """
        self._supervisor = asyncio.create_task(self._supervise(), name="engine-supervisor")
        return await self.ready()

    async def ready(self) -> Ready:
        """Wait until the engine is warm, also after a loss.

        Raises:
            ModelError: as `start`.
        """
        while self.info is None:
            if self.failure:
                raise self.failure
            self._changed.clear()
            await self._changed.wait()
        return self.info

    def submit(self, row: Row) -> None:
        self._send(Submit(row))

    def cancel(self, row_id: str) -> None:
        self._send(Cancel(row_id))

    def watch(self, row_id: str, on: bool) -> None:
        self._send(Watch(row_id, on))

    def _send(self, command: Command) -> None:
        if self._life:
            self._life.send(command)

    async def stop(self) -> None:
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)

    async def _supervise(self) -> None:
        failures = 0
        while self.failure is None:
            reason, was_ready, permanent = await self._live()
            failures = 0 if was_ready else failures + 1
            if permanent:
                self.failure = ModelError(reason)
            elif failures > len(_RESTART_PAUSES):
                self.failure = ModelError(
                    f"the engine did not start {failures} times, the last time: {reason}"
                )
            log.error("engine_lost", error=reason, given_up=self.failure is not None)
            self._changed.set()
            self._on_lost(reason)
            if failures and self.failure is None:
                await asyncio.sleep(self._settings.retry_pause * _RESTART_PAUSES[failures - 1])

    async def _live(self) -> tuple[str, bool, bool]:
        """One process from start to end: why it ended, whether it was warm, whether a new one would be."""
        try:
            life = self._life = _Life(self._settings, self._factory, self._receive, self._worker_id)
        except OSError as error:  # no memory, no process, no file descriptor
            return f"the engine's process cannot be started: {error}", False, False
        try:
            reason = await life.watch()
        finally:
            self._life = None
            await life.end()
        return reason, life.info is not None, life.permanent

    def _receive(self, message: Message) -> None:
        if isinstance(message, Ready):
            log.info("engine_ready", batch_size=message.batch_size, base=message.base)
            self._changed.set()
            self._on_ready()
        elif isinstance(message, Happened):
            self._on_work(message)
            for event in message.events:
                self._on_event(event)


class _Life:
    """One process from start to end; a new one gets new pipes, so nothing stale can come through."""

    def __init__(
        self, settings: WorkerSettings, factory: str, receive: Callable[[Message], None], worker_id: str
    ) -> None:
        self.info: Ready | None = None
        self.permanent = False
        self._settings = settings
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._reason: str | None = None
        self._longest = 0.0
        self._silence = 0.0
        self._sender = ThreadPoolExecutor(1, "engine-send")
        context = multiprocessing.get_context("spawn")
        self._connection, child_end = context.Pipe()
        engine_settings = EngineSettings.model_construct(
            **{name: getattr(settings, name) for name in EngineSettings.model_fields}
        )
        self.process: BaseProcess = context.Process(
            target=main,
            args=(child_end, factory, engine_settings, worker_id),
            name="itemforge-engine",
            daemon=True,
        )
        try:
            _start(self.process)
        except OSError:
            self._connection.close()
            raise
        finally:
            child_end.close()
        self._reader = threading.Thread(target=_read, args=(self._connection, self._hear), daemon=True)
        self._reader.start()

    def send(self, command: Command) -> None:
        """From a thread, in order: a busy engine reads its pipe only between steps."""
        self._sender.submit(_write, self._connection, command)

    def _hear(self, message: Message | None) -> None:
        # In the reader's thread.
        try:
            self._loop.call_soon_threadsafe(self._take, message)
        except RuntimeError:
            return  # the loop is closed: nobody listens any more

    def _take(self, message: Message | None) -> None:
        if self.info is not None:  # beats of the warm-up do not prolong it
            self._silence = 0.0
        match message:
            case None:
                self._over.set()
                return
            case Ready():
                self.info = message
                self._silence = 0.0
            case Beat(longest):
                self._longest = longest
            case Fatal(error, permanent):
                self._reason, self.permanent = error, permanent
                self._over.set()
        if not self._over.is_set():
            self._receive(message)

    async def watch(self) -> str:
        """Wait until the process is over or must be; returns why."""
        while True:
            tick = min(1.0, self._patience() / 4)
            try:
                await asyncio.wait_for(self._over.wait(), tick)
            except TimeoutError:
                # In turns of this loop and not by the clock: a worker that was frozen, or starved of
                # processor time, has not listened, and must not take that for the engine's silence.
                self._silence += tick
                if self._silence > self._patience():
                    return f"the engine was silent for {self._silence:.0f} s"
            else:
                await asyncio.to_thread(self.process.join, 1.0)
                return self._reason or f"the engine process ended with code {self.process.exitcode}"

    def _patience(self) -> float:
        if self.info is None:
            return self._settings.engine_warmup
        return max(self._settings.engine_silence, _LONGEST_FACTOR * self._longest)

    async def end(self) -> None:
        self._over.set()
        self.process.kill()
        self._sender.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.process.join, _KILLED)
        await asyncio.to_thread(self._reader.join, _KILLED)
        if self._reader.is_alive():
            log.error("engine_not_gone", pid=self.process.pid)
            return  # closing the pipe under its reader could give the number to another file
        self._connection.close()


def _start(process: BaseProcess) -> None:
    """Start it deaf to the signals that end us: one to the whole process group is ours to answer, and
    until its own code runs it would die of it.
    """
    multiprocessing.resource_tracker.ensure_running()  # its start would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read(connection: Connection, hear: Callable[[Message | None], None]) -> None:
    while True:
        try:
            hear(connection.recv())
        except (EOFError, OSError):
            hear(None)
            return


def _write(connection: Connection, command: Command) -> None:
    try:
        connection.send(command)
    except OSError:
        return  # the process is gone; its reader says so
