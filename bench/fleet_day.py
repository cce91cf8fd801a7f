"""A day in minutes: when requests come, and when rented machines go. All of it follows from the seed."""

from dataclasses import dataclass

import numpy as np

#: Of a day, in which the share of requests may change (a quarter of an hour each).
SLOTS = 96
#: The busiest hour, and how far the curve swings around its mean.
PEAK_HOUR, SWING = 20.0, 0.6
#: Standard deviation of a slot's logarithm around the curve.
NOISE = 0.15
#: Share of the requests by style.
STYLES = {"plain": 0.5, "cel": 0.3, "openmoji": 0.2}
#: What a machine does when it goes, and its share.
KINDS = ("kill", "freeze", "drain")


@dataclass(frozen=True)
class Arrival:
    """`at` is a share of the day, 0 to 1."""

    at: float
    style: str


@dataclass(frozen=True)
class Loss:
    """At `at` (share of the day) the host with this place in the list goes; `length` (0 to 1) is for a freeze."""

    at: float
    kind: str
    place: int
    length: float


def intensity(rng: np.random.Generator) -> np.ndarray:
    """Arrivals of each slot relative to the day's mean (mean 1)."""
    hours = (np.arange(SLOTS) + 0.5) * 24 / SLOTS
    curve = 1 + SWING * np.cos(2 * np.pi * (hours - PEAK_HOUR) / 24)
    noisy = curve * np.exp(rng.normal(0, NOISE, SLOTS))
    return noisy / noisy.mean()


def arrivals(jobs: float, seed: int) -> list[Arrival]:
    """A Poisson process: `jobs` is the expected number, in order of time."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(intensity(rng) * jobs / SLOTS)
    times = np.concatenate([(slot + rng.random(count)) / SLOTS for slot, count in enumerate(counts)])
    styles = rng.choice(list(STYLES), size=len(times), p=list(STYLES.values()))
    return [Arrival(float(at), str(style)) for at, style in zip(np.sort(times), styles, strict=True)]


def losses(count: int, hosts: int, seed: int) -> list[Loss]:
    """`count` of them, every kind in turn, anywhere between a twentieth and nine tenths of the day."""
    rng = np.random.default_rng([seed, 1])
    times = np.sort(rng.uniform(0.05, 0.9, count))
    kinds = [KINDS[n % len(KINDS)] for n in range(count)]
    rng.shuffle(kinds)
    return [
        Loss(float(at), kind, int(rng.integers(hosts)), float(rng.random()))
        for at, kind in zip(times, kinds, strict=True)
    ]
