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
#: What may stand before a thing that is asked for, after it, and before a colon that it comes after; `{w}` is any other word, which
#: is not to be drawn.
_BEFORE = (
    "i want", "i need", "let me see", "bring me", "find", "buy", "sell", "the {w} wants", "they lost", "she carries",
    "he made", "we found", "design", "sketch", "create", "generate", "render", "think of", "here is", "look at",
    "just", "only", "nothing but", "add", "put", "next comes", "a {w} uses", "the {w} gives", "our {w} has", "{w},",
    "a picture showing", "artwork of", "a photo of", "an image of", "an object like", "something like", "close-up of",
    "in the {w} lies", "my {w} is about", "what a {w}:", "{w} and {w} with", "every {w} knows", "after the {w} comes",
)  # fmt: skip
_AFTER = (
    "", "", "", "next to the {w}", "behind the {w}", "from the {w}", "near the {w}", "of the {w}", "with {w} and {w}",
    "instead of a {w}", "not a {w}", "in a {w} style", "for the next {w}", "on a {w}", "as a {w}", ", {w}", ", very {w}",
    "in the menu", "for sale", "today", "with care", "that somebody left", "that everyone can use", "which costs a {w}",
    "from an old story", "in high quality", "seen from the front", "without a shadow", "all alone", "to {w}", "when we {w}",
)  # fmt: skip
_HEADING = (
    "reward", "prize", "drop", "tool", "item", "equipment", "icon", "thing", "subject", "name of the item", "{w}", "{w} {w}",
    "new in the {w}", "level three", "bought with the {w}", "next item", "made with {w}", "picture", "title", "{w} of {w}",
    "made for a {w}", "what a {w} needs", "a {w} and a {w} say", "with a {w}", "a {w}", "of a {w}", "to a {w}", "{w} by a {w}",
)  # fmt: skip
_COLONS = (":", ":", " -")
#: Small words that hold others together, and what may stand before a noun.
_LINKS = (
    "of", "from", "in", "with", "for", "to", "by", "on", "at", "near", "under", "and", "or", "without", "about", "like", "into",
    "over", "is", "has", "needs", "wants", "makes", "uses", "needs the", "belongs to",
)  # fmt: skip
_DETERMINERS = ("", "", "a", "a", "the", "the", "my", "our", "this", "every", "some", "one")
#: How a clause begins that tells more of a thing.
_CLAUSES = (
    "that the {w} must", "which a {w} will", "that we", "that was", "who is", "when the {w}", "which has", "because the", "if you",
    "so that a {w} may", "where my {w} would",
)  # fmt: skip
#: Words before a thing that do not change how an icon of it looks.
ADJECTIVES = (
    "big", "small", "little", "old", "new", "nice", "pretty", "beautiful", "good", "magic", "strange", "lost", "famous",
    "ordinary", "simple", "fresh", "cute", "cool", "tiny", "huge", "my", "his", "your", "another", "any", "classic",
)  # fmt: skip
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


def sentence(name: str, others: Sequence[str], nothings: Sequence[str], dice: random.Random) -> str:
    """A chance sentence that asks for a thing, among `others`, words of all kinds; some sentences are no English.

    Between commas a thing may come first or last, so only `nothings` stand with it there, which are no things themselves.
    """
    asked = with_article(name) if dice.random() < 0.8 else name
    way = dice.random()
    if way < 0.12:
        return f"{_filled(dice.choice(_HEADING), others, dice)}{dice.choice(_COLONS)} {name}"
    if way < 0.25:
        return f"{_chance(others, dice)}{dice.choice(_COLONS)} {name}"
    if way < 0.34:
        heading = _filled(dice.choice(_HEADING), nothings, dice)
        return f"{heading if dice.random() < 0.5 else _chance(nothings, dice)}, {name}"
    if way < 0.38:
        return " ".join((*(dice.choice(others) for _ in range(dice.randrange(5))), asked))
    if way < 0.46:
        return f"{_chance(others, dice)} {dice.choice(_LINKS)} {asked}"
    if way < 0.55:
        return f"{asked} {_filled(dice.choice(_CLAUSES), others, dice)} {_chance(others, dice)}"
    if way < 0.63:
        return f"{asked} {dice.choice(_LINKS)} {_chance(others, dice)}"
    if way < 0.75:
        # As most people write to such models: the thing, then how it is to be.
        first = (
            f"{dice.choice(_DETERMINERS)} {dice.choice(ADJECTIVES)} {name}" if dice.random() < 0.3 else asked
        )
        return ", ".join((first.strip(), *(dice.choice(nothings) for _ in range(dice.randrange(1, 4)))))
    first, last = (_filled(dice.choice(part), others, dice) for part in (_BEFORE, _AFTER))
    return f"{first} {asked} {last}".replace(" ,", ",").strip()


def _chance(others: Sequence[str], dice: random.Random) -> str:
    """One to three words as they stand in a sentence."""
    said = [dice.choice(_DETERMINERS), dice.choice(others)]
    for _ in range(dice.randrange(3)):
        said += [dice.choice(_LINKS), dice.choice(_DETERMINERS), dice.choice(others)]
    return " ".join(word for word in said if word)


def _filled(template: str, others: Sequence[str], dice: random.Random) -> str:
    while "{w}" in template:
        template = template.replace("{w}", dice.choice(others), 1)
    return template


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
