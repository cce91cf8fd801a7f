"""`itemforge train eval-starter`: what the starter can draw, in figures with a floor and a ceiling beside them.

A picture is right if one of the five nearest icons of the base sets (L2 in CIELAB at 32x32) shows the thing that was
asked for. The same questions are asked with the answers shuffled (floor), and with real icons of another set in place
of pictures (ceiling).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from itemforge.contract import Scheduler
from itemforge.dataset.colours import HUES, Pixels, strongest_hue
from itemforge.dataset.icons import Told, read_told
from itemforge.dataset.metadata import read_lines
from itemforge.dataset.phrases import HELD_OUT, phrase, with_article
from itemforge.engine.loop import Engine
from itemforge.engine.rows import LoraRef, Row
from itemforge.styles.pack import StylePack
from itemforge.training.drawing import OnPicture, draw_rows
from itemforge.training.measures import (
    Floats,
    border_whiteness,
    distances,
    share_among_nearest,
    signatures,
)

STEPS, GUIDANCE = 25, 4.0
#: Things, phrasings and colours that are asked for.
NAMES, PHRASINGS, COLOURS = 200, 200, 60
#: A border of this mean value is white.
WHITE = 245.0


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
    width, height = engine.model.width, engine.model.height
    steps = style.defaults.num_inference_steps or STEPS
    guidance = style.defaults.guidance_scale or GUIDANCE
    rows = [
        Row(
            str(n),
            style.compose(question.prompt),
            style.negative,
            steps,
            guidance,
            n,
            Scheduler.DDIM,
            width,
            height,
            loras,
        )
        for n, question in enumerate(asked)
    ]
    return draw_rows(engine, rows, on_picture)


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


@dataclass(frozen=True)
class Evaluation:
    """All figures of a base model, and 64 pictures with their prompts to look at; `names` are asked for again in styles."""

    figures: list[Figure]
    shown: list[tuple[Pixels, str]]
    names: list[Question]
    drawn: list[Pixels]
    icons: Icons


def evaluate(
    engine: Engine, style: StylePack, data: Path, on_picture: OnPicture = lambda done, of: None
) -> Evaluation:
    """Ask a base model everything.

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
    return Evaluation(figures, shown, asked["names"], drawn["names"], icons)


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
