"""The bodies of the routes that speak as OpenAI's image API does, by its reference of November 2026."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from itemforge.contract import (
    Count,
    Guidance,
    LoraWeight,
    NegativePrompt,
    Prompt,
    Scheduler,
    Seed,
    Steps,
    Text,
)

_SIZE = r"^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$"


class ImagesRequest(BaseModel):
    """What to draw. Fields of OpenAI's that mean nothing here are taken and passed over; unknown ones are refused."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"prompt": "a red apple"}, {"prompt": "a key", "model": "plain", "n": 2}]
        },
    )

    prompt: Prompt = Field(description="the thing itself; the style adds trigger, tags and negatives")
    model: Text | None = Field(
        default=None, max_length=200, description="a style, `id` or `id@version`; see GET /v1/models"
    )
    n: Count | None = Field(default=None, description="how many images; default 1")
    size: str | None = Field(
        default=None,
        pattern=_SIZE,
        description="`auto` (the style's own), or `WIDTHxHEIGHT`: a square is drawn at the style's own size and "
        "brought to this one, 64 to 1024; other forms are drawn so, within the style's limits",
    )
    response_format: Literal["url", "b64_json"] | None = Field(
        default=None, description="both when absent; addresses open without a key"
    )
    background: Literal["transparent", "opaque", "auto"] | None = None
    output_format: Literal["png", "webp"] | None = None
    negative_prompt: NegativePrompt | None = Field(
        default=None, description="this and the next ones are ours: `extra_body` of OpenAI's packages"
    )
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Scheduler | None = None
    seed: Seed | None = None
    lora_weight: LoraWeight | None = None
    stream: Literal[False] | None = None
    partial_images: Literal[0] | None = None
    quality: Text | None = Field(default=None, max_length=20, description="passed over")
    style: Literal["vivid", "natural"] | None = Field(default=None, description="passed over")
    moderation: Literal["low", "auto"] | None = Field(default=None, description="passed over")
    output_compression: int | None = Field(default=None, description="passed over: files are lossless")
    user: Text | None = Field(default=None, max_length=512, description="passed over")
    safety_identifier: Text | None = Field(default=None, max_length=512, description="passed over")

    @property
    def sides(self) -> tuple[int, int] | None:
        """Width and height in pixels; None: the style's own."""
        if self.size is None or self.size == "auto":
            return None
        width, height = re.findall("[0-9]+", self.size)
        return int(width), int(height)


class ImageData(BaseModel):
    """One picture; `revised_prompt` is as it was drawn, with the style's words."""

    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str


class ImagesAnswer(BaseModel):
    """`id` is the generation's, under which `/v1/generations` has it too; `created` in seconds since 1970."""

    id: str
    created: int
    data: list[ImageData]
    background: Literal["transparent", "opaque"]
    output_format: Literal["png", "webp"]
    size: str | None


class Model(BaseModel):
    """A style. It has no date, so `created` is 0."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "itemforge"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """An error in the shape that OpenAI's packages read."""

    error: ErrorDetail
