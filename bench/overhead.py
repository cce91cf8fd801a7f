"""What a job costs beside its drawing: the whole system with an engine that draws nothing.

    .venv/bin/python bench/overhead.py [--quick] [--jobs 1000] [--steps 4] [--rounds 2]

RabbitMQ, durable PostgreSQL, `itemforge gateway`, a worker with its child process, folder store. The requests are
committed before the worker is there, so no load generator is in the figures. The clock runs from the first
claim to the last report, both by the database's clock; processor time is the worker's and its child's
(user and system), from after the start to the end, by /proc. Jobs have one picture of 64x64.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from pathlib import Path
from uuid import uuid4

import bench_rig as rig
import psutil
from sqlalchemy import text

from itemforge.contract import JobParams
from itemforge.jobs import migrate
from itemforge.jobs.creation import MOST, insert_new
from itemforge.jobs.database import Database
from itemforge.jobs.records import NewRequest

_DONE = """
    SELECT count(*) FILTER (WHERE status = 'Completed'), count(*),
           (SELECT extract(epoch FROM max(created_at) - min(created_at)) FROM events
            WHERE data ->> 'status' IN ('Processing', 'Completed'))
    FROM requests
"""


async def submit(db: Database, jobs: int, steps: int) -> None:
    """Requests of four owners, committed."""
    await migrate.upgrade(db)
    params = JobParams(prompt="a red apple", style="plain@1", num_inference_steps=steps, seed=7)
    news = [NewRequest(uuid4(), f"owner-{n % 4}", "a red apple", params, "0" * 64) for n in range(jobs)]
    for first in range(0, jobs, MOST):
        await insert_new(db, news[first : first + MOST])


async def all_done(db: Database, within: float) -> tuple[int, float]:
    """Waits until every request is completed: how many, and the seconds from first claim to last report."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        async with db.read() as conn:
            done, jobs, seconds = (await conn.execute(text(_DONE))).tuples().one()
        if done == jobs:
            return int(jobs), float(seconds)
        await asyncio.sleep(0.5)
    raise SystemExit(f"{done} of {jobs} jobs were completed in {within:g} s; look at the logs")


def cpu(process: psutil.Process) -> float:
    """Seconds of processor time of a process and its children, user and system."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        times = each.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def once(
    jobs: int, steps: int, services: rig.Services, home: Path, within: float
) -> tuple[float, float, float]:
    """Jobs a second; processor milliseconds a job of worker and child, and of the gateway."""
    db = Database(services.database_url)
    asyncio.run(_then_close(db, submit(db, jobs, steps)))
    with rig.gateway(services, home) as address:
        env = {
            "ITEMFORGE_HOME": str(home),
            "ITEMFORGE_AMQP_URL": services.amqp_url,
            "API_GATEWAY_URL": address,
            "ITEMFORGE_STORAGE_URL": (home / "objects").as_uri(),
        }
        command = [sys.executable, str(rig.ROOT / "bench/null_worker.py")]
        with rig.process(command, env, home / "worker.log") as child:
            worker = psutil.Process(child.pid)
            started = _started(worker, home / "worker.log")
            gateway = next(p for p in psutil.Process().children() if "gateway" in p.cmdline())
            gateway_before = cpu(gateway)
            count, seconds = asyncio.run(_then_close(db, all_done(db, within)))
            return (
                count / seconds,
                (cpu(worker) - started) * 1000 / count,
                (cpu(gateway) - gateway_before) * 1000 / count,
            )


def _started(worker: psutil.Process, log: Path) -> float:
    """Processor time up to the moment at which the worker can take jobs."""
    while b"worker_ready" not in log.read_bytes():
        if not worker.is_running():
            raise SystemExit(log.read_text()[-2000:])
        time.sleep(0.005)
    return cpu(worker)


async def _then_close(db: Database, work):  # type: ignore[no-untyped-def]
    try:
        return await work
    finally:
        await db.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="ten jobs, to see that it runs")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    if options.quick:
        options.jobs, options.rounds = 10, 1
    rig.quiet()
    print(f"Overhead of a job, {rig.machine()}\n", flush=True)
    figures = []
    with rig.durable_postgres() as server, rig.rabbit_node() as node:
        for _ in range(options.rounds):
            with rig.folder() as home, rig.fresh(server, node) as services:
                figures.append(once(options.jobs, options.steps, services, home, within=240))
    print(
        "| jobs | jobs/s | worker CPU ms/job | gateway CPU ms/job | load at the end |\n|---|---|---|---|---|"
    )
    middle = [statistics.median(column) for column in zip(*figures, strict=True)]
    print(
        f"| {options.jobs} | {middle[0]:.0f} | {middle[1]:.1f} | {middle[2]:.1f} | {os.getloadavg()[0]:.1f} |"
    )


if __name__ == "__main__":
    main()
