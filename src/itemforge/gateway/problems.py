"""Every error answer is an RFC 9457 problem document that names the field and says what to do."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from itemforge.errors import (
    InvalidInput,
    InvalidStyle,
    ItemForgeError,
    ObjectMissing,
    RetryableError,
    StyleNotFound,
    advice,
)
from itemforge.jobs.states import IllegalTransition

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_STATUS: dict[type[ItemForgeError], int] = {
    RetryableError: 503,
    StyleNotFound: 404,
    ObjectMissing: 404,
    InvalidInput: 422,
    InvalidStyle: 422,
    IllegalTransition: 409,
}

_ADVICE = {
    "missing": "is missing; send it",
    "extra_forbidden": "is not known here; remove it or correct its name",
    "string_unicode": "must be valid Unicode text, without lone surrogates",
    "finite_number": "must be a finite number",
    "json_invalid": "the body is not valid JSON",
    "uuid_parsing": "must be a UUID, for example 5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10",
    "uuid_type": "must be a UUID in a string",
    "model_attributes_type": "the body must be a JSON object",
}

_DETAIL = {
    404: "There is nothing at this address; see /docs for the routes.",
    405: "This address does not take this method; see /docs.",
}


class Refusal(Exception):
    """Answer with this problem. `fields` are (field, what to do) pairs."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        fields: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = fields
        self.headers = headers


def wrong_field(field: str, advice: str) -> Refusal:
    """A 422 about one field."""
    return Refusal(422, f"{field} {advice}", fields=[(field, advice)])


def problem(
    status: int,
    detail: str,
    fields: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer itself."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if fields:
        body["errors"] = [{"field": field, "message": advice} for field, advice in fields]
    # Escaped ASCII, so that whatever the client sent (lone surrogates too) can be said back.
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these problems."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": _SCHEMA, "example": _example(status)}},
        }
        for status in statuses
    }


_SCHEMA = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong and what to do"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}

_EXAMPLES = {
    401: "This gateway needs a key: send it as Authorization: Bearer or X-API-Key.",
    403: "This address is for keys with the role worker or admin, and this key has the role user.",
    404: "There is no generation with this id.",
    409: "The Idempotency-Key was used with another body; use a new key.",
    413: "The body has more than 65536 bytes; shorten it.",
    415: "Send the body as Content-Type: application/json.",
    422: "num_inference_steps must be less than or equal to 150",
    429: "Your key may make 600 submissions a minute, and they are used up; come back in 7 s.",
    503: "the database cannot be reached (ConnectionRefusedError); try again",
}


def _example(status: int) -> dict[str, Any]:
    detail = _EXAMPLES.get(status, HTTPStatus(status).phrase)
    example: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if status == 422:
        field, _, message = detail.partition(" ")
        example["errors"] = [{"field": field, "message": message}]
    return example


def install(app: FastAPI) -> None:
    """Make the app answer its errors so."""
    app.add_exception_handler(Refusal, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ItemForgeError, _ours)


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101  # what it is installed for
    return problem(error.status, error.detail, error.fields, error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # what it is installed for
    fields = [(_field(e), _advice(e)) for e in error.errors()[:20]]
    detail = "; ".join(f"{field} {advice}".strip() for field, advice in fields)
    return problem(422, detail, fields)


def _field(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return "body"
    loc = [str(part) for part in error["loc"]]
    if loc and loc[0] in ("body", "query", "path", "header"):
        loc = loc[1:] or [loc[0]]
    return ".".join(loc)


def _advice(error: Mapping[str, Any]) -> str:
    if error["type"] == "string_pattern_mismatch" and error["loc"][-1] == "style":
        return "must be a style's id or id@version, as GET /v1/styles lists them"
    return _ADVICE.get(error["type"], advice(str(error["msg"])))


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # what it is installed for
    said = error.detail if error.detail != HTTPStatus(error.status_code).phrase else ""
    detail = said or _DETAIL.get(error.status_code, "The request cannot be served.")
    return problem(error.status_code, detail, headers=error.headers)


async def _ours(_: Request, error: Exception) -> Response:
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    if status >= 500:
        log.warning("request_failed", reason=str(error), kind=type(error).__name__)
    return problem(status, str(error), headers={"Retry-After": "2"} if status == 503 else None)
