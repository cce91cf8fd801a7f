"""How far downloads are: a bar for each file on a terminal, lines at each quarter elsewhere. On standard error."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from itemforge.pulling.means import Tell
from itemforge.pulling.workshop import told

_QUARTERS = 4
#: Bytes between two lines where nobody knows how many there will be.
_EVERY = 256 * 10**6
#: A smaller file is told of once, when it is here.
_SMALL = 10**7


@contextmanager
def downloads_shown() -> Iterator[Tell]:
    """Gives what a pull tells its progress to."""
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, of: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=of, completed=done)
            bar.update(tasks[name], total=of, completed=done)

        yield show


def _lines(console: Console) -> Tell:
    seen: dict[str, int] = {}

    def line(name: str, done: int, of: int | None) -> None:
        mark = done // _EVERY if of is None else _QUARTERS if done >= of else done * _QUARTERS // of
        if seen.get(name) == mark:
            return
        first = name not in seen
        seen[name] = mark
        if first and 0 < done < (of or done + 1):
            console.print(f"{name}: goes on at {told(done)}" + _of(of), soft_wrap=True)
        elif done or of is None or of > _SMALL:
            console.print(f"{name}: {told(done)}" + _of(of), soft_wrap=True)

    return line


def _of(size: int | None) -> str:
    return "" if size is None else f" of {told(size)}"
