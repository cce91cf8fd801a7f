"""What a training run is told: one TOML file, in which every key counts.

A key that is not known is an error that names its nearest neighbour, for a setting that does nothing costs a
night on a GPU.
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from itemforge.errors import ConfigurationError

T = TypeVar("T", bound="Section")

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Steps(Section):
    """How long a stage learns: AdamW with a warm-up and a cosine down to a tenth of `learning_rate`."""

    steps: Count
    batch_size: Count
    learning_rate: Rate
    warmup: Annotated[int, Field(ge=0)] = 200


class TextShape(Section):
    """The tokenizer and the CLIP text encoder."""

    vocabulary: Count = 6000
    hidden_size: Count = 192
    layers: Count = 4
    heads: Count = 4


class VaeShape(Section):
    """One level halves the picture's side each, but for the last: three levels are four pixels a latent."""

    channels: tuple[Count, ...] = (32, 64, 96)
    norm_groups: Count = 16


class UnetShape(Section):
    """As SD 1.5's in the small. Every level but the first has attention."""

    channels: tuple[Count, ...] = (96, 160, 224)
    heads: Count = 8
    layers_per_block: Count = 1


class Words(Steps):
    """The text encoder learns from a sentence encoder what words mean, before it has seen a picture.

    `teacher` is a folder in sentence-transformers layout (all-MiniLM-L6-v2). `weight` is how much of
    that lesson stays beside the pictures. Each thing's captions get up to `neighbours` more words: those of the teacher's
    that are nearest to its names, with a cosine of `likeness` at least.
    """

    teacher: Path
    weight: Annotated[float, Field(ge=0)] = 0.2
    neighbours: Annotated[int, Field(ge=0)] = 0
    likeness: Share = 0.5


class Diffusion(Steps):
    """UNet and text encoder together."""

    caption_dropout: Share = 0.1
    min_snr_gamma: Annotated[float, Field(gt=0)] = 5.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    #: Whether half of the pictures are taken mirrored. A model that learnt so draws every other item the other way round.
    flip: bool = False
    #: How often a picture as it came is taken, to once for a copy in another colour.
    original_weight: Annotated[float, Field(gt=0)] = 2.0
    #: How often a set's pictures are taken, by the set's name, to once for those of a set that is not named.
    set_weights: dict[str, Annotated[float, Field(gt=0)]] = {}


class Meaning(Steps):
    """The text encoder learns what the finished UNet is to be told by other words.

    A word of the teacher's vocabulary stands for its nearest thing if their cosine is `likeness` at least. So does a single noun of
    `dictionary`, a folder with WordNet's `data.noun` and `index.noun`; the teacher then reads what words mean, too.
    """

    likeness: Share = 0.65
    dictionary: Path | None = None


class StarterConfig(Section):
    """`itemforge train base`.

    `data` is the folder that `itemforge data icons` made, `run` the folder of the run, `warm_start` a diffusers
    directory whose weights are taken where they fit.
    """

    data: Path
    run: Path
    size: Annotated[int, Field(ge=32, le=512)] = 64
    seed: int = 42
    precision: Literal["float32", "bfloat16"] = "float32"
    warm_start: Path | None = None
    text: TextShape = TextShape()
    vae: VaeShape = VaeShape()
    unet: UnetShape = UnetShape()
    train_vae: Steps
    train_words: Words | None = None
    train_diffusion: Diffusion
    train_meaning: Meaning | None = None
    train_decoder: Steps


def read_config(path: Path, kind: type[T], preset: Mapping[str, Any] = MappingProxyType({})) -> T:
    """The file as `kind`, on top of a preset's values; paths in it are relative to the working directory.

    Raises:
        ConfigurationError: it cannot be read, or a key is unknown or wrong; the text says which and what is meant.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    try:
        return kind.model_validate({**preset, **told})
    except ValidationError as error:
        said = "; ".join(_said(kind, dict(each)) for each in error.errors()[:5])
        raise ConfigurationError(f"{path}: {said}") from None


def _said(kind: type[Section], error: dict[str, object]) -> str:
    where = error["loc"]
    assert isinstance(where, tuple)  # noqa: S101 - pydantic's promise, for the type checker
    name = ".".join(map(str, where))
    if error["type"] != "extra_forbidden":
        return f"{name}: {str(error['msg']).lower()}"
    near = difflib.get_close_matches(str(where[-1]), _keys(kind, where[:-1]), n=1, cutoff=0.5)
    return f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else "")


def _keys(kind: type[Section], path: tuple[object, ...]) -> list[str]:
    """The keys of the table at `path`."""
    for name in path:
        field = kind.model_fields.get(str(name))
        found = [t for t in _types(field.annotation) if issubclass(t, Section)] if field else []
        if not found:
            return []
        kind = found[0]
    return list(kind.model_fields)


def _types(annotation: object) -> list[type]:
    parts = getattr(annotation, "__args__", (annotation,))
    return [part for part in parts if isinstance(part, type)]
