"""What is made of a picture, and what is written down about it.

A recipe's key stands in the name of everything that was made by it, so a changed recipe never meets old files.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from PIL import Image

from itemforge.errors import InvalidInput

#: Changes whenever the same bytes would give other pictures under the same recipe.
VERSION = 1
#: Pillow refuses pictures of twice this many pixels, whatever a recipe allows.
_PILLOW_ALLOWS = Image.MAX_IMAGE_PIXELS or 89_478_485


class State(StrEnum):
    """`flagged` pictures are made like those that are `ok`, but a person should look at them; `aside` are not."""

    OK = "ok"
    FLAGGED = "flagged"
    ASIDE = "aside"


class Reason(StrEnum):
    """Why a picture is flagged or set aside."""

    NONE = ""
    # Flagged.
    BUSY = "a background that is not plain"
    ENLARGED = "enlarged too much"
    # Set aside.
    UNREADABLE = "the file cannot be read"
    FORMAT = "no PNG, JPEG, WebP or GIF"
    DAMAGED = "damaged"
    BYTES = "too large a file"
    PIXELS = "too many pixels"
    TINY = "too small"
    BLANK = "nothing to see"
    DIED = "its process died"
    SLOW = "it took too long"
    MEMORY = "it needs too much memory"
    BUG = "an error of ours"


class Ground(StrEnum):
    """What the item stood on."""

    NONE = ""
    ALPHA = "transparent"
    WHITE = "white"
    PLAIN = "plain"
    BUSY = "busy"


@dataclass(frozen=True)
class Recipe:
    """How pictures are made.

    `margin` is the least white on each side, as a share of the picture's. More than `max_upscale` times enlarged
    is flagged; an item whose longer side has fewer pixels than `min_side` is set aside.

    Raises:
        InvalidInput: a value that cannot be meant.
    """

    size: int = 512
    margin: float = 1 / 16
    max_upscale: float = 4.0
    min_side: int = 24
    max_pixels: int = 64_000_000
    max_bytes: int = 64 * 1024**2

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 4096:
            raise InvalidInput(f"size is {self.size}; it must be from 16 to 4096 pixels")
        if not 0 <= self.margin <= 0.4:
            raise InvalidInput(f"margin is {self.margin}; it is a share of the side, from 0 to 0.4")
        if not self.max_upscale >= 1:  # nan is neither
            raise InvalidInput(
                f"max_upscale is {self.max_upscale}; 1 flags all that is enlarged, less means nothing"
            )
        if self.min_side < 1 or self.max_bytes < 1:
            raise InvalidInput("min_side and max_bytes must be at least 1")
        if not 1 <= self.max_pixels <= _PILLOW_ALLOWS:
            raise InvalidInput(f"max_pixels is {self.max_pixels}; it must be from 1 to {_PILLOW_ALLOWS}")

    @property
    def inner(self) -> int:
        """Pixels of the longer side of an item."""
        return self.size - 2 * round(self.size * self.margin)

    @property
    def key(self) -> str:
        text = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Record:
    """What is known of one source file's bytes; no word of where they lay, so that copies share it.

    `width` and `height` are the source's, upright; `content_*` those of the item within it. `scale` is from the
    source to what was made. `pixels` is the sha256 of what the source shows, whatever format it came in.
    """

    sha256: str
    state: State
    reason: Reason = Reason.NONE
    detail: str = ""
    notes: tuple[str, ...] = ()
    format: str = ""
    lossless: bool = False
    bytes: int = 0
    width: int = 0
    height: int = 0
    content_width: int = 0
    content_height: int = 0
    scale: float = 0.0
    ground: Ground = Ground.NONE
    pixels: str = ""

    @property
    def made(self) -> bool:
        """Whether there is a picture of it."""
        return self.state is not State.ASIDE

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """The record that `to_json` wrote.

        Raises:
            InvalidInput: it is none.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            fields |= {
                "state": State(fields["state"]),
                "reason": Reason(fields["reason"]),
                "ground": Ground(fields["ground"]),
                "notes": tuple(fields["notes"]),
            }
            return cls(**fields)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"this is no record of a picture: {error}") from error


class Unusable(Exception):
    """A picture that must be set aside; never leaves `itemforge.dataset.process`."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
