"""Choose device, dtype, memory format and use of the cores by a short measurement, not by a guess.

Which dtypes may be chosen at all is a matter of quality: on the CPU `exact` is float32. torch.compile is
not used: rows join and leave, so the batch changes its size all the time, and every size would cost
a compilation of minutes.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog
import torch

from itemforge.engine.cores import Cores
from itemforge.engine.model import Model, place
from itemforge.engine.quality import LEVELS
from itemforge.errors import ConfigurationError
from itemforge.settings import EngineSettings
from itemforge.styles.files import write_atomic

log = structlog.get_logger(__name__)

#: Places of the UNet's batch in a measurement: four guided rows, half of the usual batch. With fewer, what is
#: best for a lone row would be chosen.
PLACES = 8
#: A call that takes longer than this (seconds) is not repeated.
LONG = 1.0
#: How much faster a coarser dtype, or another layout or use of the cores, must be to be worth it; below
#: that it is noise.
WORTH_DTYPE, WORTH_CHANGE = 1.15, 1.05

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Measured:
    """Seconds of one UNet call with PLACES places at native size, shared out among `cores`."""

    dtype: str
    layout: str
    cores: int
    seconds: float


@dataclass(frozen=True)
class WarmUp:
    """What was chosen, and the measurements that it was chosen by."""

    device: str
    dtype: str
    layout: str
    cores: int
    measured: tuple[Measured, ...]


def pick_device(setting: str) -> torch.device:
    """The device for ITEMFORGE_DEVICE.

    Raises:
        ConfigurationError: it is not a device, or not there.
    """
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(setting)
    except RuntimeError:
        raise ConfigurationError(f"ITEMFORGE_DEVICE is {setting!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"ITEMFORGE_DEVICE is {setting!r}; only cpu and cuda are supported")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(f"ITEMFORGE_DEVICE is {setting!r}, but PyTorch sees no such GPU here")
    return device


def dtypes(settings: EngineSettings, device: torch.device) -> list[torch.dtype]:
    """The dtypes that may be chosen, the most faithful first."""
    if settings.dtype != "auto":
        return [getattr(torch, settings.dtype)]
    if device.type == "cuda":
        return [torch.float16, torch.bfloat16]
    return [torch.float32, torch.bfloat16] if LEVELS[settings.quality].coarse else [torch.float32]


def warm_up(model: Model, settings: EngineSettings, beat: Callable[[str, float], None]) -> WarmUp:
    """Measure, choose, and leave the model placed as chosen. `beat` hears of every measurement.

    The choice is remembered at home, because memory formats differ in the last bit: the same machine
    should draw the same pixels tomorrow, even where two formats are equally fast.
    """
    conditions = _conditions(model.device, settings)
    path = settings.home / "cache" / "warmup" / f"{model.base}-{settings.quality}-{settings.dtype}.json"
    if (chosen := _remembered(path, conditions)) is None:
        chosen = _choose(model, settings, beat)
        try:
            write_atomic(path, json.dumps({"conditions": conditions, "chosen": asdict(chosen)}).encode())
        except OSError as error:
            log.warning("warmup_not_remembered", file=str(path), error=str(error))
    place(model, model.device, getattr(torch, chosen.dtype), LAYOUTS[chosen.layout])
    return chosen


def _conditions(device: torch.device, settings: EngineSettings) -> dict[str, str | int]:
    """What a remembered choice depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "quality": settings.quality,
        "dtype": settings.dtype,
    }


def _remembered(path: Path, conditions: dict[str, str | int]) -> WarmUp | None:
    try:
        stored = json.loads(path.read_bytes())
        chosen = WarmUp(**stored["chosen"])
        measured = tuple(Measured(**one) for one in stored["chosen"]["measured"])
        if stored["conditions"] == conditions and chosen.layout in LAYOUTS:
            return replace(chosen, measured=measured)
    except (OSError, ValueError, TypeError, KeyError):
        pass  # absent, or not ours: measure again
    return None


def _choose(model: Model, settings: EngineSettings, beat: Callable[[str, float], None]) -> WarmUp:
    threads = torch.get_num_threads() if model.device.type == "cpu" else 1
    measured = [
        _measure(model, dtype, layout, cores, beat)
        for dtype in dtypes(settings, model.device)
        for layout in LAYOUTS
        for cores in sorted({1, threads})
    ]
    chosen = measured[0]
    for candidate in measured[1:]:
        worth = WORTH_CHANGE if candidate.dtype == chosen.dtype else WORTH_DTYPE
        if candidate.seconds * worth < chosen.seconds:
            chosen = candidate
    return WarmUp(str(model.device), chosen.dtype, chosen.layout, chosen.cores, tuple(measured))


@torch.inference_mode()
def _measure(
    model: Model, dtype: torch.dtype, layout: str, cores: int, beat: Callable[[str, float], None]
) -> Measured:
    parts, scale = model.parts, model.vae_scale_factor
    # A copy, since weights that were rounded to a coarser dtype do not come back.
    unet = copy.deepcopy(parts.unet).to(dtype=dtype, memory_format=LAYOUTS[layout])
    sample = torch.randn(PLACES, model.latent_channels, model.height // scale, model.width // scale)
    text = torch.randn(PLACES, parts.tokenizer.model_max_length, parts.text_encoder.config.hidden_size)
    inputs = (sample.to(model.device, dtype), torch.full((PLACES,), 500.0, device=model.device))
    condition = text.to(model.device, dtype)
    share_out = Cores(cores)

    def call() -> float:
        start = time.perf_counter()
        share_out(lambda x, t, c: unet(x, t, c, return_dict=False)[0], *inputs, condition)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds = time.perf_counter() - start
        beat("measure", seconds)
        return seconds

    first = call()
    seconds = first if first > LONG else min(call(), call(), call())
    return Measured(str(dtype).removeprefix("torch."), layout, cores, round(seconds, 4))
