"""What an error of Gemini, its client or the line to it means for a picture, and for the run.

The border where foreign errors become ours. Texts of the service are shortened and never hold the key, whatever
the service echoes.
"""

import re
from typing import Any

import httpx
from pydantic import SecretStr

from itemforge.dataset.captioning.face import Failed, Reason
from itemforge.retry_after import seconds
from itemforge.tls import refusal

#: Seconds until the next try where the service says "later" and not when.
DEFAULT_WAIT = 15.0
#: The same after a line that was cut, which the client does not try again by itself.
_CUT_WAIT = 1.0
_USED_UP = re.compile(r"credits?\b.*\bdepleted|spend(ing)? (cap|limit)|per day\b", re.IGNORECASE | re.DOTALL)
#: Numbers of google.rpc.Code, as the lines of a batch job have them, and what HTTP calls the same.
_RPC = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 13: 500, 14: 503, 16: 401}


def failure(error: Exception, key: SecretStr) -> Failed:
    """What an error from a call means."""
    from google.genai import errors

    if isinstance(error, errors.APIError):
        headers = getattr(error.response, "headers", None) or {}
        return service_failure(
            int(error.code or 0), error.details, key, retry_after=headers.get("retry-after")
        )
    if isinstance(error, httpx.TimeoutException):
        return Failed(Reason.TIMEOUT, "Gemini did not answer in time", retryable=True)
    if isinstance(error, (httpx.HTTPError, OSError)):
        why = refusal(error) or f"Gemini cannot be reached, or the line was cut ({type(error).__name__})"
        return Failed(Reason.CONNECTION, redacted(why, key), retryable=True, wait=_CUT_WAIT)
    # JSON that is none, fields of another kind than the client knows: a proxy's page, or a change of the service.
    return Failed(
        Reason.MALFORMED, f"no answer of Gemini's ({type(error).__name__})", retryable=True, wait=0.0
    )


def service_failure(code: int, body: Any, key: SecretStr, *, retry_after: str | None = None) -> Failed:
    """What an error means that the service sent, as HTTP status or as a line of a batch job."""
    code = _RPC.get(code, code)
    inner = body.get("error") if isinstance(body, dict) else None
    error: dict[str, Any] = inner if isinstance(inner, dict) else body if isinstance(body, dict) else {}
    said = redacted(str(error.get("message") or ""), key)
    details = _dicts(error.get("details"))
    if code == 429:
        return _too_many(said, details, retry_after)
    if code in (401, 403) or _about_key(said, details):
        return _set_up(f"Gemini refused the API key ({code}): {said}; check GEMINI_API_KEY")
    if code == 404:
        return _set_up(f"Gemini has no such model or route ({code}): {said}; check the model's name")
    if error.get("status") == "FAILED_PRECONDITION":
        return _set_up(f"Gemini does not serve this account ({code}): {said}")
    if code in (408, 504):
        return Failed(Reason.TIMEOUT, f"Gemini did not answer in time ({code})", retryable=True)
    if code >= 500:
        return Failed(Reason.SERVER, f"Gemini failed ({code}): {said}", retryable=True)
    return Failed(Reason.INVALID, f"Gemini does not take this picture ({code}): {said}")


def redacted(text: str, key: SecretStr, most: int = 200) -> str:
    """A foreign text on one line, short, and without the key."""
    secret = key.get_secret_value()
    hidden = text.replace(secret, "**********") if secret else text
    return " ".join(hidden.split())[:most]


def _too_many(said: str, details: list[dict[str, Any]], retry_after: str | None) -> Failed:
    if _is_used_up(said, details):
        text = f"what Gemini allows for a day, or what was paid for, is used up: {said}; run again tomorrow"
        return Failed(Reason.QUOTA, text, retryable=True, stops=True)
    wait = _retry_delay(details)
    if wait is None:
        wait = seconds(retry_after)
    wait = DEFAULT_WAIT if wait is None else wait
    return Failed(Reason.RATE, f"too many requests for Gemini (429): {said}", retryable=True, wait=wait)


def _is_used_up(said: str, details: list[dict[str, Any]]) -> bool:
    """Whether waiting a minute is no use."""
    for detail in details:
        metadata = detail.get("metadata")
        limit = str(metadata.get("quota_limit", "")) if isinstance(metadata, dict) else ""
        violations = _dicts(detail.get("violations"))
        names = [limit, *(str(each.get("quotaId", "")) for each in violations)]
        if any("perday" in name.lower() for name in names):
            return True
        if any(str(each.get("quotaValue", "")) == "0" for each in violations):  # not in this account's plan
            return True
    return _USED_UP.search(said) is not None


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    """`retryDelay` of a google.rpc.RetryInfo, such as 36s or 0.429760048s."""
    for detail in details:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay", "")))
        if found:
            return float(found[1])
    return None


def _about_key(said: str, details: list[dict[str, Any]]) -> bool:
    reasons = {str(detail.get("reason", "")) for detail in details}
    return (
        "API_KEY_INVALID" in reasons
        or "api key not valid" in said.lower()
        or "api key expired" in said.lower()
    )


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _set_up(text: str) -> Failed:
    return Failed(Reason.SETUP, text, retryable=True, stops=True)
