"""The review as an ASGI app."""

from pathlib import Path

import structlog
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from itemforge.dataset.store import DATABASE
from itemforge.errors import ConfigurationError, InvalidInput, ItemForgeError
from itemforge.studio.review import editing, looking, many
from itemforge.studio.review.guard import Guard
from itemforge.studio.review.opening import Missing, Review
from itemforge.studio.review.pages import render

log = structlog.get_logger(__name__)


def create_app(folder: Path, who: str, token: str | None = None) -> ASGIApp:
    """The page for a dataset's folder; `who` is written beside each change.

    Raises:
        ConfigurationError: there is no dataset, or its settings cannot be used.
        InvalidInput: its database is damaged, or no caption can be made with its settings.
    """
    if not (folder / DATABASE).is_file():
        raise ConfigurationError(
            f"{folder} is no dataset: it has no {DATABASE}; `itemforge data crawl` makes one"
        )
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.review = Review(folder, who)
    with app.state.review.open():
        pass
    static = StaticFiles(packages=[("itemforge.studio.review", "static"), ("itemforge.studio", "static")])
    app.mount("/static", static)
    for module in (looking, editing, many):
        app.include_router(module.router)
    app.add_exception_handler(Missing, _missing)
    app.add_exception_handler(ItemForgeError, _refused)
    app.add_exception_handler(Exception, _crashed)
    return Guard(app, token)


async def _missing(request: Request, error: Exception) -> Response:
    return _say(request, 404, "There is no such picture in this dataset.")


async def _refused(request: Request, error: Exception) -> Response:
    return _say(request, 422 if isinstance(error, InvalidInput) else 500, str(error))


async def _crashed(request: Request, error: Exception) -> Response:
    log.error("review_crashed", path=request.url.path, kind=type(error).__name__)
    return _say(request, 500, "The server made a mistake; its log has the details.")


def _say(request: Request, status: int, text: str) -> Response:
    """A line at the foot of the page that is open, or a page."""
    if "hx-request" in request.headers:
        return render("said.html", status, {"HX-Retarget": "#toast", "HX-Reswap": "innerHTML"}, text=text)
    return render("alone.html", status, text=text)
