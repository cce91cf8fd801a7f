"""`DIR/dataset.toml`: what a dataset is called in captions, and how large its pictures are.

A key that is not known is an error that names its nearest neighbour, as in the training settings.
"""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from itemforge.dataset.captioning.rendering import TSUKI, Look
from itemforge.dataset.process.recipe import Recipe
from itemforge.errors import ConfigurationError, InvalidInput
from itemforge.styles.files import write_atomic

MANIFEST = "dataset.toml"


class Manifest(BaseModel):
    """The file's keys, and what they are where the file leaves them out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trigger: Annotated[str, Field(max_length=100)] = TSUKI.trigger
    template: Annotated[str, Field(max_length=1000)] = TSUKI.template
    tail: Annotated[str, Field(max_length=1000)] = ""
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 512
    margin: float = Recipe.margin
    max_upscale: float = Recipe.max_upscale
    min_side: int = Recipe.min_side
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _can_be_used(self) -> "Manifest":
        try:
            self.look()
            self.recipe()
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return self

    def look(self) -> Look:
        """How captions are written."""
        return Look(self.trigger, self.template, self.tail)

    def recipe(self) -> Recipe:
        """How pictures are made."""
        return Recipe(
            size=self.size, margin=self.margin, max_upscale=self.max_upscale, min_side=self.min_side
        )


def _text(look: Look) -> str:
    return f"""\
# What the captions of this dataset begin with: a word that the model does not know yet.
trigger = {_quoted(look.trigger)}
# How a caption is put together from the trigger, what is said of the picture, and the tail.
template = {_quoted(look.template)}
# What all pictures have in common.
tail = {_quoted(look.tail)}
# Side of the finished pictures in pixels.
size = 512
# White on each side of the item, as a share of the picture's.
margin = 0.0625
# An item that is enlarged more often than this is flagged; one of fewer pixels than this is set aside.
max_upscale = 4.0
min_side = 24
# Share of the pictures that is kept from training, to judge it by.
validation = 0.1
"""


def _quoted(text: str) -> str:
    # A TOML string reads as a JSON one that has no escaped surrogates.
    return json.dumps(text, ensure_ascii=False)


def open_manifest(folder: Path, look: Look = TSUKI) -> Manifest:
    """The dataset's manifest, which is written with the defaults and this look if it is not there.

    Raises:
        ConfigurationError: it cannot be read or written, or a key is unknown or wrong.
    """
    path = folder / MANIFEST
    try:
        if not path.exists():
            write_atomic(path, _text(look).encode())
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot use {path}: {error}") from error
    try:
        return Manifest.model_validate(told)
    except ValidationError as error:
        said = "; ".join(_said(dict(each)) for each in error.errors()[:5])
        raise ConfigurationError(f"{path}: {said}") from None


def _said(error: dict[str, object]) -> str:
    where = error["loc"]
    assert isinstance(where, tuple)  # noqa: S101 - pydantic's promise, for the type checker
    name = ".".join(map(str, where))
    if error["type"] != "extra_forbidden":
        said = str(error["msg"]).removeprefix("Value error, ")
        return f"{name}: {said}" if name else said
    near = difflib.get_close_matches(name, list(Manifest.model_fields), n=1, cutoff=0.5)
    return f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else "")
