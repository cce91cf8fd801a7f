"""Which files of a listing are taken. Nobody's listing is trusted: names are checked before anything is written.

Only weights that cannot run code are taken, and of a diffusers repository only what the engine reads: half
precision where it is there, no safety checker, no second format of the same weights.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from itemforge.errors import InvalidInput, ModelError, ObjectMissing

#: Formats that run code when they are read.
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
_TEXTS = {"tokenizer": (".json", ".txt"), "scheduler": (".json",)}


@dataclass(frozen=True)
class Entry:
    """A file as its source lists it; what the source does not say is None."""

    path: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None


def choose(entries: Sequence[Entry], file: str | None, shown: str) -> list[Entry]:
    """The files to take: the one asked for, those of a diffusers model, or the only one with weights.

    Raises:
        InvalidInput: a pickle was asked for, or several files could be meant.
        ModelError: a name leads out of the folder, or nothing here can be used.
        ObjectMissing: the file asked for is not there.
    """
    for entry in entries:
        check_path(entry.path, shown)
    if file is not None:
        return [_one(entries, file, shown)]
    names = {entry.path for entry in entries}
    if "unet/config.json" in names:
        wanted = _needed(names, shown)
        return [entry for entry in entries if entry.path in wanted]
    return [_only(entries, shown)]


def check_path(path: str, shown: str) -> str:
    """A relative path that stays where it is put.

    Raises:
        ModelError: it does not.
    """
    pure = PurePosixPath(path)
    bad = not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path
    if bad or pure.as_posix() != path or not path.isprintable():
        raise ModelError(f"{shown} lists a file with the unsafe name {path[:100]!r}; nothing of it is taken")
    return path


def check_format(path: str) -> None:
    """Refuse what is not weights in the safe format.

    Raises:
        InvalidInput: the text says why.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in PICKLES:
        raise InvalidInput(
            f"{path} is refused: {suffix} files are pickles, which may run any code when they are read; look "
            "for a .safetensors file of the same weights, or save them as one (safe_serialization=True)"
        )
    if suffix != ".safetensors":
        raise InvalidInput(f"{path} is refused: a model or a LoRA is a .safetensors file")


def _one(entries: Sequence[Entry], file: str, shown: str) -> Entry:
    check_format(file)
    for entry in entries:
        if entry.path == file:
            return entry
    names = [entry.path for entry in entries]
    close = (
        difflib.get_close_matches(file, names, n=1) or [n for n in names if n.endswith(".safetensors")][:3]
    )
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    raise ObjectMissing(f"there is no file {file} in {shown}{meant}")


def _only(entries: Sequence[Entry], shown: str) -> Entry:
    weights = [entry for entry in entries if entry.path.endswith(".safetensors")]
    if len(weights) == 1:
        return weights[0]
    if weights:
        some = ", ".join(entry.path for entry in weights[:5])
        raise InvalidInput(f"{shown} has {len(weights)} files of weights; name one of them as /FILE: {some}")
    if pickles := [e.path for e in entries if e.path.lower().endswith(PICKLES)]:
        check_format(pickles[0])
    raise ModelError(f"{shown} has neither a diffusers model (unet/config.json) nor a .safetensors file")


def _needed(names: set[str], shown: str) -> set[str]:
    wanted = {"model_index.json"} & names
    for component, stem in _WEIGHTS.items():
        config = f"{component}/config.json"
        if config not in names:
            raise ModelError(f"{shown} is no whole diffusers model: it has no {config}")
        wanted |= {config, *_weights(names, component, stem, shown)}
    for component, suffixes in _TEXTS.items():
        wanted |= {
            n for n in names if n.count("/") == 1 and n.startswith(f"{component}/") and n.endswith(suffixes)
        }
    return wanted


def _weights(names: set[str], component: str, stem: str, shown: str) -> set[str]:
    for variant in (".fp16", ""):
        whole = f"{component}/{stem}{variant}.safetensors"
        if whole in names:
            return {whole}
        index = f"{component}/{stem}.safetensors.index{variant}.json"
        if index in names:
            mark = re.escape(variant)
            # Both places of the variant have been in use.
            number = r"-\d+-of-\d+"
            shard = re.compile(rf"{component}/{stem}(?:{mark}{number}|{number}{mark})\.safetensors")
            return {index, *(name for name in names if shard.fullmatch(name))}
    raise ModelError(
        f"{shown} has no .safetensors weights in {component}; pickles (.bin, .ckpt) are not taken, as they "
        "may run any code when they are read"
    )
