"""`itemforge train`: base models and styles."""

import time
from pathlib import Path
from typing import Annotated

import typer

from itemforge.cli import evaluate

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
        Path | None,
        typer.Option(
            help="a checkpoint's file; default: the best of `train eval`, else RUN/lora/NAME.safetensors"
        ),
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="how strongly the LoRA is applied; default: the best's, else 1")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="into this folder instead of the registry, such as ITEMFORGE_HOME/styles"),
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="also as an artifact of this project: ENTITY/PROJECT")
    ] = None,
    hub: Annotated[
        str | None, typer.Option(help="also to this repository of the Hugging Face hub: OWNER/NAME")
    ] = None,
) -> None:
    """Publish a trained LoRA as the next version of its style; running workers draw with it without a restart."""
    import asyncio

    from itemforge.errors import InvalidInput
    from itemforge.settings import LogSettings, StorageSettings, load
    from itemforge.storage.opening import open_store
    from itemforge.styles.local import LocalPacks
    from itemforge.styles.models import base_sha256, find_model
    from itemforge.styles.registry import publish as published
    from itemforge.training import sharing
    from itemforge.training.lora_config import pack_of, read_lora_config
    from itemforge.training.lora_eval import BEST, read_best

    if folder is not None and (wandb or hub):
        raise InvalidInput("--wandb and --hub share what is published; leave --folder out, or them")
    told, home = read_lora_config(config), load(LogSettings).home
    best = None if file else read_best(told.run / "eval" / BEST)
    path = file or (best[0] if best else told.run / "lora" / f"{told.name}.safetensors")
    strength = weight if weight is not None else best[1] if best else 1.0
    if not path.is_file():
        raise InvalidInput(f"there is no {path}; train the LoRA first, or name a checkpoint with --file")
    pack = pack_of(told, base_sha256(find_model(told.base, home), home))
    if folder is not None:
        typer.echo(f"{sharing.write_pack(pack, path, strength, folder).name} lies in {folder}")
        return
    store = open_store(load(StorageSettings))
    made = asyncio.run(published(store, pack, [(path.read_bytes(), strength)], LocalPacks(home)))
    typer.echo(f"{made.name} is published and current: {path}, weight {strength:g}")
    if wandb or hub:
        shared = sharing.write_shared(made, path, told.run / "shared" / made.name)
        if wandb:
            typer.echo(f"W&B artifact {sharing.to_wandb(made, shared, wandb)}")
        if hub:
            typer.echo(f"hub repository {sharing.to_hub(made, shared, hub)}")


app.command("eval")(evaluate.style)
app.command("eval-starter")(evaluate.starter)
