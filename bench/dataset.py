"""From a wiki to a captioned dataset: seconds and memory of each step, and what a second core gives.

    python bench/dataset.py [--pictures 1028] [--rounds 3] [--out FILE]

The wiki is the tests' own, on loopback, without a delay; its pictures are icons in the forms and sizes that wikis
have (64 to 512 pixels; transparent, with a palette, JPEG and PNG on plain grounds, GIF, WebP), and what is made of them
is 512 × 512. Each step is the command itself. Memory is that of the command and its children together, shared pages
counted once (PSS), looked at five times a second. Processing on all cores and in one process take turns on the same
pictures; the medians count. Processing alone, without starting and grouping, is reckoned from the times at which its
first and last picture were made.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from report import Table, write

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "crawl")]

from fake_wiki import FakeFile, FakeWiki  # noqa: E402

from chain import environment, steps  # noqa: E402  # found by the line above
from itemforge.dataset.processed import STEP  # noqa: E402
from itemforge.dataset.store import open_store  # noqa: E402
from wiki_pictures import item_pictures  # noqa: E402

#: Seconds between two looks at the memory: more often, they would be seen in the times.
_LOOK = 0.2


@dataclass(frozen=True)
class Taken:
    """What a command took: seconds, and bytes at its peak."""

    seconds: float
    peak: int


def measured(command: Sequence[str]) -> Taken:
    """Run a command of itemforge to its end."""
    start, peak = time.perf_counter(), 0
    program = [sys.executable, "-m", "itemforge", *command]
    with tempfile.TemporaryFile() as errors:
        running = psutil.Popen(program, env=environment(), stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while running.poll() is None:
                peak = max(peak, _memory(running))
                time.sleep(_LOOK)
        finally:
            if running.poll() is None:
                running.kill()
        seconds = time.perf_counter() - start
        if running.returncode:
            errors.seek(0)
            raise SystemExit(f"{command} failed: {errors.read().decode(errors='replace')[-2000:]}")
    return Taken(seconds, peak)


def _memory(process: psutil.Popen) -> int:
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            found = each.memory_full_info()
            total += getattr(found, "pss", found.uss)
    except psutil.Error:
        pass  # one has ended meanwhile: what was counted is too little, and the next look is near
    return total


def made_a_second(out: Path) -> float:
    """Pictures a second between the first record and the last."""
    times = sorted(path.stat().st_mtime for path in (out / "processed" / "records").iterdir())
    return (len(times) - 1) / max(times[-1] - times[0], 1e-9)


def fill(wiki: FakeWiki, count: int, packages: Path) -> int:
    """Put the pictures into the wiki; their bytes."""
    found = item_pictures(count, packages)
    if len(found) != count:
        raise SystemExit(f"there are {len(found)} pictures, not {count}")
    for picture in found:
        wiki.add(picture.file, FakeFile(picture.data, picture.mime, text="{{Licence|MIT}}", licence=""))
    return sum(len(picture.data) for picture in found)


def in_turns(process: list[str], out: Path, rounds: int) -> dict[str, list[tuple[Taken, float]]]:
    """Processing on all cores and in one process, in turns, from nothing each time."""
    taken: dict[str, list[tuple[Taken, float]]] = {"all cores": [], "one process": []}
    for _ in range(rounds):
        for name, option in (("one process", ["--processes", "1"]), ("all cores", [])):
            forget(out)
            one = measured([*process, *option])
            taken[name].append((one, made_a_second(out)))
    return taken


def forget(out: Path) -> None:
    """What processing made and what the dataset knows of it: else the second run need not group."""
    shutil.rmtree(out / "processed", ignore_errors=True)
    with open_store(out) as store, store.change() as db:
        db.execute("DELETE FROM results WHERE step = ?", (STEP,))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1028)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    cores = len(os.sched_getaffinity(0))
    table = Table(
        f"From a wiki to {options.pictures} captioned pictures of 512×512 ({cores} cores)",
        ("step", "seconds", "pictures/s", "peak MB", "seconds (each round)"),
    )
    with tempfile.TemporaryDirectory(prefix="itemforge-bench-") as name:
        folder, wiki = Path(name), FakeWiki()
        wiki.per_answer = 50
        try:
            size = fill(wiki, options.pictures, folder / "packages")
            _measure(table, wiki, folder / "items", options.pictures, options.rounds)
        finally:
            wiki.close()
    table.note(
        f"The originals are {size / 1e6:.1f} MB. A `data process` is starting, making, grouping, splitting."
    )
    write(table, options.out)


def _measure(table: Table, wiki: FakeWiki, out: Path, count: int, rounds: int) -> None:
    commands = steps(wiki.url, out)
    crawled = measured(commands["crawl"])
    table.add("`data crawl`", *_cells(crawled, count), f"{crawled.seconds:.1f}")
    process = [each for each in commands["process"] if each != "--report"]
    taken = in_turns(process, out, rounds)
    rates = {}
    for name, found in taken.items():
        middle = Taken(statistics.median(one.seconds for one, _ in found), max(one.peak for one, _ in found))
        each = ", ".join(f"{one.seconds:.1f}" for one, _ in found)
        table.add(f"`data process`, {name}", *_cells(middle, count), each)
        rates[name] = statistics.median(rate for _, rate in found)
    captioned = measured(commands["caption"])
    table.add("`data caption --provider name`", *_cells(captioned, count), f"{captioned.seconds:.1f}")
    table.note(
        f"Making the pictures alone: {rates['all cores']:.1f} a second on all cores, {rates['one process']:.1f} in one "
        f"process: {rates['all cores'] / rates['one process']:.2f}×."
    )


def _cells(taken: Taken, count: int) -> tuple[str, str, str]:
    return f"{taken.seconds:.1f}", f"{count / taken.seconds:.1f}", f"{taken.peak / 1e6:.0f}"


if __name__ == "__main__":
    main()
