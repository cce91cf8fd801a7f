"""The prompts that every checkpoint of a style is asked, and a file of one's own."""

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from itemforge.contract import Guidance, NegativePrompt, Seed, Side, Steps
from itemforge.errors import InvalidInput
from itemforge.styles.pack import StylePack

#: Items of many kinds, none of them common in wikis of one game: animals, food, tools, treasure, plants, clothes.
THINGS = (
    "a samoyed dog smiling",
    "a wooden treasure chest",
    "a red apple",
    "a blue potion bottle",
    "a golden key",
    "a birthday cake with candles",
    "a sword with a green handle",
    "a sleeping cat",
    "a purple mushroom",
    "a wizard hat with stars",
    "a small sailing boat",
    "a burning torch",
)
STEPS, GUIDANCE = 25, 7.5
_NAMES = {"n": "negative", "w": "width", "h": "height", "d": "seed", "l": "guidance", "s": "steps"}


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: NegativePrompt = ""
    w: Side | None = None
    h: Side | None = None
    d: Seed = 0
    l: Guidance = GUIDANCE  # noqa: E741 - the name that others gave it
    s: Steps = STEPS


@dataclass(frozen=True)
class Asked:
    """A whole prompt and how it is drawn; sides None: the model's. `shown` is what a page calls it.

    `picture` is the number of the held-out picture that the prompt is the caption of.
    """

    prompt: str
    shown: str
    seed: int
    negative: str = ""
    steps: int = STEPS
    guidance: float = GUIDANCE
    width: int | None = None
    height: int | None = None
    picture: int | None = None


def fixed_suite(pack: StylePack) -> list[Asked]:
    """`THINGS` as the style words them, with seeds from 0."""
    return [
        Asked(pack.compose(thing), thing, seed, pack.negative, *_drawn_as(pack))
        for seed, thing in enumerate(THINGS)
    ]


def caption_suite(captions: list[str], pack: StylePack, most: int) -> list[Asked]:
    """The captions of held-out pictures, of which `most` are taken from all over the set."""
    step = max(1, -(-len(captions) // most))
    return [
        Asked(captions[n], captions[n], n, pack.negative, *_drawn_as(pack), picture=n)
        for n in range(0, len(captions), step)
    ]


def read_suite(path: Path, pack: StylePack) -> list[Asked]:
    """A prompt a line, in sd-scripts' syntax: `a dog --n blurry --w 512 --h 512 --d 7 --l 7.5 --s 25`.

    Prompts are put into the style's template; `[trigger]` stands for its trigger. Lines that begin with # are left out.

    Raises:
        InvalidInput: it cannot be read, has no prompt, or an option is unknown or not a number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    told = [
        (number, line.strip())
        for number, line in enumerate(lines, 1)
        if line.strip() and line.strip()[0] != "#"
    ]
    if not told:
        raise InvalidInput(f"{path} has no prompts; write one a line")
    return [_asked(line, f"{path}, line {number}", seed, pack) for seed, (number, line) in enumerate(told)]


def _asked(line: str, where: str, seed: int, pack: StylePack) -> Asked:
    prompt, *given = line.split(" --")
    thing = prompt.strip().replace("[trigger]", pack.trigger)
    asked = Asked(pack.compose(thing), thing, seed, pack.negative, *_drawn_as(pack))
    pairs = [option.strip().partition(" ") for option in given]
    options = {key: value.strip() for key, _, value in pairs}
    try:
        told = _Options.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(f"--{name}" for name in _Options.model_fields)
        raise InvalidInput(
            f"{where}: --{first['loc'][0]}: {first['msg'].lower()}; the options of a prompt are {known}"
        ) from None
    return replace(asked, **{_NAMES[key]: getattr(told, key) for key in options})


def _drawn_as(pack: StylePack) -> tuple[int, float, int | None, int | None]:
    """Steps, guidance, width and height of the style."""
    chosen, size = pack.defaults, pack.size
    sides = (size.width, size.height) if size else (None, None)
    return chosen.num_inference_steps or STEPS, chosen.guidance_scale or GUIDANCE, *sides
