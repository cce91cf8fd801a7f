"""How far a training stage is: a bar with the losses on a terminal, plain lines elsewhere. On standard error."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from itemforge.training.stage import Tell


@contextmanager
def losses_shown() -> Iterator[Tell]:
    """Gives what a `Run` tells its progress to."""
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:

        def line(name: str, done: int, steps: int, losses: dict[str, float]) -> None:
            left = (steps - done) / losses["it/s"] / 60
            console.print(
                f"{name}: step {done} of {steps}, {_said(losses)}, {left:.0f} min left", soft_wrap=True
            )

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, steps: int, losses: dict[str, float]) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=steps, losses="")
            bar.update(tasks[name], completed=done, losses=_said(losses))

        yield show


def _said(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
