"""The loop of a stage: where it goes on, when it stops, what is on disk meanwhile."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from itemforge.errors import InvalidInput
from itemforge.training.config import Steps
from itemforge.training.stage import Run, generator, load_state, rate_at, save_state


class Counting:
    """Counts its steps; `at` is called at each."""

    name = "counting"

    def __init__(self, steps: int, at: Any = lambda done: None) -> None:
        self.steps, self.done, self._at = steps, 0, at

    def step(self) -> dict[str, float]:
        self.done += 1
        self._at(self.done)
        return {"loss": float(self.done)}

    def state(self) -> dict[str, Any]:
        return {"done": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        self.done = state["done"]


def _run(folder: Path, **more: Any) -> tuple[Run, list[tuple[str, int, int, dict[str, float]]]]:
    told: list[tuple[str, int, int, dict[str, float]]] = []
    return Run(folder, lambda *each: told.append(each), **more), told


def test_a_stage_runs_to_its_end_and_not_again(tmp_path: Path) -> None:
    run, told = _run(tmp_path)
    assert run.train(Counting(5))
    assert [(name, done, steps) for name, done, steps, _ in told] == [("counting", 5, 5)]
    assert told[0][3]["loss"] == pytest.approx(3.0), "the mean since the last time"
    again = Counting(5, at=lambda done: pytest.fail("it is through"))
    assert run.train(again) and again.done == 5


def test_a_signal_ends_it_after_the_step_with_its_state(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run, _ = _run(tmp_path)
    stage = Counting(100, at=lambda done: os.kill(os.getpid(), signal.SIGTERM) if done == 7 else None)
    assert not run.train(stage)
    assert stage.done == 7 and load_state(tmp_path / "counting.state") == {"done": 7}
    assert signal.getsignal(signal.SIGTERM) is before
    assert not run.train(Counting(100)), "and nothing else is begun"
    later, _ = _run(tmp_path)
    assert later.train(went_on := Counting(100)) and went_on.done == 100


def test_its_time_ends_it_too(tmp_path: Path) -> None:
    run, _ = _run(tmp_path, until=time.monotonic() - 1)
    assert not run.train(stage := Counting(3)) and stage.done == 0


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    save_state(tmp_path / "counting.state", {"done": 3})
    whole = (tmp_path / "counting.state").read_bytes()
    (tmp_path / "counting.state").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match="delete it to begin the stage again"):
        _run(tmp_path)[0].train(Counting(5))


def test_a_state_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "counting.state").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InvalidInput):
        _run(tmp_path)[0].train(Counting(5))
    assert not (tmp_path / "ran").exists()


def test_the_rate_rises_and_falls(tmp_path: Path) -> None:
    config = Steps(steps=110, batch_size=1, learning_rate=1e-3, warmup=10)
    rates = [rate_at(config, step) for step in range(110)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.001)


def test_chance_is_a_steps_own() -> None:
    numbers = {int(generator(seed, step).initial_seed()) for seed in range(5) for step in range(100)}
    assert len(numbers) == 500
