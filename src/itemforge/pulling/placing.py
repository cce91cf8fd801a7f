"""Where a pulled model goes, once it is whole: the engine finds it there under its name.

| what | place at home |
|---|---|
| a diffusers directory | `models/NAME/`, its record in `pulled.json` |
| a full checkpoint | `models/NAME.safetensors`, its record in `models/NAME.pulled.json` |
| a LoRA | `loras/NAME.safetensors`, its record in `loras/NAME.pulled.json` |
"""

import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from itemforge.errors import ModelError
from itemforge.pulling.record import Record, read_record
from itemforge.pulling.workshop import RECORD, Workshop
from itemforge.styles.models import safetensors_header

Kind = Literal["model", "checkpoint", "lora"]

#: What names the parts of a LoRA, and of its relatives, in all layouts (engine/lora_keys.py knows each; it needs torch).
_LORA = re.compile(r"lora[._]|[._]lora|hada_w|lokr_w|oft_|dora_scale")
_CHECKPOINT = ("model.diffusion_model.", "first_stage_model.")


@dataclass(frozen=True)
class Place:
    """A place under a name, taken or not."""

    kind: Kind
    path: Path

    @property
    def record_file(self) -> Path:
        return (
            self.path / RECORD if self.kind == "model" else self.path.with_name(f"{self.path.stem}.{RECORD}")
        )

    @property
    def root(self) -> Path:
        """What the names in the record are relative to."""
        return self.path if self.kind == "model" else self.path.parent

    def record(self) -> Record | None:
        return read_record(self.record_file)


def places(home: Path, name: str) -> dict[Kind, Place]:
    """Where something of this name can lie."""
    return {
        "model": Place("model", home / "models" / name),
        "checkpoint": Place("checkpoint", home / "models" / f"{name}.safetensors"),
        "lora": Place("lora", home / "loras" / f"{name}.safetensors"),
    }


def taken(home: Path, name: str) -> Place | None:
    """The place where there is something of this name."""
    return next((place for place in places(home, name).values() if place.path.exists()), None)


def kind_of(path: Path) -> Kind:
    """What a file of weights is, from its header alone.

    Raises:
        ModelError: it is neither a LoRA nor a full checkpoint, or not whole.
    """
    check_whole(path)
    keys = safetensors_header(path).keys()
    if any(_LORA.search(key) for key in keys):
        return "lora"
    if all(any(key.startswith(prefix) for key in keys) for prefix in _CHECKPOINT):
        return "checkpoint"
    some = ", ".join(sorted(keys)[:3])
    raise ModelError(
        f"the weights are neither a LoRA nor a full Stable Diffusion 1.x checkpoint; they begin with {some or 'nothing'}"
    )


def check_whole(path: Path) -> None:
    """Whether a safetensors file has all the bytes that its header speaks of.

    Raises:
        ModelError: it is no such file, or was cut off.
    """
    try:
        header = safetensors_header(path)
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except (ModelError, KeyError, IndexError, TypeError, ValueError):
        raise ModelError(f"{path.name} is no readable safetensors file; is it a page, or cut off?") from None
    if path.stat().st_size != 8 + length + end:
        raise ModelError(
            f"{path.name} has {path.stat().st_size} bytes, its header speaks of {8 + length + end}"
        )


def place(home: Path, name: str, workshop: Workshop, files: list[str], want: Kind | None) -> Place:
    """Check what has arrived, and move it to its place, whole at once; what was there before goes.

    Raises:
        ModelError: it is no model, or not of the kind that is wanted; its files are removed.
    """
    try:
        kind = _check(workshop, files)
        if want not in (None, kind):
            raise ModelError(
                f"{workshop.record.source} is a {_WORDS[kind]}, and a {_WORDS[want or kind]} is needed"
            )
    except ModelError:
        shutil.rmtree(workshop.folder)
        raise
    before = [other for other in places(home, name).values() if other.path.exists()]
    target = places(home, name)[kind]
    workshop.keep_only(files)
    (_move_folder if kind == "model" else _move_file)(workshop, target)
    for other in before:
        if other.path != target.path:
            remove(other)
    return target


def put_back(folder: Path, name: str) -> None:
    """A replacement that was killed between its two moves left the old model aside."""
    old = Place("model", folder / f".{name}.old")
    if old.path.is_dir() and not (folder / name).exists():
        old.path.replace(folder / name)
    remove(old)


def remove(there: Place) -> None:
    """Take a model away, and its record."""
    if there.path.is_dir() and not there.path.is_symlink():
        shutil.rmtree(there.path)
    else:  # of a link, what it leads to is not ours
        there.path.unlink(missing_ok=True)
    if there.kind != "model":
        there.record_file.unlink(missing_ok=True)


_WORDS: dict[Kind, str] = {"model": "diffusers model", "checkpoint": "checkpoint", "lora": "LoRA"}


def _check(workshop: Workshop, files: list[str]) -> Kind:
    weights = [workshop.path(name) for name in files if name.endswith(".safetensors")]
    if "unet/config.json" not in files:
        return kind_of(weights[0])
    for path in weights:
        check_whole(path)
    return "model"


def _move_folder(workshop: Workshop, target: Place) -> None:
    workshop.record.write(workshop.folder / RECORD)
    old = Place("model", target.path.with_name(f".{target.path.name}.old"))
    if target.path.exists():
        target.path.replace(old.path)
    workshop.folder.replace(target.path)
    remove(old)


def _move_file(workshop: Workshop, target: Place) -> None:
    (name,) = workshop.record.files
    record = workshop.record
    record.files = {target.path.name: record.files[name]}
    target.path.parent.mkdir(parents=True, exist_ok=True)
    # A home may keep models and LoRAs on two disks: then this copies, so it goes through a name that nobody reads.
    moved = target.path.with_name(f".{target.path.name}.moving")
    shutil.move(workshop.path(name), moved)
    record.write(target.record_file)
    moved.replace(target.path)
    shutil.rmtree(workshop.folder)
