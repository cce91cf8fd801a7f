"""`itemforge train eval` and `eval-starter`: how good a style or a base model is, to read and to look at."""

from pathlib import Path
from typing import Annotated

import typer


def style(
    config: Annotated[Path, typer.Option(help="TOML file of the run")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="a prompt a line (--n --w --h --d --l --s as sd-scripts); default: ours"),
    ] = None,
    weights: Annotated[str, typer.Option(help="how strongly each LoRA is applied")] = "0.6,0.8,1.0",
    every: Annotated[int, typer.Option(min=1, help="every so many epochs, and the last")] = 1,
    captions: Annotated[int, typer.Option(min=0, help="at most so many captions of held-out pictures")] = 12,
    clip: Annotated[
        Path | None, typer.Option(help="folder of a CLIP model, which reads words; default: none is needed")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="default: RUN/eval")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Draw the same prompts with every checkpoint of a LoRA, measure and compare them, and name the best.

    RUN/eval/report.html shows all pictures side by side. What was drawn is kept, so the same command goes on.
    """
    from functools import partial

    import torch

    from itemforge.cli.steps import stages_shown
    from itemforge.engine.loop import Engine
    from itemforge.settings import EngineSettings, load
    from itemforge.styles.files import write_atomic
    from itemforge.training import lora_eval, suite
    from itemforge.training.doctor import check
    from itemforge.training.embedders import ClipEmbedder, PlainEmbedder
    from itemforge.training.eval_report import page
    from itemforge.training.judge import Judge
    from itemforge.training.lora import diagnose
    from itemforge.training.lora_config import pack_of, read_lora_config

    told = read_lora_config(config)
    folder = out or told.run / "eval"
    candidates = lora_eval.find_candidates(told.run, lora_eval.read_weights(weights), every)
    engine = Engine.load(load(EngineSettings, model=told.base, device=device))
    pack = pack_of(told, engine.model.base)
    with stages_shown() as seen:
        found = diagnose(told, engine.model, partial(seen, "reading"))
        check(found, told.drop_bad)
        train, held_out = [[each.pixels for each in part] for part in (found.train, found.validation)]
        texts = [each.sample.captions[0] for each in found.validation]
        asked = suite.read_suite(prompts, pack) if prompts else suite.fixed_suite(pack)
        asked += suite.caption_suite(texts, pack, captions) if captions else []
        embedder = ClipEmbedder(clip, torch.device("cpu")) if clip else PlainEmbedder()
        judge = Judge(embedder, train, held_out)
        made = lora_eval.evaluate(
            engine,
            candidates,
            asked,
            judge,
            judge.prompt_ceiling(texts, held_out),
            folder / "pictures",
            partial(seen, "pictures"),
        )
    lora_eval.write_best(made.best, folder / lora_eval.BEST)
    write_atomic(folder / "report.html", page(told.name, made, train).encode())
    typer.echo(
        f"the best is {made.best.candidate.name}, score {made.best.score:.2f}: {made.best.candidate.lora.path}"
    )
    typer.echo(folder / "report.html")


def starter(
    data: Annotated[Path, typer.Option(help="folder of `itemforge data icons`, of the model's size")],
    model: Annotated[str, typer.Option(help="a name or a directory")] = "starter",
    style: Annotated[Path | None, typer.Option(help="a style's TOML; default: the starter's `plain`")] = None,
    out: Annotated[Path, typer.Option(help="folder for the figures and the contact sheet")] = Path(
        "out/eval"
    ),
    styles: Annotated[
        bool,
        typer.Option(
            help="also the styles that lie beside the model and were trained on a set of DATA/styles"
        ),
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Measure what a base model can draw, and what its styles make of it; 64 pictures on a sheet."""
    import json
    from dataclasses import asdict
    from functools import partial

    from PIL import Image

    from itemforge.cli.steps import stages_shown
    from itemforge.engine.loop import Engine
    from itemforge.imaging.sheet import contact_sheet
    from itemforge.settings import EngineSettings, load
    from itemforge.styles.models import find_model, starter_dir
    from itemforge.styles.pack import parse
    from itemforge.training import starter_eval, style_eval

    settings = load(EngineSettings, model=model, device=device)
    engine = Engine.load(settings)
    plain = parse((style or starter_dir() / "styles/plain.toml").read_bytes())
    folder = find_model(model, settings.home) / "styles"
    with stages_shown() as seen:
        made = starter_eval.evaluate(engine, plain, data, partial(seen, "pictures"))
        figures, sheets = list(made.figures), {"sheet": made.shown}
        for own in style_eval.styles_of(folder, data) if styles else ():
            more, sheets[own.pack.id] = style_eval.evaluate(engine, own, made, partial(seen, own.pack.id))
            figures += more
    out.mkdir(parents=True, exist_ok=True)
    text = starter_eval.table(figures)
    (out / "figures.md").write_text(text + "\n", encoding="utf-8")
    told = json.dumps([asdict(each) for each in figures], indent=2)
    (out / "figures.json").write_text(told, encoding="utf-8")
    for name, pictures in sheets.items():
        contact_sheet([(Image.fromarray(p), t) for p, t in pictures], columns=8).save(out / f"{name}.png")
    typer.echo(text)
    typer.echo(out / "sheet.png")
