"""DDIM, DPM++ 2M Karras and Euler as one linear step, so that rows of all three share one tensor operation.

With x the latents, m the UNet's output (after guidance) and d the denoised estimate, every step of the
three is

    input    = scale * x                                  what the UNet sees
    d        = d_x * x + d_m * m
    x_next   = n_x * x + n_m * m + n_d * d + n_p * d_prev

and only the seven numbers differ. They depend on sampler, steps and step alone, so they are computed
once for each (sampler, steps), in float64, from the sigmas and timesteps of the diffusers schedulers,
which stay the reference. The formulas and their sources stand in docs/engine.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from numpy.typing import NDArray
from torch import Tensor

from itemforge.contract import Scheduler
from itemforge.errors import ModelError

#: Columns of a plan's `steps`: timestep, then the numbers of the formulas above.
TIMESTEP, SCALE, D_X, D_M, N_X, N_M, N_D, N_P = range(8)
COLUMNS = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """The whole way of one row: `steps` is (number of steps, COLUMNS); noise starts at `start` times N(0, 1)."""

    steps: NDArray[np.float32]
    start: float


def advance(latents: Tensor, output: Tensor, previous: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """One step for N rows at once, each at its own place of its own plan.

    Shapes: `latents`, `output` and `previous` (the denoised estimates of the step before) are (N, C, h, w)
    in float32, `numbers` is (N, COLUMNS). Returns the next latents and the denoised estimates.
    """
    column = numbers[:, :, None, None, None].unbind(1)
    denoised = column[D_X] * latents + column[D_M] * output
    following = column[N_X] * latents + column[N_M] * output + column[N_D] * denoised + column[N_P] * previous
    return following, denoised


class Plans:
    """Plans of one model, made on demand and kept: there are at most 3 x 150 of them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """`config` is the model's scheduler_config.json.

        Raises:
            ModelError: the model wants a prediction type or thresholding that is not implemented.
        """
        self._config = _as_the_pipeline_reads_it(config)
        self._plans: dict[tuple[Scheduler, int], Plan] = {}
        self.max_steps = int(config.get("num_train_timesteps", 1000))

    def plan(self, scheduler: Scheduler, steps: int) -> Plan:
        key = (scheduler, steps)
        if key not in self._plans:
            self._plans[key] = _BUILDERS[scheduler](self._config, steps)
        return self._plans[key]


def _as_the_pipeline_reads_it(config: Mapping[str, Any]) -> dict[str, Any]:
    """StableDiffusionPipeline corrects two old settings whatever the file says; so do we."""
    if (prediction := config.get("prediction_type", "epsilon")) not in ("epsilon", "v_prediction"):
        raise ModelError(f"the model's prediction_type is {prediction!r}; only epsilon and v_prediction work")
    if config.get("thresholding"):
        raise ModelError("the model's scheduler asks for thresholding, which latent models must not use")
    return {**config, "clip_sample": False, "steps_offset": 1}


def _ddim(config: dict[str, Any], steps: int) -> Plan:
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.numpy()
    alphas: Floats = scheduler.alphas_cumprod.double().numpy()
    before = times - scheduler.config.num_train_timesteps // steps
    alpha = alphas[times]
    alpha_next = np.where(before >= 0, alphas[np.maximum(before, 0)], float(scheduler.final_alpha_cumprod))
    noise_next = np.sqrt(1 - alpha_next)
    if _predicts_v(config):
        d_x, d_m = np.sqrt(alpha), -np.sqrt(1 - alpha)
        n_x, n_m = noise_next * np.sqrt(1 - alpha), noise_next * np.sqrt(alpha)
    else:
        d_x, d_m = 1 / np.sqrt(alpha), -np.sqrt(1 - alpha) / np.sqrt(alpha)
        n_x, n_m = np.zeros_like(alpha), noise_next
    return _plan(times, scheduler, 1.0, d_x, d_m, n_x, n_m, np.sqrt(alpha_next), 0.0)


def _dpmpp_2m_karras(config: dict[str, Any], steps: int) -> Plan:
    scheduler = DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="dpmsolver++", solver_order=2, use_karras_sigmas=True
    )
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.numpy()
    sigmas: Floats = scheduler.sigmas.double().numpy()  # steps + 1 of them, the last may be 0
    alpha = 1 / np.sqrt(sigmas**2 + 1)
    noise = sigmas * alpha
    with np.errstate(divide="ignore"):
        log_snr = -np.log(sigmas)  # infinite where sigma is 0, and then exp(-h) is 0, as it should be
    h = np.diff(log_snr)
    n_x = noise[1:] / noise[:-1]
    n_d = -alpha[1:] * np.expm1(-h)
    # d + (d - d_prev) / (2 r), r = h_prev / h, where a second order step is taken; else d alone.
    second = _second_order(scheduler, len(times))
    extra = np.zeros_like(h)
    extra[1:][second[1:]] = (h[1:] / h[:-1])[second[1:]] / 2
    if _predicts_v(config):
        d_x, d_m = alpha[:-1], -noise[:-1]
    else:
        d_x, d_m = 1 / alpha[:-1], -noise[:-1] / alpha[:-1]
    return _plan(times, scheduler, 1.0, d_x, d_m, n_x, 0.0, n_d * (1 + extra), -n_d * extra)


def _second_order(scheduler: Any, steps: int) -> NDArray[np.bool_]:
    """Which steps look back: not the first, and the last only where diffusers finds it stable."""
    config = scheduler.config
    second = np.ones(steps, dtype=bool)
    second[0] = False
    if (
        config.euler_at_final
        or (config.lower_order_final and steps < 15)
        or config.final_sigmas_type == "zero"
    ):
        second[-1] = False
    return second


def _euler(config: dict[str, Any], steps: int) -> Plan:
    scheduler = EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.numpy()
    sigmas: Floats = scheduler.sigmas.double().numpy()
    sigma, move = sigmas[:-1], np.diff(sigmas)
    scale = 1 / np.sqrt(sigma**2 + 1)
    if _predicts_v(config):
        d_x, d_m = scale**2, -sigma * scale
        n_x, n_m, n_d = 1 + move / sigma, np.zeros_like(sigma), -move / sigma
    else:
        d_x, d_m = np.ones_like(sigma), -sigma
        n_x, n_m, n_d = np.ones_like(sigma), move, np.zeros_like(sigma)
    return _plan(times, scheduler, scale, d_x, d_m, n_x, n_m, n_d, 0.0)


def _predicts_v(config: Mapping[str, Any]) -> bool:
    return bool(config.get("prediction_type") == "v_prediction")


def _plan(times: NDArray[Any], scheduler: Any, *columns: Floats | float) -> Plan:
    parts = [np.broadcast_to(np.asarray(column, np.float64), times.shape) for column in (times, *columns)]
    return Plan(np.stack(parts, axis=1).astype(np.float32), float(scheduler.init_noise_sigma))


_BUILDERS: dict[Scheduler, Callable[[dict[str, Any], int], Plan]] = {
    Scheduler.DDIM: _ddim,
    Scheduler.DPMPP_2M_KARRAS: _dpmpp_2m_karras,
    Scheduler.EULER: _euler,
}


def numbers_of(plans: list[tuple[Plan, int]]) -> Tensor:
    """The numbers of each row's next step, (N, COLUMNS) float32 on the CPU."""
    return torch.from_numpy(np.stack([plan.steps[step] for plan, step in plans]))
