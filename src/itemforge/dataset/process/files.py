"""What was made of pictures, on disk: named by the source's sha256 and the recipe's key, so never stale.

| folder | of each picture |
|---|---|
| `pictures` | PNG, RGB on white |
| `cutouts` | PNG, RGBA |
| `masks` | PNG, grey, white = learn; never in the folder that is scanned for pictures |
| `before` | WebP, the source, small |
| `records` | JSON, written last: what has none was not finished |
"""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from itemforge.dataset.process.picture import Made
from itemforge.dataset.process.recipe import Record
from itemforge.errors import InvalidInput
from itemforge.styles.files import write_atomic

RECORD = "records"


@dataclass(frozen=True)
class Files:
    """Where the files of one source lie. Those of a picture that was set aside do not exist."""

    out: Path
    name: str

    @classmethod
    def of(cls, out: Path, sha256: str, recipe_key: str) -> "Files":
        return cls(out, f"{sha256}-{recipe_key}")

    @property
    def picture(self) -> Path:
        return self.out / "pictures" / f"{self.name}.png"

    @property
    def cutout(self) -> Path:
        return self.out / "cutouts" / f"{self.name}.png"

    @property
    def mask(self) -> Path:
        return self.out / "masks" / f"{self.name}.png"

    @property
    def before(self) -> Path:
        return self.out / "before" / f"{self.name}.webp"

    @property
    def record(self) -> Path:
        return self.out / RECORD / f"{self.name}.json"

    def read(self) -> Record | None:
        """The record, if it and all files that belong to it are there."""
        try:
            record = Record.from_json(self.record.read_text(encoding="utf-8"))
        except (OSError, InvalidInput, UnicodeDecodeError):
            return None
        files = (self.picture, self.cutout, self.mask) if record.made else ()
        return record if all(path.is_file() for path in files) else None

    def write(self, made: Made) -> None:
        """Write everything, each file whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        pictures = ((self.picture, made.picture), (self.cutout, made.cutout), (self.mask, made.mask))
        for path, picture in pictures:
            if picture is not None:
                write_atomic(path, _encoded(picture, "PNG"))
        if made.before is not None:
            write_atomic(self.before, _encoded(made.before, "WEBP"))
        write_atomic(self.record, made.record.to_json().encode(errors="replace"))


def _encoded(picture: Image.Image, kind: str) -> bytes:
    data = io.BytesIO()
    if kind == "PNG":
        picture.save(data, "PNG", compress_level=6)
    else:
        picture.save(data, kind, quality=75, method=4)
    return data.getvalue()
