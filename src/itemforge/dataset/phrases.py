"""What people write when they want a thing: the phrasings that are trained on, and those that are not.

A caption is a phrase, then the look of its picture's set, then the ground: as a style's template later puts a
user's words in front of its own.
"""

import random
from collections.abc import Sequence

#: `{a}` is the article with the name, `{name}` the name alone.
PLAIN = (
    "{a}",
    "{name}",
    "{a}, game item",
    "{name}, game item",
    "a picture of {a}",
    "an icon of {a}",
    "{name} icon",
    "game item: {name}",
)
#: Sentences around a name: what else they say is not to be drawn.
SPOKEN = (
    "show me {a}",
    "draw {a}",
    "make {a} now",
    "give me {a}",
    "we need {a}",
    "can you paint {a}?",
    "could i get {a}",
    "my character needs {a}",
    "the player has {a}",
    "{a} for the player",
    "a wizard left {a} here",
    "{a} found in the forest",
    "{a} lying on the ground",
    "{a} in our village",
    "the shop sells {a}",
    "for the shop window: {name}",
    "quest reward: {name}",
    "treasure: {a}",
    "crafting recipe for {a}",
    "item number seven, {name}",
    "object: {name}",
    "asset, {name}",
    "isolated {name}",
    "{name} on its own",
    "{a} in the middle of the picture",
    "{name} as a symbol",
    "emoji of {a}",
    "a drawing of {a}",
    "an illustration of {a}",
    "{name}, clip art",
    "{name}, 2d art",
    "a nice {name}",
)
TRAINED = PLAIN + SPOKEN
#: For evaluation alone.
HELD_OUT = (
    "please draw {a} for my game",
    "i would like to have {a}",
    "one single {name}, centered",
    "{a} that the hero can pick up",
    "loot from a chest: {name}",
    "inventory sprite, {name}",
)
GROUND = "white background"


def with_article(name: str) -> str:
    """`a key`, `an apple`, `scissors`."""
    plural = name.endswith("s") and not name.endswith(("ss", "us", "is"))
    if plural or name.startswith(("a ", "an ", "the ")):
        return name
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"


def phrase(template: str, name: str, colour: str | None = None) -> str:
    """The template about a thing, which may have a colour."""
    coloured = f"{colour} {name}" if colour else name
    return template.format(a=with_article(coloured), name=coloured)


def captions(
    label: str, synonyms: Sequence[str], look: str, count: int, *, colour: str | None, number: int
) -> list[str]:
    """`count` different captions of one picture, the first the plainest; always the same for one `number`.

    A colour that is given stands in every one.
    """
    made = [f"{phrase(TRAINED[0], label, colour)}, {look}, {GROUND}"]
    dice = random.Random(number)  # noqa: S311 - variety, not secrecy
    for _ in range(100 * count):  # few names and templates may not give as many different ones
        if len(made) >= count:
            break
        # Half of them by the label: synonyms are many, and some are strange.
        name = dice.choice(synonyms) if synonyms and dice.random() < 0.5 else label
        text = phrase(dice.choice(TRAINED), name, colour)
        if dice.random() < 0.9:
            text += f", {look}"
        if dice.random() < 0.7:
            text += f", {GROUND}"
        if text not in made:
            made.append(text)
    return made
