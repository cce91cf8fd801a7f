"""`itemforge train lora`: from a folder of captioned pictures to a LoRA that workers draw with.

Doctor, caches, learning, export. The same command goes on where it was stopped, also where it was killed. On several GPUs
(`accelerate launch -m itemforge train lora …`) the steps are the same ones, each shared out among the devices.
"""

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import torch
from accelerate import Accelerator
from PIL import Image

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.model import Model, load_model
from itemforge.engine.rows import LoraRef, Row
from itemforge.imaging.sheet import contact_sheet
from itemforge.styles.files import file_sha256, write_atomic
from itemforge.styles.models import find_model
from itemforge.training import doctor
from itemforge.training.cache import Cache, cached_latents, cached_texts
from itemforge.training.doctor import Diagnosis
from itemforge.training.drawing import draw_rows
from itemforge.training.lora_config import LoraConfig
from itemforge.training.lora_files import Factors, Story, factors_of, write_files
from itemforge.training.lora_stage import Lessons, LoraStage
from itemforge.training.prepared import Prepared
from itemforge.training.stage import Run
from itemforge.training.suite import GUIDANCE, STEPS
from itemforge.training.track import FolderTracker, Tracker, WandbTracker

log = structlog.get_logger(__name__)

#: About so many points of the loss are kept of a run.
POINTS = 1000
Seen = Callable[[str, int, int], None]


def train_lora(config: LoraConfig, run: Run, home: Path, cpu: bool, seen: Seen) -> Path | None:
    """Go on with the run; the folder of the LoRA's files, or None when it was stopped before.

    `seen` hears how far the preparation is.

    Raises:
        InvalidInput: the training set is not ready; the text is the doctor's report.
        ModelError: the base cannot be loaded, or the loss is not a number.
        ConfigurationError: a setting that cannot be met here.
    """
    accelerator = Accelerator(mixed_precision=_precision(config, cpu), cpu=cpu)
    lead = accelerator.is_main_process
    base = find_model(config.base, home)
    model = load_model(base, accelerator.device, torch.float32, home)
    found = diagnose(config, model, lambda done, of: seen("pictures", done, of))
    doctor.check(found, config.drop_bad)
    cache = Cache(home / "cache" / "training")
    train = _lessons(config, model, cache, found.train, seen)
    held_out = _lessons(config, model, cache, found.validation, seen) if found.validation else None
    for module in (model.parts.vae, model.parts.text_encoder):
        module.to("cpu")
    unet = model.parts.unet
    unet.train()
    trackers = _trackers(config) if lead else []
    story = _story(config, run.folder, model, found)

    def on_epoch(epochs: int) -> None:
        if not lead:
            return
        figures = _validation(stage)
        if figures:
            for tracker in trackers:
                tracker.figures(stage.done, figures)
        _checkpoint(config, stage, unet, story, epochs)
        due = config.sample_every and (epochs % config.sample_every == 0 or epochs == config.epochs)
        if due and config.sample_prompts:
            sheet = _samples(config, base, home, epochs)
            for tracker in trackers:
                tracker.samples(stage.done, sheet)
        for tracker in trackers:
            if isinstance(tracker, FolderTracker):
                tracker.write()

    def on_step(done: int, figures: dict[str, float]) -> None:
        if done % max(1, stage.steps // POINTS) == 0:
            for tracker in trackers:
                tracker.figures(done, figures)

    stage = LoraStage(unet, train, held_out, config, accelerator, on_epoch, on_step)
    log.info("lora_begins", pictures=len(train), steps=stage.steps, cached=cache.found, encoded=cache.made)
    run.lead, run.agree = lead, partial(_any_of, accelerator)
    if not run.train(stage):
        return None
    stage.ema.swap()
    out = config.run / "lora"
    if lead:
        write_files(factors_of(unet, config.alpha), config, story(stage.done, config.epochs), out)
        for tracker in trackers:
            tracker.finish(out)
    return out


def _any_of(accelerator: Accelerator, own: bool) -> bool:
    """Whether any of the processes says so."""
    if accelerator.num_processes == 1:
        return own
    return bool(accelerator.reduce(torch.tensor(float(own), device=accelerator.device)).item())


def diagnose(config: LoraConfig, model: Model, seen: Callable[[int, int], None]) -> Diagnosis:
    """The doctor's view of the configured training set."""
    count = doctor.token_counter(model.parts.tokenizer)
    return doctor.examine(config.data, config.size, config.trigger, config.validation, count, seen)


def _precision(config: LoraConfig, cpu: bool) -> str:
    known = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}[config.precision]
    # A CPU has no arithmetic in float16; in bfloat16 those of the last years are faster, and others slower.
    return "no" if known == "fp16" and (cpu or not torch.cuda.is_available()) else known


def _trackers(config: LoraConfig) -> list[Tracker]:
    made: list[Tracker] = [FolderTracker(config.run, config)]
    if config.wandb != "disabled":
        made.append(WandbTracker(config.run, config))
    return made


def _lessons(config: LoraConfig, model: Model, cache: Cache, pictures: list[Prepared], seen: Seen) -> Lessons:
    device = model.device
    latents = cached_latents(
        cache, model.parts.vae, pictures, config.flip, device, lambda done, of: seen("latents", done, of)
    )
    texts = [list(each.sample.captions) for each in pictures]
    states = cached_texts(
        cache,
        model.parts.tokenizer,
        model.parts.text_encoder,
        ["", *(t for some in texts for t in some)],
        device,
    )
    scale = float(model.parts.vae.config.scaling_factor)
    masks = _masks(pictures, config, latents.shape[-1])
    return Lessons(latents * scale, [[states[t] for t in some] for some in texts], states[""], masks)


def _masks(pictures: list[Prepared], config: LoraConfig, side: int) -> torch.Tensor | None:
    """Masks at the latents' size, mirrored as they are; a picture without one counts everywhere."""
    if not any(each.mask is not None for each in pictures):
        return None
    rows = [
        torch.ones(config.size, config.size) if each.mask is None else torch.from_numpy(each.mask)
        for each in pictures
    ]
    small = torch.nn.functional.interpolate(torch.stack(rows)[:, None], size=(side, side), mode="area")
    return torch.stack([small, small.flip(3)] if config.flip else [small])


def _story(config: LoraConfig, folder: Path, model: Model, found: Diagnosis) -> Callable[[int, int], Story]:
    """What the headers will say. The time of the first start is kept, so that a run that goes on writes the same."""
    path = folder / "started"
    if not path.is_file():
        write_atomic(path, str(int(time.time())).encode())
    started = float(path.read_text(encoding="utf-8"))
    keys = json.dumps([(each.key, each.sample.captions) for each in found.train])
    digest = hashlib.sha256(keys.encode()).hexdigest()
    tags = dict(doctor.tags(found).most_common(100))
    thumbnail = Image.fromarray(found.train[0].pixels)
    base = model.base
    return lambda steps, epochs: Story(
        len(found.train), len(found.validation), steps, epochs, started, tags, digest, base, thumbnail
    )


def _validation(stage: LoraStage) -> dict[str, float]:
    raw = stage.validate()
    if raw is None:
        return {}
    stage.ema.swap()
    averaged = stage.validate()
    stage.ema.swap()
    return {"validation": raw, "validation_ema": averaged if averaged is not None else raw}


def _checkpoint(
    config: LoraConfig, stage: LoraStage, unet: Any, story: Callable[[int, int], Story], epochs: int
) -> None:
    """The LoRA as it is after an epoch, and its average, for evaluation."""
    for kind in ("raw", "ema"):
        if kind == "ema":
            stage.ema.swap()
        try:
            factors: Factors = factors_of(unet, config.alpha)
        finally:
            if kind == "ema":
                stage.ema.swap()
        stem = f"{config.name}-{epochs:03d}"
        write_files(
            factors,
            config,
            story(stage.done, epochs),
            config.run / "checkpoints" / f"{epochs:03d}-{kind}",
            stem,
        )


def _samples(config: LoraConfig, base: Path, home: Path, epochs: int) -> Path:
    """A sheet of the configured prompts, drawn by the worker's own engine with the averaged LoRA."""
    folder = config.run / "checkpoints" / f"{epochs:03d}-ema"
    path = folder / f"{config.name}-{epochs:03d}.safetensors"
    lora = LoraRef(path, file_sha256(path), 1.0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine(load_model(base, device, torch.float32, home))
    side = config.size
    rows = [
        Row(
            str(n),
            prompt.replace("[trigger]", config.trigger),
            "",
            config.num_inference_steps or STEPS,
            config.guidance_scale or GUIDANCE,
            config.seed + n,
            Scheduler.DDIM,
            side,
            side,
            (lora,),
        )
        for n, prompt in enumerate(config.sample_prompts)
    ]
    drawn = draw_rows(engine, rows)
    sheet = config.run / "samples" / f"epoch-{epochs:03d}.png"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    pictures = [
        (Image.fromarray(pixels), text) for pixels, text in zip(drawn, config.sample_prompts, strict=True)
    ]
    contact_sheet(pictures, columns=4).save(sheet)
    return sheet
