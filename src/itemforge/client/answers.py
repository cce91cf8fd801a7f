"""What the gateway answers, as a program sees it: typed, frozen, and forgiving of what a newer gateway adds."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from itemforge.contract import Output, Scheduler, SeedText, Status


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Progress(Answer):
    """Denoising steps done, of all steps of all images."""

    step: int = 0
    steps: int = 0


class Picture(Answer):
    """One drawn image; width and height in pixels where the gateway knows them."""

    n: int
    seed: SeedText | None = None
    url: str
    width: int | None = None
    height: int | None = None


class OutputFile(Answer):
    """A picture in the form that the request's `output` asked for; `url` makes it at its first read."""

    n: int
    url: str
    key: str
    format: str


class Generation(Answer):
    """A request with its effective parameters, and what became of it."""

    id: str
    status: Status
    prompt: str
    composed_prompt: str | None = None
    style: str | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: Scheduler | None = None
    seed: SeedText | None = None
    width: int | None = None
    height: int | None = None
    num_images: int = 1
    lora_weight: float | None = None
    image_url: str | None = None
    images: tuple[Picture, ...] = ()
    output: Output | None = None
    outputs: tuple[OutputFile, ...] = ()
    error: str | None = None
    attempt: int = 0
    queue_position: int | None = None
    progress: Progress | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    finished_at: datetime | None = None
    retry_of: str | None = None
    flagged: str | None = None
    favourite: bool | None = None
    deleted_at: datetime | None = None


class Page(Answer):
    """One page of a list; `next_cursor` is None on the last."""

    items: tuple[Generation, ...]
    next_cursor: str | None = None


class StyleSize(Answer):
    """Native size and limits in pixels."""

    width: int
    height: int
    min: int
    max: int


class Style(Answer):
    """A style that can be asked for; `name` is `id@version`."""

    name: str
    id: str
    version: int
    licence: str
    trigger: str
    template: str
    negative: str
    size: StyleSize
    defaults: Mapping[str, str | float | int | None] = {}


#: What names a generation: its id, or itself.
Named = Generation | UUID | str


def id_of(named: Named) -> str:
    """The id that `named` stands for."""
    return named.id if isinstance(named, Generation) else str(named)
