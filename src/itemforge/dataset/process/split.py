"""Which pictures are kept from training, to judge it by.

A group goes as a whole, by a hash of its canonical member: the one with the least pixel sha256. So a picture
stays on its side whatever else comes or goes, unless a newcomer of its own group has a lesser sha256 or joins two groups;
then the group may change sides, but never stands on both.
"""

import hashlib
from collections.abc import Iterable

from itemforge.dataset.process.duplicates import Group
from itemforge.errors import InvalidInput


def held_out(group: Group, fraction: float = 0.1) -> bool:
    """Whether a group is for validation.

    Raises:
        InvalidInput: the fraction is none.
    """
    if not 0 <= fraction <= 1:
        raise InvalidInput(f"{fraction} is no share of the pictures; it goes from 0 to 1")
    # Hashed again: the least of several numbers is no even draw.
    drawn = hashlib.sha256(b"split " + group.canonical.encode()).digest()
    return int.from_bytes(drawn[:8], "big") < fraction * 2**64


def split(groups: Iterable[Group], fraction: float = 0.1) -> dict[str, bool]:
    """For every key, copies too, whether it is for validation.

    Raises:
        InvalidInput: the fraction is none.
    """
    return {key: out for group in groups for out in [held_out(group, fraction)] for key in group.keys}
