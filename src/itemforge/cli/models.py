"""`itemforge models`: base models and LoRAs from elsewhere."""

from typing import TYPE_CHECKING, Annotated

import typer

from itemforge.errors import InvalidInput
from itemforge.settings import PullSettings, load

if TYPE_CHECKING:
    from itemforge.pulling.pull import Pulled
    from itemforge.pulling.recipe import PulledPack

app = typer.Typer(no_args_is_help=True)


@app.callback()
def models() -> None:
    """Base models and LoRAs from elsewhere."""


@app.command()
def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="sd15, tsuki, hf:ORG/REPO, hf:ORG/REPO@REVISION/FILE, wandb:ENTITY/PROJECT/ARTIFACT:VERSION "
            "(or with /FILE), https://…, or a path"
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="the name it gets; default: the source's")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="branch, tag or commit of a Hugging Face repository")
    ] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="what the single file must have")] = None,
    lora: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="of a pack: another source for its LoRA")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="of a pack: another base model, by name")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="pull anew, and put it in the place of what has the name")
    ] = False,
) -> None:
    """Bring a base model, a LoRA or a style home, checked by sha256.

    An interrupted pull goes on where it was. What is there already is checked and not downloaded again.

    Examples:

    itemforge models pull sd15

    itemforge models pull hf:ORG/REPO/lora.safetensors --as pastel

    itemforge models pull tsuki --lora runs/tsuki/lora/tsuki.safetensors
    """
    import re

    from itemforge.cli.downloads import downloads_shown
    from itemforge.pulling.means import Means
    from itemforge.pulling.pull import pull as brought
    from itemforge.pulling.recipe import pull_pack
    from itemforge.pulling.source import PackSource, parse_source

    settings = load(PullSettings)
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256 := sha256.strip().lower()):
        raise InvalidInput("--sha256 must be 64 hexadecimal digits, as sha256sum prints them")
    wanted = parse_source(source, revision)
    if not isinstance(wanted, PackSource) and (lora is not None or base is not None):
        raise InvalidInput(f"--lora and --base are for packs such as tsuki, and {source} is none")
    with downloads_shown() as tell:
        means = Means(settings, tell, lambda text: typer.echo(text, err=True))
        if isinstance(wanted, PackSource):
            lora = lora or settings.tsuki_lora
            pack = pull_pack(wanted, means, name=name, lora=lora, base=base, sha256=sha256, replace=replace)
        else:
            model = brought(wanted, means, name=name, sha256=sha256, replace=replace)
    if isinstance(wanted, PackSource):
        _say_pack(pack)
    else:
        _say(model)


def _say(pulled: "Pulled") -> None:
    from itemforge.pulling.workshop import told

    files = f"{len(pulled.record.files)} files, " if len(pulled.record.files) > 1 else ""
    state = "" if pulled.fresh else "was there already, and is whole: "
    revision = f", {pulled.record.revision}" if pulled.record.revision else ""
    typer.echo(f"{pulled.name}: {state}{pulled.place.path} ({files}{told(pulled.record.size)}{revision})")


def _say_pack(pulled: "PulledPack") -> None:
    if pulled.base is not None:
        _say(pulled.base)
    _say(pulled.lora)
    typer.echo(f"{pulled.pack.name}: {pulled.file}")
    typer.echo(
        f'draw with it: itemforge generate "a red apple" --style {pulled.pack.id} --model {pulled.base_name}'
    )
