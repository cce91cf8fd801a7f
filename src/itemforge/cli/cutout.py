"""`itemforge cutout`: pictures on white made ready for a game, without a gateway."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from itemforge.contract import Holes, Output
from itemforge.errors import InvalidInput


def cutout(
    files: Annotated[list[Path], typer.Argument(help="PNG files")],
    out: Annotated[Path, typer.Option(help="folder for what is made; files there are replaced")],
    background: Annotated[Literal["white", "transparent"], typer.Option()] = "transparent",
    holes: Annotated[Holes, typer.Option(help="enclosed patches of the background's colour")] = Holes.GUESS,
    size: Annotated[int | None, typer.Option(help="side of a square, 64 to 1024; default: as drawn")] = None,
    trim: Annotated[bool, typer.Option(help="cut down to the item, and centre it")] = False,
    pad: Annotated[int, typer.Option(help="empty pixels on each side")] = 0,
    kind: Annotated[Literal["png", "webp"], typer.Option("--format")] = "png",
) -> None:
    """Take items off their white or plain background.

        itemforge cutout sword.png shield.png --out ready --size 256 --trim

    A picture that cannot be cut out is named, the others are made, and the exit code is 1.
    """
    from itemforge.imaging.derive import derive
    from itemforge.imaging.opening import read_file
    from itemforge.styles.files import write_atomic

    try:
        output = Output(background=background, holes=holes, size=size, trim=trim, pad=pad, format=kind)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InvalidInput(f"{'.'.join(map(str, wrong['loc']))} {wrong['msg']}".strip()) from None
    names = [f"{file.stem}.{kind}" for file in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"several files would become {sorted(twice)[0]}; give them in several calls")
    if own := {file.resolve() for file in files} & {(out / name).resolve() for name in names}:
        raise InvalidInput(f"{own.pop()} would be replaced by what is made of it; name another folder")
    failed = 0
    for file, name in zip(files, names, strict=True):
        try:
            write_atomic(out / name, derive(read_file(file), output))
            typer.echo(str(out / name))
        except InvalidInput as why:
            failed += 1
            typer.echo(f"{file}: {why}", err=True)
    if failed:
        raise typer.Exit(1)
