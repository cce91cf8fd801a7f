"""What growth costs: one job's way through the database with few and with very many rows in it.

    .venv/bin/python bench/growth.py [--quick] [--only postgresql|sqlite] [--cycles 300] [--rounds 3]

At the level of `itemforge.jobs`, where all queries are: submit one request, publish one (window and pick;
the queue itself is left out), claim one, report it completed; so the numbers of waiting and published rows
stay as they are. Ten owners, window 32. PostgreSQL is durable and vacuumed after loading; SQLite is as it is
deployed. All databases are loaded first, then rounds alternate between them. The ratio compares medians over
rounds with the smallest database's.
"""

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import bench_rig as rig
import growth_rows
from load import percentile

from itemforge.contract import Image, JobMessage, JobParams, Outcome, Report, ReportStatus
from itemforge.jobs import claims, migrate, publishing, requests
from itemforge.jobs.database import Database
from itemforge.jobs.records import NewRequest

OWNERS = 10
WINDOW = 32
STEPS = ("submit", "publish", "claim", "report", "cycle")


@dataclass
class Bench:
    """One loaded database and the messages that are on its queue."""

    name: str
    db: Database
    queue: list[UUID] = field(default_factory=list)
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    per_second: list[float] = field(default_factory=list)

    async def publish(self) -> None:
        async def put(messages: list[JobMessage]) -> list[UUID]:
            self.queue += (ids := [message.request_id for message in messages])
            return ids

        window = await publishing.window(self.db, WINDOW, 30.0)
        if window.room and window.unpublished:
            await publishing.publish_next(self.db, put, window.room)

    async def submit(self) -> None:
        params = JobParams(prompt="a red apple", style="plain@1", seed=7)
        owner = f"owner-{len(self.took['submit']) % OWNERS}"
        new = NewRequest(uuid4(), owner, "a red apple", params, body_hash="0" * 64)
        assert (await requests.create(self.db, new)).new

    async def claim(self) -> tuple[UUID, int]:
        request_id = self.queue.pop(0)
        (answer,) = await claims.claim(self.db, "bench", [request_id], 30.0)
        assert answer.outcome is Outcome.CLAIMED, answer
        return request_id, answer.attempt or 0

    async def report(self, request_id: UUID, attempt: int) -> None:
        key = f"generated/{request_id}.png"
        image = Image(n=0, seed=7, bucket="b", key=key, url=f"https://x/{key}", width=64, height=64)
        done = Report(request_id=request_id, attempt=attempt, status=ReportStatus.COMPLETED, images=[image])
        (answer,) = await claims.report(self.db, [done])
        assert answer.code == 200, answer

    async def cycles(self, count: int) -> None:
        began = time.perf_counter()
        for _ in range(count):
            at = [time.perf_counter()]
            await self.submit()
            at.append(time.perf_counter())
            request_id, attempt = await self.claim()
            at.append(time.perf_counter())
            await self.publish()
            at.append(time.perf_counter())
            await self.report(request_id, attempt)
            at.append(time.perf_counter())
            for step, first, last in zip(("submit", "claim", "publish", "report"), at, at[1:], strict=False):
                self.took[step].append((last - first) * 1000)
            self.took["cycle"].append((at[-1] - at[0]) * 1000)
        self.per_second.append(count / (time.perf_counter() - began))


@contextmanager
def databases(kind: str, folder: Path, sizes: list[tuple[int, int]]) -> Iterator[list[Bench]]:
    """One database for each (waiting, history). Equal histories are copied, not loaded again."""
    with ExitStack() as stack:
        server = stack.enter_context(rig.durable_postgres()) if kind == "postgresql" else None
        loaded: dict[int, str] = {}
        made = []
        for waiting, history in sizes:
            if server is not None:
                template = loaded[history].rpartition("/")[2] if history in loaded else "template1"
                url = stack.enter_context(server.database(template))
            else:
                url = growth_rows.sqlite_url(folder, len(made), loaded.get(history))
            asyncio.run(growth_rows.load(url, waiting, 0 if history in loaded else history, OWNERS))
            loaded.setdefault(history, url)
            made.append(Bench(f"{waiting:,} waiting, {history:,} ended", Database(url)))
        yield made


async def run(benches: list[Bench], rounds: int, cycles: int) -> None:
    for bench in benches:
        assert await migrate.current(bench.db) == migrate.newest()
        await bench.publish()
        await bench.cycles(20)  # warm: connections, plans
        bench.took.clear()
        bench.per_second.clear()
    for _ in range(rounds):
        for bench in benches:
            await bench.cycles(cycles)
    for bench in benches:
        await bench.db.close()


def rows(kind: str, benches: list[Bench]) -> Iterator[str]:
    """The table's lines of one kind of database."""
    least = benches[0]
    for bench in benches:
        rate = statistics.median(bench.per_second)
        p99 = percentile(bench.took["cycle"], 0.99)
        cells = [
            kind,
            bench.name,
            f"{rate:.0f}",
            f"{statistics.median(least.per_second) / rate:.2f}",
            f"{p99:.1f}",
            f"{p99 / percentile(least.took['cycle'], 0.99):.2f}",
            *(
                f"{percentile(bench.took[s], 0.5):.1f} / {percentile(bench.took[s], 0.99):.1f}"
                for s in STEPS[:4]
            ),
        ]
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small tables, to see that it runs")
    parser.add_argument("--only", choices=["postgresql", "sqlite"])
    parser.add_argument("--cycles", type=int, default=300, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sizes = [(10, 0), (1000, 0), (100_000, 0), (10, 1_000_000), (100_000, 1_000_000)]
    if options.quick:
        sizes, options.cycles, options.rounds = [(10, 0), (200, 500)], 5, 1
    rig.quiet()
    print(f"Growth, {rig.machine()}\n", flush=True)
    titles = ["database", "rows", "jobs/s", "slower by", "cycle p99 ms", "by"]
    titles += [f"{step} p50 / p99 ms" for step in STEPS[:4]]
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|", flush=True)
    for kind in [options.only] if options.only else ["postgresql", "sqlite"]:
        with rig.folder() as folder, databases(kind, folder, sizes) as benches:
            asyncio.run(run(benches, options.rounds, options.cycles))
            print("\n".join(rows(kind, benches)), flush=True)


if __name__ == "__main__":
    main()
