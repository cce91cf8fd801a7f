"""Tables of the benches: on the terminal as they are made, as Markdown where a file is named."""

import datetime
import os
import platform
import sys
from pathlib import Path


class Table:
    """A title, a header, and rows that are printed as they come."""

    def __init__(self, title: str, header: tuple[str, ...]) -> None:
        self.title = title
        self.notes: list[str] = []
        self._lines = [header]
        print(f"{title}\n{' | '.join(header)}", flush=True)

    def add(self, *cells: str) -> None:
        self._lines.append(cells)
        print(" | ".join(cells), flush=True)

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(text, flush=True)

    def markdown(self) -> str:
        header, *rows = (f"| {' | '.join(cells)} |" for cells in self._lines)
        rule = f"|{'---|' * len(self._lines[0])}"
        return "\n".join([f"### {self.title}", "", header, rule, *rows, "", *self.notes])


def machine() -> str:
    """What the figures were measured on, in one line."""
    import torch

    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cores} cores of {model}{device}; torch {torch.__version__}, Python {platform.python_version()}"


def stamp(argv: list[str] | None = None) -> str:
    """The command (default: this process's), the machine and the day of a run."""
    script, *arguments = argv or sys.argv
    if "--out" in arguments:  # where the table goes is no part of how it was measured
        at = arguments.index("--out")
        del arguments[at : at + 2]
    command = " ".join(["python", f"bench/{Path(script).name}", *arguments])
    return f"`{command}` on {machine()}, {datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}."


def write(table: Table, out: Path | None) -> None:
    """Append the table to a Markdown file, if one is named."""
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(f"{table.markdown()}\n\n{stamp()}\n\n")
