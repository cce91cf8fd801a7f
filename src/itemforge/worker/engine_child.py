"""The engine's process: torch lives here and nowhere else in the worker.

It takes commands from a pipe, steps the engine, and sends what happened. It beats at every stage border
and once a second when idle, so that the parent can tell a slow step from a hung device. When the parent
is gone, however it went, so is this process, also in the middle of a step or with a hung device.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import structlog

from itemforge.engine.rows import Event, Row
from itemforge.errors import PermanentError
from itemforge.settings import EngineSettings
from itemforge.telemetry.logs import setup_logs

log = structlog.get_logger(__name__)

#: Seconds between beats while nothing else is sent.
BEAT = 1.0
#: Beats at stage borders are thinned to this many seconds: a starter step takes milliseconds.
_BEAT_THIN = 0.2
#: Stages between two messages; more are not measured.
_MOST_STAGES = 1000
#: Reading the model may take minutes and says nothing of how long a step takes.
_LOAD_STAGE = "load"


# ── What goes through the pipe ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Submit:
    row: Row


@dataclass(frozen=True)
class Cancel:
    row_id: str


@dataclass(frozen=True)
class Watch:
    row_id: str
    on: bool


@dataclass(frozen=True)
class Ready:
    """The engine is warm. `base` is the model's sha256; `width` and `height` its native size in pixels; `device` in words."""

    batch_size: int
    base: str
    width: int
    height: int
    model: str
    device: str


@dataclass(frozen=True)
class Beat:
    """A sign of life; `longest` is the longest stage so far, in seconds, loading apart."""

    longest: float


@dataclass(frozen=True)
class Fatal:
    """The engine cannot go on; `permanent` means that a new process would end the same way."""

    error: str
    permanent: bool


@dataclass(frozen=True)
class Happened:
    """What one step did to the rows. One message for all of them: each costs both processes a wake-up.

    `stages` ended since the last one, with their seconds; `out_of_memory` batches did not fit since then.
    """

    events: tuple[Event, ...]
    stages: tuple[tuple[str, float], ...] = ()
    out_of_memory: int = 0


Command = Submit | Cancel | Watch
Message = Ready | Beat | Fatal | Happened


class DrawnBy(Protocol):
    """The base model of an engine."""

    name: str
    base: str
    width: int
    height: int


class StepEngine(Protocol):
    """What this process needs of an engine (`engine.loop.Engine`)."""

    @property
    def model(self) -> DrawnBy: ...
    @property
    def device_name(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def busy(self) -> bool: ...
    @property
    def out_of_memory(self) -> int: ...
    def submit(self, row: Row) -> None: ...
    def cancel(self, row_id: str) -> None: ...
    def watch(self, row_id: str, on: bool) -> None: ...
    def step(self) -> list[Event]: ...


Factory = Callable[[EngineSettings, Callable[[str, float], None]], StepEngine]


def find_factory(name: str) -> Factory:
    """The function named `module:attribute.attribute`."""
    module, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found  # type: ignore[no-any-return]  # named by the parent's code, not by a user


def main(connection: Connection, factory: str, settings: EngineSettings, worker_id: str) -> None:
    """The process's life. `worker_id` stands on its log's lines. Signals are the parent's business: it drains and then closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    setup_logs(settings, "engine")
    structlog.contextvars.bind_contextvars(worker_id=worker_id)
    child = _Child(connection)
    try:
        engine = _load(factory, settings, child)
        if engine is not None:
            child.serve(engine)
    except _ParentGone:
        return
    except Exception as error:  # the supervisor's border: whatever it was, the parent must hear of it
        log.exception("engine_failed")
        child.fatal(f"{type(error).__name__}: {error}", permanent=False)


def _load(factory: str, settings: EngineSettings, child: "_Child") -> StepEngine | None:
    """The warm engine, told to the parent; None when no new process could do better."""
    try:
        engine = find_factory(factory)(settings, child.on_stage)
    except PermanentError as error:
        child.fatal(str(error), permanent=True)
        return None
    model = engine.model
    child.stages.clear()  # the warm-up's are no drawing
    child.send(
        Ready(engine.batch_size, model.base, model.width, model.height, model.name, engine.device_name)
    )
    return engine


def _end_with_parent() -> None:
    """A hung step never comes back to the pipe, where the loop would hear that the parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


class _ParentGone(OSError):
    """The pipe is closed. An OSError, which the engine lets through: no row is to blame for it."""


class _Child:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last_beat = 0.0
        self._longest = 0.0
        self._out_of_memory = 0
        self.stages: deque[tuple[str, float]] = deque(maxlen=_MOST_STAGES)

    def send(self, message: Message) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise _ParentGone(str(error)) from error

    def fatal(self, error: str, permanent: bool) -> None:
        """The last words, if there is still somebody to hear them."""
        with contextlib.suppress(_ParentGone):
            self.send(Fatal(error, permanent))

    def on_stage(self, name: str, seconds: float) -> None:
        if name != _LOAD_STAGE:
            self._longest = max(self._longest, seconds)
            self.stages.append((name, seconds))
        if time.monotonic() - self._last_beat >= _BEAT_THIN:
            self.beat()

    def beat(self) -> None:
        self._last_beat = time.monotonic()
        self.send(Beat(self._longest))

    def _next(self) -> Command:
        try:
            command: Command = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _ParentGone(str(error)) from error
        return command

    def serve(self, engine: StepEngine) -> None:
        while True:
            while self._connection.poll(0 if engine.busy else BEAT):
                self._obey(engine, self._next())
            if not engine.busy:
                self.beat()
                continue
            if events := engine.step():
                self.send(self._happened(engine, events))

    def _happened(self, engine: StepEngine, events: list[Event]) -> Happened:
        memory, self._out_of_memory = engine.out_of_memory - self._out_of_memory, engine.out_of_memory
        stages = tuple(self.stages)
        self.stages.clear()
        return Happened(tuple(events), stages, memory)

    def _obey(self, engine: StepEngine, command: Command) -> None:
        match command:
            case Submit(row):
                engine.submit(row)
            case Cancel(row_id):
                engine.cancel(row_id)
            case Watch(row_id, on):
                engine.watch(row_id, on)
