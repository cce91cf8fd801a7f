"""Reading what Gemini answered: fields, or the reason why there are none.

Answers are read in the form that REST gives, which a batch job's lines have and the client's objects turn into.
"""

import json
import re
from typing import Any

from pydantic import ValidationError

from itemforge.dataset.captioning.face import Answer, Captioned, Failed, Reason, Usage
from itemforge.dataset.captioning.fields import (
    REFUSAL,
    SCHEMA,
    TALK,
    UNNAMED,
    CaptionFields,
    is_refusal,
)

_FILTERS = {
    "SAFETY",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "ESCALATION",
    "MODEL_ARMOR",
}
_AGREED = frozenset(SCHEMA["properties"])
#: Another sample may be a good one, so the same run asks once more.
_AT_ONCE = 0.0


def read_answer(response: dict[str, Any]) -> Answer:
    """The answer in a `GenerateContentResponse`."""
    usage = read_usage(response)
    feedback = _dict(response.get("promptFeedback"))
    if blocked := feedback.get("blockReason"):
        return Failed(Reason.BLOCKED, f"Gemini blocked the request ({_word(blocked)})", usage=usage)
    candidates = response.get("candidates")
    candidate = _dict(candidates[0]) if isinstance(candidates, list) and candidates else {}
    if not candidate:
        return _again(Reason.EMPTY, "Gemini answered with nothing", usage)
    return _ended(_word(candidate.get("finishReason") or "STOP"), usage) or _read_text(
        _spoken(candidate), usage
    )


def read_usage(response: dict[str, Any]) -> Usage:
    """What the answer cost, thinking included."""
    counts = _dict(response.get("usageMetadata"))
    tokens_in, tokens_out, thoughts = (
        _number(counts.get(name))
        for name in ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    )
    return Usage(1, tokens_in, tokens_out + thoughts)


def _ended(finish: str, usage: Usage) -> Failed | None:
    """Why generation ended, where that is a failure."""
    if finish in ("STOP", "FINISH_REASON_UNSPECIFIED"):
        return None
    if finish in _FILTERS:
        return Failed(Reason.SAFETY, f"Gemini's filter stopped the answer ({finish})", usage=usage)
    if finish in ("RECITATION", "IMAGE_RECITATION"):
        return _again(Reason.RECITATION, "Gemini stopped: too near to a text it knows", usage)
    if finish in ("MAX_TOKENS", "CONTINUATION"):
        return _again(Reason.TRUNCATED, "the answer was longer than any description and was cut", usage)
    return _again(Reason.MALFORMED, f"Gemini stopped without an answer ({finish})", usage)


def _spoken(candidate: dict[str, Any]) -> str:
    """The text, without parts that are marked as thought."""
    parts = _dict(candidate.get("content")).get("parts")
    texts = [_dict(part) for part in parts] if isinstance(parts, list) else []
    return "".join(str(part.get("text") or "") for part in texts if not part.get("thought")).strip()


def _read_text(text: str, usage: Usage) -> Answer:
    if not text:
        return _again(Reason.EMPTY, "Gemini answered with no text", usage)
    bare = re.sub(r"^```(json)?\s*|\s*```$", "", text)
    try:
        found = json.loads(bare)
    except ValueError:
        return _no_json(bare, usage)
    except RecursionError:
        return _again(Reason.MALFORMED, "the answer is nested without end", usage)
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        return _again(Reason.MALFORMED, "the answer is JSON of another form than agreed", usage)
    try:
        return Captioned(
            CaptionFields.model_validate({k: v for k, v in found.items() if k in _AGREED}), usage
        )
    except ValidationError as error:
        return _wrong_fields(error, usage)


def _no_json(text: str, usage: Usage) -> Failed:
    if is_refusal(text):
        return Failed(Reason.REFUSED, "Gemini declined to describe the picture", usage=usage)
    if text.startswith(("{", "[")) and not text.endswith(("}", "]")):
        return _again(Reason.TRUNCATED, "the answer's JSON ends in the middle", usage)
    return _again(Reason.MALFORMED, "the answer is no JSON", usage)


def _wrong_fields(error: ValidationError, usage: Usage) -> Failed:
    """Never with the field's text: it may be pages long."""
    first = error.errors(include_url=False, include_context=False, include_input=False)
    kinds = {each["type"] for each in first}
    where = ", ".join(sorted({str(each["loc"][0]) for each in first if each["loc"]}))
    if REFUSAL in kinds:
        return Failed(Reason.REFUSED, "Gemini declined to describe the picture", usage=usage)
    if TALK in kinds:
        return _again(Reason.LEAKED, f"thinking or chatter instead of a description in: {where}", usage)
    if kinds == {UNNAMED}:
        return Failed(Reason.NO_NAME, "Gemini could not say what the thing is", usage=usage)
    return _again(Reason.MALFORMED, f"the answer lacks, or has in another form: {where}", usage)


def _again(reason: Reason, text: str, usage: Usage) -> Failed:
    return Failed(reason, text, retryable=True, wait=_AT_ONCE, usage=usage)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _word(value: Any) -> str:
    """A name of the service's, safe to print."""
    return re.sub(r"[^A-Z0-9_]", "", str(value).upper())[:60]
