"""How fast a LoRA learns: our loop against the approach of diffusers' example (`train_example.py`), pictures a second.

    python bench/train_speed.py [--rounds 5] [--pictures 32] [--threads N] [--out FILE]
    python bench/train_speed.py --device cuda     SD 1.5's shapes with random weights, 512×512, float16

One epoch each, in turns, and the median counts: the same weights, drawn shapes, captions, rank, rate, micro-batches, optimizer (AdamW)
and precision (on a CPU float32), hence the same number of optimizer steps. The example opens and encodes every picture and caption in every
step. Ours does so once, before the first step, for both mirror images; that is timed apart. On a CPU it is also seen that both compute the same
loss from the same latents, noise and time. With `--threads 1` processor time is taken, which other programs do not change much.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gpu
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from PIL import Image, ImageDraw
from report import Table, write
from torch import Tensor
from train_example import Captioned, Example
from transformers import CLIPTextConfig, CLIPTextModel

from itemforge.engine.components import Components
from itemforge.engine.model import load_model
from itemforge.styles.models import starter_dir
from itemforge.training.cache import Cache, cached_latents, cached_texts
from itemforge.training.captioned import Sample, read_samples
from itemforge.training.doctor import examine, token_counter
from itemforge.training.lora_config import PRESETS, LoraConfig
from itemforge.training.lora_stage import Lessons, LoraStage

#: Pictures at once, and how many such a step: the presets' way, and the same step in one batch.
MICRO_BATCHES = ((1, 4), (4, 1))
TRIGGER = "tsuki_advtr"
EPOCHS = PRESETS["tsuki"]["epochs"]
EXAMPLE, OURS, COLD = "diffusers' example", "ours", "ours, everything encoded first"


@dataclass(frozen=True)
class Rig:
    """What both learn from."""

    parts: Components
    config: LoraConfig
    samples: list[Sample]
    device: torch.device
    clock: Callable[[], float] = time.perf_counter

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def fresh(self) -> Components:
        """Networks without a LoRA, on the device."""
        kept = self.parts
        networks = (
            copy.deepcopy(module).to(self.device) for module in (kept.unet, kept.vae, kept.text_encoder)
        )
        return Components(*networks, kept.tokenizer, kept.scheduler)


def starter() -> Components:
    return load_model(starter_dir(), torch.device("cpu"), torch.float32).parts


def random_weights(shape: gpu.Shape) -> Components:
    """Of a shape, with the starter's tokenizer: the window is the same, and words mean nothing here."""
    torch.manual_seed(0)
    known = starter()
    text = CLIPTextConfig(
        vocab_size=len(known.tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=4 * shape.hidden,
        num_hidden_layers=12,
        num_attention_heads=max(1, shape.hidden // 64),
    )
    encoder = CLIPTextModel(text).eval().requires_grad_(False)
    return Components(gpu.unet(shape), gpu.vae(shape), encoder, known.tokenizer, known.scheduler)


def write_pictures(folder: Path, count: int, size: int) -> list[Sample]:
    """Shapes on white, each with its caption beside it."""
    chance = torch.Generator().manual_seed(7)
    for n in range(count):
        picture = Image.new("RGB", (size, size), "white")
        pen = ImageDraw.Draw(picture)
        for _ in range(4):
            x, y, w, h = (torch.randint(size // 8, size // 2, (4,), generator=chance)).tolist()
            colour = tuple(torch.randint(256, (3,), generator=chance).tolist())
            draw = pen.ellipse if (x + y) % 2 else pen.rectangle
            draw((x, y, x + w, y + h), fill=colour, outline="black")
        picture.save(folder / f"{n:03}.png")
        (folder / f"{n:03}.txt").write_text(f"{TRIGGER}, thing number {n}, white background, game item")
    return read_samples(folder)


def settings(folder: Path, size: int) -> LoraConfig:
    """The preset's, with the rate steady: a schedule costs nothing."""
    return LoraConfig(
        **PRESETS["tsuki"]
        | {"size": size, "validation": 0.0, "warmup": 0, "restarts": 1, "optimizer": "adamw"},
        name="bench", base="starter", data=folder, run=folder / "run", trigger=TRIGGER,
    )  # fmt: skip


def lessons(rig: Rig, parts: Components, folder: Path) -> Lessons:
    """What `itemforge train lora` does before the first step: the doctor, then latents and texts."""
    config = rig.config
    found = examine(
        config.data, config.size, TRIGGER, 0.0, token_counter(parts.tokenizer), lambda done, of: None
    )
    cache = Cache(folder)
    latents = cached_latents(cache, parts.vae, found.train, config.flip, rig.device, lambda done, of: None)
    captions = [each.sample.captions[0] for each in found.train]
    states = cached_texts(cache, parts.tokenizer, parts.text_encoder, ["", *captions], rig.device)
    scale = float(parts.vae.config.scaling_factor)
    return Lessons(latents * scale, [[states[text]] for text in captions], states[""], None)


def our_stage(rig: Rig, unet: Any, learnt: Lessons) -> LoraStage:
    accelerator = Accelerator(mixed_precision="fp16" if rig.cuda else "no", cpu=not rig.cuda)
    unet.train()
    return LoraStage(unet, learnt, None, rig.config, accelerator)


def apart() -> None:
    """Accelerate keeps its settings, accumulation among them, for the whole process; each turn begins without."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def timed(rig: Rig, work: Callable[[], object]) -> float:
    if rig.cuda:
        torch.cuda.synchronize()
    start = rig.clock()
    work()
    if rig.cuda:
        torch.cuda.synchronize()
    return rig.clock() - start


def turn(rig: Rig, taken: dict[str, list[float]]) -> None:
    """One epoch of the example, our encoding from nothing, and one epoch of ours."""
    apart()
    example = Example(rig.fresh(), rig.samples, rig.config, rig.cuda)
    taken[EXAMPLE].append(timed(rig, example.epoch))
    del example
    apart()
    parts = rig.fresh()
    kept: list[Lessons] = []
    with tempfile.TemporaryDirectory() as folder:
        taken[COLD].append(timed(rig, lambda: kept.append(lessons(rig, parts, Path(folder)))))
    stage = our_stage(rig, parts.unet, kept[0])
    taken[OURS].append(timed(rig, lambda: [stage.step() for _ in range(stage.steps_an_epoch)]))


def disagreement(rig: Rig) -> float:
    """By how much the two differ at most in latents, text states, and the loss of the same picture, noise and time.

    After an epoch of ours, so that the LoRA is there to be seen.
    """
    apart()
    with tempfile.TemporaryDirectory() as folder:
        learnt = lessons(rig, rig.fresh(), Path(folder))
    stage = our_stage(rig, rig.fresh().unet, learnt)
    for _ in range(stage.steps_an_epoch):
        stage.step()
    example = Example(rig.fresh(), rig.samples, rig.config, rig.cuda)
    pictures = Captioned(rig.samples, rig.parts.tokenizer, rig.config.size, flip=False)
    scale = rig.parts.vae.config.scaling_factor
    worst = 0.0
    with torch.no_grad():
        for own, other in zip(stage.parameters, example.parameters, strict=True):
            other.copy_(own)
        for n in range(len(learnt)):
            shown = pictures[n]
            encoded = example.latents(shown["pixels"][None])
            states = example.states(shown["tokens"][None])
            pairs = [
                (learnt.latents[0, n], torch.stack([encoded.mean[0], encoded.std[0]]) * scale),
                (learnt.texts[n][0], states[0]),
            ]
            drawn = stage._draw(learnt, n, 0)  # its chance, to give the example the same
            loss = example.loss(drawn.latents[None], drawn.noise[None], drawn.time[None], states)
            pairs.append((stage._loss(learnt, [n], 0), loss))
            worst = max(worst, *(_apart_by(one, other) for one, other in pairs))
    return worst


def _apart_by(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def measure(rig: Rig, rounds: int) -> Table:
    config, count = rig.config, len(rig.samples)
    what = "SD 1.5's shapes" if rig.cuda else "the starter"
    table = Table(
        f"Learning a LoRA of rank {config.rank} on {what}, {count} pictures of {config.size}×{config.size}, "
        f"{config.pictures_a_step} a step",
        ("how", "pictures at once", "pictures/s", "× the example", "seconds an epoch (each round)"),
    )
    rigs = [
        replace(rig, config=config.model_copy(update={"batch_size": size, "accumulation": many}))
        for size, many in MICRO_BATCHES
    ]
    taken: list[dict[str, list[float]]] = [{EXAMPLE: [], OURS: [], COLD: []} for _ in rigs]
    for _ in range(rounds + 1):
        for each, times in zip(rigs, taken, strict=True):
            turn(each, times)
    for each, times in zip(rigs, taken, strict=True):
        _rows(table, each, {name: some[1:] for name, some in times.items()})  # the first one warms up
    if not rig.cuda:
        table.note(
            f"Latents, text states and losses of the same pictures, noise and times differ by {disagreement(rig):.0e} at most."
        )
    return table


def _rows(table: Table, rig: Rig, taken: dict[str, list[float]]) -> None:
    count, size = len(rig.samples), rig.config.batch_size
    # A run that begins with nothing kept: its encoding, and then one epoch.
    first = [one + other for one, other in zip(taken[COLD], taken[OURS], strict=True)]
    example, ours, encoding = (statistics.median(taken[name]) for name in (EXAMPLE, OURS, COLD))
    for name, seconds in (
        (EXAMPLE, taken[EXAMPLE]),
        (OURS, taken[OURS]),
        (f"{COLD}, one epoch", first),
    ):
        middle = statistics.median(seconds)
        each = ", ".join(f"{one:.2f}" for one in seconds)
        table.add(name, str(size), f"{count / middle:.1f}", f"{example / middle:.2f}", each)
    whole = encoding + EPOCHS * ours
    table.add(
        f"{COLD}, {EPOCHS} epochs (reckoned)",
        str(size),
        f"{EPOCHS * count / whole:.1f}",
        f"{EPOCHS * example / whole:.2f}",
        f"{encoding:.2f} + {EPOCHS} × {ours:.2f}",
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    parts, size = (random_weights(gpu.SD15), 8 * gpu.SD15.side) if cuda else (starter(), 64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = write_pictures(folder, options.pictures, size)
        rig = Rig(parts, settings(folder, size), samples, device, clock)
        write(measure(rig, options.rounds), options.out)


if __name__ == "__main__":
    main()
