"""The server span of a request: outermost, so that every log line of its own stands in it."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from itemforge.gateway.auth import PROBES
from itemforge.telemetry import traces
from itemforge.telemetry.tracer import TRACEPARENT

#: Workers have spans of their own for these, and one call serves many jobs.
_QUIET = (*PROBES, "/metrics", "/v1/worker/")


class Traced:
    """ASGI middleware. Looking is traced only for callers that trace, or every poll would be one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_QUIET):
            await self._app(scope, receive, send)
            return
        caller = Headers(scope=scope).get(TRACEPARENT)
        if caller is None and scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        with traces.serving(scope["method"], scope["path"], caller) as served:

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    served.status = message["status"]
                await send(message)

            await self._app(scope, receive, told)
            served.route = getattr(scope.get("route"), "path", None)
