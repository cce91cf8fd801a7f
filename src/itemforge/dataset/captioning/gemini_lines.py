"""The lines of a batch job's files: requests with the picture's sha256 as their key, and answers matched by it.

Never by their order: answers have come back in another one (googleapis/python-genai#1909), and half of them as
errors (#1341).
"""

import json

from pydantic import SecretStr

from itemforge.dataset.captioning.face import Answer, Failed, Picture, Reason
from itemforge.dataset.captioning.gemini_answer import read_answer
from itemforge.dataset.captioning.gemini_errors import service_failure
from itemforge.dataset.captioning.gemini_request import rest_request


def request_line(model: str, picture: Picture) -> str | Failed:
    """A picture's line, or why it has none."""
    try:
        png = picture.load()
    except Exception as error:  # one picture never ends the run, whatever its loader does
        return Failed(Reason.UNREADABLE, f"the picture cannot be loaded ({type(error).__name__})")
    if not png:
        return Failed(Reason.UNREADABLE, "the picture's file is empty")
    request = rest_request(model, png, picture.name)
    return json.dumps({"key": picture.sha256, "request": request}) + "\n"


def read_lines(data: bytes, secret: SecretStr) -> dict[str, Answer]:
    """Answers by key. Lines that say of no picture are passed over; of two for one picture the first holds."""
    answers: dict[str, Answer] = {}
    for line in data.decode("utf-8", errors="replace").split("\n"):
        key, answer = _read_line(line, secret)
        if key is not None:
            answers.setdefault(key, answer)
    return answers


def _read_line(line: str, secret: SecretStr) -> tuple[str | None, Answer]:
    unknown = Failed(Reason.MALFORMED, "the job's line is neither an answer nor an error", retryable=True)
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None, unknown
    if not isinstance(found, dict) or not isinstance(found.get("key"), str):
        return None, unknown
    if isinstance(response := found.get("response"), dict):
        return found["key"], read_answer(response)
    if isinstance(error := found.get("error") or found.get("status"), dict):
        code = error.get("code")
        return found["key"], service_failure(code if isinstance(code, int) else 500, error, secret)
    return found["key"], unknown
