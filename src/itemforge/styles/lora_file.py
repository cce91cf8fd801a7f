"""A look at a LoRA file before it is published: whether it is whole, and of a kind that the engine merges.

Only the header is read. Whether its keys fit the base model is the engine's to say (`itemforge train verify`).
"""

import json
import struct
from typing import Any, BinaryIO

from itemforge.errors import InvalidStyle
from itemforge.styles.files import MAX_BLOB
from itemforge.styles.models import MAX_HEADER

#: Relatives of LoRA that change weights in another way, by what their keys contain. The engine merges none of them.
OTHER_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "oft_": "OFT",
    "lora_B.bias": "LoRA with biases",
}


def check_lora(file: BinaryIO, size: int) -> int:
    """How many tensors a LoRA file of `size` bytes has.

    Raises:
        InvalidStyle: it is too large, no whole safetensors file, or no LoRA.
    """
    if size > MAX_BLOB:
        raise InvalidStyle(f"the file has {size} bytes, more than the {MAX_BLOB} that a LoRA may have")
    tensors, begin = _header(file)
    ends = [_end(name, told) for name, told in tensors.items()]
    if begin + max(ends, default=0) != size:
        raise InvalidStyle("the file is cut off, or has more than its header tells; save or copy it again")
    for name in tensors:
        if kind := next((kind for part, kind in OTHER_KINDS.items() if part in name), None):
            raise InvalidStyle(
                f"the file is a {kind} ({name[:80]}), which cannot be merged; train a plain LoRA"
            )
        if "lora" not in name.lower() and not name.endswith(".alpha"):
            raise InvalidStyle(
                f"the file is no LoRA: it has the tensor {name[:80]!r}; choose the LoRA's own file"
            )
    if not tensors:
        raise InvalidStyle("the file has no tensors; choose the LoRA's own file")
    return len(tensors)


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The tensors by name, and where their bytes begin."""
    file.seek(0)
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER:
            raise ValueError
        header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError
    except (ValueError, struct.error, RecursionError):
        raise InvalidStyle("the file is no safetensors file; pickled weights are not taken") from None
    header.pop("__metadata__", None)
    return header, 8 + length


def _end(name: str, told: Any) -> int:
    try:
        begin, end = told["data_offsets"]
        if not 0 <= begin <= end <= MAX_BLOB:
            raise ValueError
    except (TypeError, KeyError, ValueError):
        raise InvalidStyle(f"the file's header is broken at {name[:80]!r}; save or copy it again") from None
    return int(end)
