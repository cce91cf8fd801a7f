"""What each way of running the UNet gives on this machine, in milliseconds for one place of its batch.

    python bench/unet.py [--rounds 5] [--compile] [--out FILE]

2 places are one guided picture, 16 a full batch of eight. The ways take turns within each round and the median
counts. The first row is how the diffusers pipeline runs it. `--compile` adds torch.compile, which needs a C++
compiler and minutes for every batch size. OpenVINO needs the extra `bench`.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import Table, write
from torch import Tensor

from itemforge.engine.cores import Cores
from itemforge.engine.model import Model, load_model
from itemforge.styles.models import starter_dir

PLACES = (2, 4, 8, 16)
Way = Callable[[Tensor, Tensor, Tensor], Any]


class Bare(torch.nn.Module):
    """The UNet with tensors in and out, as tracers want it."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return self.unet(sample, timestep, text, return_dict=False)[0]  # type: ignore[no-any-return]


def placed(model: Model, dtype: torch.dtype, layout: torch.memory_format) -> Bare:
    return Bare(copy.deepcopy(model.parts.unet).to(dtype=dtype, memory_format=layout)).eval()


def inputs(model: Model, places: int) -> tuple[Tensor, Tensor, Tensor]:
    side = model.height // model.vae_scale_factor
    hidden = model.parts.text_encoder.config.hidden_size
    sample = torch.randn(places, model.latent_channels, side, side)
    return sample, torch.full((places,), 500.0), torch.randn(places, 77, hidden)


def ways(model: Model, threads: int, compiled: bool) -> dict[str, Way]:
    contiguous, last = torch.contiguous_format, torch.channels_last
    plain, channels_last = (placed(model, torch.float32, layout) for layout in (contiguous, last))
    shared = Cores(threads)
    found: dict[str, Way] = {
        "float32, every operation on all cores": plain,
        "… channels last": channels_last,
        "float32, places shared out among the cores (ours)": lambda *batch: shared(plain, *batch),
        "… channels last (ours)": lambda *batch: shared(channels_last, *batch),
    }
    for dtype in (torch.bfloat16, torch.float16):
        half = placed(model, dtype, last)
        name = f"{str(dtype).removeprefix('torch.')}, channels last, shared out"
        found[name] = lambda *batch, half=half, dtype=dtype: shared(
            lambda s, t, c: half(s.to(dtype), t, c.to(dtype)), *batch
        )
    found |= openvino(model, threads)
    if compiled:
        fast = torch.compile(placed(model, torch.float32, last))
        found["torch.compile, channels last, every operation on all cores"] = fast
    return found


def openvino(model: Model, threads: int) -> dict[str, Way]:
    try:
        import openvino as ov
    except ImportError:
        return {}
    graph = ov.convert_model(
        placed(model, torch.float32, torch.contiguous_format), example_input=inputs(model, 2)
    )
    found: dict[str, Way] = {}
    for precision in ("f32", "bf16"):
        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
        request = ov.Core().compile_model(graph, "CPU", hints).create_infer_request()
        found[f"OpenVINO {precision}"] = lambda *batch, r=request: r.infer([one.numpy() for one in batch])
    return found


def milliseconds(way: Way, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    start = time.perf_counter()
    way(*batch)
    return 1000 * (time.perf_counter() - start) / len(batch[0])


@torch.inference_mode()
def measure(rounds: int, compiled: bool) -> Table:
    model = load_model(starter_dir(), torch.device("cpu"), torch.float32)
    threads = torch.get_num_threads()
    found = ways(model, threads, compiled)
    batches = {places: inputs(model, places) for places in PLACES}
    taken: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds + 1):
        for places, batch in batches.items():
            for name, way in found.items():
                value = milliseconds(way, batch)
                if turn:  # the first one warms up
                    taken.setdefault((name, places), []).append(value)
    table = Table(
        f"The starter's UNet on {threads} threads: ms a place",
        ("how", *(f"{places} places" for places in PLACES)),
    )
    for name in found:
        table.add(name, *(f"{statistics.median(taken[name, places]):.1f}" for places in PLACES))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    write(measure(options.rounds, options.compile), options.out)


if __name__ == "__main__":
    main()
