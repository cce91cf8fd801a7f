"""Every script of the gateway's side runs and prints its table. How fast anything is, is no test's business."""

import subprocess
import sys
from pathlib import Path

import pytest

from services import postgres, rabbitmq
from services.process import unavailable

BENCH = Path(__file__).resolve().parents[2] / "bench"


def _rows(script: str, *flags: str) -> list[list[str]]:
    """The cells of the printed table, without its head."""
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--quick", *flags], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(autouse=True)
def _services_are_here() -> None:
    if postgres.find_binaries() is None or rabbitmq.find_server() is None:
        unavailable("the benchmarks start a PostgreSQL and a RabbitMQ of their own")


def test_the_gateway_bench_serves_every_load_without_a_wrong_answer() -> None:
    rows = _rows("gateway.py")
    assert {row[1] for row in rows} == {"plain", "ours", "ours, all published"}
    assert all(float(row[2]) > 0 and row[6] == "0" for row in rows), rows


def test_the_overhead_bench_completes_its_jobs() -> None:
    (row,) = _rows("overhead.py")
    assert row[0] == "10" and all(float(cell) > 0 for cell in row[1:4]), row


def test_the_growth_bench_measures_both_databases() -> None:
    rows = _rows("growth.py")
    assert [row[0] for row in rows] == ["postgresql"] * 2 + ["sqlite"] * 2
    assert all(float(row[2]) > 0 for row in rows), rows
