"""Errors of the OpenAI-compatible routes in OpenAI's shape: whoever refuses, problem documents are rewritten here."""

import json
import re
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from itemforge.gateway.images_models import ErrorAnswer, ErrorDetail
from itemforge.gateway.problems import MEDIA_TYPE

#: Its clients have no case for 422.
_STATUSES = {422: 400}
_TYPES = {429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 504: "timeout"}
_PATHS = re.compile(r"/v1/images/.*|/v1/models(/.*)?", re.DOTALL)
#: Our fields by the names that they have here.
_NAMES = {"style": "model", "num_images": "n", "width": "size", "height": "size"}


class ImagesErrors:
    """ASGI middleware; outside of all that may refuse."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _PATHS.fullmatch(scope["path"]) is None:
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        document = bytearray()

        async def rewritten(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
            elif start is None:
                await send(message)
            else:
                document.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    body = _error(json.loads(document))
                    await send(_begun(start, len(body)))
                    await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, rewritten)


def _is_problem(message: Message) -> bool:
    return MutableHeaders(raw=message["headers"]).get("content-type") == MEDIA_TYPE


def _begun(start: Message, length: int) -> Message:
    headers = MutableHeaders(raw=list(start["headers"]))
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(length)
    status = start["status"]
    return {**start, "status": _STATUSES.get(status, status), "headers": headers.raw}


def _error(problem: dict[str, Any]) -> bytes:
    status, fields = problem["status"], problem.get("errors", [])
    named = [(_NAMES.get(each["field"], each["field"]), each["message"]) for each in fields]
    message = "; ".join(f"{field} {advice}".strip() for field, advice in named) or problem["detail"]
    param = named[0][0] if named else None
    code = "model_not_found" if status == 404 and param == "model" else _CODES.get(status)
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    answer = ErrorAnswer(error=ErrorDetail(message=message, type=kind, param=param, code=code))
    return json.dumps(answer.model_dump()).encode()
