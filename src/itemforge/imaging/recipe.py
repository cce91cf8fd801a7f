"""The recipe of a picture: everything that is needed to draw the same pixels again.

It travels inside the PNG twice: as the `parameters` text that A1111-style tools read, and as JSON, which
is the one that we read back, since the text form cannot hold every prompt without doubt.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from itemforge.contract import ComposedPrompt, Guidance, NegativePrompt, Scheduler, Seed, Side, Steps, Text
from itemforge.errors import InvalidInput

#: A1111's names of our samplers.
SAMPLER_NAMES = {
    Scheduler.DDIM: "DDIM",
    Scheduler.DPMPP_2M_KARRAS: "DPM++ 2M Karras",
    Scheduler.EULER: "Euler",
}
FORMAT = 1

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Name = Annotated[Text, Field(max_length=200)]


@dataclass(frozen=True)
class RecipeLora:
    """One LoRA of the picture's style; `name` is for people, the sha256 decides."""

    sha256: Sha256
    weight: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
    name: Name = ""


@dataclass(frozen=True)
class Recipe:
    """`prompt` is as composed with the style; `base` is the base model's sha256, `width`/`height` pixels.

    `noise_device` is where the noise was drawn, `quality` which approximations were allowed; both change
    pixels. `versions` is a tuple of (library, version).
    """

    prompt: ComposedPrompt
    negative_prompt: NegativePrompt
    steps: Steps
    sampler: Scheduler
    guidance: Guidance
    seed: Seed
    width: Side
    height: Side
    base: Sha256
    model: Name
    loras: Annotated[tuple[RecipeLora, ...], Field(max_length=32)] = ()
    dtype: Name = "float32"
    device: Name = "cpu"
    quality: Name = "exact"
    noise_device: Literal["cpu", "cuda"] = "cpu"
    versions: Annotated[tuple[tuple[Name, Name], ...], Field(max_length=32)] = ()

    def parameters_text(self) -> str:
        """The A1111 form: prompt, negative prompt, then one line of comma-separated parameters."""
        lines = [self.prompt]
        if self.negative_prompt:
            lines.append(f"Negative prompt: {self.negative_prompt}")
        lines.append(", ".join(f"{key}: {value}" for key, value in self._parameters()))
        return "\n".join(lines)

    def _parameters(self) -> list[tuple[str, str]]:
        parameters = [
            ("Steps", str(self.steps)),
            ("Sampler", SAMPLER_NAMES[Scheduler(self.sampler)]),
            ("CFG scale", f"{self.guidance:g}"),
            ("Seed", str(self.seed)),
            ("Size", f"{self.width}x{self.height}"),
            ("Model hash", self.base[:10]),
            ("Model", _quoted(self.model)),
        ]
        if self.loras:
            named = [(lora.name or lora.sha256[:12], lora) for lora in self.loras]
            hashes = ", ".join(f"{name}: {lora.sha256[:12]}" for name, lora in named)
            weights = ", ".join(f"{name}: {lora.weight:g}" for name, lora in named)
            parameters += [("Lora hashes", _quoted(hashes)), ("Lora weights", _quoted(weights))]
        parameters.append(("Version", f"itemforge {dict(self.versions).get('itemforge', 'unknown')}"))
        return parameters

    def to_json(self) -> str:
        """JSON in ASCII; `from_json` gives the same recipe back."""
        fields = asdict(self) | {"sampler": str(self.sampler), "versions": dict(self.versions)}
        return json.dumps({"format": FORMAT, **fields})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Recipe":
        """Read what `to_json` wrote.

        Raises:
            InvalidInput: it is no recipe; the text names the field.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidInput("the recipe is not JSON; the file was changed or is not ours") from None
        if not isinstance(fields, dict):
            raise InvalidInput("the recipe is not a JSON object; the file was changed or is not ours")
        if fields.pop("format", None) != FORMAT:
            raise InvalidInput("the recipe has another format; use the ItemForge version that wrote it")
        if isinstance(versions := fields.get("versions"), dict):
            fields["versions"] = list(versions.items())
        return _validated(fields)


def _validated(fields: dict[str, Any]) -> Recipe:
    try:
        return TypeAdapter(Recipe).validate_python(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise InvalidInput(f"the recipe is not valid: {wrong}") from None


def _quoted(value: str) -> str:
    """A value as A1111 writes it: in JSON quotes when it would be taken for several parameters."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ',:\n"') else value


@cache
def library_versions() -> tuple[tuple[str, str], ...]:
    """Versions of what decides pixels; a library that is not installed is left out."""
    found = []
    for name in ("itemforge", "torch", "diffusers", "transformers"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)
