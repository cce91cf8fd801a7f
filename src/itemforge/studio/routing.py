"""What the pages' routes share: a refusal is shown as a page, or as a line at the foot of the page that is open."""

import gzip
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.types import Scope

from itemforge.errors import InvalidInput, ItemForgeError, RetryableError
from itemforge.gateway import pages
from itemforge.gateway.problems import Refusal
from itemforge.studio.rendering import frame, part

log = structlog.get_logger(__name__)

#: Bytes below which a page is not worth packing.
_WORTH = 1000
_TITLES = {401: "Sign in first", 403: "Not for this key", 404: "Nothing here", 503: "Back in a moment"}


class PageRoute(APIRoute):
    """A route whose errors are for people."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return packed(request.scope, await handler(request))
            except Refusal as no:
                return refused(request.scope, no)
            except RequestValidationError:
                return refused(request.scope, Refusal(422, "The address or form is not one of this page's."))
            except HTTPException as error:
                return refused(request.scope, Refusal(error.status_code, str(error.detail)))
            except ItemForgeError as error:
                status = 503 if isinstance(error, RetryableError) else 422
                if not isinstance(error, InvalidInput):
                    log.warning("page_refused", path=request.scope["path"], reason=str(error))
                return refused(request.scope, Refusal(status, str(error)))

        return handled


def packed(scope: Scope, answer: Response) -> Response:
    """A page as few bytes, if the browser takes it so."""
    html = answer.headers.get("content-type", "").startswith("text/html")
    if html and len(answer.body) > _WORTH and "gzip" in Headers(scope=scope).get("accept-encoding", ""):
        answer.body = gzip.compress(bytes(answer.body), 5, mtime=0)
        answer.headers["Content-Length"] = str(len(answer.body))
        answer.headers["Content-Encoding"] = "gzip"
        answer.headers["Vary"] = "Accept-Encoding"
    return answer


def router() -> APIRouter:
    """For a module of pages."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)


def refused(scope: Scope, no: Refusal) -> Response:
    """How a browser is told no. Who is not known is asked for a key, and comes back to where they wanted to go."""
    headers = Headers(scope=scope)
    if no.status == 401 and scope["path"] != "/enter":
        way = enter_address(scope, headers)
        if "hx-request" in headers:
            return Response(status_code=401, headers={"HX-Redirect": way})
        return RedirectResponse(way, 303)
    extra = {"Retry-After": no.headers["Retry-After"]} if no.headers and "Retry-After" in no.headers else {}
    if "hx-request" in headers:
        told = {"HX-Retarget": "#toasts", "HX-Reswap": "beforeend", **extra}
        return part("said.html", no.status, told, text=no.detail, kind="bad")
    title = _TITLES.get(no.status, "That did not work")
    return part("alone.html", no.status, extra, title=title, text=no.detail, **frame(scope))


def enter_address(scope: Scope, headers: Headers) -> str:
    """The sign-in page, which leads on to the page that was wanted."""
    wanted = scope["path"] if scope["method"] == "GET" else "/"
    if "hx-request" in headers:
        wanted = "/" + headers.get("hx-current-url", "").partition("://")[2].partition("/")[2]
    elif query := str(QueryParams(scope["query_string"])):
        wanted += f"?{query}"
    return "/enter" if wanted == "/" else f"/enter?next={quote(safe_next(wanted), safe='/')}"


def safe_next(wanted: str) -> str:
    """An address of our own pages; a foreign one, by which somebody could be led away, is the first page."""
    path = wanted.partition("?")[0]
    ours = pages.is_page(path) and not pages.is_public(path) and not path.startswith(("//", "/studio/"))
    return wanted if ours and wanted.isprintable() and "\\" not in wanted else "/"


async def _form(request: Request) -> Mapping[str, str]:
    """What a form sent; of several values of a name the last."""
    body = (await request.body()).decode("utf-8", "replace")
    return dict(parse_qsl(body, keep_blank_values=True))


Form = Annotated[Mapping[str, str], Depends(_form)]
