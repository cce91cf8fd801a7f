"""What surrounds every answer: the contract header, the log line, the last catch, limits on bodies."""

import asyncio
import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from itemforge.contract import CONTRACT_HEADER, CONTRACT_VERSION
from itemforge.gateway import pages
from itemforge.gateway.auth import PROBES
from itemforge.gateway.problems import problem
from itemforge.storage.signing import ROUTE as SIGNED_UPLOADS
from itemforge.telemetry.gateway_metrics import GatewayMetrics

log = structlog.get_logger(__name__)

MAX_BODY = 64 * 1024
#: Workers send previews and many rows at once.
MAX_WORKER_BODY = 4 * 1024 * 1024
#: Lists of things; a form writes three characters for some.
MAX_BATCH_BODY = 2 * 1024 * 1024
_WORKER = "/v1/worker/"
_BATCHES = ("/v1/batches", "/studio/batches")
#: Where LoRA files come in, which are far longer; the route looks at them as they come.
LORA_UPLOADS = "/v1/styles/blobs"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: How much (bytes, seconds) of a body that is too long is still taken in.
_MAX_DISCARDED = 16 * 1024 * 1024
_DISCARD_TIME = 5.0


class Envelope:
    """Outermost: header and log line on every answer, and no exception gets past it."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0
        self._metrics.http_began()

        async def enveloped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[CONTRACT_HEADER] = CONTRACT_VERSION
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, enveloped)
        except Exception:
            log.exception("request_crashed", method=scope["method"], path=scope["path"])
            if status:
                raise  # half an answer is out: only breaking the connection tells the client
            answer = problem(500, "The gateway made a mistake; its log has the details.")
            await answer(scope, receive, enveloped)
        finally:
            route = getattr(scope.get("route"), "path", None)
            self._metrics.http_ended(scope["method"], route, status, time.perf_counter() - began)
            # The path only: a query may hold what is nobody's business. Reading and beating is no news.
            quiet = scope["path"].startswith((*PROBES, _WORKER)) or scope["method"] in ("GET", "HEAD")
            level = "debug" if quiet and status < 400 else "info"
            took = round((time.perf_counter() - began) * 1000, 1)
            about: dict[str, str] = {"result": "success" if 0 < status < 500 else "failure"}
            about |= {"request_id": match[0]} if (match := _UUID.search(scope["path"])) else {}
            getattr(log, level)(
                "request_served",
                method=scope["method"],
                path=scope["path"],
                status_code=status,
                ms=took,
                **about,
            )


class BodyLimit:
    """Reads a body before the routes do, so that too long and foreign ones never reach a parser."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # An upload's route looks at its signature first, and only then takes in a long body.
        upload = scope["type"] == "http" and (
            scope["path"].startswith(SIGNED_UPLOADS) or scope["path"] == LORA_UPLOADS
        )
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS") or upload:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = _limit(scope["path"])
        body = await _read(headers, receive, limit)
        if body is None:
            answer = problem(
                413, f"The body has more than {limit} bytes; shorten it.", headers={"Connection": "close"}
            )
            await answer(scope, receive, send)
        elif body and not _is_json(headers) and not (pages.is_page(scope["path"]) and _is_form(headers)):
            await problem(415, "Send the body as Content-Type: application/json.")(scope, receive, send)
        else:
            await self._app(scope, _replayed(body, receive), send)


def _limit(path: str) -> int:
    if path.startswith(_WORKER):
        return MAX_WORKER_BODY
    return MAX_BATCH_BODY if path.startswith(_BATCHES) else MAX_BODY


async def _read(headers: Headers, receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when it is longer than `limit`; a client that left ends it early."""
    announced = headers.get("content-length", "")
    too_long = announced.isdecimal() and int(announced[:20]) > limit
    body = bytearray()
    while not too_long:
        message = await receive()
        body += message.get("body", b"")
        too_long = len(body) > limit
        if not too_long and _is_last(message):
            return bytes(body)
    if not body or not _is_last(message):
        await discard_body(receive)
    return None


async def discard_body(receive: Receive) -> None:
    """Take in some of the rest: a client that is still sending when we close never sees our answer."""
    left = _MAX_DISCARDED
    try:
        async with asyncio.timeout(_DISCARD_TIME):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if _is_last(message):
                    return
    except TimeoutError:
        return


def _is_last(message: Message) -> bool:
    return message["type"] == "http.disconnect" or not message.get("more_body", False)


def _is_json(headers: Headers) -> bool:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def _is_form(headers: Headers) -> bool:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/x-www-form-urlencoded"


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
