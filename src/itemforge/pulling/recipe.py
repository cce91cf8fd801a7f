"""Packs that are pulled: a recipe in `packs` names a base model and a LoRA, and what comes of it is a local style pack.

The pack lies in `styles/ID` at home, its LoRA beside it under a name with its sha256, so an older version of
the pack keeps its own LoRA.
"""

import os
import re
import shutil
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from itemforge.errors import InvalidInput, ModelError
from itemforge.pulling.means import Means
from itemforge.pulling.placing import taken
from itemforge.pulling.pull import Pulled, held, pull, same_source
from itemforge.pulling.source import ALIASES, PackSource, parse_model_source
from itemforge.styles.files import file_sha256, write_atomic
from itemforge.styles.local import LocalPacks
from itemforge.styles.models import base_sha256, find_model
from itemforge.styles.pack import PackLora, StylePack


class Recipe(BaseModel):
    """What a pack is made of; `base` and `lora` are sources."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    base: str
    lora: str
    trigger: str
    template: str
    negative: str = ""
    licence: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class PulledPack:
    """The pack, its file, and what the models' pulls brought; `base` is None where the base was not pulled."""

    pack: StylePack
    file: Path
    base_name: str
    base: Pulled | None
    lora: Pulled


def read_recipe(name: str) -> Recipe:
    """A recipe that ships with the project."""
    text = (files("itemforge.pulling") / "packs" / f"{name}.toml").read_text(encoding="utf-8")
    return Recipe.model_validate(tomllib.loads(text))


def pull_pack(
    source: PackSource,
    means: Means,
    *,
    name: str | None = None,
    lora: str | None = None,
    base: str | None = None,
    sha256: str | None = None,
    replace: bool = False,
) -> PulledPack:
    """Pull what a pack needs and is not there yet, and write the pack. `sha256` is the LoRA's.

    Raises:
        InvalidInput: a source or a name that cannot be meant.
        ItemForgeError: as `pull`.
    """
    recipe = read_recipe(source.name)
    style = name or recipe.id
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", style):
        raise InvalidInput(f"{style[:80]!r} cannot be a style's name: lower case, digits, - and _")
    chosen = base or recipe.base
    lora_source = parse_model_source(lora or recipe.lora)
    _check_base(chosen, means)
    there = taken(means.home, style)
    # Another source for the LoRA was asked for in so many words, and the pack's older versions keep theirs.
    other = there is not None and there.kind == "lora" and not same_source(there, lora_source)
    known = there is not None and there.record() is not None
    brought = pull(
        lora_source, means, name=style, sha256=sha256, replace=replace or (other and known), want="lora"
    )
    # After the LoRA: it is small, and its key may be missing.
    pulled_base = _base(chosen, means)
    model = find_model(chosen, means.home)
    with held(means.home / "styles" / f".{style}.lock", style, means):
        pack, file = _write(recipe, style, brought, base_sha256(model, means.home), means.home)
    return PulledPack(pack, file, chosen, pulled_base, brought)


def _check_base(chosen: str, means: Means) -> None:
    if ":" in chosen:
        raise InvalidInput(f"--base {chosen}: pull the base model by itself first, then give its name")
    if chosen not in ALIASES:
        find_model(chosen, means.home)


def _base(chosen: str, means: Means) -> Pulled | None:
    """Pull the base model, if it has a source and is not there; check it, if it was pulled."""
    if chosen not in ALIASES:
        return None
    source, there = parse_model_source(chosen), taken(means.home, chosen)
    return pull(source, means) if there is None or same_source(there, source) else None


def _write(recipe: Recipe, style: str, lora: Pulled, base: str, home: Path) -> tuple[StylePack, Path]:
    """The pack under its highest version if that is the same already, else under the next."""
    folder = home / "styles" / style
    sha256 = next(iter(lora.record.files.values())).sha256 or file_sha256(lora.place.path)
    beside = folder / f"{style}-{sha256[:12]}.safetensors"
    local = LocalPacks(home)
    versions = [version for known, version in local.packs if known == style]
    made = StylePack(
        id=style,
        version=max(versions, default=1),
        base=base,
        licence=recipe.licence,
        trigger=recipe.trigger,
        template=recipe.template,
        negative=recipe.negative,
        loras=(PackLora(source=beside.name, sha256=sha256, weight=recipe.weight),),
    )
    _put_beside(lora.place.path, beside, sha256)
    before = local.find(style)
    if before is not None and before.pack == made:
        return made, before.folder / _file(made)
    if versions:
        made = made.model_copy(update={"version": made.version + 1})
    file = folder / _file(made)
    write_atomic(file, made.to_toml().encode())
    return made, file


def _file(pack: StylePack) -> str:
    return f"{pack.id}-{pack.version}.toml"


def _put_beside(lora: Path, beside: Path, sha256: str) -> None:
    """One file with two names where the disk can do that: a pack reads no LoRA outside its folder."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    if beside.is_file() and file_sha256(beside) == sha256:
        return
    linking = beside.with_name(f".{beside.name}.linking")
    linking.unlink(missing_ok=True)
    try:
        os.link(lora, linking)
    except OSError:
        shutil.copyfile(lora, linking)
    if file_sha256(linking) != sha256:
        linking.unlink()
        raise ModelError(f"{lora} changed while its pack was written; pull again")
    linking.replace(beside)
