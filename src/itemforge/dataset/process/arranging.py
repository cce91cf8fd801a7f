"""From what became of all files to groups and sides: what is in the set, and where."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from itemforge.dataset.process.duplicates import Group, Member, find_groups, look_of
from itemforge.dataset.process.recipe import Ground, State
from itemforge.dataset.process.run import Outcome
from itemforge.dataset.process.split import split

#: The truer the ground, the better the picture: what is transparent needs no guess.
_TRUE = {Ground.ALPHA: 3, Ground.WHITE: 2, Ground.PLAIN: 1, Ground.BUSY: 0, Ground.NONE: 0}


@dataclass(frozen=True)
class Arrangement:
    """`groups` are of keys of outcomes; `validation` says for each key, copies too, whether it is held out."""

    groups: list[Group] = field(default_factory=list)
    validation: dict[str, bool] = field(default_factory=dict)


def arrange(outcomes: Iterable[Outcome], fraction: float = 0.1) -> Arrangement:
    """Group and split what was made. Files with the same bytes have one key, and are one member.

    Raises:
        InvalidInput: the fraction is none.
        OSError: a picture that was made is gone.
    """
    made = {each.key: each for each in outcomes if each.record.made}
    groups = find_groups([member(each) for _, each in sorted(made.items())])
    return Arrangement(groups, split(groups, fraction))


def member(outcome: Outcome) -> Member:
    """How a picture that was made takes part in the grouping."""
    record = outcome.record
    with Image.open(outcome.files.cutout, formats=("PNG",)) as cutout:
        look = look_of(np.asarray(cutout.convert("RGBA")))
    size = max(record.content_width, record.content_height)
    # A few pixels more are a blurred edge, not a larger drawing.
    about = round(math.log(size, 1.06))
    rank = (record.state is State.OK, about, _TRUE[record.ground], record.lossless, size, record.bytes)
    return Member(outcome.key, record.pixels, look, tuple(map(float, rank)))
