"""What the worker tells of itself to the people who look at the fleet."""

import time
from collections import deque
from collections.abc import Callable

import itemforge
from itemforge.contract import WorkerFacts
from itemforge.engine.rows import Progress
from itemforge.worker.engine_child import Happened, Ready

#: Turns of the engine that its pace is measured over.
_TURNS = 100
#: Seconds between two turns after which the engine had nothing to do.
_PAUSE = 2.0
_STYLES = 4


class Facts:
    """Gathered as the work goes on; `told` is what the next heartbeat says."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ready: Ready | None = None
        self._styles: list[str] = []
        self._turns: deque[tuple[int, float]] = deque(maxlen=_TURNS)  # steps, seconds
        self._last: float | None = None
        self._done = self._failed = 0

    def ready(self, info: Ready) -> None:
        self._ready = info

    def worked(self, happened: Happened) -> None:
        """One turn of the engine; the time since the turn before is what it took."""
        steps = sum(isinstance(event, Progress) for event in happened.events)
        now = self._clock()
        if steps and self._last is not None and now - self._last < _PAUSE:
            self._turns.append((steps, now - self._last))
        self._last = now

    def drew(self, style: str) -> None:
        """A step of this style (`id@version`) was done."""
        if self._styles[:1] != [style]:
            self._styles = [style, *(each for each in self._styles if each != style)][:_STYLES]

    def ended(self, outcome: str) -> None:
        self._done += outcome == "completed"
        self._failed += outcome == "failed"

    def told(self) -> WorkerFacts:
        info = self._ready
        return WorkerFacts(
            version=itemforge.__version__,
            model=info.model[:200] if info else "",
            base=info.base if info else None,
            device=info.device[:200] if info else "",
            styles=self._styles,
            steps_per_second=self._pace(),
            done=self._done,
            failed=self._failed,
        )

    def _pace(self) -> float | None:
        seconds = sum(took for _, took in self._turns)
        return round(sum(steps for steps, _ in self._turns) / seconds, 2) if seconds > 0 else None
