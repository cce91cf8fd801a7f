"""Groups pictures that show one drawing: copies, of which one is kept, and variants, which all are.

A copy has another size, another file format, or a little less on one side. A variant has other colours or is
mirrored. Both are compared by their look (a small cut-out), in two steps: the bits of silhouettes and of light
and shade of all pairs, in blocks, and then the few pairs that agree, moved and scaled against each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from itemforge.dataset.process.comparing import LOOK, Floats, compare, views_of
from itemforge.imaging.scaling import Pixels, resize

#: Pixels of the side of what all pairs are compared by.
_BITS = 16
#: Pictures whose pairs are compared at a time.
_BLOCK = 512
#: What may be related before it is moved: share of two silhouettes' union by which they differ, agreement of light and
#: shade, and levels by which colours differ.
_APART_BEFORE, _AGREE_BEFORE, _RECOLOURED_BEFORE = 0.3, 0.5, 40.0


@dataclass(frozen=True)
class Member:
    """`pixels` is the sha256 of what it shows, `look` as `look_of` makes it; of copies the highest `rank` is kept."""

    key: str
    pixels: str
    look: Pixels
    rank: tuple[float, ...] = ()


@dataclass
class Group:
    """`canonical` is the least pixel sha256 of all members. `copies` says for each that is not kept, of which it is one."""

    canonical: str
    kept: list[str] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        return [*self.kept, *self.copies]


def look_of(cutout: Pixels) -> Pixels:
    """What a cut-out is compared by."""
    return resize(cutout, LOOK, LOOK)


def find_groups(members: Sequence[Member]) -> list[Group]:
    """All groups, those of one picture too, in the order of their canonical members."""
    if not members:
        return []
    ordered = sorted(members, key=lambda m: (*(-each for each in m.rank), m.pixels, m.key))
    related = _related(ordered)
    groups: dict[int, Group] = {}
    roots = _joined(len(ordered), related)
    for n, member in enumerate(ordered):
        group = groups.setdefault(roots[n], Group(member.pixels))
        group.canonical = min(group.canonical, member.pixels)
        # Only of what is kept something can be a copy: a chain of small differences ends nowhere.
        of = next(
            (ordered[m].key for m in related.get(n, {}) if related[n][m] and ordered[m].key in group.kept),
            None,
        )
        if of is None:
            group.kept.append(member.key)
        else:
            group.copies[member.key] = of
    return sorted(groups.values(), key=lambda group: (group.canonical, group.kept))


def _related(members: Sequence[Member]) -> dict[int, dict[int, bool]]:
    """For each place, the places before it that are related, and whether as a copy."""
    related: dict[int, dict[int, bool]] = {}
    first: dict[str, int] = {}
    single: list[int] = []
    for n, member in enumerate(members):
        if (at := first.setdefault(member.pixels, n)) != n:
            related.setdefault(n, {})[at] = True
        else:
            single.append(n)
    looks = _Looks(np.stack([members[n].look for n in single]))
    for a, b, mirrored in looks.candidates():
        known = related.setdefault(single[b], {})
        if single[a] not in known and (verdict := looks.compare(a, b, mirrored)) is not None:
            known[single[a]] = verdict
    return {n: dict(sorted(found.items())) for n, found in related.items()}


def _joined(count: int, related: dict[int, dict[int, bool]]) -> list[int]:
    parent = list(range(count))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for b, others in related.items():
        for a in others:
            parent[root(b)] = root(a)
    return [root(n) for n in range(count)]


class _Looks:
    """All looks as arrays; a mirrored copy of each beside."""

    def __init__(self, looks: Pixels) -> None:
        self._looks = looks
        self._bits, self._areas = _silhouettes(self._looks)
        self._mirrored_bits, _ = _silhouettes(looks[:, :, ::-1])
        parts = [looks[top : top + _BLOCK] for top in range(0, len(looks), _BLOCK)]
        self._shades = np.concatenate([_shades(part) for part in parts])
        self._colours = np.concatenate([_colours(part) for part in parts])
        self._mirrored_shades, self._mirrored_colours = _mirrored(self._shades), _mirrored(self._colours)

    def candidates(self) -> Iterator[tuple[int, int, bool]]:
        """Pairs of places, the lesser first, that may be related, and whether one is mirrored."""
        count = len(self._looks)
        for top in range(0, count, _BLOCK):
            a = slice(top, min(top + _BLOCK, count))
            for left in range(top, count, _BLOCK):
                b = slice(left, min(left + _BLOCK, count))
                for mirrored in (False, True):
                    found = self._alike(a, b, mirrored)
                    if left == top:
                        found = np.triu(found, 1)
                    for row, column in np.argwhere(found):
                        yield top + int(row), left + int(column), mirrored

    def _alike(self, a: slice, b: slice, mirrored: bool) -> NDArray[np.bool_]:
        bits = self._mirrored_bits if mirrored else self._bits
        apart = np.asarray(np.bitwise_count(self._bits[a, None] ^ bits[None, b]).sum(-1, dtype=np.int32))
        union = (self._areas[a, None] + self._areas[None, b] + apart) / 2
        same_form = np.asarray(apart <= _APART_BEFORE * union)
        shades = self._mirrored_shades if mirrored else self._shades
        agree = np.zeros(same_form.shape, bool)
        for view in range(self._shades.shape[1]):
            mine, its = self._shades[a, view], shades[b, view]
            plain_mine, plain_its = np.asarray(~mine.any(1)), np.asarray(~its.any(1))
            agree |= (np.abs(mine @ its.T) >= _AGREE_BEFORE) | (plain_mine[:, None] & plain_its[None])
        agree |= self._same_colours(a, b, mirrored) <= _RECOLOURED_BEFORE**2 * 3 * np.maximum(union, 1)
        result: NDArray[np.bool_] = same_form & agree
        return result

    def _same_colours(self, a: slice, b: slice, mirrored: bool) -> Floats:
        """Squares of what the colours differ by, all together."""
        mine, its = self._colours[a], (self._mirrored_colours if mirrored else self._colours)[b]
        squares: Floats = (mine**2).sum(1)[:, None] + (its**2).sum(1)[None] - 2 * mine @ its.T
        return squares

    def compare(self, a: int, b: int, mirrored: bool) -> bool | None:
        """True for a copy, False for a variant, None for neither; as well as the two can be laid on each other."""
        verdict = compare(self._looks[a], self._looks[b][:, ::-1] if mirrored else self._looks[b])
        return False if mirrored and verdict else verdict


def _mirrored(small: Floats) -> Floats:
    """Rows of small pictures, the other way round."""
    return small.reshape(*small.shape[:-1], -1, _BITS)[..., ::-1].reshape(small.shape)


def _silhouettes(looks: Pixels) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    small = looks[..., 3].reshape(-1, _BITS, LOOK // _BITS, _BITS, LOOK // _BITS).mean((2, 4)) > 64
    bits = np.packbits(small.reshape(len(looks), -1), axis=1).view(np.uint64)
    return bits, np.asarray(np.bitwise_count(bits).sum(-1, dtype=np.int32))


def _shades(looks: Pixels) -> Floats:
    """Light and shade within the silhouette, in three views, each of mean 0 and length 1; 0 where it is plain.

    A picture in another colour keeps its shades in one view at least: its light, or its strongest or weakest channel.
    """
    alpha = _quarter(looks[..., 3].astype(np.float32)) / 255
    views = np.stack([_quarter(view) for view in views_of(looks[..., :3].astype(np.float32))], 1)
    weight = alpha[:, None]
    mean = (views * weight).sum(-1, keepdims=True) / np.maximum(weight.sum(-1, keepdims=True), 1e-6)
    centred = (views - mean) * np.sqrt(weight)
    length = np.sqrt((centred**2).sum(-1, keepdims=True))
    plain = length <= 4.0 * np.sqrt(np.maximum(weight.sum(-1, keepdims=True), 1e-6))
    made: Floats = np.where(plain, 0, centred / np.maximum(length, 1e-6)).astype(np.float32)
    return made


def _colours(looks: Pixels) -> Floats:
    """All colours, weighed by alpha."""
    weighed = looks[..., :3].astype(np.float32)
    weighed *= looks[..., 3:] / np.float32(255)
    return np.concatenate([_quarter(weighed[..., n]) for n in range(3)], 1)


def _quarter(view: Floats) -> Floats:
    side = LOOK // _BITS
    means: Floats = view.reshape(-1, _BITS, side, _BITS, side).mean((2, 4)).reshape(-1, _BITS**2)
    return means
