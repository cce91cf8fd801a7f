"""The bodies of `/v1` and of the seed's routes, as OpenAPI shows them."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from itemforge.contract import (
    MAX_SEED,
    Count,
    Guidance,
    LoraWeight,
    NegativePrompt,
    Output,
    Prompt,
    Scheduler,
    Seed,
    SeedText,
    Side,
    Status,
    Steps,
    StyleName,
    Text,
    WorkerFacts,
    WorkerState,
)
from itemforge.jobs.throughput import Span
from itemforge.styles.pack import MAX_TOML, Sha256


def _named(name: str) -> str:
    name = name.strip()
    if not name or not name.isprintable():
        raise ValueError("must be a name of printable characters")
    return name


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
    output: Output | None = Field(
        default=None, description="the form in which a game takes the pictures; made when it is first read"
    )
    webhook: Text | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="https:// address that is told of the end; signed with the secret of /v1/webhooks/secret",
    )

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


class OutputView(BaseModel):
    """A picture in the form that `output` asked for. `url` makes it at its first read; `key` is its object."""

    n: int
    url: str
    key: str
    format: str


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
    output: Output | None
    outputs: list[OutputView]
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
    flagged: str | None = Field(default=None, description="the rule of the block list that the prompt breaks")
    favourite: bool | None = Field(default=None, description="whether you marked it; null where nobody asked")
    deleted_at: datetime | None = Field(
        default=None, description="hidden since then; it can be restored for a day"
    )


class GenerationPage(BaseModel):
    """Newest first. `next_cursor` is null on the last page."""

    items: list[Generation]
    next_cursor: str | None


CollectionName = Annotated[Text, AfterValidator(_named), Field(min_length=1, max_length=100)]


class CollectionChange(BaseModel):
    """A collection's name, which no other of yours has."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "potions"}]})

    name: CollectionName


class CollectionView(BaseModel):
    """Generations that you put together; `count` leaves out what is deleted. Its list: `?collection=` its id."""

    id: UUID
    name: str
    count: int
    created_at: datetime
    updated_at: datetime


class Collections(BaseModel):
    items: list[CollectionView]


class Chosen(BaseModel):
    """Generations, by their ids."""

    model_config = ConfigDict(extra="forbid")

    ids: list[UUID] = Field(min_length=1, max_length=500)


class AtlasOptions(BaseModel):
    """How pictures lie on a sheet, in pixels."""

    model_config = ConfigDict(extra="forbid")

    max_side: Literal[256, 512, 1024, 2048, 4096] = 2048
    padding: int = Field(default=2, ge=0, le=64, description="empty pixels between two pictures")
    extrude: int = Field(
        default=0, ge=0, le=16, description="how often a picture's edge is repeated outwards"
    )
    power_of_two: bool = True
    trim: bool = Field(default=True, description="leave out transparent borders, which engines put back")


class ExportRequest(BaseModel):
    """Pictures to take home in one ZIP. Without `output` each as its request asked, or as it was drawn."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "ids": ["5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10"],
                    "output": {"background": "transparent", "size": 256, "trim": True},
                    "form": "atlas",
                }
            ]
        },
    )

    ids: list[UUID] = Field(min_length=1, max_length=500, description="Completed generations")
    output: Output | None = None
    form: Literal["zip", "atlas"] = "zip"
    atlas: AtlasOptions | None = None


class SizeView(BaseModel):
    width: int
    height: int
    min: int
    max: int


class LoraView(BaseModel):
    sha256: str
    weight: float


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
    base: str | None = Field(description="sha256 of the base model that it is made for; null: any")
    loras: list[LoraView]
    versions: list[int] = Field(
        description="those that the registry has, the oldest first; none of a style that lies in the gateway's home"
    )


class StylePublication(BaseModel):
    """A style pack, whose LoRA files were sent to `POST /v1/styles/blobs` before."""

    model_config = ConfigDict(extra="forbid")

    toml: Text = Field(
        max_length=MAX_TOML, description="the pack; its version is not looked at, it gets the next"
    )
    files: list[Sha256] = Field(
        default_factory=list,
        max_length=8,
        description="what was sent for it; each must be one that the pack names",
    )


class StyleRollback(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(
        default=None, ge=1, le=999_999_999, description="default: the one before the current"
    )


class StyleMove(BaseModel):
    """What a bare style id meant, and what it means now."""

    style: str
    before: int
    now: int


class UploadedLora(BaseModel):
    sha256: str
    bytes: int
    tensors: int


class WorkerView(BaseModel):
    worker_id: str
    state: WorkerState
    live: bool
    free: int
    in_hand: int = Field(description="images being drawn")
    held: int = Field(description="messages that wait in it unclaimed")
    facts: WorkerFacts | None = Field(description="what it tells of itself; null for workers of version 0.1")
    jobs: list[UUID] = Field(description="what it draws now, as far as you may see it")
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
    oldest_seconds: float = Field(description="how long the oldest Pending request waits already")
    backlog_seconds: float = Field(description="how long the live workers need for all that waits")
    images_per_hour: int = Field(description="images completed within the last hour")


class SlotView(BaseModel):
    """Requests that ended from `at` on, for the length of a step, and the images of the completed ones."""

    at: datetime
    completed: int
    failed: int
    images: int


class Throughput(BaseModel):
    """What ended when, the oldest first; of everybody. The last slot is still going on."""

    span: Span
    step_seconds: int
    slots: list[SlotView]


class DeadLetterView(BaseModel):
    """Work that ended without a result: a Failed generation, or a message of the dead queue that belongs to none."""

    id: str = Field(description="by which it is sent again or dropped; a generation's own id")
    kind: Literal["generation", "message"]
    request_id: UUID | None
    reason: str
    at: datetime | None = Field(description="when it failed; a message does not say")
    attempts: int
    worker_id: str | None = Field(description="who tried last")
    style: str | None
    prompt: str | None
    body: str | None = Field(description="the beginning of a message's body")
    times: int = Field(default=1, description="how often the same message is there")


class DeadLetters(BaseModel):
    """Generations first, the newest first. `broker` says why its queue could not be read; then messages may be missing."""

    items: list[DeadLetterView]
    more: bool = Field(description="there are older generations; settle some of these")
    broker: str | None


class SentAgain(BaseModel):
    """`request_id` is the new generation; null for a message, which went back to the queue as it was."""

    id: str
    request_id: UUID | None


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
