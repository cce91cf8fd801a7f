"""Addresses that only show: the grid, one picture, its files, its history."""

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, JSONResponse, Response

from itemforge.dataset.store_captions import changed_since
from itemforge.studio.review import files
from itemforge.studio.review.items import Filters, Item
from itemforge.studio.review.opening import Missing, Reviewed, Wanted, item_of
from itemforge.studio.review.pages import View, render

router = APIRouter()

#: The address names the picture's version.
_KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}


def is_part(request: Request) -> bool:
    """Whether the page is open already, and asks for another inside of it."""
    return "hx-request" in request.headers and "hx-history-restore-request" not in request.headers


def address(filters: Filters, item: Item | None = None) -> str:
    """Where a picture, or the grid, is shown."""
    path = f"/picture/{item.sha256}" if item else "/"
    return f"{path}?{filters.query}" if filters.query else path


def grid_page(view: View, part: bool, said: str = "") -> Response:
    filters = view.listing.filters
    headers = {"HX-Push-Url": address(filters)} if part else {}
    return render(
        "part.html" if part else "page.html",
        headers=headers,
        inner="grid.html",
        said=said,
        view="grid",
        **view.frame(),
        **view.grid(),
    )


def one_page(view: View, item: Item, part: bool, said: str = "") -> Response:
    headers = {"HX-Push-Url": address(view.listing.filters, item)} if part else {}
    return render(
        "part.html" if part else "page.html",
        headers=headers,
        inner="one.html",
        said=said,
        view="one",
        **view.frame(),
        **view.one(item),
    )


@router.get("/")
def grid(request: Request, review: Reviewed, filters: Wanted, view: str = "grid") -> Response:
    with review.open(filters) as open_view:
        if view == "one" and open_view.listing.found:
            return one_page(open_view, open_view.listing.found[0], is_part(request))
        return grid_page(open_view, is_part(request))


@router.get("/cards")
def cards(review: Reviewed, filters: Wanted, after: str = "") -> Response:
    with review.open(filters) as view:
        return render("cards.html", filters=filters, **view.grid(after))


@router.get("/cards/{sha256}")
def card(review: Reviewed, filters: Wanted, sha256: str) -> Response:
    with review.open(filters) as view:
        return render("card.html", item=item_of(view, sha256), filters=filters)


@router.get("/frame")
def frame(review: Reviewed, filters: Wanted) -> Response:
    """Filters and progress anew."""
    with review.open(filters) as view:
        return render("frame.html", said="", **view.frame())


@router.get("/picture/{sha256}")
def one(request: Request, review: Reviewed, filters: Wanted, sha256: str) -> Response:
    with review.open(filters) as view:
        return one_page(view, item_of(view, sha256), is_part(request))


@router.get("/picture/{sha256}/history")
def past(review: Reviewed, filters: Wanted, sha256: str) -> Response:
    with review.open(filters) as view:
        item = item_of(view, sha256)
        return render("history.html", item=item, filters=filters, lines=view.history(item))


@router.get("/changes")
def changes(review: Reviewed, since: int = 0) -> Response:
    """Whose captions have changed since the page was made; what a window asks when it is looked at again."""
    with review.store() as store:
        return JSONResponse(changed_since(store, max(0, min(since, 2**62))))


@router.get("/files/{kind}/{sha256}")
def file(review: Reviewed, kind: files.Kind, sha256: str) -> Response:
    with review.open() as view:
        found = files.find(view.store, item_of(view, sha256), kind)
    if found is None:
        raise Missing("there is no such file")
    if found.path is None:
        return Response(found.data, media_type=found.type, headers=_KEPT)
    return FileResponse(found.path, media_type=found.type, headers=_KEPT)
