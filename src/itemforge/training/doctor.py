"""Looks at a training set before any GPU time is spent on it: what is wrong, what is used, how long it takes.

A run begins only when nothing is wrong, or when it was told to leave out what is (`drop_bad`).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagehash
from PIL import Image

from itemforge.errors import InvalidInput
from itemforge.training.captioned import Sample, check_trigger, read_samples
from itemforge.training.lora_config import LoraConfig
from itemforge.training.prepared import Prepared, prepare

#: Content tokens that fit CLIP's window beside its two marks.
MAX_TOKENS = 75
#: A picture smaller than this share of the training size would be mostly invented by the enlargement.
LEAST_SCALE = 0.25
#: Bits by which the perceptual hashes of two pictures of one thing differ at most.
_ALIKE = 2
#: Half of what is published for a 2080 Ti at 512 pixels; nobody has measured ours there yet.
_T4_PICTURES = 1.7

Count = Callable[[str], int]


@dataclass
class Diagnosis:
    """`used` are prepared pictures, those for validation with `held_out`; `problems` by reason."""

    train: list[Prepared] = field(default_factory=list)
    validation: list[Prepared] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def bad(self) -> int:
        return sum(map(len, self.problems.values()))

    def report(self, most: int = 5) -> str:
        """What a person reads."""
        lines = [f"{len(self.train)} pictures to train on, {len(self.validation)} for validation"]
        for reason, places in self.problems.items():
            more = f", and {len(places) - most} more" if len(places) > most else ""
            lines.append(f"{len(places)} × {reason}: {', '.join(places[:most])}{more}")
        return "\n".join(lines)


def token_counter(tokenizer: Any) -> Count:
    """Tokens of a caption beside the marks of its beginning and end."""
    return lambda text: len(tokenizer(text, truncation=False).input_ids) - 2


def examine(
    folder: Path, size: int, trigger: str, validation: float, tokens: Count, seen: Callable[[int, int], None]
) -> Diagnosis:
    """Read, prepare and split a training set. `seen` hears how many pictures were looked at, of how many.

    The split goes by content: a picture stays on its side whatever comes or goes, and copies of it never stand on
    both. What somebody split on purpose (folders `train` and `validation`) is left so, as is what a dataset has split.

    Raises:
        InvalidInput: there is no training set at all.
        ConfigurationError: a dataset has another trigger than `trigger`.
    """
    check_trigger(folder, trigger)
    samples = read_samples(folder)
    found = Diagnosis()
    good: list[Prepared] = []
    for n, sample in enumerate(samples):
        reasons = _caption_problems(sample, trigger, tokens)
        try:
            made = prepare(sample, size)
        except InvalidInput as error:
            reasons.append("a picture that cannot be used")
            found.problems[reasons[-1]].append(str(error))
        else:
            if max(made.sides) < LEAST_SCALE * size:
                reasons.append(f"a picture smaller than {LEAST_SCALE * size:.0f} pixels")
            if not reasons:
                good.append(made)
        for reason in reasons:
            if reason != "a picture that cannot be used":
                found.problems[reason].append(sample.path.name)
        seen(n + 1, len(samples))
    _split(good, validation, found)
    return found


def _caption_problems(sample: Sample, trigger: str, tokens: Count) -> list[str]:
    if not sample.captions:
        return ["no caption"]
    problems = []
    if not all(_begins(text, trigger) for text in sample.captions):
        there = all(trigger in text for text in sample.captions)
        problems.append(
            f"the trigger {trigger!r} is not first" if there else f"no trigger {trigger!r} in the caption"
        )
    if any(tokens(text) > MAX_TOKENS for text in sample.captions):
        problems.append(f"a caption of more than {MAX_TOKENS} tokens")
    return problems


def _begins(text: str, trigger: str) -> bool:
    rest = text.removeprefix(trigger)
    return rest != text and (not rest or not (rest[0].isalnum() or rest[0] == "_"))


def _split(good: Sequence[Prepared], validation: float, found: Diagnosis) -> None:
    for each in good:
        if each.sample.group is not None:
            (found.validation if each.sample.held_out else found.train).append(each)
    for group in _alike([each for each in good if each.sample.group is None]):
        sides = {each.sample.held_out for each in group}
        if {True, False} <= sides:
            names = " = ".join(sorted(each.sample.path.name for each in group))
            found.problems["the same picture in training and in validation"].append(names)
            continue
        given = next(iter(sides - {None}), None)
        # The group's least key decides, so that copies that are added later follow.
        held_out = _share(min(each.key for each in group)) < validation if given is None else given
        (found.validation if held_out else found.train).extend(group)


def _share(key: str) -> float:
    return int(key[:8], 16) / 2**32


def _alike(good: Sequence[Prepared]) -> list[list[Prepared]]:
    """Groups of pictures that look the same; recolours of one thing are one group, too."""
    hashes = [imagehash.phash(Image.fromarray(each.pixels)) for each in good]
    by_hash: dict[str, list[int]] = defaultdict(list)
    for n, value in enumerate(hashes):
        by_hash[str(value)].append(n)
    # Few hashes stand for many pictures; they are joined when they differ by a bit or two.
    names = list(by_hash)
    parent = list(range(len(names)))

    def root(n: int) -> int:
        while parent[n] != n:
            n = parent[n]
        return n

    for a in range(len(names)):
        for b in range(a):
            if hashes[by_hash[names[a]][0]] - hashes[by_hash[names[b]][0]] <= _ALIKE:
                parent[root(a)] = root(b)
    joined: dict[int, list[Prepared]] = defaultdict(list)
    for n, name in enumerate(names):
        joined[root(n)] += [good[place] for place in by_hash[name]]
    return list(joined.values())


def check(found: Diagnosis, drop_bad: bool) -> None:
    """Whether a run may begin.

    Raises:
        InvalidInput: something is wrong, or nothing is left; the text is the whole report.
    """
    if found.bad and not drop_bad:
        raise InvalidInput(
            f"the training set is not ready:\n{found.report()}\nmend it, or set drop_bad = true to train without these"
        )
    if not found.train:
        raise InvalidInput(f"nothing is left to train on:\n{found.report()}")


def tags(found: Diagnosis) -> Counter[str]:
    """How often each part of a caption, between commas, stands in the training pictures."""
    return Counter(
        part.strip()
        for each in found.train
        for text in each.sample.captions
        for part in text.split(",")
        if part.strip()
    )


def estimate(found: Diagnosis, config: LoraConfig) -> str:
    """How many steps it will be, and what has to be kept in memory beside the model."""
    steps = -(-len(found.train) // config.pictures_a_step) * config.epochs
    flips = 2 if config.flip else 1
    side = config.size // 8
    latents = flips * len(found.train) * 2 * 4 * side * side * 4
    texts = sum(len(each.sample.captions) for each in found.train) * MAX_TOKENS * 768 * 4
    passes = len(found.train) * config.epochs
    return (
        f"{steps} optimizer steps of {config.pictures_a_step} pictures, {passes} pictures in all; about "
        f"{(latents + texts) / 2**20:.0f} MiB of latents and texts beside the model (sizes of SD 1.5); about "
        f"{passes / _T4_PICTURES / 60:.0f} min on a T4 at {_T4_PICTURES:g} pictures a second (an estimate)"
    )
