"""Base models: where a name leads, what identifies the weights, and their native size.

Everything here reads JSON only, so the gateway can use it without torch, and even without weights: a
card (`models/NAME.toml` at home) stands in for a model that only the workers hold.
"""

import contextlib
import hashlib
import json
import struct
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import itemforge
from itemforge.contract import Side
from itemforge.errors import ModelError
from itemforge.styles.files import file_sha256, read_start, write_atomic
from itemforge.styles.pack import Sha256, Size

STARTER = "starter"
#: Folders of a diffusers directory that decide pixels.
COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
#: An honest safetensors header of SD 1.x has about 100 KiB.
MAX_HEADER = 16 * 1024 * 1024
MAX_SIDE = 2048
#: Bytes of a configuration, an index of shards or a card.
MAX_JSON = 16 * 1024 * 1024
#: Halvings between pixels and latents; SD 1.x has three.
MAX_LEVELS = 7
#: Latents of a side, far beyond every model's.
MAX_LATENTS = 4096


@dataclass(frozen=True)
class ModelFacts:
    """`path` is None when only a card is known. Sizes in pixels; `vae_scale_factor` pixels per latent."""

    name: str
    path: Path | None
    base: str
    width: int
    height: int
    vae_scale_factor: int

    @property
    def size(self) -> Size:
        """Native size and limits for a style that names none: from half to twice the native side."""
        low = max(min(self.width, self.height) // 16 * 8, 8)
        high = min(max(self.width, self.height) * 2, MAX_SIDE)
        return Size(width=self.width, height=self.height, min=low, max=high)


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Sha256
    width: Side
    height: Side
    vae_scale_factor: Annotated[int, Field(ge=1, le=64)] = 8


def starter_dir() -> Path:
    """The model that ships with the project: inside a wheel, or at the root of a checkout."""
    package = Path(itemforge.__file__).parent
    shipped = package / STARTER
    return shipped if shipped.is_dir() else package.parents[1] / STARTER


def find_model(name_or_path: str, home: Path) -> Path:
    """The directory or `.safetensors` file of a model.

    Raises:
        ModelError: there is none; the text says where it was looked for.
    """
    named = "/" not in name_or_path and not name_or_path.startswith((".", "~"))
    try:
        places = [Path(name_or_path).expanduser().absolute()]
    except RuntimeError as error:  # ~nobody
        raise ModelError(f"no model {name_or_path!r}: {error}") from None
    if named:
        places[:0] = [home / "models" / name_or_path, home / "models" / f"{name_or_path}.safetensors"]
        if name_or_path == STARTER:
            places.insert(0, starter_dir())
    for place in places:
        if place.is_dir() or (place.is_file() and place.suffix == ".safetensors"):
            return place
    looked = ", ".join(map(str, places))
    raise ModelError(
        f"no model {name_or_path!r}: put a diffusers directory or a .safetensors checkpoint at one of "
        f"{looked}, or set ITEMFORGE_MODEL to where it is"
    )


def describe(name: str, home: Path) -> ModelFacts:
    """What the gateway must know of a model, from its configuration files or its card.

    Raises:
        ModelError: no such model, or its configuration cannot be read.
    """
    card = home / "models" / f"{name}.toml"
    try:
        path = find_model(name, home)
    except ModelError:
        if "/" in name or not card.is_file():
            raise
        return _from_card(name, card)
    base = base_sha256(path, home)
    scale, side = _checkpoint_sizes(path) if path.is_file() else _directory_sizes(path)
    label = path.stem if path.is_file() else path.name
    return ModelFacts(label, path, base, side, side, scale)


def base_sha256(path: Path, home: Path | None = None) -> str:
    """What identifies a base model.

    Of a directory: sha256 over the sorted `path sha256` lines of its configuration files and of the
    weight files that are loaded. Of a checkpoint file: the sha256 of the file. With `home`, hashes of
    unchanged files (same size and time) are taken from `cache/hashes.json` there.

    Raises:
        ModelError: the directory is no diffusers model.
    """
    hashes = _HashCache(home / "cache" / "hashes.json" if home else None)
    try:
        if path.is_file():
            return hashes.of(path)
        lines = sorted(f"{file.relative_to(path).as_posix()} {hashes.of(file)}\n" for file in _files(path))
    finally:
        hashes.save()
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weight_files(component: Path) -> list[Path]:
    """The weight files of one component's folder that are loaded: plain or sharded, else float16.

    Raises:
        ModelError: there are none; pickled weights are never read.
    """
    for stem in ("diffusion_pytorch_model", "model"):
        for variant in ("", ".fp16"):
            index = component / f"{stem}.safetensors.index{variant}.json"
            whole = component / f"{stem}{variant}.safetensors"
            if whole.is_file():
                return [whole]
            if index.is_file():
                return [index, *_shards(index)]
    raise ModelError(
        f"{component} has no .safetensors weights; pickled weights (.bin, .ckpt) are not read: "
        "save the model again with safe_serialization=True"
    )


def _files(model: Path) -> list[Path]:
    if not (model / "unet" / "config.json").is_file():
        raise ModelError(f"{model} is no diffusers model: it has no unet/config.json")
    files = [model / "model_index.json"] if (model / "model_index.json").is_file() else []
    for name in COMPONENTS:
        folder = model / name
        if name in ("unet", "vae", "text_encoder"):
            files += [folder / "config.json", *weight_files(folder)]
        elif folder.is_dir():
            files += [f for f in folder.iterdir() if f.suffix in (".json", ".txt")]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise ModelError(f"the model {model} is incomplete: {', '.join(missing)} is missing")
    return files


def _shards(index: Path) -> list[Path]:
    weight_map = _json(index).get("weight_map")
    given = list(weight_map.values()) if isinstance(weight_map, dict) else [None]
    names = [n for n in given if isinstance(n, str) and Path(n).name == n and n.endswith(".safetensors")]
    if names != given:
        raise ModelError(f"{index} names shards outside its folder; download the model again")
    return [index.parent / name for name in sorted(set(names))]


def _directory_sizes(path: Path) -> tuple[int, int]:
    """Pixels per latent and the native side of a diffusers directory."""
    try:
        levels = len(_json(path / "vae" / "config.json")["block_out_channels"])
        return _sizes(levels, _json(path / "unet" / "config.json")["sample_size"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ModelError(f"the configuration of {path} has no sample_size or block_out_channels") from None


def _sizes(levels: int, latents: Any) -> tuple[int, int]:
    """Pixels per latent and the native side; ValueError if no model has such."""
    side = int(latents)
    if not 1 <= levels <= MAX_LEVELS or not 1 <= side <= MAX_LATENTS:
        raise ValueError(f"{levels} levels and {side} latents")
    scale = 2 ** (levels - 1)
    return scale, side * scale


def _checkpoint_sizes(path: Path) -> tuple[int, int]:
    """The same of an LDM checkpoint; its native side stands nowhere, and is 64 latents in SD 1.x."""
    prefix = "first_stage_model.decoder.up."
    levels = {key[len(prefix) :].split(".")[0] for key in safetensors_header(path) if key.startswith(prefix)}
    if not levels:
        raise ModelError(f"{path} is no Stable Diffusion checkpoint: it has no {prefix}* tensors")
    beside = component_beside(path, "unet", "config.json")
    latents = _json(beside / "config.json").get("sample_size", 64) if beside else 64
    try:
        return _sizes(len(levels), latents)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path} has no sizes of a Stable Diffusion model: {error}") from None


def component_beside(checkpoint: Path, component: str, file: str) -> Path | None:
    """The folder with a component's `file` that belongs to a checkpoint file, if there is one.

    For `NAME.safetensors` that is `NAME/unet` (or vae, …) or, shared by all of its folder, `unet`.
    """
    for folder in (checkpoint.with_suffix("") / component, checkpoint.parent / component):
        if (folder / file).is_file():
            return folder
    return None


def safetensors_header(path: Path) -> dict[str, Any]:
    """Names, types and shapes of a safetensors file's tensors, without reading them.

    Raises:
        ModelError: it is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER:
                raise ValueError
            header = json.loads(file.read(length))
    except (OSError, ValueError, struct.error, RecursionError):
        raise ModelError(f"{path} is no readable safetensors file; download it again") from None
    if not isinstance(header, dict):
        raise ModelError(f"{path} is no readable safetensors file; download it again")
    header.pop("__metadata__", None)
    return header


def _from_card(name: str, card: Path) -> ModelFacts:
    try:
        read = _Card.model_validate(tomllib.loads(_read(card).decode()))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ModelError(f"the model card {card} is not valid: {wrong}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"the model card {card} cannot be read: {error}") from None
    return ModelFacts(name, None, read.base, read.width, read.height, read.vae_scale_factor)


def _read(path: Path) -> bytes:
    if len(data := read_start(path, MAX_JSON + 1)) > MAX_JSON:
        raise ValueError(f"it has more than {MAX_JSON} bytes")
    return data


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object")
    return content


class _HashCache:
    """sha256 of files by path, size and time; two processes that write it at once lose nothing but time."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self._changed = False
        if path is not None and path.is_file():
            try:
                self._known = _json(path)
            except ModelError:
                self._known = {}

    def of(self, file: Path) -> str:
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(str(file.resolve()))
        if isinstance(known, list) and len(known) == 3 and known[:2] == stamp:
            return str(known[2])
        digest = file_sha256(file)
        self._known[str(file.resolve())] = [*stamp, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        if self._path is not None and self._changed:
            with contextlib.suppress(OSError):  # without it the files are read again
                write_atomic(self._path, json.dumps(self._known, indent=1).encode())
