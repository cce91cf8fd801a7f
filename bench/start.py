"""Seconds from a process's start, and from a fresh clone, to the first picture.

    python bench/start.py [--rounds 3] [--clone] [--out FILE]

`--clone` clones this repository into a temporary folder and runs `make demo` there, which makes the
environment first: minutes, and it depends on the package index.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Table, write
from stack import environment

REPOSITORY = Path(__file__).parent.parent


def first_picture(command: list[str], folder: Path, pattern: str) -> float:
    """Seconds until the command prints a line with `pattern`, then until its end it is only waited for."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines: list[str] = []
        seconds = 0.0
        for line in process.stdout or ():
            lines.append(line)
            if not seconds and re.search(pattern, line):
                seconds = time.perf_counter() - start
    if process.returncode or not seconds:
        raise RuntimeError(f"{command} ended with {process.returncode}: {''.join(lines[-20:])}")
    return seconds


def generate(folder: Path, home: Path) -> float:
    """Seconds of `itemforge generate`, from nothing to a written file."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "itemforge", "generate", "a red apple", "--steps", "25", "--seed", "7"]
    subprocess.run(
        [*command, "--out", "apple.png", "--force"],
        cwd=folder,
        env=environment(ITEMFORGE_HOME=str(home)),
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clone", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = Table("To the first picture (25 steps, 64×64)", ("from", "median s", "each s"))
    demo = [sys.executable, "-m", "itemforge", "demo"]
    with tempfile.TemporaryDirectory(prefix="itemforge-bench-") as name:
        folder = Path(name)
        taken = {
            "start of the whole system (`itemforge demo`, six pictures asked for)": [
                first_picture(demo, folder, "1 of 6") for _ in range(options.rounds)
            ],
            "start of `itemforge generate` to its file": [
                generate(folder, folder / "home") for _ in range(options.rounds)
            ],
        }
        if options.clone:
            subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder / "clone")], check=True)
            taken["a fresh clone: `make demo`, environment included"] = [
                first_picture(["make", "demo"], folder / "clone", "1 of 6")
            ]
    for what, seconds in taken.items():
        table.add(what, f"{statistics.median(seconds):.1f}", ", ".join(f"{s:.1f}" for s in seconds))
    write(table, options.out)


if __name__ == "__main__":
    main()
