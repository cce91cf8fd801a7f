"""Which pictures of a dataset are for training, with the captions as they are written now."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from itemforge.dataset.captioning.fields import CaptionFields
from itemforge.dataset.captioning.rendering import Look, render
from itemforge.dataset.processed import Processed, all_processed
from itemforge.dataset.store import Store
from itemforge.dataset.store_captions import Caption, CaptionState, captions
from itemforge.errors import InvalidInput

APPROVED: tuple[CaptionState, ...] = ("approved",)


@dataclass(frozen=True)
class Ready:
    """A picture and its caption. Paths are relative to the dataset's folder."""

    sha256: str
    text: str
    picture: str
    mask: str
    group: str
    held_out: bool


def approved(store: Store, look: Look) -> list[Ready]:
    """What a person has approved."""
    return choose(store, look, APPROVED)[0]


def choose(store: Store, look: Look, states: Collection[CaptionState]) -> tuple[list[Ready], Counter[str]]:
    """What is for training, in the order of sha256, and how many pictures are left out for which reason.

    Raises:
        InvalidInput: a caption's fields cannot be read, or trigger and template leave no room for them.
    """
    processed = all_processed(store)
    said = {each.sha256: each for each in captions(store)}
    chosen: list[Ready] = []
    left: Counter[str] = Counter()
    for picture in store.pictures():
        made, caption = processed.get(picture.sha256), said.get(picture.sha256)
        if reason := why_not(made, caption, states):
            left[reason] += 1
        elif made is not None and caption is not None:
            text = render(fields_of(caption), look).text
            chosen.append(Ready(made.sha256, text, made.picture, made.mask, made.group, made.held_out))
    return chosen, left


def why_not(made: Processed | None, caption: Caption | None, states: Collection[CaptionState]) -> str:
    """Why a picture is left out; empty if it is not."""
    if made is None:
        return "not processed yet"
    if made.state == "aside":
        return "set aside"
    if not made.kept:
        return "a copy of another"
    if caption is None:
        return "no caption"
    return "" if caption.state in states else f"caption {caption.state}"


def fields_of(caption: Caption) -> CaptionFields:
    """A caption's fields.

    Raises:
        InvalidInput: they are none.
    """
    try:
        return CaptionFields.model_validate(caption.fields)
    except ValueError as error:  # pydantic's error is one
        raise InvalidInput(
            f"the caption of {caption.sha256[:12]} cannot be read ({str(error).splitlines()[0]}); edit it in the review"
        ) from None
