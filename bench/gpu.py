"""SD 1.5's UNet and VAE on a GPU: speed, memory and share of the card's peak, cell by cell.

    python bench/gpu.py --results gpu.json [--minutes 8] [--peak TFLOPS] [--out FILE]
    python bench/gpu.py --results tiny.json --tiny        the same code on the CPU, in seconds

A cell is one way of running (eager, compile, graphs) at one batch size: random weights of SD 1.5's shapes,
float16, channels last, 512×512, 50 DDIM steps with guidance, then the VAE in float32. Each finished cell is
written to the results at once and skipped by the next command, so run it again until it says that all is done;
no command begins a cell after `--minutes`. A cell that does not fit the memory is a result as well.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from report import Table, write
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from itemforge.contract import Scheduler
from itemforge.engine.samplers import SCALE, TIMESTEP, Plans, advance

WAYS = ("eager", "compile", "graphs")
BATCHES = (1, 2, 4, 8, 16)
GUIDANCE = 7.5
#: Dense float16 tensor-core peak in TFLOP/s by a part of the device's name, from the makers' data sheets.
PEAKS = {
    "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10G": 70, "A10": 125,
    "T4": 65, "V100": 125, "RTX 4090": 165, "RTX 3090": 71, "RTX 3060": 51,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What is drawn: latents of `side`, text of `hidden`, with a UNet of these channels."""

    channels: tuple[int, ...]
    side: int
    hidden: int
    heads: int
    steps: int
    vae: tuple[int, ...]


SD15 = Shape((320, 640, 1280, 1280), 64, 768, 8, 50, (128, 256, 512, 512))
TINY = Shape((32, 32, 64, 64), 8, 32, 8, 1, (32, 32, 32, 32))


@dataclass(frozen=True)
class Cell:
    """Seconds are for the whole batch; `share` of the peak is of the UNet's steps alone."""

    way: str
    batch: int
    first_seconds: float
    denoise_seconds: float
    decode_seconds: float
    images_a_second: float
    memory_gib: float
    tflops: float
    share: float | None


class Drawing:
    """One batch with random weights, the way the engine does it: latents and sampler in float32."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        torch.manual_seed(0)
        diffusers.utils.logging.set_verbosity_error()  # it warns of every change of dtype
        self.shape, self.device = shape, device
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.unet = unet(shape).to(device, self.dtype, memory_format=torch.channels_last)
        self.vae = vae(shape).to(device, torch.float32, memory_format=torch.channels_last)
        config = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).config
        plan = Plans(config).plan(Scheduler.DDIM, shape.steps)
        self.numbers = torch.from_numpy(plan.steps).to(device)

    def way(self, name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def predict(sample: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
            output: Tensor = self.unet(sample, timesteps, text, return_dict=False)[0]
            return output

        if name == "compile":
            compiled: Any = torch.compile(predict)
            return compiled  # type: ignore[no-any-return]
        if name == "graphs" and self.device.type == "cuda":
            return captured(predict)
        return predict

    def denoise(self, predict: Callable[[Tensor, Tensor, Tensor], Tensor], batch: int) -> Tensor:
        shape = self.shape
        latents = torch.randn(batch, 4, shape.side, shape.side, device=self.device)
        previous = torch.zeros_like(latents)
        text = torch.randn(2 * batch, 77, shape.hidden, device=self.device, dtype=self.dtype)
        for one in self.numbers:
            numbers = one.expand(batch, -1)
            sample = torch.cat([latents, latents]) * one[SCALE]
            sample = sample.to(self.dtype, memory_format=torch.channels_last)
            output = predict(sample, one[TIMESTEP].expand(2 * batch), text).float()
            without, with_text = output.chunk(2)
            guided = without + GUIDANCE * (with_text - without)
            latents, previous = advance(latents, guided, previous, numbers)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """One picture at a time: at 512×512 the VAE's activations in float32 are the larger part of memory."""
        return torch.cat([self.vae.decode(one[None], return_dict=False)[0] for one in latents])

    def synchronised(self, work: Callable[[], Any]) -> tuple[float, Any]:
        start = time.perf_counter()
        result = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, result


def unet(shape: Shape) -> UNet2DConditionModel:
    """SD 1.5's structure: three levels with attention and one without."""
    return (
        UNet2DConditionModel(
            sample_size=shape.side,
            block_out_channels=shape.channels,
            cross_attention_dim=shape.hidden,
            attention_head_dim=shape.heads,
        )
        .eval()
        .requires_grad_(False)
    )


def vae(shape: Shape) -> AutoencoderKL:
    levels = len(shape.vae)
    return (
        AutoencoderKL(
            block_out_channels=shape.vae,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=2,
            latent_channels=4,
        )
        .eval()
        .requires_grad_(False)
    )


def captured(predict: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """`predict` as one CUDA graph, captured at its first call; later calls must have the same shapes."""
    graph: Any = None
    held: tuple[Tensor, ...] = ()
    result: Tensor | None = None

    def call(*inputs: Tensor) -> Tensor:
        nonlocal graph, held, result
        if graph is None:
            held = tuple(one.clone() for one in inputs)
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries choose their kernels before the capture
                for _ in range(3):
                    predict(*held)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = predict(*held)
        for place, one in zip(held, inputs, strict=True):
            place.copy_(one)
        graph.replay()
        if result is None:
            raise AssertionError("a graph has a result")
        return result.clone()

    return call


@functools.cache
def flops_of_a_place(shape: Shape) -> int:
    """Floating point operations of one place in one UNet call, counted without computing any."""
    with torch.device("meta"):
        model = unet(shape)
        sample, text = torch.empty(1, 4, shape.side, shape.side), torch.empty(1, 77, shape.hidden)
        counter = FlopCounterMode(display=False)
        with counter:
            model(sample, torch.empty(1), text)
    return int(counter.get_total_flops())


def measure(drawing: Drawing, way: str, batch: int, peak: float | None) -> Cell:
    """The first run has compilation and capture in it, the second is the measurement.

    Raises:
        torch.OutOfMemoryError: the batch does not fit.
    """
    cuda = drawing.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    predict = drawing.way(way)
    first, _ = drawing.synchronised(lambda: drawing.denoise(predict, batch))
    denoise, latents = drawing.synchronised(lambda: drawing.denoise(predict, batch))
    drawing.decode(latents[:1])
    decode, _ = drawing.synchronised(lambda: drawing.decode(latents))
    memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    tflops = flops_of_a_place(drawing.shape) * 2 * batch * drawing.shape.steps / denoise / 1e12
    share = tflops / peak if peak else None
    return Cell(way, batch, first, denoise, decode, batch / (denoise + decode), memory, tflops, share)


def peak_of(name: str) -> float | None:
    return next((float(peak) for part, peak in PEAKS.items() if part in name), None)


def run(results: Path, tiny: bool, minutes: float, peak: float | None) -> bool:
    """Measure what is missing until the time is over; True when nothing is missing any more."""
    device = torch.device("cuda" if torch.cuda.is_available() and not tiny else "cpu")
    if device.type == "cpu" and not tiny:
        raise SystemExit("PyTorch sees no CUDA device here; --tiny proves the code on a CPU")
    if peak is None and device.type == "cuda":
        peak = peak_of(torch.cuda.get_device_name())
    done: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    ways, batches = (("eager", "graphs"), (1, 2)) if tiny else (WAYS, BATCHES)
    deadline = time.monotonic() + 60 * minutes
    drawing: Drawing | None = None
    for way in ways:
        for batch in batches:
            if f"{way} {batch}" in done:
                continue
            if time.monotonic() > deadline:
                return False
            drawing = drawing or Drawing(TINY if tiny else SD15, device)
            with torch.inference_mode():
                try:
                    done[f"{way} {batch}"] = asdict(measure(drawing, way, batch, peak))
                except torch.OutOfMemoryError:
                    done[f"{way} {batch}"] = {"way": way, "batch": batch, "error": "out of memory"}
            torch.compiler.reset()  # the compiled cells must not share a cache that counts recompilations
            results.write_text(json.dumps(done, indent=1))
            print(f"{way} {batch}: done", flush=True)
    return True


def table_of(results: Path) -> Table:
    table = Table(
        "SD 1.5 shapes, float16, 512×512, 50 steps with guidance, random weights",
        (
            "way",
            "batch",
            "images/s",
            "denoise s",
            "decode s",
            "memory GiB",
            "TFLOP/s",
            "of peak",
            "first run s",
        ),
    )
    for cell in json.loads(results.read_text()).values():
        if "error" in cell:
            table.add(cell["way"], str(cell["batch"]), cell["error"], *("" for _ in range(6)))
            continue
        share = "" if cell["share"] is None else f"{cell['share']:.0%}"
        values = (cell["denoise_seconds"], cell["decode_seconds"], cell["memory_gib"], cell["tflops"])
        measured = [f"{cell['images_a_second']:.2f}", *(f"{value:.2f}" for value in values)]
        table.add(cell["way"], str(cell["batch"]), *measured, share, f"{cell['first_seconds']:.1f}")
    return table


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0, help="no cell begins later than this")
    parser.add_argument("--peak", type=float, help="the card's float16 TFLOP/s, if its name is not known")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    complete = run(options.results, options.tiny, options.minutes, options.peak)
    if complete:
        write(table_of(options.results), options.out)
    else:
        print("not all cells are measured yet: run the same command again")


if __name__ == "__main__":
    main()
