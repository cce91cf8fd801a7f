"""Addresses that change one caption, and the one that takes a deed back."""

from collections.abc import Mapping
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from itemforge.dataset.store_captions import history
from itemforge.errors import InvalidInput, StaleEdit
from itemforge.studio.review import changes
from itemforge.studio.review.items import Item
from itemforge.studio.review.looking import grid_page, one_page
from itemforge.studio.review.opening import Form, Review, Reviewed, Wanted, item_of, number
from itemforge.studio.review.pages import View, render
from itemforge.studio.review.words import FIELDS, in_words, show, typed

router = APIRouter()

_SAID = {"approved": "Approved", "rejected": "Rejected"}


@router.post("/preview")
def preview(review: Reviewed, form: Form) -> Response:
    """The caption of what is being typed; nothing is saved."""
    with review.open() as view:
        return render("shown.html", shown=show(form, view.style))


@router.post("/captions/{sha256}")
def edit(review: Reviewed, sha256: str, form: Form) -> Response:
    """Save what was typed. Headers tell the new version and state."""
    with review.open() as view:
        item = item_of(view, sha256)
        try:
            changes.edit(view.store, sha256, form, number(form, "version"), review.who)
        except InvalidInput:
            return render("shown.html", 422, shown=show(form, view.style))
        except StaleEdit as error:
            return _conflict(view, item, form, str(error))
    with review.open() as view:
        item = item_of(view, sha256)
        shown = show(item.caption.fields if item.caption else {}, view.style)
        return render("shown.html", headers=_now(item), shown=shown)


@router.post("/captions/{sha256}/state")
def decide(
    request: Request,
    review: Reviewed,
    filters: Wanted,
    sha256: str,
    form: Form,
    view: Literal["one", "card"] = "one",
) -> Response:
    """Approve or reject, and go to the next."""
    state = form.get("state")
    if state not in ("approved", "rejected"):
        raise InvalidInput("a caption is approved or rejected")
    with review.open(filters) as seen:
        item = item_of(seen, sha256)
        try:
            changes.decide(seen.store, sha256, state, number(form, "version"), review.who)  # type: ignore[arg-type]
        except StaleEdit as error:
            return _conflict(seen, item, form, str(error))
        following = seen.listing.after(item)
    said = f"{_SAID[state]}: {item.name}"
    with review.open(filters) as now:
        if view == "card":
            changed = item_of(now, sha256)
            return render("decided.html", item=changed, said=said, **now.frame())
        if following is None:
            rest = [each for each in now.listing.found if each.sha256 != sha256]
            following = rest[0] if rest and filters.state else None
            said += ". That was the last one" + (", on from the first." if following else ".")
        return one_page(now, now.listing.by_sha256[(following or item).sha256], True, said)


@router.post("/captions/{sha256}/revert/{line}")
def revert(review: Reviewed, filters: Wanted, sha256: str, line: int, form: Form) -> Response:
    with review.open(filters) as view:
        item = item_of(view, sha256)
        try:
            changes.revert(view.store, sha256, line, number(form, "version"), review.who)
        except StaleEdit as error:
            return _conflict(view, item, form, str(error))
    with review.open(filters) as view:
        return one_page(view, item_of(view, sha256), True, "Reverted")


@router.post("/undo")
def undo(review: Reviewed, filters: Wanted, view: Literal["one", "grid"] = "one", at: str = "") -> Response:
    """Take back the last deed, and show what it was done to."""
    with review.open(filters) as before:
        done = changes.undo(before.store, review.who)
    said = _told(review, done)
    with review.open(filters) as now:
        target = now.listing.by_sha256.get(done.sha256 if done and done.sha256 else at)
        if view == "grid" and done and done.sha256 and target:
            answer = {"HX-Reswap": "none"}
            return render("decided.html", headers=answer, item=target, said=said, **now.frame())
        if view == "one" and target:
            return one_page(now, target, True, said)
        return grid_page(now, True, said)


def _told(review: Review, done: changes.Done | None) -> str:
    if done is None:
        return f"There is nothing that {review.who} could undo"
    many = f" in {done.changed:,} captions" if done.changed > 1 else ""
    said = f"Undone: {done.what}{many}" if done.changed else f"Not undone: {done.what}"
    return said + (f"; {len(done.left):,} changed since, and stay" if done.left else "")


def _now(item: Item) -> dict[str, str]:
    return {"Review-Version": str(item.version), "Review-State": item.state}


def _conflict(view: View, item: Item, form: Mapping[str, str], said: str) -> Response:
    """Both texts side by side. Nothing is lost: theirs is saved, ours stands in the form."""
    lines = history(view.store, item.sha256)
    mine = {name: form[name] for name in FIELDS if name in form}
    return render(
        "conflict.html",
        409,
        {"HX-Retarget": "#conflict", "HX-Reswap": "innerHTML", **_now(item)},
        said=said,
        item=item,
        theirs=typed(item.caption.fields if item.caption else {}),
        mine=mine,
        mine_words=in_words(mine) if mine else "",
        last=lines[-1] if lines else None,
        again=form.get("state", ""),
    )
