"""A captioned training set in memory: an ImageFolder with `metadata.jsonl`."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from itemforge.dataset.metadata import Line, read_lines
from itemforge.errors import InvalidInput


@dataclass(frozen=True)
class Pictures:
    """`pixels` is uint8 (N, 3, size, size); `sha256` is of all pixels and captions."""

    lines: list[Line]
    pixels: Tensor
    sha256: str

    def __len__(self) -> int:
        return len(self.lines)


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
