"""`itemforge train eval-starter`: what the starter can draw, in figures with a floor and a ceiling beside them.

A picture is right if one of the five nearest icons of the base sets (L2 in CIELAB at 32x32) shows the thing that was
asked for. The same questions are asked with the answers shuffled (floor), and with real icons of another set in place
of pictures (ceiling).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from itemforge.contract import Scheduler
from itemforge.dataset.colours import HUES, strongest_hue
from itemforge.dataset.icons import Told, read_told
from itemforge.dataset.phrases import HELD_OUT, phrase, with_article
from itemforge.engine.loop import Engine
from itemforge.engine.rows import Failed, Finished, LoraRef, Row
from itemforge.errors import ModelError
from itemforge.styles.pack import StylePack
from itemforge.training.measures import (
    Floats,
    Pixels,
    border_whiteness,
    distances,
    outline_share,
    share_among_nearest,
    signatures,
)
from itemforge.training.pictures import read_lines

STEPS, GUIDANCE = 25, 4.0
#: Things, phrasings and colours that are asked for; prompts of the comparison with a style.
NAMES, PHRASINGS, COLOURS, STYLED = 200, 200, 60, 50
#: All pictures that `evaluate` draws.
PICTURES = NAMES + PHRASINGS + COLOURS
#: A border of this mean value is white.
WHITE = 245.0

OnPicture = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """A prompt as a user writes it, and what must come of it."""

    prompt: str
    concept: str
    colour: str | None = None


@dataclass(frozen=True)
class Figure:
    """One line of the table: shares from 0 to 1, and what chance would give."""

    what: str
    asked: int
    value: float
    wanted: float
    chance: float | None = None
    floor: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class Icons:
    """The pictures of the base sets, without copies in other colours."""

    pixels: list[Pixels]
    signatures: Floats
    concepts: list[str]
    sets: list[str]


def read_icons(folder: Path) -> Icons:
    """The icons that pictures are compared with.

    Raises:
        InvalidInput: it is no training set.
    """
    lines = [line for line in read_lines(folder) if line.colour is None]
    pixels = [np.asarray(Image.open(folder / line.file_name).convert("RGB")) for line in lines]
    return Icons(pixels, signatures(pixels), [line.concept for line in lines], [line.set for line in lines])


def questions(told: Sequence[Told], seed: int = 7) -> dict[str, list[Question]]:
    """What is asked, always the same for one training set: `names`, `phrasings`, `synonyms`, `colours`."""
    dice = random.Random(seed)  # noqa: S311 - a choice, not a secret
    names = dice.sample(list(told), min(NAMES, len(told)))
    spoken = [each for each in told if each.concept.held_out]
    synonyms = [(each, word) for each in spoken for word in each.concept.held_out]
    coloured = [(each, colour) for each in told if each.natural for colour in each.held_out_colours]
    half = PHRASINGS // 2
    others = dice.sample(list(told), min(PHRASINGS - half, len(told)))
    return {
        "names": [Question(with_article(each.concept.label), each.concept.code) for each in names],
        "phrasings": [
            Question(phrase(dice.choice(HELD_OUT), each.concept.label), each.concept.code) for each in others
        ],
        "synonyms": [
            Question(phrase(dice.choice(HELD_OUT), word), each.concept.code)
            for each, word in dice.sample(synonyms, min(half, len(synonyms)))
        ],
        "colours": [
            Question(with_article(f"{colour} {each.concept.label}"), each.concept.code, colour)
            for each, colour in dice.sample(coloured, min(COLOURS, len(coloured)))
        ],
    }


def draw(
    engine: Engine,
    style: StylePack,
    asked: Sequence[Question],
    loras: tuple[LoraRef, ...] = (),
    on_picture: OnPicture = lambda done, of: None,
) -> list[Pixels]:
    """A picture for each question, as a worker would draw it in that style; seeds count from 0.

    Raises:
        ModelError: a picture could not be drawn.
    """
    model = engine.model
    for n, question in enumerate(asked):
        prompt = style.compose(question.prompt)
        engine.submit(
            Row(
                str(n),
                prompt,
                style.negative,
                STEPS,
                GUIDANCE,
                n,
                Scheduler.DDIM,
                model.width,
                model.height,
                loras,
            )
        )
    drawn: dict[str, Pixels] = {}
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Finished):
                drawn[event.row_id] = event.pixels
                on_picture(len(drawn), len(asked))
            elif isinstance(event, Failed):
                raise ModelError(f"{asked[int(event.row_id)].prompt!r} could not be drawn: {event.error}")
    return [drawn[str(n)] for n in range(len(asked))]


def retrieval(
    what: str, asked: Sequence[Question], drawn: Sequence[Pixels], icons: Icons, wanted: float
) -> Figure:
    """How often the right thing is among the five nearest icons."""
    apart = distances(signatures(drawn), icons.signatures)
    concepts = [question.concept for question in asked]
    # Everybody else's answer: as if the words did not matter.
    shuffled = concepts[1:] + concepts[:1]
    known = len(set(icons.concepts))
    return Figure(
        what,
        len(asked),
        share_among_nearest(apart, concepts, icons.concepts),
        wanted,
        chance=5 / known,
        floor=share_among_nearest(apart, shuffled, icons.concepts),
        ceiling=real_icons(concepts, icons),
    )


def real_icons(concepts: Sequence[str], icons: Icons) -> float:
    """The same measure for real icons: those of each set in turn, among those of the others."""
    shares = []
    for name in sorted(set(icons.sets)):
        own = np.array([s == name for s in icons.sets])
        places = [n for n in np.flatnonzero(own) if icons.concepts[n] in set(concepts)]
        others = np.flatnonzero(~own)
        if not places or not len(others):
            continue
        apart = distances(icons.signatures[places], icons.signatures[others])
        labels = [icons.concepts[n] for n in others]
        shares.append(share_among_nearest(apart, [icons.concepts[n] for n in places], labels))
    return float(np.mean(shares)) if shares else float("nan")


def colour_figure(asked: Sequence[Question], drawn: Sequence[Pixels]) -> Figure:
    """How often the strongest hue is the one that was asked for."""
    hues = [strongest_hue(each) for each in drawn]
    wanted = [question.colour for question in asked]
    right = float(np.mean([hue == want for hue, want in zip(hues, wanted, strict=True)]))
    shuffled = float(np.mean([hue == want for hue, want in zip(hues, wanted[1:] + wanted[:1], strict=True)]))
    return Figure("colour that the thing never has", len(asked), right, 0.6, 1 / len(HUES), shuffled)


def ground_figure(drawn: Sequence[Pixels]) -> Figure:
    white = border_whiteness(np.stack(drawn)) > WHITE
    return Figure(f"border whiter than {WHITE:g}", len(drawn), float(white.mean()), 0.9)


def style_figures(
    asked: Sequence[Question],
    plain: Sequence[Pixels],
    styled: Sequence[Pixels],
    icons: Icons,
    own: Sequence[Pixels],
) -> list[Figure]:
    """What a style's LoRA changes at equal seeds; `own` are the pictures of its training set."""
    mine = signatures(own)
    apart = signatures(styled)
    nearer = distances(apart, mine).min(1) < distances(apart, icons.signatures).min(1)
    before, after = outline_share(np.stack(plain)), outline_share(np.stack(styled))
    return [
        Figure("nearer to the style's set than to the base's", len(asked), float(nearer.mean()), 0.8),
        Figure("dark outline pixels, times the base's", len(asked), after / max(before, 1e-9), 2.0),
    ]


def evaluate(
    engine: Engine, style: StylePack, data: Path, on_picture: OnPicture = lambda done, of: None
) -> tuple[list[Figure], list[tuple[Pixels, str]]]:
    """All figures of a base model, and 64 pictures with their prompts to look at.

    Raises:
        InvalidInput: `data` is no training set of `itemforge data icons`.
        ModelError: a picture could not be drawn.
    """
    asked = questions(read_told(data))
    icons = read_icons(data / "base")
    every = [question for part in asked.values() for question in part]
    pictures = draw(engine, style, every, on_picture=on_picture)
    drawn: dict[str, list[Pixels]] = {}
    for name, part in asked.items():
        drawn[name], pictures = pictures[: len(part)], pictures[len(part) :]
    held_out = asked["phrasings"] + asked["synonyms"]
    figures = [
        retrieval("the things' own names", asked["names"], drawn["names"], icons, 0.85),
        retrieval("held-out phrasings", held_out, drawn["phrasings"] + drawn["synonyms"], icons, 0.6),
        retrieval("… of these: new templates", asked["phrasings"], drawn["phrasings"], icons, 0.6),
        retrieval("… of these: words that no caption had", asked["synonyms"], drawn["synonyms"], icons, 0.6),
        colour_figure(asked["colours"], drawn["colours"]),
        ground_figure([each for part in drawn.values() for each in part]),
    ]
    shown = [
        (pixels, question.prompt)
        for name, count in (("names", 32), ("phrasings", 12), ("synonyms", 8), ("colours", 12))
        for pixels, question in list(zip(drawn[name], asked[name], strict=True))[:count]
    ]
    return figures, shown


def table(figures: Sequence[Figure]) -> str:
    """The figures as Markdown."""
    lines = [
        "| what | asked | measured | wanted | chance | floor | ceiling |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in figures:
        cells = [each.what, str(each.asked), _told(each.value), _told(each.wanted)]
        cells += [_told(other) for other in (each.chance, each.floor, each.ceiling)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _told(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if value <= 1 else f"{value:.1f}×"
