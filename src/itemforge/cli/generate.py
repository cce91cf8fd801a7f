"""`itemforge generate`: the engine alone, from a prompt to a PNG and back from the PNG to its pixels.

Pictures are drawn one at a time in one fixed memory format, and nothing is measured first, so the same
command gives the same pixels. (A worker draws several rows at once; its pictures come out within 1/255.)
"""

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from itemforge.cli.steps import steps_shown
from itemforge.contract import JobParams
from itemforge.errors import InvalidInput, InvalidStyle, ModelError, PermanentError
from itemforge.imaging.opening import open_png, read_file
from itemforge.imaging.png import encode_png, read_recipe
from itemforge.imaging.recipe import Recipe, library_versions
from itemforge.settings import EngineSettings, load
from itemforge.styles.cache import StyleCache
from itemforge.styles.files import write_atomic
from itemforge.styles.models import ModelFacts, describe
from itemforge.styles.pack import StylePack
from itemforge.telemetry.logs import setup_logs

if TYPE_CHECKING:
    from itemforge.engine.loop import Engine
    from itemforge.engine.rows import Finished, LoraRef, Row

#: What the command calls a field of the job's parameters.
_OPTIONS = {
    "prompt": "the prompt",
    "negative_prompt": "--negative",
    "num_inference_steps": "--steps",
    "guidance_scale": "--guidance",
}


def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.")] = None,
    style: Annotated[str | None, typer.Option(help="Style, or style@version.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; drawn and recorded when absent.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, 1 to 150.")] = None,
    out: Annotated[Path, typer.Option(help="The PNG; several become NAME-0.png, NAME-1.png, …")] = Path(
        "item.png"
    ),
    negative: Annotated[str | None, typer.Option(help="What to avoid.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, 0 to 30.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="ddim, dpmpp_2m_karras or euler.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    num_images: Annotated[int | None, typer.Option(help="Images, 1 to 16, each with the next seed.")] = None,
    lora_weight: Annotated[float | None, typer.Option(help="Strength of the style, -5 to 5.")] = None,
    like: Annotated[Path | None, typer.Option(help="Draw this PNG's recipe again.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model: a name, directory or checkpoint.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite a file that is not ours.")] = False,
) -> None:
    """Draw with the engine alone: no gateway, no queue, no database.

    Existing pictures of ItemForge are overwritten (their recipe can draw them again), other files only
    with --force.

    Examples:

    itemforge generate "red apple" --style plain --seed 7 --steps 25 --out apple.png

    itemforge generate --like apple.png --out again.png
    """
    settings = load(EngineSettings, model=model, device=device)
    setup_logs(settings.model_copy(update={"log_level": "warning"}), "generate")
    asked: dict[str, object] = {
        "negative_prompt": negative,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "scheduler": scheduler,
        "seed": seed,
        "width": width,
        "height": height,
        "num_images": num_images,
        "lora_weight": lora_weight,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if like is not None:
        if given or prompt is not None or style is not None:
            raise InvalidInput("--like takes everything from the picture; only give --out, --model, --device")
        _draw_again(like, _free([out], force)[0], settings)
    elif prompt is None:
        raise InvalidInput('say what to draw: itemforge generate "a red apple", or --like FILE.png')
    else:
        _draw_new(prompt, style or settings.default_style, given, out, force, settings)


def _draw_new(
    prompt: str, style: str, given: dict[str, object], out: Path, force: bool, settings: EngineSettings
) -> None:
    styles = StyleCache(settings.home)
    pack = asyncio.run(styles.pack(style))
    facts = describe(settings.model, settings.home)
    params = _params(prompt, pack, facts, given)
    loras = asyncio.run(styles.loras(pack, params.lora_weight))
    count = params.num_images
    names = [out] if count == 1 else [out.with_name(f"{out.stem}-{n}{out.suffix}") for n in range(count)]
    paths = _free(names, force)

    from itemforge.engine.rows import LoraRef

    refs = tuple(LoraRef(path, sha256, weight) for path, sha256, weight in loras)
    engine = _engine(settings, settings.dtype)
    for n, path in enumerate(paths):
        drawn = _draw(engine, _row(params, params.seed + n, refs), path.name)
        named = tuple(replace(lora, name=pack.id) for lora in drawn.recipe.loras)
        _write(path, drawn, replace(drawn.recipe, loras=named))


def _draw_again(like: Path, out: Path, settings: EngineSettings) -> None:
    original = read_file(like)
    recipe = read_recipe(original)
    facts = describe(settings.model, settings.home)
    if facts.base != recipe.base:
        raise ModelError(
            f"{like} was drawn with the base model {recipe.model} (sha256 {recipe.base}), but {settings.model} "
            f"is {facts.base}; name the right one with --model"
        )

    from itemforge.engine.rows import LoraRef

    styles = StyleCache(settings.home)
    refs = tuple(
        LoraRef(asyncio.run(styles.by_sha256(lora.sha256)), lora.sha256, lora.weight) for lora in recipe.loras
    )
    settings = settings.model_copy(update={"noise_device": recipe.noise_device, "quality": recipe.quality})
    engine = _engine(settings, recipe.dtype)
    params = JobParams(
        prompt=recipe.prompt,
        negative_prompt=recipe.negative_prompt,
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance,
        scheduler=recipe.sampler,
        width=recipe.width,
        height=recipe.height,
    )
    drawn = _draw(engine, _row(params, recipe.seed, refs), out.name)
    _write(out, drawn, replace(drawn.recipe, loras=recipe.loras))
    _compare(like, original, drawn, recipe)


def _params(prompt: str, pack: StylePack, facts: ModelFacts, given: dict[str, object]) -> JobParams:
    """What to draw: what was asked for, else the style's defaults, else the contract's."""
    if pack.base is not None and pack.base != facts.base:
        raise InvalidStyle(
            f"the style {pack.name} is for the base model {pack.base}, but {facts.name} is {facts.base}; "
            "name the right one with --model"
        )
    native = pack.size or facts.size
    defaults = pack.defaults.model_dump(exclude_none=True) | {
        "negative_prompt": pack.negative,
        "seed": secrets.randbelow(2**32 - 16),
        "width": native.width,
        "height": native.height,
    }
    if not prompt.strip():
        raise InvalidInput("the prompt is empty; say what to draw")
    try:
        params = JobParams.model_validate({**defaults, **given, "prompt": pack.compose(prompt)})
    except ValidationError as error:
        wrong = (f"{_option(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors())
        raise InvalidInput("; ".join(wrong)) from None
    if not all(native.min <= side <= native.max for side in (params.width or 0, params.height or 0)):
        raise InvalidInput(
            f"{params.width}x{params.height} is outside the limits of the style {pack.name}: "
            f"--width and --height from {native.min} to {native.max}"
        )
    return params


def _option(loc: tuple[int | str, ...]) -> str:
    name = str(loc[0]) if loc else "the request"
    return _OPTIONS.get(name, name if not loc else f"--{name.replace('_', '-')}")


def _free(paths: list[Path], force: bool) -> list[Path]:
    """The paths, if each of them may be written."""
    for path in paths:
        try:
            if path.is_dir():
                raise InvalidInput(
                    f"--out {path} is a folder; name a file in it, such as {path / 'item.png'}"
                )
            if path.suffix.lower() != ".png":
                raise InvalidInput(f"--out {path} must end in .png")
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not (force or _ours(path)):
                raise InvalidInput(
                    f"{path} exists and was not drawn by ItemForge; choose another --out, or add --force"
                )
        except OSError as error:
            raise InvalidInput(f"--out {path} cannot be written: {error.strerror}") from None
    return paths


def _ours(path: Path) -> bool:
    try:
        read_recipe(read_file(path))
    except InvalidInput:
        return False
    return True


def _engine(settings: EngineSettings, dtype: str) -> "Engine":
    import torch

    from itemforge.engine.loop import Engine
    from itemforge.engine.model import load_model, place
    from itemforge.engine.quality import LEVELS
    from itemforge.engine.warmup import dtypes, pick_device
    from itemforge.styles.models import find_model

    device = pick_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.noise_device == "cuda" and device.type != "cuda":
        raise InvalidInput(
            "the noise of this picture was drawn on a GPU; draw it again on a machine with one"
        )
    wanted = dtypes(settings, device)[0] if dtype == "auto" else getattr(torch, dtype, None)
    if wanted not in (torch.float32, torch.float16, torch.bfloat16):
        raise InvalidInput(f"the recipe's dtype is {dtype!r}; float32, float16 or bfloat16 can be drawn")
    if settings.quality not in LEVELS:  # a recipe may say anything
        raise InvalidInput(
            f"the recipe's quality is {settings.quality!r}; only {', '.join(LEVELS)} are known"
        )
    model = load_model(find_model(settings.model, settings.home), device, torch.float32, settings.home)
    place(model, device, wanted, torch.contiguous_format)
    return Engine(model, quality=settings.quality, noise_device=settings.noise_device)


def _row(params: JobParams, seed: int, loras: tuple["LoraRef", ...]) -> "Row":
    from itemforge.engine.rows import Row

    return Row(
        row_id=str(seed),
        prompt=params.prompt,
        negative_prompt=params.negative_prompt,
        steps=params.num_inference_steps,
        guidance=params.guidance_scale,
        seed=seed,
        scheduler=params.scheduler,
        width=params.width or 0,
        height=params.height or 0,
        loras=loras,
    )


def _draw(engine: "Engine", row: "Row", name: str) -> "Finished":
    from itemforge.engine.rows import Failed, Finished, Progress

    engine.submit(row)
    with steps_shown(name, row.steps) as show:
        while engine.busy:
            for event in engine.step():
                if isinstance(event, Progress):
                    show(event.step)
                elif isinstance(event, Finished):
                    return event
                elif isinstance(event, Failed):
                    raise PermanentError(f"{name} could not be drawn: {event.error}")
    raise PermanentError(f"{name} could not be drawn")


def _write(path: Path, drawn: "Finished", recipe: Recipe) -> None:
    try:
        write_atomic(path, encode_png(drawn.pixels, recipe))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from None
    typer.echo(str(path))


def _compare(like: Path, original: bytes, drawn: "Finished", recipe: Recipe) -> None:
    """Say on standard error whether the pixels are the original's, and if not, what may be the reason."""
    import numpy as np

    try:
        image = open_png(original, "RGB")
    except InvalidInput:
        typer.echo(f"{like} is damaged, so the pixels are not compared", err=True)
        return
    if image.size != (recipe.width, recipe.height):
        typer.echo(f"{like} was resized since it was drawn, so the pixels are not compared", err=True)
        return
    pixels = np.asarray(image, dtype=np.int16)
    off = np.abs(pixels - drawn.pixels)
    if not off.any():
        typer.echo(f"the same pixels as {like}", err=True)
        return
    before, now = dict(recipe.versions), dict(library_versions())
    reasons = [f"{k} {v} instead of {now.get(k)}" for k, v in before.items() if v != now.get(k)]
    if recipe.device != drawn.recipe.device:
        reasons.append(f"{recipe.device} instead of {drawn.recipe.device}")
    why = f"it was drawn with {', '.join(reasons)}" if reasons else "it was drawn in a batch, or edited"
    typer.echo(f"{int((off > 0).sum())} values differ from {like}, by at most {off.max()}: {why}", err=True)
