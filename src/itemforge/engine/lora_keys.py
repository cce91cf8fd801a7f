"""What the keys of a LoRA file mean, in each of the layouts in use.

A key is a stem, which names a module of the model, and an ending, which says which part of the LoRA it
is. Stems are looked up in a table that is made from the model itself, so a name is either known for
certain or an error: nothing is guessed, and nothing is dropped in silence.

| layout | a stem |
|---|---|
| kohya | `lora_unet_down_blocks_0_attentions_0_..._to_q`, `lora_te_text_model_encoder_...` |
| kohya, names of the original code | `lora_unet_input_blocks_1_1_..._to_q` |
| diffusers | `unet.down_blocks.0.attentions.0....to_q`, `text_encoder.text_model.encoder...` |
| diffusers, first form | `down_blocks.0....attn1.processor.to_q` with the ending `_lora.down.weight` |
| PEFT | `base_model.model.down_blocks.0....to_q` |
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from itemforge.engine.ldm_names import text_name, unet_names
from itemforge.errors import ModelError
from itemforge.styles.lora_file import OTHER_KINDS

Part = Literal["down", "up", "mid", "alpha"]

_ENDINGS: dict[str, Part] = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
#: What the first diffusers form calls the projections of the text encoder's attention.
_FIRST_TEXT_NAMES = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


@dataclass(frozen=True, order=True)
class Target:
    """A module with a weight: `component` is `unet` or `text_encoder`."""

    component: str
    module: str


class KeyTable:
    """All stems under which the modules of one model can be named."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        self._stems: dict[str, Target] = {}
        config: Any = unet.config
        modules = _weighted(unet)
        ldm = unet_names(modules, config)
        for module in modules:
            kohya = {f"lora_unet_{name.replace('.', '_')}" for name in (module, ldm[module])}
            self._add(Target("unet", module), kohya | _dotted("unet", module) | _processor(module))
        for module in _weighted(text_encoder):
            old = text_name(module)
            # Diffusers' own export to kohya's layout writes `lora_te1_`, as for models with two encoders.
            stems = {f"lora_{te}_{old.replace('.', '_')}" for te in ("te", "te1")} | _first_text(old)
            self._add(
                Target("text_encoder", module),
                stems.union(*(_dotted("text_encoder", n) for n in (module, old))),
            )

    def _add(self, target: Target, stems: Iterable[str]) -> None:
        for stem in stems:
            self._stems.setdefault(stem, target)

    def resolve(self, keys: Iterable[str]) -> dict[Target, dict[Part, str]]:
        """The key of each part of each module that a LoRA touches.

        Raises:
            ModelError: keys that are unknown, of another kind than LoRA, or incomplete.
        """
        found: dict[Target, dict[Part, str]] = {}
        unknown: list[str] = []
        for key in sorted(keys):
            if kind := next((name for mark, name in OTHER_KINDS.items() if mark in key), None):
                raise ModelError(f"it is {kind}, which is not supported; export it as plain LoRA ({key})")
            split = _split(key)
            target = self._stems.get(split[0]) if split else None
            if split is None or target is None:
                unknown.append(key)
            elif split[1] in (parts := found.setdefault(target, {})):
                raise ModelError(f"it names the module {target.module} twice: {parts[split[1]]} and {key}")
            else:
                parts[split[1]] = key
        if unknown:
            raise ModelError(
                f"{len(unknown)} of its keys fit nothing in this base model, such as "
                f"{', '.join(unknown[:3])}; is it a LoRA for Stable Diffusion 1.x?"
            )
        for target, parts in found.items():
            if missing := {"down", "up"} - parts.keys():
                raise ModelError(
                    f"the module {target.module} has no {' and no '.join(sorted(missing))} weight"
                )
        return found


def _split(key: str) -> tuple[str, Part] | None:
    for ending, part in _ENDINGS.items():
        if key.endswith(ending):
            return key.removesuffix(ending), part
    return None


def _weighted(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def _dotted(component: str, module: str) -> set[str]:
    return {
        module,
        f"{component}.{module}",
        f"base_model.model.{module}",
        f"{component}.base_model.model.{module}",
    }


def _processor(module: str) -> set[str]:
    attention, dot, projection = module.removesuffix(".0").rpartition(".")
    if not dot or not attention.rpartition(".")[2].startswith("attn"):
        return set()
    stem = f"{attention}.processor.{projection}"
    return {stem, f"unet.{stem}"}


def _first_text(module: str) -> set[str]:
    attention, _, projection = module.rpartition(".")
    if projection not in _FIRST_TEXT_NAMES or not attention.endswith("self_attn"):
        return set()
    return {f"text_encoder.{attention}.{_FIRST_TEXT_NAMES[projection]}"}
