"""How fast `POST /v1/generations` is, against a plain gateway written as the original one is.

    .venv/bin/python bench/gateway.py [--quick] [--seconds 5] [--rounds 2]

Both run as processes of their own on one durable PostgreSQL and one RabbitMQ, and get the same body from
the same load process: closed loops at several concurrencies, then one open loop at an equal rate. Rounds
alternate between the two. Ours commits, answers, and publishes beside; the plain one commits and publishes in
the request. `all published` runs ours with a window so wide that it publishes every row meanwhile, too.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import bench_rig as rig
import psutil
from load import Load

BODY = json.dumps(
    {
        "prompt": "a red apple on a wooden plate",
        "negative_prompt": "blurry",
        "num_inference_steps": 25,
        "guidance_scale": 7.5,
        "seed": 7,
    }
)
Start = Callable[[rig.Services, Path], AbstractContextManager[str]]
WIDE = {"ITEMFORGE_RELAY_WINDOW": "10000000"}
GATEWAYS: dict[str, tuple[Start, str]] = {
    "plain": (rig.seed_gateway, "/generate"),
    "ours": (rig.gateway, "/v1/generations"),
    "ours, all published": (lambda s, home: rig.gateway(s, home, **WIDE), "/v1/generations"),
}


@dataclass(frozen=True)
class Run(Load):
    """`cpu` is the gateway's own processor time, in milliseconds a request; PostgreSQL's is not in it."""

    cpu: float


def load(url: str, seconds: float, **how: float) -> Run:
    """One run of bench/load.py."""
    (gateway,) = (p for p in psutil.Process().children() if {"gateway", "--port"} & set(p.cmdline()))
    before = gateway.cpu_times()
    flags = [f"--{name}={value}" for name, value in {"seconds": seconds, **how}.items()]
    command = [sys.executable, str(rig.ROOT / "bench/load.py"), url, "--body", BODY, *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = gateway.cpu_times()
    answers = json.loads(done.stdout)
    spent = after.user + after.system - before.user - before.system
    return Run(**answers, cpu=spent * 1000 / answers["sent"])


def measure(
    seconds: float, rounds: int, concurrencies: list[int], rate: float
) -> dict[str, dict[str, list[Run]]]:
    """Runs by gateway and load. Every gateway gets a database and a vhost of its own."""
    runs: dict[str, dict[str, list[Run]]] = {name: defaultdict(list) for name in GATEWAYS}
    with rig.durable_postgres() as server, rig.rabbit_node() as node:
        for _ in range(rounds):
            for name, (start, path) in GATEWAYS.items():
                with (
                    rig.folder() as home,
                    rig.fresh(server, node) as services,
                    start(services, home) as address,
                ):
                    url = address + path
                    load(url, min(1.0, seconds), concurrency=4)  # warm: imports, pools, plans
                    for concurrency in concurrencies:
                        runs[name][f"closed, {concurrency}"].append(
                            load(url, seconds, concurrency=concurrency)
                        )
                    runs[name][f"open, {rate:g}/s"].append(load(url, seconds, rate=rate))
    return runs


def table(runs: dict[str, dict[str, list[Run]]]) -> str:
    lines = [
        "| load | gateway | requests/s | p50 ms | p99 ms | CPU ms/request | not 2xx | throughput to plain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in runs["plain"]:
        plain = statistics.median(run.per_second for run in runs["plain"][kind])
        for name, kinds in runs.items():
            found = kinds[kind]
            rate, p50, p99, cpu = (
                statistics.median(getattr(run, field) for run in found)
                for field in ("per_second", "p50", "p99", "cpu")
            )
            wrong = sum(run.wrong for run in found)
            lines.append(
                f"| {kind} | {name} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {cpu:.2f} | {wrong} | {rate / plain:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a second, to see that it runs")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--rate", type=float, default=60.0, help="of the open loop, requests a second")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds, options.concurrency, options.rate = 0.3, 1, [2], 10.0
    print(f"POST /v1/generations, {rig.machine()}\n", flush=True)
    print(table(measure(options.seconds, options.rounds, options.concurrency, options.rate)))


if __name__ == "__main__":
    main()
