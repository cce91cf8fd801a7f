"""A style pack: one TOML file that turns "a red apple" into a prompt, a LoRA and parameters.

The user writes only the thing; the pack adds the trigger, the tags and the negatives. A version never
changes once it is published, so `id@version` always means the same picture.
"""

import json
import re
import tomllib
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from itemforge.contract import Guidance, LoraWeight, NegativePrompt, Scheduler, Side, Steps, Text
from itemforge.errors import InvalidStyle

MAX_TOML = 64 * 1024
#: The TOML parser's time grows with the square of the dots in a key; no honest pack has so many.
MAX_DOTS = 2000
PLACEHOLDER = "{prompt}"


def _has_prompt(template: str) -> str:
    if template.count(PLACEHOLDER) != 1:
        raise ValueError("must contain {prompt} exactly once; what the user writes goes there")
    return template


def _not_zero(weight: float) -> float:
    if weight == 0:
        raise ValueError("must not be 0; leave the LoRA out instead")
    return weight


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class PackLora(_Table):
    """One LoRA. `source` is a file beside a local pack, or `blob`: then the sha256 finds it."""

    source: Annotated[Text, Field(min_length=1, max_length=500)] = "blob"
    sha256: Sha256
    weight: Annotated[LoraWeight, AfterValidator(_not_zero)] = 1.0


class Size(_Table):
    """Native width and height of the style, and the limits of either side, in pixels."""

    width: Side
    height: Side
    min: Side
    max: Side

    @model_validator(mode="before")
    @classmethod
    def _limits(cls, table: Any) -> Any:
        # Without limits a style is drawn at its native size, upright or lying.
        if isinstance(table, dict) and isinstance(table.get("width"), int):
            sides = [table["width"], table["height"]] if isinstance(table.get("height"), int) else []
            if sides:
                return {"min": min(sides), "max": max(sides), **table}
        return table

    @model_validator(mode="after")
    def _ordered(self) -> "Size":
        if not self.min <= min(self.width, self.height) <= max(self.width, self.height) <= self.max:
            raise ValueError("width and height must lie between min and max")
        return self


class Defaults(_Table):
    """What a request gets that does not say it; None: the contract's default."""

    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Annotated[Scheduler, Field(strict=False)] | None = None
    lora_weight: Annotated[LoraWeight, AfterValidator(_not_zero)] | None = None


class StylePack(_Table):
    """`base` None means any base model; `size` None means the model's native size."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    version: Annotated[int, Field(ge=1, le=999_999_999)]
    base: Sha256 | None = None
    licence: Annotated[Text, Field(max_length=500)] = ""
    trigger: Annotated[Text, Field(max_length=100)] = ""
    template: Annotated[Text, AfterValidator(_has_prompt), Field(max_length=4000)] = PLACEHOLDER
    negative: NegativePrompt = ""
    loras: Annotated[tuple[PackLora, ...], Field(alias="lora", strict=False, max_length=8)] = ()
    size: Size | None = None
    defaults: Defaults = Defaults()

    @property
    def name(self) -> str:
        """`id@version`, as it stands in a message and in a row."""
        return f"{self.id}@{self.version}"

    def compose(self, prompt: str) -> str:
        """The prompt that is drawn; a trigger that the user wrote is not doubled.

        >>> StylePack(id="t", version=1, trigger="trg", template="{prompt}, icon").compose("a dog")
        'trg, a dog, icon'
        """
        template = self.template
        if self.trigger:
            word = re.compile(rf"(?<!\w){re.escape(self.trigger)}(?!\w)(\s*,\s*)?", re.IGNORECASE)
            if word.search(prompt):
                template = word.sub("", template)
            elif not word.search(template):
                template = f"{self.trigger}, {template}"
        return template.replace(PLACEHOLDER, prompt.strip())

    def weights(self, lora_weight: float | None = None) -> tuple[float, ...]:
        """Weight of each LoRA: `lora_weight` is the first one's, and the others keep their proportion."""
        if not self.loras:
            return ()
        wanted = self.defaults.lora_weight if lora_weight is None else lora_weight
        factor = 1.0 if wanted is None else wanted / self.loras[0].weight
        return tuple(lora.weight * factor for lora in self.loras)

    def to_toml(self) -> str:
        """The pack as a TOML file; `parse` gives the same pack back."""
        fields = self.model_dump(mode="json", exclude_none=True, exclude={"loras", "size", "defaults"})
        lines = _lines(fields)
        for lora in self.loras:
            lines += ["", "[[lora]]", *_lines(lora.model_dump(mode="json"))]
        for key, table in (("size", self.size), ("defaults", self.defaults)):
            if table is not None and (fields := table.model_dump(mode="json", exclude_none=True)):
                lines += ["", f"[{key}]", *_lines(fields)]
        return "\n".join(lines) + "\n"


def parse(data: bytes) -> StylePack:
    """Read a pack's TOML.

    Raises:
        InvalidStyle: the text names the key and what is wrong with it.
    """
    if len(data) > MAX_TOML:
        raise InvalidStyle(f"a style pack may have at most {MAX_TOML} bytes, this has {len(data)}")
    if data.count(b".") > MAX_DOTS:
        raise InvalidStyle(f"a style pack may have at most {MAX_DOTS} dots; shorten its keys and texts")
    try:
        fields = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of thousands of digits
        raise InvalidStyle(f"the style pack is not TOML: {error}") from None
    if isinstance(fields.get("lora"), dict):
        fields["lora"] = [fields["lora"]]
    try:
        return StylePack.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))[:80]}: {_advice(e)}" for e in error.errors()[:5])
        name = fields.get("id")
        name = name[:80] if isinstance(name, str) else ""
        raise InvalidStyle(f"the style pack {name!r} is not valid: {wrong}") from None


def _advice(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "is no key of a style pack; remove it"
    return str(error["msg"]).removeprefix("Value error, ")


def split_name(name: str) -> tuple[str, int | None]:
    """Id and version of `id` or `id@version`."""
    style, _, number = name.partition("@")
    return style, int(number) if number.isascii() and number.isdigit() and len(number) < 10 else None


def _lines(fields: dict[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in fields.items()]


def _value(value: Any) -> str:
    if isinstance(value, str):
        # JSON strings are TOML strings but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
