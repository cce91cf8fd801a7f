"""Work for the child processes that does what a decoder must not: told by the file's name."""

import os
import signal
from pathlib import Path

from itemforge.dataset.process import child
from itemforge.dataset.process.recipe import Recipe, Record


def work(path: Path, out: Path, recipe: Recipe) -> Record:
    with (out.parent / "given").open("a") as file:
        file.write(f"{path.name}\n")
    if path.stem.startswith("kills"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.stem.startswith("hangs"):
        while True:
            signal.pause()
    if path.stem.startswith("grows"):
        bytearray(64 * 1024**3)
    if path.stem.startswith("fails"):
        raise RuntimeError("an error of ours")
    if path.stem.startswith("once") and not (out.parent / "died").exists():
        (out.parent / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return child.work(path, out, recipe)
