"""How far a picture is: a bar on a terminal, a line at each quarter elsewhere. On standard error."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_QUARTERS = 4


@contextmanager
def steps_shown(name: str, steps: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the number of each step that is done."""
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:

        def line(step: int) -> None:
            if step * _QUARTERS // steps > (step - 1) * _QUARTERS // steps:
                console.print(f"{name}: step {step} of {steps}", soft_wrap=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=steps)
        yield lambda step: bar.update(task, completed=step)


@contextmanager
def stages_shown() -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function to call with a stage's name, how much of it is done, and of how much; one bar after another."""
    with ExitStack() as stack:
        shown: dict[str, Callable[[int], None]] = {}

        def tell(name: str, done: int, of: int) -> None:
            if name not in shown:
                stack.close()  # the bar of the stage before
                shown[name] = stack.enter_context(steps_shown(name, of))
            shown[name](done)

        yield tell
