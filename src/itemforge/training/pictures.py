"""A captioned training set in memory: an ImageFolder with `metadata.jsonl`."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from itemforge.errors import InvalidInput

METADATA = "metadata.jsonl"


class Line(BaseModel):
    """What is read of a line; other columns are the data tools' own."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    file_name: str
    text: Annotated[str, Field(min_length=1)]
    #: More phrasings of `text`; each pass takes one.
    captions: list[Annotated[str, Field(min_length=1)]] = []
    #: Of a copy in another colour.
    colour: str | None = None
    #: Code points of the thing, and the icon set, where `itemforge data icons` made it.
    concept: str = ""
    set: str = ""

    @property
    def phrasings(self) -> list[str]:
        return self.captions or [self.text]


@dataclass(frozen=True)
class Pictures:
    """`pixels` is uint8 (N, 3, size, size); `sha256` is of all pixels and captions."""

    lines: list[Line]
    pixels: Tensor
    sha256: str

    def __len__(self) -> int:
        return len(self.lines)


def read_lines(folder: Path) -> list[Line]:
    """The metadata of an ImageFolder.

    Raises:
        InvalidInput: there is none, or a line is wrong; the text says which.
    """
    path = folder / METADATA
    try:
        told = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot read {path}: {error}; a training set has one line of JSON a picture"
        ) from error
    lines = []
    for number, text in enumerate(told, 1):
        try:
            lines.append(Line.model_validate(json.loads(text)))
        except (ValueError, ValidationError) as error:
            raise InvalidInput(f"{path}, line {number}: {str(error).splitlines()[0]}") from None
    if not lines:
        raise InvalidInput(f"{path} is empty")
    return lines


def read_pictures(folder: Path, size: int) -> Pictures:
    """All pictures of a folder, which must have `size` x `size` pixels without alpha.

    Raises:
        InvalidInput: as `read_lines`, or a picture is missing, broken or of another size.
    """
    lines = read_lines(folder)
    pixels = np.empty((len(lines), size, size, 3), dtype=np.uint8)
    for n, line in enumerate(lines):
        path = folder / line.file_name
        try:
            with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
                if picture.size != (size, size) or picture.mode != "RGB":
                    raise InvalidInput(
                        f"{path} is {picture.mode} of {picture.width}x{picture.height}, not RGB of {size}x{size}"
                    )
                pixels[n] = np.asarray(picture)
        except (OSError, SyntaxError) as error:
            raise InvalidInput(f"cannot read {path}: {error}") from error
    digest = hashlib.sha256(pixels.tobytes())
    digest.update(json.dumps([line.phrasings for line in lines]).encode())
    return Pictures(lines, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), digest.hexdigest())
