"""The process that decodes: what kills it or makes it hang costs one picture, not the run.

It gets paths one at a time, by the pipe whose number is its first argument, and answers each with a record. A program of its own, not a fork: the parent may have threads, and need not be importable again.
"""

import hashlib
import importlib
import json
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from itemforge.dataset.process.files import Files
from itemforge.dataset.process.picture import process
from itemforge.dataset.process.recipe import Reason, Recipe, Record, State

#: Says that the child waits for its first path.
READY = "ready"

Work = Callable[[Path, Path, Recipe], Record]


@dataclass(frozen=True)
class Failed:
    """What is wrong with the machine, not with a picture: a full disk, a folder that must not be written."""

    text: str


def work(path: Path, out: Path, recipe: Recipe) -> Record:
    """Make one file's picture, or find it made before.

    Raises:
        OSError: what was made cannot be written.
    """
    try:
        if not path.is_file():
            return _aside(Reason.UNREADABLE, f"{path.name} is no file")
        with path.open("rb") as file:
            data = file.read(recipe.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return _aside(Reason.UNREADABLE, getattr(error, "strerror", None) or str(error))
    if len(data) > recipe.max_bytes:
        # Neither read to its end nor given a name: it is known by looking once more.
        return _aside(Reason.BYTES, f"more than {recipe.max_bytes} bytes")
    files = Files.of(out, hashlib.sha256(data).hexdigest(), recipe.key)
    if (record := files.read()) is not None:
        return record
    try:
        made = process(data, recipe)
    except MemoryError:
        # Not written down: with more memory, or fewer processes, it may go well.
        return _aside(Reason.MEMORY, "raise the limit to try again")
    files.write(made)
    return made.record


def _aside(reason: Reason, detail: str) -> Record:
    return Record("", State.ASIDE, reason, detail)


def answer(function: Work, path: Path, out: Path, recipe: Recipe) -> Record | Failed:
    """What `function` makes of a path; never raises."""
    try:
        return function(path, out, recipe)
    except MemoryError:
        return _aside(Reason.MEMORY, "raise the limit to try again")
    except OSError as error:
        return Failed(f"{error.filename or out}: {error.strerror or error}")
    except Exception as error:  # an error of ours is told with the picture that shows it; the others go on
        return _aside(Reason.BUG, f"{type(error).__name__}: {error}")


def load(name: str) -> Work:
    """The function that `module:name` names."""
    module, _, function = name.partition(":")
    found: Work = getattr(importlib.import_module(module), function)
    return found


def main(arguments: list[str]) -> None:
    # The parent ends its children itself when somebody presses Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(int(arguments[0]))
    options = json.loads(arguments[1])
    function, out, recipe = load(options["work"]), Path(options["out"]), Recipe(**options["recipe"])
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = options["memory"] if most == resource.RLIM_INFINITY else min(options["memory"], most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    try:
        pipe.send(READY)
        while True:
            pipe.send(answer(function, Path(pipe.recv()), out, recipe))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is done, or gone
