"""Rows that share UNet calls do not change one another's pictures."""

from dataclasses import replace

import pytest
import torch
from drawing import Calls, levels_apart, of, pictures, row, run

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.model import Model
from itemforge.engine.rows import Cancelled, Finished, Progress

LONG = "a very long list of things: an apple, a key, a dog, a cake, a fish, a boat, a hat, a tree, " * 5


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_a_row_among_seven_neighbours_that_come_and_go_equals_its_lone_picture(
    starter: Model, scheduler: Scheduler
) -> None:
    observed = row("observed", scheduler=scheduler, steps=16, guidance=6.0, seed=11, prompt="a golden key")
    others = [
        (0, row("early", steps=12, guidance=7.5, seed=1, scheduler=Scheduler.EULER)),
        (1, row("unguided", steps=20, guidance=1.0, seed=2, prompt="dog face")),
        (2, row("below", steps=9, guidance=0.0, seed=3, scheduler=Scheduler.DPMPP_2M_KARRAS)),
        (3, row("long", steps=6, seed=4, prompt=LONG)),
        (4, row("negative", steps=15, seed=5, negative_prompt="dark, blurry", guidance=12.0)),
        (5, row("cancelled", steps=30, seed=6, scheduler=Scheduler.EULER)),
        (9, row("late", steps=5, seed=8, prompt="a (blue:1.4) fish")),
    ]
    calls = Calls()
    engine = Engine(starter, on_unet_call=calls)
    engine.submit(observed)

    def come_and_go(n: int) -> None:
        for at, other in others:
            if at == n:
                engine.submit(other)
        if n == 12:
            engine.cancel("cancelled")

    events = run(engine, come_and_go)

    drawn = pictures(events)
    assert set(drawn) == {"observed", "early", "unguided", "below", "long", "negative", "late"}
    assert of(events, "cancelled")[-1] == Cancelled("cancelled")
    shared = [set(timesteps) for rows, timesteps in calls.made if "observed" in rows]
    assert max(map(len, shared)) >= 4, "at least four rows at different timesteps share one call"
    for wanted in (observed, others[1][1], others[3][1]):
        lone = Engine(starter).draw(replace(wanted, row_id="lone")).pixels
        assert levels_apart(drawn[wanted.row_id], lone) <= 1, wanted.row_id


def test_every_step_of_every_row_is_told_once_and_in_order(starter: Model) -> None:
    engine = Engine(starter)
    for wanted in (row("a", steps=3), row("b", steps=5), row("c", steps=1)):
        engine.submit(wanted)

    events = run(engine)

    for row_id, steps in (("a", 3), ("b", 5), ("c", 1)):
        told = of(events, row_id)
        progress = [event for event in told if isinstance(event, Progress)]
        assert progress == [Progress(row_id, n, steps) for n in range(1, steps + 1)]
        assert isinstance(told[-1], Finished)


def test_rows_of_other_sizes_and_text_lengths_take_turns(starter: Model) -> None:
    calls = Calls()
    engine = Engine(starter, on_unet_call=calls)
    for wanted in (row("square"), row("wide", width=96), row("long", prompt=LONG), row("square too")):
        engine.submit(wanted)

    drawn = pictures(run(engine))

    assert drawn["wide"].shape == (64, 96, 3)
    assert {rows for rows, _ in calls.made} == {("square", "square too"), ("wide",), ("long",)}
    assert [rows[0] for rows, _ in calls.made[:3]] == ["square", "wide", "long"]


def test_more_rows_than_places_wait_and_move_up(starter: Model) -> None:
    calls = Calls()
    engine = Engine(starter, batch_size=2, on_unet_call=calls)
    for n, steps in enumerate((2, 4, 2)):
        engine.submit(row(str(n), steps=steps, seed=n))

    drawn = pictures(run(engine))

    assert [rows for rows, _ in calls.made] == [("0", "1"), ("0", "1"), ("1", "2"), ("1", "2")]
    assert len(drawn) == 3


def test_a_row_without_guidance_takes_one_place_and_one_with_guidance_two(starter: Model) -> None:
    places = []
    hook = starter.parts.unet.register_forward_pre_hook(lambda unet, inputs: places.append(len(inputs[0])))
    engine = Engine(starter)
    for wanted in (row("plain", guidance=1.0, steps=1), row("guided", guidance=1.01, steps=1)):
        engine.submit(wanted)

    run(engine)
    hook.remove()

    assert places == [3]


def test_a_row_that_becomes_nan_fails_alone(starter: Model) -> None:
    engine = Engine(starter, on_unet_call=(calls := Calls()))
    for n in range(3):
        engine.submit(row(str(n), steps=3, seed=n))

    def poison(unet: torch.nn.Module, inputs: tuple, output: tuple) -> tuple:
        if len(calls.made) == 2:
            output[0][3 + 1] = float("nan")  # the half with text of the second of three guided rows
        return output

    hook = starter.parts.unet.register_forward_hook(poison)
    events = run(engine)
    hook.remove()

    failed = of(events, "1")[-1]
    assert "not-a-number after step 2" in failed.error
    assert not failed.retryable, "in float32 another try gives the same"
    drawn = pictures(events)
    assert set(drawn) == {"0", "2"}
    assert levels_apart(drawn["2"], Engine(starter).draw(row(steps=3, seed=2)).pixels) <= 1


@pytest.mark.parametrize("running", [0, 1, 2, 3, 4, 5, 6])
def test_a_row_that_arrives_while_seven_run_has_its_first_step_within_two(
    starter: Model, running: int
) -> None:
    engine = Engine(starter, batch_size=8)
    for n in range(7):
        engine.submit(row(str(n), steps=3 + n, seed=n))
    for _ in range(2 + running):  # so that from the second case on rows are through and wait to be decoded
        engine.step()
    engine.submit(row("late", steps=2))

    events = engine.step() + engine.step()

    assert Progress("late", 1, 2) in events
