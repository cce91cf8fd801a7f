"""`itemforge train`: base models and styles."""

import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)

Minutes = Annotated[
    float | None, typer.Option(min=0.1, help="stop after so long, with the state saved; repeat to go on")
]
SaveEvery = Annotated[float, typer.Option(min=0, help="seconds between saves of the state")]


@app.command()
def base(
    config: Annotated[Path, typer.Option(help="TOML file, as configs/starter.toml")],
    minutes: Minutes = None,
    save_every: SaveEvery = 180.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Train a small text-to-image model from scratch on the set of `itemforge data icons`.

    An interrupted run goes on where it was. When all stages are through, RUN/model is the model.
    """
    from itemforge.cli.losses import losses_shown
    from itemforge.engine.warmup import pick_device
    from itemforge.training.base import train_base
    from itemforge.training.config import StarterConfig, read_config
    from itemforge.training.stage import Run

    told = read_config(config, StarterConfig)
    until = None if minutes is None else time.monotonic() + 60 * minutes
    with losses_shown() as tell:
        model = train_base(told, Run(told.run, tell, until, save_every), pick_device(device))
    if model is None:
        typer.echo(f"stopped; the same command goes on from {told.run}")
    else:
        typer.echo(f"the model is {model}")


@app.command()
def lora(
    config: Annotated[Path, typer.Option(help="TOML file, as configs/tsuki.toml")],
    minutes: Minutes = None,
    save_every: SaveEvery = 180.0,
    cpu: Annotated[bool, typer.Option(help="also where there is a GPU")] = False,
) -> None:
    """Fine-tune a LoRA on a folder of captioned pictures.

    The doctor looks at the pictures first. An interrupted run goes on where it was. RUN/lora has the result,
    RUN/report.html the figures and samples.
    """
    from itemforge.cli.losses import losses_shown
    from itemforge.cli.steps import stages_shown
    from itemforge.settings import LogSettings, load
    from itemforge.training.lora import train_lora
    from itemforge.training.lora_config import read_lora_config
    from itemforge.training.stage import Run

    told = read_lora_config(config)
    until = None if minutes is None else time.monotonic() + 60 * minutes
    with losses_shown() as tell, stages_shown() as seen:
        out = train_lora(told, Run(told.run, tell, until, save_every), load(LogSettings).home, cpu, seen)
    if out is None:
        typer.echo(f"stopped; the same command goes on from {told.run}")
    else:
        typer.echo(f"the LoRA is in {out}; figures and samples: {told.run / 'report.html'}")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="a LoRA, .safetensors")],
    base: Annotated[str, typer.Option(help="the base model's name or place")] = "starter",
    prompt: Annotated[str, typer.Option(help="what is drawn to compare")] = "a red apple",
) -> None:
    """Check that every key of a LoRA fits the base model, and that our engine and diffusers draw the same with it.

    Exit code 1 if they do not, or if it does nothing.
    """
    import torch

    from itemforge.engine.model import load_model
    from itemforge.settings import LogSettings, load
    from itemforge.styles.models import find_model
    from itemforge.training.verify import verify as judged

    home = load(LogSettings).home
    found = judged(file, load_model(find_model(base, home), torch.device("cpu"), torch.float32, home), prompt)
    typer.echo(found.told())
    if not found.good:
        raise typer.Exit(1)


@app.command()
def publish(
    config: Annotated[Path, typer.Option(help="TOML file of the run")],
    file: Annotated[
        Path | None, typer.Option(help="a checkpoint's file; default: RUN/lora/NAME.safetensors")
    ] = None,
    weight: Annotated[float, typer.Option(help="how strongly the LoRA is applied")] = 1.0,
) -> None:
    """Publish a trained LoRA as the next version of its style; running workers draw with it without a restart."""
    import asyncio

    from itemforge.errors import InvalidInput
    from itemforge.settings import LogSettings, StorageSettings, load
    from itemforge.storage.opening import open_store
    from itemforge.styles.local import LocalPacks
    from itemforge.styles.models import base_sha256, find_model
    from itemforge.styles.pack import Size, StylePack
    from itemforge.styles.registry import publish as published
    from itemforge.training.lora_config import read_lora_config

    told, home = read_lora_config(config), load(LogSettings).home
    path = file or told.run / "lora" / f"{told.name}.safetensors"
    if not path.is_file():
        raise InvalidInput(f"there is no {path}; train the LoRA first, or name a checkpoint with --file")
    pack = StylePack(
        id=told.name,
        version=1,
        base=base_sha256(find_model(told.base, home), home),
        licence=told.licence,
        trigger=told.trigger,
        template=told.template,
        negative=told.negative,
        size=Size(width=told.size, height=told.size, min=max(8, told.size // 16 * 8), max=told.size * 2),
    )
    store = open_store(load(StorageSettings))
    made = asyncio.run(published(store, pack, [(path.read_bytes(), weight)], LocalPacks(home)))
    typer.echo(f"{made.name} is published and current")


@app.command("eval-starter")
def eval_starter(
    data: Annotated[Path, typer.Option(help="folder of `itemforge data icons`, of the model's size")],
    model: Annotated[str, typer.Option(help="a name or a directory")] = "starter",
    style: Annotated[Path | None, typer.Option(help="a style's TOML; default: the starter's `plain`")] = None,
    out: Annotated[Path, typer.Option(help="folder for the figures and the contact sheet")] = Path(
        "out/eval"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Measure what a base model can draw, and put 64 of its pictures on a sheet."""
    import json
    from dataclasses import asdict

    from PIL import Image

    from itemforge.cli.steps import steps_shown
    from itemforge.engine.loop import Engine
    from itemforge.imaging.sheet import contact_sheet
    from itemforge.settings import EngineSettings, load
    from itemforge.styles.models import starter_dir
    from itemforge.styles.pack import parse
    from itemforge.training import starter_eval

    engine = Engine.load(load(EngineSettings, model=model, device=device))
    pack = parse((style or starter_dir() / "styles/plain.toml").read_bytes())
    with steps_shown("pictures", starter_eval.PICTURES) as step:
        figures, shown = starter_eval.evaluate(engine, pack, data, lambda done, of: step(done))
    out.mkdir(parents=True, exist_ok=True)
    text = starter_eval.table(figures)
    (out / "figures.md").write_text(text + "\n", encoding="utf-8")
    (out / "figures.json").write_text(
        json.dumps([asdict(each) for each in figures], indent=2), encoding="utf-8"
    )
    contact_sheet([(Image.fromarray(p), t) for p, t in shown], columns=8).save(out / "sheet.png")
    typer.echo(text)
    typer.echo(out / "sheet.png")
