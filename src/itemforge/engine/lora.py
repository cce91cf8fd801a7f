"""LoRAs merged into the weights, always anew from pristine copies.

Adding a LoRA and subtracting it again leaves rounding errors that grow with every change of style. So
the first time that a LoRA touches a tensor its pristine value is kept, and every change writes
`pristine + sum(weight * alpha / rank * up @ down)`, computed in float32 in the order of the LoRAs:
without LoRAs the weights are the base's bit for bit, and the same LoRAs always give the same weights.
"""

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from itemforge.engine.lora_keys import KeyTable, Part, Target
from itemforge.engine.rows import LoraRef
from itemforge.errors import ModelError
from itemforge.styles.files import MAX_BLOB
from itemforge.styles.models import MAX_HEADER

log = structlog.get_logger(__name__)

#: Most that a weight may be changed by: more does not fit float16. Honest changes stay below 1.
MAX_CHANGE = 65504.0
#: Parsed LoRAs that are kept in memory, in bytes of their factors.
MAX_KEPT = 512 * 1024**2


@dataclass(frozen=True)
class Factors:
    """The change of one weight: `scale * up @ down`, for Tucker-decomposed convolutions with `mid`."""

    down: Tensor  # (rank, in) or (rank, in, kh, kw)
    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    mid: Tensor | None  # (rank, rank, kh, kw)
    scale: float  # alpha / rank

    @property
    def bytes(self) -> int:
        return sum(t.nbytes for t in (self.down, self.up, self.mid) if t is not None)

    def delta(self, like: Tensor) -> Tensor:
        """The change in float32, on the device and in the shape of `like`."""
        down, up = (t.to(like.device, torch.float32) for t in (self.down, self.up))
        if self.mid is not None:
            mid = self.mid.to(like.device, torch.float32)
            change = torch.einsum("oa,abhw,bi->oihw", up.flatten(1), mid, down.flatten(1))
        else:
            change = up.flatten(1) @ down.flatten(1)
        return change.reshape(like.shape) * self.scale


Lora = dict[Target, Factors]


class Merger:
    """Keeps the weights of one UNet and one text encoder at base plus the wanted LoRAs."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        self._models = {"unet": unet, "text_encoder": text_encoder}
        self._table = KeyTable(unet, text_encoder)
        self._pristine: dict[Target, Tensor] = {}
        self._applied: set[Target] = set()
        self._current: tuple[tuple[str, float], ...] | None = ()
        self._refs: tuple[LoraRef, ...] = ()
        self._kept: OrderedDict[str, Lora] = OrderedDict()

    @property
    def current(self) -> tuple[LoraRef, ...]:
        """The LoRAs that are merged."""
        return self._refs

    def apply(self, loras: tuple[LoraRef, ...]) -> None:
        """Make the weights base plus `loras`; with an error about a file they stay as they are.

        Raises:
            ModelError: a file cannot be read, is not the one meant, or does not fit the base model.
        """
        wanted = tuple((lora.sha256, lora.weight) for lora in loras)
        if wanted == self._current:
            self._refs = loras
            return
        parsed = [(self._lora(ref), ref.weight) for ref in loras]
        touched = {target for lora, _ in parsed for target in lora}
        self._current = None  # if it ends midway (out of memory), the next call writes everything again
        with torch.no_grad():
            self._applied |= touched
            for target in sorted(self._applied):
                self._write(target, [(lora[target], w) for lora, w in parsed if target in lora])
        self._applied = touched
        self._current, self._refs = wanted, loras

    def _write(self, target: Target, changes: list[tuple[Factors, float]]) -> None:
        parameter = self._weight(target)
        if target not in self._pristine:
            self._pristine[target] = parameter.detach().to("cpu", copy=True)
        pristine = self._pristine[target]
        if not changes:
            parameter.copy_(pristine)
            return
        total = pristine.to(parameter.device, torch.float32, copy=True)
        for factors, weight in changes:
            total += factors.delta(total) * weight
        parameter.copy_(total)

    def _weight(self, target: Target) -> Tensor:
        return cast(Tensor, self._models[target.component].get_submodule(target.module).weight)

    def _lora(self, ref: LoraRef) -> Lora:
        if (kept := self._kept.get(ref.sha256)) is not None:
            self._kept.move_to_end(ref.sha256)
            return kept
        try:
            lora = self._parse(ref)
        except ModelError as error:
            raise ModelError(f"the LoRA {ref.path.name} cannot be used: {error}") from None
        self._kept[ref.sha256] = lora
        while len(self._kept) > 1 and self._kept_bytes() > MAX_KEPT:
            self._kept.popitem(last=False)
        log.info("lora_read", file=ref.path.name, sha256=ref.sha256, modules=len(lora))
        return lora

    def _kept_bytes(self) -> int:
        return sum(factors.bytes for lora in self._kept.values() for factors in lora.values())

    def _parse(self, ref: LoraRef) -> Lora:
        data = _read(ref)
        if int.from_bytes(data[:8], "little") > MAX_HEADER:
            raise ModelError(f"it is no safetensors file, or its header has more than {MAX_HEADER} bytes")
        try:
            tensors = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ModelError(f"it is no safetensors file ({error})") from None
        settings = _settings(data, ref.path)
        lora = {}
        for target, keys in self._table.resolve(tensors).items():
            parts = {part: tensors[key] for part, key in keys.items()}
            lora[target] = _factors(target, parts, settings, self._weight(target).shape)
        if not lora:
            raise ModelError("it holds no weights")
        return lora


def _read(ref: LoraRef) -> bytes:
    if ref.path.suffix != ".safetensors":
        raise ModelError("only .safetensors files are read, never pickled ones")
    try:
        if not ref.path.is_file():
            raise ModelError(f"{ref.path} cannot be read (there is no such file)")
        if (size := ref.path.stat().st_size) > MAX_BLOB:
            raise ModelError(f"it has {size} bytes, more than the {MAX_BLOB} that are allowed")
        data = ref.path.read_bytes()
    except OSError as error:
        raise ModelError(f"{ref.path} cannot be read ({error.strerror})") from None
    if (found := hashlib.sha256(data).hexdigest()) != ref.sha256:
        raise ModelError(f"its sha256 is {found}, but {ref.sha256} is wanted; fetch it again")
    return data


def _factors(
    target: Target, parts: Mapping[Part, Tensor], settings: "_Settings", shape: torch.Size
) -> Factors:
    """Check and scale what belongs to one module, whose weight has `shape`."""
    down, up, mid, alpha = parts["down"], parts["up"], parts.get("mid"), parts.get("alpha")
    if not all(part.is_floating_point() for part in (down, up, mid) if part is not None):
        raise ModelError(f"its {target.module} is not stored as floating point numbers; export it again")
    rank = down.shape[0] if down.ndim > 1 else 0
    middle = up.shape[1] if up.ndim > 1 else 0
    if mid is None:
        fits = middle == rank and down.numel() == rank * shape[1:].numel()
    else:
        fits = tuple(mid.shape) == (middle, rank, *shape[2:]) and down.numel() == rank * shape[1]
    fits = fits and up.numel() == up.shape[0] * middle and up.shape[0] == shape[0]
    if not rank or not fits or (alpha is not None and alpha.numel() != 1):
        raise ModelError(
            f"its {target.module} has the shapes {tuple(down.shape)} and {tuple(up.shape)}, which do not "
            f"fit the base model's {tuple(shape)}"
        )
    if not all(part.float().isfinite().all() for part in parts.values()):
        raise ModelError(f"its {target.module} holds values that are not numbers")
    scale = settings.scale(target, rank) if alpha is None else float(alpha) / rank
    largest = math.prod(float(part.float().abs().max()) for part in (down, up, mid) if part is not None)
    if not largest * rank * abs(scale) <= MAX_CHANGE:
        raise ModelError(f"its {target.module} holds values so large that no picture could be drawn with it")
    return Factors(down, up, mid, scale)


class _Settings:
    """Scales that stand beside the tensors: PEFT's configuration, in the file's header or a file by it."""

    def __init__(self, configs: Mapping[str, dict[str, Any]]) -> None:
        self._configs = configs
        if any(config.get("use_dora") for config in configs.values()):
            raise ModelError("it is DoRA, which is not supported; export it as plain LoRA")

    def scale(self, target: Target, rank: int) -> float:
        """alpha / rank of a module without an alpha of its own; alpha is the rank if nothing says it."""
        config = self._configs.get(target.component) or self._configs.get("") or {}
        try:
            alpha = config.get("lora_alpha", rank)
            for pattern, value in (config.get("alpha_pattern") or {}).items():
                if target.module == pattern or target.module.endswith(f".{pattern}"):
                    alpha = value
            scale = float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
        except (TypeError, ValueError, AttributeError, OverflowError):
            scale = math.nan
        if not math.isfinite(scale):
            raise ModelError(f"its PEFT configuration gives no alpha for {target.module}")
        return scale


def _settings(data: bytes, path: Path) -> _Settings:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])  # safetensors has checked it
    text = (header.get("__metadata__") or {}).get("lora_adapter_metadata")
    beside = path.with_name("adapter_config.json")
    try:
        if text is not None:
            return _Settings(_by_component(json.loads(text)))
        if path.name == "adapter_model.safetensors" and beside.is_file():
            return _Settings({"": dict(json.loads(beside.read_bytes()))})
    except (ValueError, TypeError, AttributeError, RecursionError, OSError):
        raise ModelError("its PEFT configuration cannot be read") from None
    return _Settings({})


def _by_component(metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Diffusers writes the settings of all components flat, as `unet.lora_alpha`."""
    configs: dict[str, dict[str, Any]] = {}
    for key, value in metadata.items():
        component, dot, name = key.partition(".")
        if not dot:
            component, name = "", key
        configs.setdefault(component, {})[name] = value
    return configs
