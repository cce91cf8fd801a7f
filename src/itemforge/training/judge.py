"""Figures of a style's pictures, between a floor (the base model) and a ceiling (real pictures that were held out)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itemforge.dataset.colours import Pixels
from itemforge.training.embedders import Embedder
from itemforge.training.measures import Floats, distances, icon_checks, mmd2, signatures
from itemforge.training.suite import Asked

#: Of the pairs that the bandwidth is taken from; more would take long and change nothing.
_SOME = 500


@dataclass(frozen=True)
class Figures:
    """`style`: squared distance (MMD) from the held-out pictures in the embedder's view, 0: none.

    `prompt`: how well pictures show what was asked. With an embedder that reads words the mean cosine of prompt and picture;
    else the share of held-out pictures that are farther than the one whose caption was asked (0.5 by chance). `copied`: how often the nearest
    training picture is nearer than the nearest held-out one, of as many of each (0.5 for one that copies nothing). None: not measured.
    """

    style: float
    prompt: float | None
    copied: float | None
    checks: dict[str, float]


@dataclass(frozen=True)
class Nearest:
    """A drawn picture (its number) and the training picture that is nearest to it (its number), at what distance."""

    drawn: int
    train: int
    apart: float


class Judge:
    """`train` and `held_out` are uint8 (size, size, 3). Without held-out pictures style is measured to the training set."""

    def __init__(self, embedder: Embedder, train: Sequence[Pixels], held_out: Sequence[Pixels]) -> None:
        self._embedder = embedder
        self._train = signatures([*train, *(each[:, ::-1] for each in train)])
        self._count = len(train)
        self._held_out = signatures(held_out) if held_out else None
        self._own = embedder.pictures(held_out or train)
        seen = embedder.pictures(train)
        apart = distances(seen[:_SOME], seen[:_SOME])
        self._bandwidth = max(float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0, 1e-6)
        half = len(seen) // 2
        #: What real pictures that were trained on reach.
        self.ceiling = self._mmd2(seen) if held_out else mmd2(seen[:half], seen[half:], self._bandwidth)

    def _mmd2(self, embedded: Floats) -> float:
        return mmd2(embedded, self._own, self._bandwidth)

    def figures(self, asked: Sequence[Asked], drawn: Sequence[Pixels]) -> Figures:
        """Of pictures in the order of the prompts."""
        embedded = self._embedder.pictures(drawn)
        side = max(each.shape[0] for each in drawn)
        same = [each for each in drawn if each.shape == (side, side, 3)]
        return Figures(
            self._mmd2(embedded),
            self._prompt(asked, drawn, embedded),
            self._copied(drawn),
            icon_checks(np.stack(same or drawn[:1])),
        )

    def prompt_ceiling(self, captions: Sequence[str], held_out: Sequence[Pixels]) -> float | None:
        """What the held-out pictures themselves reach."""
        if not held_out:
            return None
        words = self._embedder.texts(captions)
        if words is None:
            return 1.0  # nothing is nearer to a picture than itself
        return float((words * self._embedder.pictures(held_out)).sum(1).mean())

    def _prompt(self, asked: Sequence[Asked], drawn: Sequence[Pixels], embedded: Floats) -> float | None:
        words = self._embedder.texts([each.prompt for each in asked])
        if words is not None:
            return float((words * embedded).sum(1).mean())
        pairs = [(n, each.picture) for n, each in enumerate(asked) if each.picture is not None]
        if self._held_out is None or not pairs or len(self._held_out) < 2:
            return None
        apart = distances(signatures([drawn[n] for n, _ in pairs]), self._held_out)
        own = apart[range(len(pairs)), [place for _, place in pairs]]
        farther = (apart > own[:, None]).sum(1) / (apart.shape[1] - 1)
        return float(farther.mean())

    def _copied(self, drawn: Sequence[Pixels]) -> float | None:
        if self._held_out is None:
            return None
        ours = signatures(drawn)
        apart = distances(ours, self._train[: self._count])
        other = distances(ours, self._held_out).min(1)
        size = min(apart.shape[1], len(self._held_out))
        # In turn with every part of the training set that is as large as the held-out set: more pictures
        # would be nearer by their number alone.
        parts = [apart[:, at : at + size].min(1) for at in range(0, apart.shape[1] - size + 1, size)]
        return float(np.mean([part < other for part in parts]))

    def nearest(self, drawn: Sequence[Pixels], most: int) -> list[Nearest]:
        """The pictures that are nearest to one that was trained on, mirrored or not; the nearest first."""
        apart = distances(signatures(drawn), self._train)
        places = apart.argmin(1)
        order = np.argsort(apart.min(1))[:most]
        return [Nearest(int(n), int(places[n]) % self._count, float(apart[n].min())) for n in order]


def between(value: float | None, floor: float | None, ceiling: float | None) -> float | None:
    """Where a value lies from floor (0) to ceiling (1); None where there is no way between them."""
    if value is None or floor is None or ceiling is None or floor == ceiling:
        return None
    return (value - floor) / (ceiling - floor)
