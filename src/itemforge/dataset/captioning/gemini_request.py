"""What Gemini is asked, in one form for the client's calls and for the lines of a batch job."""

import base64
from typing import Any

from itemforge.dataset.captioning.by_name import plain_name
from itemforge.dataset.captioning.fields import SCHEMA

#: Goes up with every change of what is asked: answers are kept by it.
VERSION = "gemini-1"
INSTRUCTION = (
    "You describe single items of a game's inventory for a training set. Say only what is to be seen. Fill each field with "
    "short plain English words, no sentences and no explanations. Name the thing by what it is, not by its name in the game. "
    "Do not mention the art style, the outlines, the game or the picture itself. Leave a field empty when it cannot be seen."
)
#: More than any whole answer; what does not end here never ends.
MAX_OUTPUT_TOKENS = 1024


def question(name: str) -> str:
    """The text beside the picture. What the source calls the item is a hint, and no instruction."""
    hint = plain_name(name)[:80]
    return f'Describe this item. Its file is called "{hint}".' if hint else "Describe this item."


def thinking(model: str) -> dict[str, Any]:
    """As little thinking as the model allows: a description needs none, and it is billed as output."""
    plain = model.removeprefix("models/")
    if plain.startswith(("gemini-2.5-", "gemini-2.0-")):
        return {"thinkingBudget": 128 if "pro" in plain else 0}
    if not plain.startswith("gemini-") or plain.startswith("gemini-1"):
        return {}
    # Only these know the level below low; others refuse it.
    minimal = "flash-lite" in plain or plain.startswith(
        ("gemini-3-flash", "gemini-3.5-flash", "gemini-3.6-flash")
    )
    return {"thinkingLevel": "MINIMAL" if minimal else "LOW"}


def generation_config(model: str) -> dict[str, Any]:
    """The REST object `generationConfig`. No temperature: models from 3.5 on do not take one."""
    config: dict[str, Any] = {
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
        "maxOutputTokens": MAX_OUTPUT_TOKENS,
        "candidateCount": 1,
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
    }
    if level := thinking(model):
        config["thinkingConfig"] = level
    return config


def rest_request(model: str, png: bytes, name: str) -> dict[str, Any]:
    """A whole request as REST nests it, for a line of a batch job."""
    data = base64.b64encode(png).decode("ascii")
    parts = [{"inlineData": {"mimeType": "image/png", "data": data}}, {"text": question(name)}]
    return {
        "contents": [{"role": "user", "parts": parts}],
        "systemInstruction": {"role": "user", "parts": [{"text": INSTRUCTION}]},
        "generationConfig": generation_config(model),
    }
