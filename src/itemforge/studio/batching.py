"""From the form of a list to a batch, and from a batch to what its page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydantic import ValidationError

from itemforge.contract import Status
from itemforge.gateway.batch_models import BatchRequest
from itemforge.gateway.problems import Refusal
from itemforge.jobs.batches import Batch, Cell, Counts, Verdict
from itemforge.studio import making
from itemforge.things import MAX_NAME, MAX_REQUESTS, Listing, Problem, read_things

#: What people read of a cell.
_WORDS = {
    Status.PENDING: "waiting",
    Status.PROCESSING: "being drawn",
    Status.COMPLETED: "drawn",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
    None: "deleted",
}


@dataclass(frozen=True)
class ShownCell:
    """A cell, and what changes when it looks different."""

    cell: Cell

    @property
    def words(self) -> str:
        verdict = "" if self.cell.verdict is Verdict.NONE else f", {self.cell.verdict}"
        again = f", try {self.cell.tries}" if self.cell.tries > 1 else ""
        return f"{_WORDS[self.cell.status]}{verdict}{again}"

    @property
    def status(self) -> str:
        return self.cell.status or "Gone"

    @property
    def version(self) -> str:
        return f"{self.cell.request_id.hex[:8]}-{self.status}-{self.cell.verdict}"


@dataclass(frozen=True)
class ShownThing:
    place: int
    name: str
    prompt: str
    cells: list[ShownCell]


@dataclass(frozen=True)
class Standing:
    """How a batch stands."""

    batch: Batch
    counts: Counts

    @property
    def ended(self) -> int:
        return self.batch.size - self.counts.open

    @property
    def drawn(self) -> int:
        return self.counts.status[Status.COMPLETED]

    @property
    def failed(self) -> int:
        return self.counts.status[Status.FAILED]

    @property
    def approved(self) -> int:
        return self.counts.verdict[Verdict.APPROVED]

    @property
    def rejected(self) -> int:
        return self.counts.verdict[Verdict.REJECTED]

    @property
    def version(self) -> str:
        figures = (self.counts.open, self.drawn, self.failed, self.approved, self.rejected, self.counts.gone)
        return "-".join(map(str, figures))


def listed(form: Mapping[str, str]) -> tuple[Listing, int]:
    """The list of a form and how many pictures it makes; too many are one of its problems.

    Raises:
        Refusal: 422, the number of variations is none.
    """
    listing = read_things(form.get("list", ""))
    pictures = listing.requests(making.form_count(form))
    if pictures > MAX_REQUESTS:
        said = f"{pictures:,} pictures are more than a batch may have, {MAX_REQUESTS:,}; make two of it"
        listing.problems.append(Problem(0, said))
    return listing, pictures


def form_batch(form: Mapping[str, str]) -> tuple[BatchRequest, Listing]:
    """What the form asks for.

    Raises:
        Refusal: 422, in the page's words.
    """
    listing, _ = listed(form)
    if listing.problems:
        raise Refusal(422, "\n".join(map(str, listing.problems)))
    # The settings are those of the make page, which reads them for one thing.
    shared = making.form_request({**form, "prompt": "any thing"})
    settings = shared.model_dump(exclude_none=True, exclude={"prompt", "num_images", "output"})
    name = " ".join(form.get("name", "").split())[:MAX_NAME]
    try:
        body = BatchRequest(
            items=listing.things, name=name or None, variations=making.form_count(form), **settings
        )
    except ValidationError as error:
        first = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise Refusal(422, _by_line(first, listing)) from None
    return body, listing


def in_lines(no: Refusal, listing: Listing) -> str:
    """What the gateway said of an item, by its line in the list."""
    return "\n".join(_by_line(f"{field} {advice}", listing) for field, advice in no.fields) or no.detail


def _by_line(said: str, listing: Listing) -> str:
    for place in range(len(listing.things) if said.startswith("items.") else 0):
        for mark in (".", ":"):
            if said.startswith(head := f"items.{place}{mark}"):
                return f"line {listing.lines[place]}: {said.removeprefix(head).strip()}"
    return said


def things(cells: Sequence[Cell]) -> list[ShownThing]:
    """Cells by their things."""
    return [_thing(list(group)) for _, group in groupby(cells, lambda cell: cell.thing)]


def _thing(cells: list[Cell]) -> ShownThing:
    prompts = [cell.request.prompt for cell in cells if cell.request]
    first = cells[0]
    return ShownThing(
        first.thing, first.name, prompts[0] if prompts else first.name, [ShownCell(cell) for cell in cells]
    )
