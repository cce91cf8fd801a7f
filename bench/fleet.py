"""A day of a fleet in minutes: one gateway, RabbitMQ, PostgreSQL and 50 workers whose cards only take their time.

    .venv/bin/python bench/fleet.py [--minutes 3.5] [--workers 50] [--jobs-per-day 400000] [--factor 3] [--seed 1]
                                    [--gpu t4] [--losses 6] [--out out/fleet]

Everything is real but the drawing (`bench/fleet_engine.py`): workers consume, claim, upload, report and
acknowledge, five in a process, each with its engine process. Hosts of five are killed, frozen and drained, and
replaced.

One time factor divides the cards' steps, arrivals, leases, heartbeats, the sweeper's and all other intervals and
pauses. The day's curve is as long as the run: with the factor f and m minutes, m × f minutes of the fleet's time
have the shape of 24 hours, so rates are those of the hour, and a peak is shorter than in life (--minutes 1440/f is a
whole day). What no factor scales is our own processor time: f workers' seconds of it fall into one. So the machine
bounds the factor, and the table has each rate as it was and divided by the factor.
Not scaled either: time limits of calls, the relay's rest of 20 ms, at least 0.9 s between two progress events, the engine's beat
of 1 s, and AMQP heartbeats, which are whole seconds.

Ends with 1 if a request was lost: accepted, and neither Completed nor Failed with a reason.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_rig as rig
import fleet_day
import fleet_report
import httpx
from fleet_engine import FACTOR, FOLDER, GPU, GPUS, read_draws
from fleet_hosts import Hosts
from fleet_watch import Watch
from load import percentile
from report import stamp

from services.process import Service, free_port

#: Workers of one process.
OF_EACH = 5
#: The original's number of steps.
STEPS = 50
#: Seconds for which a request is sent again where no answer comes.
INSIST = 60.0


@dataclass(frozen=True)
class Options:
    """`losses` hosts go in the run, of whatever length it is."""

    minutes: float
    workers: int
    jobs_per_day: float
    factor: float
    seed: int
    gpu: str
    losses: int
    out: Path

    @property
    def length(self) -> float:
        """The day in seconds of the wall clock."""
        return self.minutes * 60

    @property
    def jobs(self) -> float:
        """How many are expected to arrive in it."""
        return self.jobs_per_day * self.length * self.factor / 86400


def gateway_settings(factor: float) -> dict[str, str]:
    """The defaults of every interval that the gateway has, divided."""
    return _divided(
        factor, LEASE=30, RELAY_INTERVAL=1, SWEEP_INTERVAL=60, SWEEP_AFTER=900, WORKER_TIMEOUT=30, **_BROKER
    ) | _broker(factor)


def worker_settings(factor: float) -> dict[str, str]:
    """Likewise of the worker. The engine's silence is not: its process shares our busy cores."""
    return _divided(
        factor,
        HEARTBEAT_INTERVAL=1,
        HEARTBEAT_IDLE=10,
        SPOOL_TIME=600,
        RETRY_PAUSE=1,
        BREAKER_PROBE=5,
        DRAIN_TIMEOUT=600,
        **_BROKER,
    ) | _broker(factor)


_BROKER = {"RECONNECT_MAX": 30.0, "STALL_AFTER": 60.0}


def _broker(factor: float) -> dict[str, str]:
    return {
        "ITEMFORGE_AMQP_HEARTBEAT": str(max(1, round(30 / factor))),
        "ITEMFORGE_RETRY_SCALE": str(min(1.0, 1 / factor)),
        "ITEMFORGE_LOG_LEVEL": "warning",
        "ITEMFORGE_LOG_FORMAT": "json",
    }


def _divided(factor: float, **seconds: float) -> dict[str, str]:
    return {f"ITEMFORGE_{name}": f"{value / factor:.3f}" for name, value in seconds.items()}


class Fleet:
    """All processes, for one run. `folder` holds their logs, homes and pictures."""

    def __init__(self, options: Options, services: rig.Services, folder: Path, exits: ExitStack) -> None:
        self._options = options
        clean = {k: v for k, v in os.environ.items() if not k.startswith(rig.FOREIGN)}
        common = {
            **clean,
            "ITEMFORGE_AMQP_URL": services.amqp_url,
            "ITEMFORGE_STORAGE_URL": (folder / "objects").as_uri(),
        }
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        home = {"ITEMFORGE_HOME": str(folder / "gateway"), "DATABASE_URL": services.database_url}
        env = {**common, **home, **gateway_settings(options.factor)}
        itemforge = [sys.executable, "-m", "itemforge"]
        subprocess.run([*itemforge, "db", "upgrade"], env=env, cwd=folder, check=True)
        gateway = Service([*itemforge, "gateway", "--port", str(port)], folder / "gateway.log", env, folder)
        exits.callback(gateway.stop)
        gateway.wait_until(self._answers, 120)
        workers = {
            **common,
            "ITEMFORGE_HOME": str(folder / "workers"),
            "API_GATEWAY_URL": self.address,
            **worker_settings(options.factor),
            GPU: options.gpu,
            FACTOR: str(options.factor),
            FOLDER: str(folder),
        }
        self.hosts = Hosts(folder, workers, options.factor)
        exits.callback(self.hosts.stop)
        self.accepted: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.late: list[float] = []
        roots = {
            "gateway": [gateway.pid],
            "postgres": [services.postgres.pid],
            "rabbit": [services.rabbit.pid],
        }
        self.watch = Watch(
            services.database_url,
            services.amqp_url,
            services.rabbit.management,
            self.hosts,
            roots,
            folder,
            self.accepted,
        )

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/readyz", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    async def day(self) -> float:
        """Start the workers, play the day, wait until every request has ended; how long the rest took."""
        options = self._options
        self.hosts.start(options.workers, OF_EACH)
        await self._all_ready(600)
        await self.watch.begin()
        _say(f"the day begins: {options.jobs:,.0f} requests expected in {options.length:.0f} s")
        watching = asyncio.create_task(self.watch.run())
        telling = asyncio.create_task(self._tell())
        try:
            await asyncio.gather(self._arrivals(), *self._losses())
            await self._all_ended()
        finally:
            watching.cancel()
            telling.cancel()
            await asyncio.gather(watching, telling, return_exceptions=True)
        await self.watch.look()
        return time.time() - self.watch.began - options.length

    async def _all_ready(self, within: float) -> None:
        """Until the gateway has heard from all workers that they take jobs."""
        deadline = time.monotonic() + within
        async with httpx.AsyncClient(base_url=self.address, trust_env=False, timeout=30) as http:
            while True:
                known = (await http.get("/v1/workers")).raise_for_status().json()
                ready = sum(worker["live"] and worker["state"] == "ready" for worker in known)
                if ready >= self._options.workers:
                    return
                if broken := self.hosts.broken():
                    raise SystemExit(f"{broken} ended by themselves; see their logs in {self.watch.folder}")
                if time.monotonic() > deadline:
                    raise SystemExit(f"{ready} workers were ready after {within:g} s")
                await asyncio.sleep(0.5)

    async def _arrivals(self) -> None:
        options = self._options
        tasks = []
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        async with httpx.AsyncClient(
            base_url=self.address, trust_env=False, timeout=30, limits=limits
        ) as http:
            for arrival in fleet_day.arrivals(options.jobs, options.seed):
                due = self.watch.began + arrival.at * options.length
                await asyncio.sleep(max(0.0, due - time.time()))
                self.late.append(time.time() - due)
                tasks.append(asyncio.create_task(self._submit(http, arrival.style)))
            await asyncio.gather(*tasks)

    async def _submit(self, http: httpx.AsyncClient, style: str) -> None:
        """Once accepted it must end. With an id of our own, so that it may be sent again after a lost answer."""
        request_id = str(uuid.uuid4())
        body = {"prompt": "a red apple", "style": style, "num_inference_steps": STEPS}
        deadline = time.monotonic() + INSIST
        while True:
            try:
                answer = await http.put(f"/v1/generations/{request_id}", json=body)
            except httpx.TransportError as error:
                reason = type(error).__name__
            else:
                if answer.is_success:
                    self.accepted.add(request_id)
                    return
                reason = str(answer.status_code)
                if answer.status_code < 500:
                    deadline = 0.0  # it will not be taken later either
            if time.monotonic() > deadline:
                self.refused[reason] += 1
                return
            await asyncio.sleep(0.5)

    def _losses(self) -> list[Any]:
        async def one(loss: fleet_day.Loss) -> None:
            due = self.watch.began + loss.at * self._options.length
            await asyncio.sleep(max(0.0, due - time.time()))
            await self.hosts.lose(loss)

        options = self._options
        return [one(loss) for loss in fleet_day.losses(options.losses, self.hosts.size, options.seed)]

    async def _all_ended(self) -> None:
        """Until no request is open, or for too long none has ended: longer than the sweeper and the longest
        retry take.
        """
        patience = 60 + (900 + 2 * 60 + 600) / self._options.factor
        ended, since = -1.0, time.monotonic()
        while True:
            now = self.watch.samples[-1].database
            if not now["waiting"] + now["processing"] and now["ended"] >= len(self.accepted):
                return
            if now["ended"] > ended:
                ended, since = now["ended"], time.monotonic()
            elif time.monotonic() - since > patience:
                return
            await asyncio.sleep(1)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(15)
            s = self.watch.samples[-1]
            _say(
                f"{s.at:4.0f} s: {s.accepted} accepted, {s.database['ended']:.0f} ended, "
                f"{s.database['waiting']:.0f} waiting, {s.up} workers up"
            )


def _say(line: str) -> None:
    print(line, flush=True)


async def run(options: Options, services: rig.Services, folder: Path, exits: ExitStack) -> int:
    fleet = Fleet(options, services, folder, exits)
    rest = await fleet.day()
    rows = await fleet.watch.fetch(fleet_report.ROWS)
    jobs = fleet_report.jobs_of(rows, fleet.accepted, read_draws(folder), options.factor)
    # The figures are the day's: in the rest, nothing arrives.
    samples = [s for s in fleet.watch.samples if s.at <= options.length + 1]
    cores = len(os.sched_getaffinity(0))
    shares = fleet_report.shares(samples, options.factor, cores)
    verdict = fleet_report.verdict(shares, samples, options.factor, cores, options.workers)
    went = ", ".join(f"{n} × {kind}" for kind, n in sorted(fleet.hosts.went.items())) or "none"
    about = {**vars(options), "cores": cores, "went": f"{went} ({OF_EACH} workers each)"}
    table = fleet_report.table(jobs, samples, fleet.watch.samples[-1], shares, about)
    late = percentile(fleet.late, 0.99)
    notes = [
        *verdict,
        f"After the day's end the rest took {rest:.0f} s. Requests were sent at most {late * 1000:.0f} ms late (p99)"
        + (f"; not accepted: {dict(fleet.refused)}." if fleet.refused else "; all were accepted."),
    ]
    if jobs.reasons:
        notes.append(f"Failed: {jobs.reasons}.")
    for note in notes:
        table.note(note + "\n")
    text = f"{table.markdown()}\n{stamp()}\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.md").write_text(text)
    found = fleet_report.as_json(jobs, samples, shares, notes)
    (options.out / "report.json").write_text(json.dumps(found))
    from fleet_plot import draw

    draw(
        options.out / "fleet.png",
        fleet.watch.samples,
        rows,
        fleet.watch.began,
        options.length,
        options.factor,
        fleet.hosts.log,
    )
    _say(f"written: {options.out}/report.md, report.json, fleet.png")
    return 1 if jobs.lost else 0


def _options(argv: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=_positive, default=3.5, help="length of the day on the clock")
    parser.add_argument("--workers", type=_whole, default=50)
    parser.add_argument("--jobs-per-day", type=_positive, default=400_000, help="at factor 1")
    parser.add_argument("--factor", type=_positive, default=3.0, help="how much faster everything is")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gpu", choices=sorted(GPUS), default="t4")
    parser.add_argument("--losses", type=int, default=6, help="hosts that go in the run")
    parser.add_argument("--out", type=Path, default=Path("out/fleet"))
    return Options(**vars(parser.parse_args(argv)))


def _positive(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _whole(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    rig.quiet()
    with ExitStack() as exits:
        services = exits.enter_context(rig.services())
        folder = exits.enter_context(rig.folder())
        return asyncio.run(run(options, services, folder, exits))


if __name__ == "__main__":
    raise SystemExit(main())
