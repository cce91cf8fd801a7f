"""What crosses a process border: job messages, generation parameters, and the worker's calls.

The queue, the message body and the object keys are the wire contract of the existing item generation
services (a durable queue declared without arguments, a JSON body `{"request_id", "params"}`), so unknown
keys are ignored and every key that is ours is optional. Nothing here imports anything else of ours.
"""

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

#: The queue of the wire contract; declared durable and nothing more, or the other side gets a 406.
QUEUE = "image_generation_queue"
#: Where messages go that nobody can serve.
DEAD_QUEUE = f"{QUEUE}.dead"
#: Name and delay (seconds) of each retry queue, `image_generation_queue.retry.<name>`.
RETRY_DELAYS: dict[str, float] = {"5s": 5.0, "30s": 30.0, "2m": 120.0, "10m": 600.0}
#: Message header that counts failed tries where no gateway counts them.
ATTEMPT_HEADER = "x-attempt"
#: Message header of a dead message: why it is there.
REASON_HEADER = "x-reason"
#: Every answer of our gateway carries this header, so a worker knows that it may claim.
CONTRACT_HEADER = "ItemForge-Contract"
CONTRACT_VERSION = "1"

MAX_SEED = 2**63 - 1
MAX_ATTEMPTS = 20  # a claim never raises `attempt` above this
MAX_STEP = 1_000_000  # of progress; far above any row's steps
MAX_HELD = 65_535  # messages in a worker's hands: AMQP's largest prefetch
MAX_CHARGED = 5  # a row charged this often is failed at its next claim
STATUS_ERROR_LENGTH = 2000  # characters of a request's error


def retry_queue(delay: str) -> str:
    """Name of the retry queue for a key of `RETRY_DELAYS`."""
    return f"{QUEUE}.retry.{delay}"


class Status(StrEnum):
    """Where a request stands. The first four are the wire's; `Cancelled` shows as `Failed` there."""

    PENDING = "Pending"
    PROCESSING = "Processing"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @classmethod
    def _missing_(cls, value: object) -> "Status | None":
        # The original worker sends `processing` and `failed`.
        return next((s for s in cls if s.value.lower() == str(value).lower()), None)

    @property
    def terminal(self) -> bool:
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class Scheduler(StrEnum):
    """The samplers of the engine; `ddim` is the wire's default."""

    DDIM = "ddim"
    DPMPP_2M_KARRAS = "dpmpp_2m_karras"
    EULER = "euler"


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL characters; remove them")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must be valid Unicode text; remove the lone surrogates")
    return text


def clean_text(text: str) -> str:
    """Any text as a `Text`: what an error says may hold what no database takes."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:STATUS_ERROR_LENGTH]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must say what to draw; it is empty")
    return text


def _not_bool(value: object) -> object:
    # bool is an int in Python, but `"seed": true` is a mistake on the wire.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


Text = Annotated[str, AfterValidator(_without_nul)]
#: A seed: an integer or a decimal string, since JavaScript loses integers above 2^53.
Seed = Annotated[int, BeforeValidator(_not_bool), Field(ge=0, le=MAX_SEED)]
#: A seed on `/v1` and in events: written as a decimal string.
SeedText = Annotated[Seed, PlainSerializer(str, return_type=str)]
Steps = Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=150)]
Guidance = Annotated[float, BeforeValidator(_not_bool), Field(ge=0, le=30, allow_inf_nan=False)]
Side = Annotated[int, BeforeValidator(_not_bool), Field(ge=8, le=2048, multiple_of=8)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=16)]
LoraWeight = Annotated[float, BeforeValidator(_not_bool), Field(ge=-5, le=5, allow_inf_nan=False)]
#: `id` or `id@version`.
StyleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}(@[0-9]{1,9})?$")]
#: What a person writes.
Prompt = Annotated[Text, AfterValidator(_not_blank), Field(min_length=1, max_length=2000)]
#: What a message carries: a style's template may have lengthened it.
ComposedPrompt = Annotated[Text, AfterValidator(_not_blank), Field(min_length=1, max_length=8000)]
NegativePrompt = Annotated[Text, Field(max_length=8000)]


class Holes(StrEnum):
    """What becomes of enclosed patches that look like the ground: a cup's handle, or white paint."""

    GUESS = "guess"  # by size, shape and surroundings
    KEEP = "keep"
    CUT = "cut"


class Output(BaseModel):
    """The form in which a game takes a picture; the gateway makes it, and a worker never looks at it.

    `size` (pixels) makes a square with everything inside `pad` pixels of border; without it the picture keeps
    its scale. `trim` cuts away what is empty about the item, so that it fills the square, in its middle.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    background: Literal["white", "transparent"] = "white"
    holes: Holes = Holes.GUESS
    size: Annotated[int, BeforeValidator(_not_bool), Field(ge=64, le=1024)] | None = None
    trim: bool = False
    pad: Annotated[int, BeforeValidator(_not_bool), Field(ge=0, le=256)] = 0
    format: Literal["png", "webp"] = "png"

    @model_validator(mode="after")
    def _leaves_room(self) -> "Output":
        if self.size is not None and 4 * self.pad > self.size:
            raise ValueError("pad must be at most a quarter of size")
        return self


def _understood(value: object, validate: ValidatorFunctionWrapHandler) -> Output | None:
    # Only a gateway of ours reads it: what another program means by this name fails no request.
    try:
        output: Output | None = validate(value)
    except ValidationError:
        return None
    return output


class JobParams(BaseModel):
    """What to draw, as it stands in a message and in a row: the prompt is composed already.

    `style` is `id@version`, or absent for a prompt that carries its trigger itself (then the worker's
    default style gives the LoRA). Absent `width` and `height` mean the style's native size. Image n of
    `num_images` has the seed `seed + n`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: ComposedPrompt
    negative_prompt: NegativePrompt = ""
    num_inference_steps: Steps = 50
    guidance_scale: Guidance = 7.5
    seed: Seed = 50
    style: StyleName | None = None
    lora_weight: LoraWeight | None = None
    width: Side | None = None
    height: Side | None = None
    scheduler: Scheduler = Scheduler.DDIM
    num_images: Count = 1
    output: Annotated[Output | None, WrapValidator(_understood)] = None

    @model_validator(mode="after")
    def _last_seed_fits(self) -> "JobParams":
        if self.seed + self.num_images - 1 > MAX_SEED:
            raise ValueError("seed + num_images - 1 must not exceed 2^63 - 1; choose a smaller seed")
        return self


class JobMessage(BaseModel):
    """The body of a message on `QUEUE`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    request_id: UUID
    params: JobParams

    def encode(self) -> bytes:
        """The message body; keys of ours that were not asked for are left out."""
        return self.model_dump_json(exclude_none=True).encode()


class _Readable(BaseModel):
    """The least that a broken message must have for its request to be failed."""

    model_config = ConfigDict(extra="ignore")

    request_id: UUID


def readable_request_id(body: bytes) -> UUID | None:
    """The request id of a message that may otherwise be broken, or None."""
    try:
        return _Readable.model_validate_json(body).request_id
    except ValidationError:
        return None


def object_key(request_id: UUID, n: int, num_images: int) -> str:
    """Key of image `n` in the object store."""
    if num_images == 1:
        return f"generated/{request_id}.png"
    return f"generated/{request_id}/{n}.png"


class Image(BaseModel):
    """One stored picture of a request."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    n: int = Field(ge=0, le=15)
    seed: SeedText
    bucket: Text = Field(max_length=1024)
    key: Text = Field(max_length=1024)
    url: Text = Field(max_length=4096)
    width: int
    height: int


# ── The worker's calls: POST /v1/worker/{claims,heartbeat,reports} ──────────────────────────────

WorkerId = Annotated[Text, Field(min_length=1, max_length=200)]


#: W3C trace context: where a trace goes on.
Traceparent = Annotated[str, Field(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]


class ClaimJob(BaseModel):
    """`traceparent` is that of the attempt which begins if the claim is granted."""

    request_id: UUID
    traceparent: Traceparent | None = None


class ClaimRequest(BaseModel):
    """An empty list of jobs is the worker's first contact: it asks whether claims are spoken here."""

    worker_id: WorkerId
    jobs: list[ClaimJob] = Field(max_length=256)
    #: The worker has no credentials of its own: each claim shall bring signed uploads.
    uploads: bool = False


class Outcome(StrEnum):
    """What became of a claim, and what the worker does."""

    CLAIMED = "claimed"  # draw it
    LEASED = "leased"  # another worker draws it: look again in 30 s
    DONE = "done"  # terminal: acknowledge
    UNKNOWN = "unknown"  # no such request: dead queue
    EXHAUSTED = "exhausted"  # charged too often, now Failed: dead queue


class Upload(BaseModel):
    """Permission to create one picture: one PUT to `url` with exactly `headers`, until it expires.

    Who has the address has the permission, so it is never logged. An address that begins with a slash is
    the gateway's own, under whatever name the worker reaches it. What is reported is `bucket`, `key` and
    `public_url`.
    """

    n: int = Field(ge=0, le=15)
    url: Text = Field(max_length=8192, repr=False)
    headers: dict[Text, Text] = Field(max_length=16)
    bucket: Text = Field(max_length=1024)
    key: Text = Field(max_length=1024)
    public_url: Text = Field(max_length=4096)
    expires_in_s: float = Field(gt=0)


class UploadRequest(BaseModel):
    """Asks for new uploads of an attempt, because the first ones expired."""

    worker_id: WorkerId
    request_id: UUID
    attempt: int


class Claim(BaseModel):
    """The answer for one job. `params` are the row's and win over the message's."""

    request_id: UUID
    outcome: Outcome
    attempt: int | None = None
    lease_s: float | None = None
    params: JobParams | None = None
    #: True for a row that was charged before: it is drawn alone, so its neighbours are safe.
    alone: bool = False
    #: One for each image where the worker asked for them; empty when they could not be signed now.
    uploads: list[Upload] | None = None
    #: Trace contexts of the request, and of the attempt before this one.
    traceparent: Traceparent | None = None
    previous: Traceparent | None = None


class WorkerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    PAUSED = "paused"
    DRAINING = "draining"


class HeartbeatRow(BaseModel):
    """Progress of one image of a claimed request."""

    request_id: UUID
    attempt: int
    step: int = Field(ge=0, le=MAX_STEP)
    steps: int = Field(ge=0, le=MAX_STEP)
    image: int = Field(default=0, ge=0, le=15)
    #: A small JPEG in base64, only while the gateway's last answer said `watch`.
    preview: str | None = Field(default=None, max_length=8000, pattern=r"^[A-Za-z0-9+/]*={0,2}$")


class WorkerFacts(BaseModel):
    """What a worker says of itself for people to look at; nothing is decided by it.

    `styles` (`id@version`) are those it drew last, the latest first, whose LoRA is still merged. `steps_per_second` counts
    denoising steps of images while it draws; `done` and `failed` jobs since its start.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Text = Field(default="", max_length=40)
    model: Text = Field(default="", max_length=200)
    base: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    device: Text = Field(default="", max_length=200)
    styles: list[StyleName] = Field(default_factory=list, max_length=8)
    steps_per_second: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    done: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)


def _told(value: object, validate: ValidatorFunctionWrapHandler) -> WorkerFacts | None:
    # A lease must not run out because of what is only for show.
    try:
        facts: WorkerFacts | None = validate(value)
    except ValidationError:
        return None
    return facts


class Heartbeat(BaseModel):
    """Once a second while busy. `free` counts images the worker could take at once, `held` the messages
    that wait in it unclaimed (workers of version 0.1 tell neither that nor `facts`)."""

    worker_id: WorkerId
    state: WorkerState
    free: int = Field(ge=0)
    held: int = Field(default=0, ge=0, le=MAX_HELD)
    facts: Annotated[WorkerFacts | None, WrapValidator(_told)] = None
    rows: list[HeartbeatRow] = Field(max_length=1024)


class HeartbeatAnswer(BaseModel):
    """One per request of the heartbeat. `lost`: the lease is another's, drop the work."""

    request_id: UUID
    cancel: bool = False
    lost: bool = False
    watch: bool = False


class ReportStatus(StrEnum):
    COMPLETED = "Completed"
    FAILED = "Failed"
    RETRY = "Retry"  # it failed here, the message is in a retry queue
    RELEASED = "Released"  # given back politely: not charged


class Report(BaseModel):
    """The end of one attempt."""

    request_id: UUID
    attempt: int
    status: ReportStatus
    images: list[Image] = Field(default_factory=list, max_length=16)
    error: Text | None = None


class ReportAnswer(BaseModel):
    """`code` 200: accepted, or already so; 409: another attempt or a terminal row; 404: unknown."""

    request_id: UUID
    code: Literal[200, 404, 409]
