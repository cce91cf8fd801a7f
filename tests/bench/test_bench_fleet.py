"""A fleet in small: the figures of its report fit together, and the judge of lost requests can find some."""

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import fleet
import fleet_day
import fleet_report
import pytest
from fleet_engine import GPUS

from services import postgres, rabbitmq
from services.process import unavailable

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.mark.slow
@pytest.mark.timeout(900)  # two minutes on an idle machine
def test_a_fleet_whose_hosts_go_loses_nothing_and_its_figures_fit_together(tmp_path: Path) -> None:
    if postgres.find_binaries() is None or rabbitmq.find_server() is None:
        unavailable("the fleet has a PostgreSQL and a RabbitMQ of its own")
    out = tmp_path / "out"
    command = [sys.executable, str(BENCH / "fleet.py"), "--minutes", "0.5", "--workers", "7", "--factor", "4"]
    done = subprocess.run(
        [*command, "--jobs-per-day", "60000", "--seed", "3", "--losses", "3", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (out / "fleet.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((out / "report.json").read_text())
    jobs, samples = report["jobs"], report["samples"]
    sent = len(fleet_day.arrivals(60000 * 30 * 4 / 86400, seed=3))
    assert jobs["lost"] == 0
    assert jobs["accepted"] == jobs["rows"] == sent > 50
    assert jobs["accepted"] == jobs["completed"] + jobs["failed"]
    assert jobs["completed"] == sum(jobs["attempts"].values()) == len(jobs["waits"])
    assert jobs["drawn"] - jobs["again"] >= jobs["completed"]
    assert all(0 <= wait <= turn for wait, turn in zip(jobs["waits"], jobs["turnarounds"], strict=True))
    assert samples[-1]["broker"]["publish"] >= samples[-1]["broker"]["ack"] > 0
    assert samples[-1]["cpu"]["machine"] > samples[-1]["cpu"]["gateway"] > 0
    assert all(0 < share["mean"] <= share["peak"] for share in report["shares"])
    assert min(sample["up"] for sample in samples) < 7, "hosts went"
    assert "what limits first" in (out / "report.md").read_text()


def _row(name: str, status: str = "Completed", error: str | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "status": status,
        "error": error,
        "attempt": 1,
        "created": 10.0,
        "claimed": 11.0,
        "finished": 14.0,
    }


def test_whatever_did_not_end_is_lost() -> None:
    rows = [
        _row("a"),
        _row("b", "Failed", "no such style"),
        _row("c", "Failed"),
        _row("d", "Processing"),
        _row("e", "Cancelled"),
    ]
    draws = ["a/1/0", "a/2/0", "a/2/0", "d/1/0"]
    jobs = fleet_report.jobs_of(rows, {*"abcdef"}, draws, factor=3.0)
    assert (jobs.accepted, jobs.completed, jobs.failed, jobs.lost) == (6, 1, 1, 4)
    assert (jobs.drawn, jobs.again, jobs.useless) == (4, 2, 1)
    assert jobs.waits == [3.0] and jobs.turnarounds == [12.0]


def test_a_day_follows_from_its_seed_and_has_the_curves_shape() -> None:
    day = fleet_day.arrivals(20_000, seed=5)
    assert day == fleet_day.arrivals(20_000, seed=5) != fleet_day.arrivals(20_000, seed=6)
    assert abs(len(day) - 20_000) < 6 * 20_000**0.5
    assert all(0 <= one.at <= other.at < 1 for one, other in pairwise(day))
    hours = Counter(int(arrival.at * 24) for arrival in day)
    evening, morning = (sum(hours[h] for h in range(a, a + 4)) for a in (18, 6))
    assert 2.5 < evening / morning < 6, "1.6 to 0.4 of the mean, with noise"
    losses = fleet_day.losses(7, 10, seed=5)
    assert Counter(loss.kind for loss in losses) == {"kill": 3, "freeze": 2, "drain": 2}


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_a_card_takes_what_was_published(gpu: Any) -> None:
    for batch, rate in gpu.rates:
        assert gpu.step(batch) == pytest.approx(1 / rate)
    steps = [gpu.step(batch) for batch in range(1, 33)]
    assert steps == sorted(steps) and steps[0] > 0
    assert gpu.images_a_second(8, 50) < 8 / (50 * gpu.step(8))


def test_one_factor_divides_every_interval() -> None:
    real, fast = fleet.gateway_settings(1), fleet.gateway_settings(6)
    assert float(real["ITEMFORGE_LEASE"]) == 6 * float(fast["ITEMFORGE_LEASE"]) == 30
    assert float(fast["ITEMFORGE_SWEEP_INTERVAL"]) == 10
    real, fast = fleet.worker_settings(1), fleet.worker_settings(6)
    assert float(fast["ITEMFORGE_HEARTBEAT_INTERVAL"]) == pytest.approx(1 / 6, abs=0.001)
    assert int(fast["ITEMFORGE_AMQP_HEARTBEAT"]) == 5
    assert float(fast["ITEMFORGE_RETRY_SCALE"]) == pytest.approx(1 / 6)
