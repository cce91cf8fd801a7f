"""The lines of an ImageFolder: `metadata.jsonl`, one object of JSON for each picture."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
