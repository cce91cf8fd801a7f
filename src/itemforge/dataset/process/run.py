"""Processes many files, on all cores; begun again it goes on where it was.

Files are given to child processes one at a time. One that dies is replaced and its file tried once more, for
it may have been killed for another's memory; then the file is set aside. So is one that takes too long, at once.
"""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from itemforge.dataset.process.child import READY, Failed, answer, load
from itemforge.dataset.process.files import Files
from itemforge.dataset.process.recipe import Reason, Recipe, Record, State
from itemforge.errors import ConfigurationError

DEFAULT_WORK = "itemforge.dataset.process.child:work"
#: Not `-m`: what it answers would be named after `__main__` then.
_PROGRAM = "import sys, itemforge.dataset.process.child as child; child.main(sys.argv[1:])"
#: Seconds in which a child must have imported what it needs.
_START = 120.0
#: Times that a file may take its process with it.
_DEATHS = 2


@dataclass(frozen=True)
class Limits:
    """Of one picture: seconds, and bytes of address space of the process that decodes it."""

    seconds: float = 120.0
    memory: int = 4 * 1024**3


@dataclass(frozen=True)
class Outcome:
    """What became of a file. `files` exist if `record.made`."""

    path: Path
    record: Record
    files: Files

    @property
    def key(self) -> str:
        return self.files.name


#: Hears how many are done, of how many, and what became of the last.
Tell = Callable[[int, int, Outcome], None]


def process_all(
    items: Iterable[Path | str],
    out: Path,
    recipe: Recipe | None = None,
    processes: int | None = None,
    *,
    limits: Limits | None = None,
    tell: Tell = lambda done, of, outcome: None,
    work: str = DEFAULT_WORK,
) -> list[Outcome]:
    """Make the pictures of all files, in their order; `processes` is the number of cores, if not given.

    0 processes works in this one, without limits. The bytes are the same however many there are. What is made
    already is left as it is; what died, took too long or needed too much memory is tried again by each run.

    Raises:
        ConfigurationError: `out` cannot be written, or no process can be started.
    """
    paths, recipe = [Path(each) for each in items], recipe or Recipe()
    outcomes: dict[int, Outcome] = {}

    def done(place: int, answered: Record | Failed) -> None:
        if isinstance(answered, Failed):
            raise ConfigurationError(f"what is made cannot be written: {answered.text}")
        outcomes[place] = Outcome(paths[place], answered, Files.of(out, answered.sha256, recipe.key))
        tell(len(outcomes), len(paths), outcomes[place])

    if processes == 0:
        function = load(work)
        for place, path in enumerate(paths):
            done(place, answer(function, path, out, recipe))
    else:
        count = min(len(paths), processes or os.cpu_count() or 1)
        options = {
            "work": work,
            "out": str(out),
            "recipe": asdict(recipe),
            "memory": (limits or Limits()).memory,
        }
        _Crew(paths, json.dumps(options), (limits or Limits()).seconds, done).run(count)
    return [outcomes[place] for place in range(len(paths))]


class _Child:
    """One child process; `place` is the file that it has in hand."""

    def __init__(self, options: str) -> None:
        self.pipe, theirs = Pipe()
        paths = os.pathsep.join(path for path in sys.path if path)
        # One thread each: the cores have a process each already.
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), options]
        self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=environment,
        )
        theirs.close()
        self.ready = False
        self.place: int | None = None
        self.deadline = time.monotonic() + _START

    @property
    def idle(self) -> bool:
        return self.ready and self.place is None

    def give(self, place: int, path: Path, seconds: float) -> None:
        self.place, self.deadline = place, time.monotonic() + seconds
        self.pipe.send(str(path))

    def end(self) -> int:
        """Kill it, and say how it ended."""
        self.pipe.close()
        if self._process.poll() is None:
            self._process.kill()
        return self._process.wait()


class _Crew:
    def __init__(
        self, paths: list[Path], options: str, seconds: float, done: Callable[[int, Record | Failed], None]
    ) -> None:
        self._paths, self._options, self._seconds, self._done = paths, options, seconds, done
        self._waiting = deque(range(len(paths)))
        self._deaths = dict.fromkeys(self._waiting, 0)
        self._left = len(paths)
        self._children: dict[Connection, _Child] = {}
        self._failed_starts = 0

    def run(self, count: int) -> None:
        try:
            while self._left:
                # All that are idle, not only who just spoke: a file may have come back from one that died.
                for child in [each for each in self._children.values() if each.idle]:
                    self._give(child)
                busy = sum(child.place is not None for child in self._children.values())
                while len(self._children) < min(count, busy + len(self._waiting)):
                    self._start()
                self._hear()
        finally:
            for child in self._children.values():
                child.end()

    def _start(self) -> None:
        try:
            child = _Child(self._options)
        except OSError as error:
            raise ConfigurationError(f"no process can be started for the pictures: {error}") from error
        self._children[child.pipe] = child

    def _hear(self) -> None:
        """Hear what the children say, or notice that one is late."""
        timed = [child.deadline for child in self._children.values() if not child.idle]
        for pipe in wait(list(self._children), max(0.0, min(timed, default=0.0) - time.monotonic())):
            child = self._children[pipe]  # type: ignore[index]  # no sockets or descriptors are waited for
            try:
                said = child.pipe.recv()
            except (EOFError, OSError):
                self._lose(child)
                continue
            if said == READY:
                child.ready, self._failed_starts = True, 0
            elif child.place is not None:
                place, child.place = child.place, None
                self._finish(place, said)
        for child in [each for each in self._children.values() if each.deadline < time.monotonic()]:
            # What it has said by now is heard next: it was we who were late.
            if not child.idle and not child.pipe.poll():
                self._lose(child, late=True)

    def _give(self, child: _Child) -> None:
        if not self._waiting:
            return
        place = self._waiting.popleft()
        try:
            child.give(place, self._paths[place], self._seconds)
        except OSError:
            self._lose(child)

    def _lose(self, child: _Child, late: bool = False) -> None:
        del self._children[child.pipe]
        code = child.end()
        if not child.ready:
            self._failed_starts += 1
            if self._failed_starts >= 3:
                raise ConfigurationError(
                    f"the process for the pictures does not start (it ended with {code}); its own words are above"
                )
        place = child.place
        if place is None:
            return
        self._deaths[place] += 1
        if late:
            self._finish(place, Record("", State.ASIDE, Reason.SLOW, f"more than {self._seconds:g} seconds"))
        elif self._deaths[place] < _DEATHS:
            self._waiting.appendleft(place)
        else:
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            self._finish(place, Record("", State.ASIDE, Reason.DIED, f"{_DEATHS} times, {how}"))

    def _finish(self, place: int, said: Record | Failed) -> None:
        self._left -= 1
        self._done(place, said)
