"""A list of things to draw, as people write it: one a line, or a CSV table. The page and the command read it here.

Nothing is guessed or dropped in silence: what cannot be read is a problem with its line.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from itemforge.contract import (
    Count,
    Guidance,
    LoraWeight,
    NegativePrompt,
    Prompt,
    Scheduler,
    Seed,
    Side,
    Steps,
    Text,
)
from itemforge.errors import advice

#: Requests of one batch: things times variations.
MAX_REQUESTS = 2000
#: Characters of a thing's name.
MAX_NAME = 200
#: Problems that are told; the rest are counted.
_TOLD = 20
#: What a table's columns may be called, and what they are; the first of them says that it is a table.
_COLUMNS = {
    "thing": "prompt",
    "prompt": "prompt",
    "name": "name",
    "negative": "negative_prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "variations": "variations",
    "steps": "num_inference_steps",
    "num_inference_steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "guidance_scale": "guidance_scale",
    "sampler": "scheduler",
    "scheduler": "scheduler",
    "width": "width",
    "height": "height",
    "lora_weight": "lora_weight",
}
_FIRST = ("thing", "name", "prompt")

Name = Annotated[Text, Field(min_length=1, max_length=MAX_NAME)]


class Drawing(BaseModel):
    """How a thing is drawn; what is absent is the batch's, and after that the style's."""

    model_config = ConfigDict(extra="forbid")

    negative_prompt: NegativePrompt | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Scheduler | None = None
    seed: Seed | None = Field(
        default=None, description="of the first variation, the next ones count on; drawn when absent"
    )
    width: Side | None = None
    height: Side | None = None
    lora_weight: LoraWeight | None = None


class Thing(Drawing):
    """One thing of a batch. `name` (default: the prompt) is what its files are called by."""

    prompt: Prompt
    name: Name | None = None
    variations: Count | None = None

    @property
    def title(self) -> str:
        return " ".join((self.name or self.prompt).split())[:MAX_NAME]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line; 1 is the first, 0 the list as a whole."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


@dataclass
class Listing:
    """What a text says. `things`, which stand in `lines`, are good even where others are not; `notes` are no errors."""

    things: list[Thing] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def requests(self, variations: int) -> int:
        """How many pictures that makes, with `variations` of each thing that does not say its own number."""
        return sum(thing.variations or variations for thing in self.things)


def read_things(text: str) -> Listing:
    """The things of a text: a CSV table if its first line names a column `thing` or `name`, else one a line.

    >>> [thing.prompt for thing in read_things("a red apple\\n\\na key").things]
    ['a red apple', 'a key']
    >>> str(read_things("thing,seed\\na cup,many").problems[0])
    'line 2: seed: must be a valid integer, unable to parse string as an integer'
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    listing = Listing()
    header = _header(text)
    lines: Iterator[tuple[int, dict[str, Any]]]
    if header is None:
        lines = ((n, {"prompt": line.strip()}) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    else:
        lines = _table(text, *header, listing)
    seen: dict[str, int] = {}
    for line, values in lines:
        _take(line, values, listing, seen)
    if not listing.things and not listing.problems:
        listing.problems.append(Problem(0, "the list is empty; write one thing a line"))
    if (more := len(listing.problems) - _TOLD) > 0:
        del listing.problems[_TOLD:]
        listing.problems.append(Problem(0, f"and {more} more lines that cannot be read"))
    return listing


def _header(text: str) -> tuple[str, int] | None:
    """The delimiter of a table and the line of its header; None for a plain list."""
    for n, line in enumerate(text.split("\n"), 1):
        if line.strip():
            for delimiter in (",", ";", "\t"):
                names = [cell.strip(' "').lower() for cell in line.split(delimiter)]
                if names[0] in _FIRST and (len(names) > 1 or delimiter == "\t"):
                    return delimiter, n
                if len(names) > 1 and set(names) & set(_FIRST) and set(names) <= _COLUMNS.keys():
                    return delimiter, n
            return None
    return None


def _table(text: str, delimiter: str, header: int, listing: Listing) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines and values of a table; a field may go over several lines, of which the first counts."""
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    names: list[str] = []
    line = 1
    try:
        for row in rows:
            here, line = line, rows.line_num + 1
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not names:
                names = [cell.lower() for cell in cells]
                if problem := _wrong_names(names):
                    listing.problems.append(Problem(header, problem))
                    return
            elif len(cells) > len(names) and any(cells[len(names) :]):
                said = f"has {len(cells)} fields, and the first line names {len(names)} columns"
                listing.problems.append(Problem(here, f'{said}; put texts with "{delimiter}" in quotes'))
            else:
                yield here, _values(names, cells)
    except csv.Error as error:
        listing.problems.append(Problem(line, f"is no CSV ({error}); look for a quote that is not closed"))


def _wrong_names(names: list[str]) -> str | None:
    unknown = [name or "(no name)" for name in names if name not in _COLUMNS]
    if unknown:
        return f"does not know the columns {', '.join(unknown)}; known are {', '.join(_COLUMNS)}"
    meant = [_COLUMNS[name] for name in names]
    if twice := {name for name in meant if meant.count(name) > 1}:
        return f"names a column twice: {', '.join(sorted(twice))}"
    return None


def _values(names: list[str], cells: list[str]) -> dict[str, Any]:
    """The fields that are not empty; a thing that has a name only is drawn by it."""
    values: dict[str, Any] = {_COLUMNS[name]: cell for name, cell in zip(names, cells, strict=False) if cell}
    values.setdefault("prompt", values.get("name", ""))
    return values


def _take(line: int, values: dict[str, Any], listing: Listing, seen: dict[str, int]) -> None:
    try:
        thing = Thing.model_validate(values)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {_advice(e)}" for e in error.errors())
        listing.problems.append(Problem(line, said))
        return
    same = thing.model_dump_json()
    if same in seen:
        note = f"{thing.title[:60]!r} stands in line {seen[same]} already, and is drawn again"
        listing.notes.append(Problem(line, note))
    seen.setdefault(same, line)
    listing.things.append(thing)
    listing.lines.append(line)


def _advice(error: ErrorDetails) -> str:
    if error["type"] in ("too_long", "string_too_long"):
        return f"must have at most {error['ctx']['max_length']} characters"
    return advice(error["msg"])
