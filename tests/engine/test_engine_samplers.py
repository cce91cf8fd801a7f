"""Our linear step against the diffusers schedulers, with a cheap function in the UNet's place."""

from typing import Any

import numpy as np
import pytest
import torch
from drawing import REFERENCES, SD15_SCHEDULER

from itemforge.contract import Scheduler
from itemforge.engine.samplers import SCALE, TIMESTEP, Plan, Plans, advance, numbers_of
from itemforge.errors import ModelError

MIX = torch.randn(4, 4, generator=torch.Generator().manual_seed(3)) * 0.3


def model(sample: torch.Tensor, timestep: float) -> torch.Tensor:
    return torch.tanh(torch.einsum("oc,bchw->bohw", MIX, sample)) + 0.001 * timestep


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(seed))


def of_diffusers(
    config: dict[str, Any], scheduler: Scheduler, steps: int, start: torch.Tensor
) -> torch.Tensor:
    kind, options = REFERENCES[scheduler]
    theirs = kind.from_config(config, **options)
    theirs.set_timesteps(steps)
    sample = start * theirs.init_noise_sigma
    for timestep in theirs.timesteps:
        output = model(theirs.scale_model_input(sample, timestep), float(timestep))
        sample = theirs.step(output, timestep, sample).prev_sample
    return sample


def of_ours(plan: Plan, start: torch.Tensor) -> torch.Tensor:
    sample, previous = start * plan.start, torch.zeros_like(start)
    for step in range(len(plan.steps)):
        numbers = numbers_of([(plan, step)])
        output = model(sample * numbers[:, SCALE, None, None, None], float(numbers[0, TIMESTEP]))
        sample, previous = advance(sample, output, previous, numbers)
    return sample


@pytest.mark.parametrize("scheduler", list(Scheduler))
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing", None])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_the_whole_way_equals_the_diffusers_scheduler(
    scheduler: Scheduler, spacing: str | None, prediction: str, final: str
) -> None:
    config = {**SD15_SCHEDULER, "prediction_type": prediction, "final_sigmas_type": final}
    if spacing:
        config["timestep_spacing"] = spacing
    plans = Plans(config)

    for steps in (1, 2, 3, 14, 15, 50):
        expected = of_diffusers(config, scheduler, steps, noise(steps))
        got = of_ours(plans.plan(scheduler, steps), noise(steps))
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())), steps


def test_rows_of_all_samplers_and_places_advance_in_one_call_as_each_would_alone() -> None:
    plans = Plans(SD15_SCHEDULER)
    rows = [
        (plans.plan(Scheduler(name), steps), step)
        for name, steps, step in (
            ("ddim", 20, 3),
            ("dpmpp_2m_karras", 8, 0),
            ("dpmpp_2m_karras", 8, 5),
            ("euler", 30, 29),
        )
    ]
    latents, outputs, previous = (torch.cat([noise(n + k) for k in range(4)]) for n in (0, 10, 20))

    together = advance(latents, outputs, previous, numbers_of(rows))

    for n, one in enumerate(rows):
        alone = advance(latents[n : n + 1], outputs[n : n + 1], previous[n : n + 1], numbers_of([one]))
        for got, expected in zip(together, alone, strict=True):
            assert torch.equal(got[n : n + 1], expected)


def test_the_corrections_of_the_pipeline_are_made() -> None:
    old = Plans({**SD15_SCHEDULER, "steps_offset": 0, "clip_sample": True})
    new = Plans(SD15_SCHEDULER)

    for scheduler in Scheduler:
        assert np.array_equal(old.plan(scheduler, 9).steps, new.plan(scheduler, 9).steps)


def test_a_plan_is_made_once() -> None:
    plans = Plans(SD15_SCHEDULER)

    assert plans.plan(Scheduler.DDIM, 25) is plans.plan(Scheduler.DDIM, 25)


@pytest.mark.parametrize("asked", [{"prediction_type": "sample"}, {"thresholding": True}])
def test_what_is_not_implemented_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=next(iter(asked))):
        Plans({**SD15_SCHEDULER, **asked})
