"""What the starter's styles make of the things that it draws, at equal seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from itemforge.dataset.colours import Pixels
from itemforge.engine.loop import Engine
from itemforge.engine.rows import LoraRef
from itemforge.errors import InvalidStyle
from itemforge.styles.local import LocalPack
from itemforge.styles.pack import StylePack, parse
from itemforge.training.drawing import OnPicture
from itemforge.training.measures import distances, outline_share, share_among_nearest, signatures
from itemforge.training.starter_eval import Evaluation, Figure, Icons, Question, draw, read_icons

#: Things whose pictures are compared, and of them shown.
STYLED, SHOWN = 50, 32
#: Points of a hundred by which the right things may become fewer.
_LESS = 0.10


@dataclass(frozen=True)
class OwnStyle:
    """A style with its LoRA files, and the set that it was trained on."""

    pack: StylePack
    loras: tuple[LoraRef, ...]
    icons: Icons


def styles_of(folder: Path, data: Path) -> Iterator[OwnStyle]:
    """The packs of a folder that are named as a set of `data/styles`.

    Raises:
        InvalidStyle: a pack is not valid, or its LoRA is not beside it.
        InvalidInput: the set cannot be read.
    """
    for file in sorted(folder.glob("*.toml")):
        toml = file.read_bytes()
        local = LocalPack(parse(toml), toml, folder)
        pictures = data / "styles" / local.pack.id
        if pictures.is_dir():
            yield OwnStyle(local.pack, tuple(_loras(local)), read_icons(pictures))


def _loras(local: LocalPack) -> Iterator[LoraRef]:
    for lora, weight in zip(local.pack.loras, local.pack.weights(), strict=True):
        file = local.lora_file(lora)
        if file is None:
            raise InvalidStyle(f"the LoRA of {local.pack.name} does not lie in {local.folder}")
        yield LoraRef(file, lora.sha256, weight)


def evaluate(
    engine: Engine, style: OwnStyle, before: Evaluation, on_picture: OnPicture = lambda done, of: None
) -> tuple[list[Figure], list[tuple[Pixels, str]]]:
    """The style's figures, and pictures without and with it side by side.

    Raises:
        ModelError: a picture could not be drawn.
    """
    drawn = draw(engine, style.pack, before.names, style.loras, on_picture)
    figures = style_figures(before.drawn[:STYLED], drawn[:STYLED], before.icons, style.icons.pixels)
    figures.append(kept_things(before.names, before.drawn, drawn, before.icons, style.icons))
    named = [replace(figure, what=f"{style.pack.id}: {figure.what}") for figure in figures]
    pairs = zip(before.names[:SHOWN], before.drawn, drawn, strict=False)
    shown = [(pixels, asked.prompt) for asked, plain, styled in pairs for pixels in (plain, styled)]
    return named, shown


def style_figures(
    plain: Sequence[Pixels], styled: Sequence[Pixels], icons: Icons, own: Sequence[Pixels]
) -> list[Figure]:
    """What the LoRA changes; `own` are the pictures of its training set.

    How far a picture is from a set is said twice, since one figure misleads: by the nearest picture of the set, where two drawings of one
    thing can be nearer than two in one style, and by the mean over all of it. The ceilings are of the set's pictures
    themselves, each among the others: what one that copies nothing can reach.
    """
    drawn, known = signatures(styled), signatures(own)
    to_own, to_base = distances(drawn, known), distances(drawn, icons.signatures)
    others = np.ma.masked_array(distances(known, known), mask=np.eye(len(known), dtype=bool))
    others_to_base = distances(known, icons.signatures)
    nearest, mean = (
        Figure(
            f"nearer to the style's set than to the base's{how}",
            len(styled),
            float((of(to_own, 1) < of(to_base, 1)).mean()),
            0.8,
            ceiling=float((np.ma.filled(of(others, 1), np.inf) < of(others_to_base, 1)).mean()),
        )
        for how, of in (("", np.ma.min), (", on the mean", np.ma.mean))
    )
    before = max(outline_share(np.stack(plain)), 1e-9)
    after, most = (outline_share(np.stack(each)) / before for each in (styled, own))
    outline = Figure("dark outline pixels, times the base's", len(styled), after, 2.0, ceiling=most)
    return [nearest, mean, outline]


def kept_things(
    asked: Sequence[Question], plain: Sequence[Pixels], styled: Sequence[Pixels], icons: Icons, own: Icons
) -> Figure:
    """How often the right thing is among the five nearest icons, of the base's sets and the style's.

    What is wanted is the same figure without the style, less ten points of a hundred.
    """
    known = np.concatenate([icons.signatures, own.signatures])
    labels = icons.concepts + own.concepts
    concepts = [question.concept for question in asked]
    before, after = (
        share_among_nearest(distances(signatures(each), known), concepts, labels) for each in (plain, styled)
    )
    return Figure("the things' own names", len(asked), after, before - _LESS, 5 / len(set(labels)))
