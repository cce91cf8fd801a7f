"""Pictures of things, and the commands as tests call them."""

import os
from pathlib import Path
from typing import Any

from item_pictures import data, on, thing
from typer.testing import CliRunner, Result

from itemforge.cli.app import app
from itemforge.dataset.captioning.fields import CaptionFields
from itemforge.dataset.processed import all_processed
from itemforge.dataset.store import open_store
from itemforge.dataset.store_captions import CaptionState, caption, captions, save_caption

#: In the set once each; with them go a copy, a variant, one that is too small, and one that is flagged.
NAMES = (
    "Iron_Sword",
    "Golden Key",
    "Blue Potion",
    "Red Apple",
    "Wooden Chest",
    "Fée",
    "剣",
    "con",
    "Old Map",
    "Bell",
    "Drum",
    "Lamp",
)
USABLE = len(NAMES) + 2


def run(*arguments: object) -> Result:
    return CliRunner().invoke(
        app, [os.fspath(each) if isinstance(each, Path) else str(each) for each in arguments]
    )


def said(*arguments: object) -> str:
    """What a command says that must go well."""
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*arguments: object) -> str:
    """The error's text of a command that must fail."""
    result = run(*arguments)
    assert result.exception is not None and result.exit_code != 0, result.output
    return f"{result.output}{result.exception}"


def write_things(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (folder / f"{name}.png").write_bytes(data(thing(number)))
    (folder / "Iron Sword again.jpg").write_bytes(
        data(on(thing(0, 150), (255, 255, 255)), "JPEG", quality=92)
    )
    (folder / "Green Apple.png").write_bytes(data(thing(3, shift=120)))
    (folder / "speck.png").write_bytes(data(thing(2).resize((8, 8))))
    (folder / "busy.png").write_bytes(data(_busy()))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def _busy() -> Any:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(5).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((96, 96), Image.Resampling.NEAREST)


def set_captions(items: Path, state: CaptionState = "approved", **fields: Any) -> None:
    """Give all usable pictures that state, and those without a caption one."""
    with open_store(items) as store:
        for sha256, made in all_processed(store).items():
            if not made.usable:
                continue
            before = caption(store, sha256)
            told = fields or (before.fields if before else {"object": f"thing {sha256[:4]}x"})
            CaptionFields.model_validate(told)
            save_caption(
                store,
                sha256,
                told,
                provider="person",
                prompt_version="",
                state=state,
                who="test",
                seen=before.version if before else 0,
            )


def states(items: Path) -> dict[str, tuple[str, str]]:
    """State and provider of each caption."""
    with open_store(items) as store:
        return {each.sha256: (each.state, each.provider) for each in captions(store)}
