"""The bench of training speed measures two ways of the same learning; how fast they are is no test's business."""

from dataclasses import replace
from pathlib import Path

import gpu
import pytest
import torch
import train_speed

CPU = torch.device("cpu")


def test_both_ways_are_measured_at_both_sizes_of_batches(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    train_speed.main(["--pictures", "4", "--rounds", "1", "--out", str(out)])
    cells = [line.strip("| ").split(" | ") for line in out.read_text().splitlines() if line.startswith("|")]
    rows = cells[2:]
    assert [row[1] for row in rows] == ["1"] * 4 + ["4"] * 4
    assert [row[3] for row in rows if row[0] == train_speed.EXAMPLE] == ["1.00", "1.00"]
    assert all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows)
    assert "differ by" in out.read_text()


@pytest.fixture
def rig(tmp_path: Path) -> train_speed.Rig:
    samples = train_speed.write_pictures(tmp_path, 4, 64)
    return train_speed.Rig(train_speed.starter(), train_speed.settings(tmp_path, 64), samples, CPU)


def test_both_ways_compute_the_same_loss_from_the_same_quantities(rig: train_speed.Rig) -> None:
    assert train_speed.disagreement(rig) < 1e-5


def test_a_loss_that_is_weighted_otherwise_is_seen(
    rig: train_speed.Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train_example.compute_snr", lambda scheduler, times: torch.full((len(times),), 9.0))
    assert train_speed.disagreement(rig) > 1e-3


def test_the_form_for_a_gpu_runs_with_tiny_shapes(rig: train_speed.Rig) -> None:
    """Random weights of SD 1.5's structure, on a CPU."""
    table = train_speed.measure(replace(rig, parts=train_speed.random_weights(gpu.TINY)), rounds=1)
    assert table.markdown().count(f"| {train_speed.OURS} | ") == 2
