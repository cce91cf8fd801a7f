"""Addresses that change all pictures which the filters let through: first what would happen, then that and nothing else."""

from collections.abc import Mapping
from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from itemforge.errors import InvalidInput
from itemforge.studio.review import changes
from itemforge.studio.review.items import Filters
from itemforge.studio.review.looking import grid_page
from itemforge.studio.review.opening import Form, Review, Reviewed, Wanted
from itemforge.studio.review.pages import render

router = APIRouter()

_CLOSE = "closeDialog"
Decision = Literal["approved", "rejected"]


@router.get("/many/replace")
def ask_replace(review: Reviewed, filters: Wanted) -> Response:
    with review.open(filters) as view:
        return render("replace.html", filters=filters, found=len(view.listing.found))


@router.post("/many/replace/preview")
def preview_replace(review: Reviewed, filters: Wanted, form: Form) -> Response:
    """Every change that it would make."""
    with review.open(filters) as view:
        try:
            plan = changes.plan_replace(view.listing.found, *_asked(form))
        except InvalidInput as error:
            return render("planned.html", plan=[], good=0, seen="", problem=str(error), filters=filters)
    good = [each for each in plan if each.fields is not None]
    seen = " ".join(f"{each.item.sha256}:{each.item.version}" for each in good)
    return render("planned.html", plan=plan, good=len(good), seen=seen, problem="", filters=filters)


@router.post("/many/replace")
def replace(review: Reviewed, filters: Wanted, form: Form) -> Response:
    find, by, whole = _asked(form)
    seen = _seen(form)
    with review.open(filters) as view:
        chosen = [item for item in view.listing.items if item.sha256 in seen]
        plan = changes.plan_replace(chosen, find, by, whole)
        done = changes.replace_all(view.store, plan, seen, f"replace {find!r} by {by!r}", review.who)
    return _after(review, filters, f"Replaced in {done.changed:,} captions", done)


def _asked(form: Mapping[str, str]) -> tuple[str, str, bool]:
    return form.get("find", "")[:200], form.get("by", "")[:200], form.get("whole") == "1"


@router.get("/many/{state}")
def ask_decide(review: Reviewed, filters: Wanted, state: Decision) -> Response:
    """How many it would be."""
    with review.open(filters) as view:
        found = view.listing.found
    chosen = [item for item in found if changes.can_become(item, state)]
    return render(
        "decide.html",
        filters=filters,
        state=state,
        found=len(found),
        chosen=len(chosen),
        already=sum(item.state == state for item in found),
        seen=" ".join(f"{item.sha256}:{item.version}" for item in chosen),
    )


@router.post("/many/{state}")
def decide(review: Reviewed, filters: Wanted, state: Decision, form: Form) -> Response:
    with review.open(filters) as view:
        done = changes.decide_all(view.store, _seen(form), state, review.who)
    return _after(review, filters, f"{state.capitalize()}: {done.changed:,} captions", done)


def _seen(form: Mapping[str, str]) -> dict[str, int]:
    """The pictures that were shown, with their versions."""
    seen = {}
    for each in form.get("seen", "").split():
        sha256, _, version = each.partition(":")
        if not version.isdecimal() or len(version) > 15:
            raise InvalidInput("the list of pictures is damaged; open the preview again")
        seen[sha256] = int(version)
    return seen


def _after(review: Review, filters: Filters, said: str, done: changes.Done) -> Response:
    left = f"; {len(done.left):,} were changed meanwhile, and stay" if done.left else ""
    with review.open(filters) as view:
        answer = grid_page(view, True, f"{said}{left}. u undoes it.")
    answer.headers["HX-Trigger"] = _CLOSE
    return answer
