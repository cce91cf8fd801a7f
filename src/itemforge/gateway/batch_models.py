"""The bodies of `/v1/batches`."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema

from itemforge.contract import MAX_SEED, Count, Output, SeedText, Status, StyleName
from itemforge.gateway.models import AtlasOptions, Picture
from itemforge.jobs.batches import Verdict
from itemforge.things import MAX_REQUESTS, Drawing, Name, Thing


class _OrText:
    """A thing of which only the prompt is said may be that text alone."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 2000}, handler(schema)]}


def _from_text(value: object) -> object:
    return {"prompt": value} if isinstance(value, str) else value


class BatchRequest(Drawing):
    """Things to draw in one style. What a thing says for itself wins over what is said here for all."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "items": ["a red apple", {"prompt": "an iron key", "name": "key_iron", "variations": 2}],
                    "style": "plain",
                    "variations": 4,
                }
            ]
        },
    )

    items: list[Annotated[Thing, BeforeValidator(_from_text), _OrText()]] = Field(
        min_length=1, max_length=MAX_REQUESTS
    )
    name: Name | None = Field(default=None, description="what the batch is called; default: its first thing")
    style: StyleName | None = Field(default=None, description="`id` or `id@version`; see GET /v1/styles")
    variations: Count = 4
    output: Output | None = None

    @property
    def size(self) -> int:
        """Requests that it makes."""
        return sum(thing.variations or self.variations for thing in self.items)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size > MAX_REQUESTS:
            raise ValueError(
                f"items times variations must be at most {MAX_REQUESTS}, and are {self.size}; make two batches"
            )
        for n, thing in enumerate(self.items):
            seed = thing.seed if thing.seed is not None else self.seed
            if (seed or 0) + (thing.variations or self.variations) - 1 > MAX_SEED:
                raise ValueError(f"items.{n}: seed + variations - 1 must not exceed 2^63 - 1")
        return self


class BatchCounts(BaseModel):
    """Cells by status and by verdict; `gone`: deleted, or too old to be kept."""

    status: dict[Status, int]
    verdict: dict[Verdict, int]
    gone: int


class BatchView(BaseModel):
    """A batch, and how it stands."""

    id: UUID
    name: str
    style: str = Field(description="`id@version`")
    things: int
    size: int = Field(description="its cells: one for each variation of each thing")
    settings: dict[str, Any] = Field(description="what was asked for all things")
    counts: BatchCounts
    done: bool = Field(description="nothing waits and nothing is being drawn")
    created_at: datetime


class CellView(BaseModel):
    """One variation. `id` is its generation's; `status` is null when that is gone."""

    variation: int
    id: UUID
    status: Status | None
    verdict: Verdict
    tries: int
    seed: SeedText | None
    image: Picture | None
    error: str | None


class ThingView(BaseModel):
    thing: int = Field(description="its place in the list, from 0")
    name: str
    prompt: str | None
    cells: list[CellView]


class BatchDetail(BatchView):
    """With some of its things; `next` goes into `first` for more, and is null at the end."""

    items: list[ThingView]
    next: int | None


class BatchPage(BaseModel):
    """Newest first. `next_cursor` is null on the last page."""

    items: list[BatchView]
    next_cursor: str | None


_Ids = Annotated[list[UUID], Field(min_length=1, max_length=MAX_REQUESTS)]


class VerdictRequest(BaseModel):
    """A verdict on drawn pictures; without `ids` on all that have none yet. `none` takes one back."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"verdict": "approved", "ids": ["5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10"]}]
        },
    )

    verdict: Verdict
    ids: _Ids | None = Field(default=None, description="generations that stand in the batch now")


class RerollRequest(BaseModel):
    """New seeds; without `ids` for all that are rejected or Failed. A Cancelled one has to be named."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{}]})

    ids: _Ids | None = Field(default=None, description="generations that stand in the batch now")


class Changed(BaseModel):
    """How many cells were changed, and how the batch stands now."""

    changed: int
    batch: BatchView


class BatchExport(BaseModel):
    """Pictures to take home in one ZIP, named by their things."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"output": {"background": "transparent", "size": 128, "trim": True}}]
        },
    )

    which: Literal["approved", "drawn"] = "approved"
    output: Output | None = None
    form: Literal["zip", "atlas"] = "zip"
    atlas: AtlasOptions | None = None
