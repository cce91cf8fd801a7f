"""More words for each thing, from the teacher: those of its vocabulary that mean nearly the same.

A text encoder that imitates the teacher puts a new word in the right place, but the UNet has learnt what to draw at the
few hundred places that captions name. These words name thousands more. Most are no synonyms (`snarled` is a bear's);
what counts is that the thing which is nearest is drawn. Words that evaluation keeps from training, and their
inflections, are left out.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from itemforge.dataset.concepts import Concept
from itemforge.dataset.metadata import Line
from itemforge.dataset.phrases import TRAINED, phrase
from itemforge.training.words import teacher_states, teacher_words

#: How much what a dictionary says of a word counts beside the word, and by how much that may change a likeness.
_SENSE, _DOUBT = 0.5, 0.15
#: A thing whose label is near, too, is preferred to one that has only a synonym near.
_LABEL = 0.3
#: Letters that two words share at least, for the longer one to count as an inflection.
_STEM = 4


def names_of(concepts: Sequence[Concept]) -> list[tuple[str, int]]:
    """All names that are trained on, each with its thing's place."""
    return [(name, n) for n, each in enumerate(concepts) for name in (each.label, *each.synonyms)]


def free_words(words: Sequence[str], concepts: Sequence[Concept]) -> list[str]:
    """The words that are no names yet, and nothing that evaluation asks for."""
    known = {name for name, _ in names_of(concepts)}
    kept_back = {part for each in concepts for name in each.held_out for part in name.split()}
    return [word for word in words if word not in known and not any(_inflects(word, k) for k in kept_back)]


def _inflects(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    return short == long or (len(short) >= _STEM and long.startswith(short))


def things_of(word_states: Tensor, concepts: Sequence[Concept], name_states: Tensor) -> tuple[Tensor, Tensor]:
    """Of each word its nearest thing's place, and its cosine with the nearest of that thing's names: two of (N,).

    `word_states` (N, D) and `name_states` (M, D), of `names_of`, are of length one.
    """
    owners = torch.tensor([n for _, n in names_of(concepts)])
    labels = torch.searchsorted(owners, torch.arange(len(concepts)))  # each thing's names begin with it
    apart = word_states @ name_states.T
    by_thing = torch.full((len(word_states), len(concepts)), -1.0)
    by_thing.scatter_reduce_(1, owners.expand(len(word_states), -1), apart, "amax")
    thing = (by_thing + _LABEL * apart[:, labels]).argmax(1)
    return thing, by_thing.gather(1, thing[:, None])[:, 0]


def nearest(
    words: Sequence[str],
    word_states: Tensor,
    concepts: Sequence[Concept],
    name_states: Tensor,
    most: int,
    least: float,
) -> dict[str, list[str]]:
    """By code of the thing, the words whose nearest thing it is, nearest first.

    States are as in `things_of`. A thing gets `most` words at most, and none whose cosine is below `least`.
    """
    thing, likeness = things_of(word_states, concepts, name_states)
    found: dict[str, list[str]] = {}
    for place in likeness.argsort(descending=True).tolist():
        mine = found.setdefault(concepts[int(thing[place])].code, [])
        if likeness[place] >= least and len(mine) < most:
            mine.append(words[place])
    return found


def meant(
    teacher: Path,
    entries: Mapping[str, str],
    concepts: Sequence[Concept],
    likeness: float,
    device: torch.device,
) -> list[tuple[str, int]]:
    """Words that are no names of things, each with the place of its nearest thing, if their cosine is `likeness` at least.

    They are the teacher's and the single ones of `entries`, a dictionary (names of several words have most often the thing's in them,
    and are many); where it has a word, name or not, what it says of it is read, too.

    Raises:
        ModelError: the teacher cannot be read.
    """
    names = [name for name, _ in names_of(concepts)]
    single = {word for word in entries if " " not in word}
    free = sorted(({*teacher_words(teacher)} | single) - set(names))
    states = teacher_states(teacher, [*free, *names], device)
    things, likely = things_of(states[: len(free)], concepts, states[len(free) :])
    if entries:
        # To read what sixty thousand words mean takes long: only of those that may be near enough.
        close = (likely >= likeness - _DOUBT).nonzero()[:, 0]
        states = torch.cat([states[close], states[len(free) :]])
        free = [free[n] for n in close.tolist()]
        senses = [entries.get(word, word) for word in [*free, *names]]
        states = normalize(states + _SENSE * teacher_states(teacher, senses, device), dim=-1)
        things, likely = things_of(states[: len(free)], concepts, states[len(free) :])
    found = zip(free, things.tolist(), likely.tolist(), strict=True)
    return [(word, thing) for word, thing, like in found if like >= likeness]


def with_neighbours(lines: Sequence[Line], found: dict[str, list[str]], seed: int) -> list[Line]:
    """The lines, with one more phrasing for each word of their thing; copies in another colour stay as they are."""
    dice = random.Random(seed)  # noqa: S311 - variety, not secrecy
    more = []
    for line in lines:
        ending = line.text.partition(", ")[2]
        words = [] if line.colour else found.get(line.concept, [])
        texts = [f"{phrase(dice.choice(TRAINED), word)}, {ending}" for word in words]
        more.append(line.model_copy(update={"captions": line.phrasings + texts}))
    return more
