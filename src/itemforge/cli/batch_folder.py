"""The folder of a batch on this side: which batch it is, the pictures that have arrived, and what each one is.

A run that is broken off anywhere goes on: the batch's key is written down before it is sent, and a picture is in
the manifest when its file is whole.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from itemforge.client.batches import Batch, Cell, Thing
from itemforge.contract import Output, Status
from itemforge.errors import InvalidInput
from itemforge.imaging.naming import free_name, slug
from itemforge.styles.files import write_atomic

_STATE, MANIFEST = "batch.json", "manifest.json"


class State(BaseModel):
    """`asked` is the hash of what was asked for; `output` the form in which the pictures are fetched."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    key: str
    asked: str
    body: dict[str, Any]
    batch: str | None = None
    output: Output | None = None


@dataclass(frozen=True)
class Wanted:
    """A cell, and the file of its picture."""

    thing: Thing
    cell: Cell
    file: str

    @property
    def title(self) -> str:
        return f"{self.thing.name}, {self.cell.variation + 1}"


class BatchFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, body: dict[str, Any] | None, output: Output | None) -> State:
        """The batch of this folder; a new one where there is none yet. `body` None goes on with what is here.

        Raises:
            InvalidInput: the folder has another batch, or none to go on with, or cannot be written.
        """
        asked = hashlib.sha256(json.dumps([body, _form(output)], sort_keys=True).encode()).hexdigest()
        try:
            text = (self.path / _STATE).read_bytes()
        except FileNotFoundError:
            if body is None:
                raise InvalidInput(f"{self.path} has no batch to go on with; name a list of things") from None
            return self.keep(State(key=str(uuid4()), asked=asked, body=body, output=output))
        except OSError as error:
            raise InvalidInput(f"{self.path / _STATE} cannot be read: {error.strerror}") from None
        try:
            state = State.model_validate_json(text)
        except ValidationError:
            raise InvalidInput(f"{self.path / _STATE} is damaged; choose another --out") from None
        if body is not None and state.asked != asked:
            raise InvalidInput(
                f"{self.path} has another batch, of another list or other options; choose another --out, or leave "
                "the list out to go on with that one"
            )
        return state

    def keep(self, state: State) -> State:
        """Write down which batch it is."""
        self._write(_STATE, state.model_dump_json(indent=1).encode())
        return state

    def wanted(self, things: Sequence[Thing], output: Output | None) -> list[Wanted]:
        """Every cell with its file's name, which is the same at each look."""
        suffix = output.format if output else "png"
        taken: set[str] = set()
        return [
            Wanted(thing, cell, free_name(f"{slug(thing.name)}-{cell.variation + 1}", suffix, taken))
            for thing in things
            for cell in thing.cells
        ]

    def here(self) -> dict[str, str]:
        """The ids of the generations whose files have arrived, by file."""
        try:
            told = json.loads((self.path / MANIFEST).read_bytes())
            ids = {str(each["file"]): str(each["id"]) for each in told["pictures"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # then they are fetched anew
        return {file: each for file, each in ids.items() if (self.path / file).is_file()}

    def tell(self, batch: Batch, wanted: Sequence[Wanted], here: dict[str, str]) -> None:
        """Write the manifest: what has arrived, and what is missing and why."""
        told = {
            "format": 1,
            "batch": batch.id,
            "name": batch.name,
            "style": batch.style,
            "pictures": [_entry(each) for each in wanted if here.get(each.file) == each.cell.id],
            "missing": [
                {"name": each.thing.name, "variation": each.cell.variation + 1, "reason": reason(each.cell)}
                for each in wanted
                if here.get(each.file) != each.cell.id
            ],
        }
        self._write(MANIFEST, json.dumps(told, ensure_ascii=False, indent=1).encode())

    def _write(self, name: str, data: bytes) -> None:
        try:
            write_atomic(self.path / name, data)
        except OSError as error:
            raise InvalidInput(f"{self.path} cannot be written: {error.strerror}") from None


def reason(cell: Cell) -> str:
    """Why a cell has no picture here."""
    if cell.status is None:
        return "deleted"
    said = cell.status.value if cell.status is not Status.COMPLETED else "not fetched yet"
    return f"{said}: {cell.error}" if cell.error else said


def _entry(wanted: Wanted) -> dict[str, Any]:
    cell = wanted.cell
    return {
        "file": wanted.file,
        "id": cell.id,
        "name": wanted.thing.name,
        "prompt": wanted.thing.prompt,
        "variation": cell.variation + 1,
        "seed": None if cell.seed is None else str(cell.seed),
        "verdict": cell.verdict,
    }


def _form(output: Output | None) -> dict[str, Any] | None:
    return output.model_dump(mode="json") if output else None
