"""What ITEMFORGE_QUALITY lets the engine leave out, and that nothing else changes."""

from pathlib import Path

import pytest
from drawing import Calls, levels_apart, of, row, run

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.model import Model
from itemforge.engine.quality import LEVELS, Quality
from itemforge.engine.rows import Finished, Progress
from itemforge.settings import EngineSettings


@pytest.mark.parametrize(
    ("quality", "asked", "taken"),
    [
        ("exact", 25, 25),
        ("exact", 1, 1),
        ("standard", 25, 15),
        ("standard", 50, 30),
        ("standard", 20, 15),
        ("standard", 15, 15),
        ("standard", 4, 4),
        ("draft", 25, 10),
        ("draft", 20, 8),
        ("draft", 8, 8),
        ("draft", 1, 1),
    ],
)
def test_a_level_takes_so_many_steps(quality: Quality, asked: int, taken: int) -> None:
    assert LEVELS[quality].steps(asked) == taken


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_a_draft_is_the_exact_picture_of_fewer_steps(starter: Model, scheduler: Scheduler) -> None:
    calls = Calls()
    engine = Engine(starter, quality="draft", on_unet_call=calls)
    engine.submit(row(steps=20, scheduler=scheduler))

    events = run(engine)

    assert len(calls.made) == 8
    progress = [event for event in of(events, "a") if isinstance(event, Progress)]
    assert progress == [Progress("a", n, 8) for n in range(1, 9)], "progress ends at its end"
    finished = events[-1]
    assert isinstance(finished, Finished)
    exact = Engine(starter).draw(row(steps=8, scheduler=scheduler))
    assert levels_apart(finished.pixels, exact.pixels) == 0
    assert (finished.recipe.quality, finished.recipe.steps) == ("draft", 20), "as it was asked for"


def test_the_golden_picture_is_drawn_exactly_at_every_level(tmp_path: Path) -> None:
    engine = Engine.load(EngineSettings(home=tmp_path, device="cpu", quality="draft", dtype="float32"))

    assert (tmp_path / "cache" / "warmup").is_dir()
    engine.submit(row(steps=20))
    progress = [event for event in run(engine) if isinstance(event, Progress)]
    assert [event.steps for event in progress] == [8] * 8, "and the rows after it are drafts"
