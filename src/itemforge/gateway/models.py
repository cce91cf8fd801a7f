"""The bodies of `/v1` and of the seed's routes, as OpenAPI shows them."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from itemforge.contract import (
    MAX_SEED,
    Count,
    Guidance,
    LoraWeight,
    NegativePrompt,
    Prompt,
    Scheduler,
    Seed,
    SeedText,
    Side,
    Status,
    Steps,
    StyleName,
    Text,
    WorkerState,
)


class GenerationRequest(BaseModel):
    """What to draw. Only `prompt` is needed; the style says the rest."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"prompt": "a red apple"},
                {"prompt": "a samoyed dog smiling", "style": "plain", "seed": "7", "num_images": 4},
            ]
        },
    )

    prompt: Prompt = Field(description="the thing itself; the style adds trigger, tags and negatives")
    style: StyleName | None = Field(default=None, description="`id` or `id@version`; see GET /v1/styles")
    negative_prompt: NegativePrompt | None = Field(default=None, description="default: the style's")
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Scheduler | None = None
    seed: Seed | None = Field(
        default=None, description="integer or decimal string; drawn and recorded when absent"
    )
    width: Side | None = Field(default=None, description="pixels, a multiple of 8; default: the style's")
    height: Side | None = Field(default=None, description="pixels, a multiple of 8; default: the style's")
    num_images: Count | None = Field(default=None, description="image n has the seed `seed + n`; default 1")
    lora_weight: LoraWeight | None = None

    @model_validator(mode="after")
    def _last_seed_fits(self) -> Self:
        if (self.seed or 0) + (self.num_images or 1) - 1 > MAX_SEED:
            raise ValueError("seed + num_images - 1 must not exceed 2^63 - 1; choose a smaller seed")
        return self


class Picture(BaseModel):
    n: int
    seed: SeedText
    url: str
    width: int | None
    height: int | None


class ProgressView(BaseModel):
    """Denoising steps done, of all steps of all images."""

    step: int
    steps: int


class Generation(BaseModel):
    """A request with its effective parameters, and what became of it. Seeds are decimal strings."""

    id: UUID
    status: Status
    prompt: str = Field(description="as it was sent")
    composed_prompt: str = Field(description="as it is drawn, with the style's words")
    style: str | None = Field(description="`id@version`")
    negative_prompt: str
    num_inference_steps: int
    guidance_scale: float
    scheduler: Scheduler
    seed: SeedText
    width: int | None
    height: int | None
    num_images: int
    lora_weight: float | None
    image_url: str | None
    images: list[Picture]
    error: str | None
    attempt: int
    queue_position: int | None = Field(
        default=None, description="while Pending, 1 is next; only in the answer for one generation"
    )
    progress: ProgressView | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    retry_of: UUID | None


class GenerationPage(BaseModel):
    """Newest first. `next_cursor` is null on the last page."""

    items: list[Generation]
    next_cursor: str | None


class SizeView(BaseModel):
    width: int
    height: int
    min: int
    max: int


class StyleView(BaseModel):
    name: str = Field(description="`id@version`")
    id: str
    version: int
    licence: str
    trigger: str
    template: str
    negative: str
    size: SizeView
    defaults: dict[str, str | float | int | None]


class WorkerView(BaseModel):
    worker_id: str
    state: WorkerState
    live: bool
    free: int
    in_hand: int = Field(description="images being drawn")
    held: int = Field(description="messages that wait in it unclaimed")
    first_seen: datetime
    last_seen: datetime


class Stats(BaseModel):
    """Figures of the database, which is the truth; the queue is only a window on it."""

    requests: dict[Status, int] = Field(description="your own, or with an admin's key everybody's")
    unpublished: int = Field(description="open requests that are not on the queue")
    waiting: int = Field(description="on the queue and not yet claimed")
    window: int = Field(description="how many the queue may hold")
    workers: int = Field(description="live workers")
    capacity: int = Field(description="images that live workers can hold")


class SeedGeneration(BaseModel):
    """The original gateway's request: flat, unknown keys ignored, the prompt used as it is."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"prompt": "tsuki_advtr, a red apple", "seed": 50}]},
    )

    prompt: Prompt
    negative_prompt: NegativePrompt | None = None
    num_inference_steps: Steps = 50
    guidance_scale: Guidance = 7.5
    seed: Seed = 50
    style: StyleName | None = None


class SeedUpdate(BaseModel):
    """The original worker's report; statuses in any case."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"status": "processing"}]})

    status: Text
    image_url: Text | None = Field(default=None, max_length=4096)


class SeedAccepted(BaseModel):
    request_id: UUID


class SeedStatus(BaseModel):
    request_id: UUID
    status: Status
    image_url: str | None = None


class SeedMessage(BaseModel):
    message: str
