"""`/v1/dead`: what failed for good, for operators: look, send again, drop."""

from typing import Annotated

from fastapi import APIRouter, Query

from itemforge.gateway import dead
from itemforge.gateway.context import CallerDep, GatewayDep
from itemforge.gateway.models import DeadLetters, SentAgain
from itemforge.gateway.problems import documented

router = APIRouter(prefix="/v1/dead", tags=["fleet"])


@router.get("", responses=documented(401, 422, 503))
async def list_dead(gateway: GatewayDep, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> DeadLetters:
    """Failed generations that nobody has settled, and messages of the dead queue that belong to none."""
    return await dead.letters(gateway, limit)


@router.post("/send-again", status_code=202, responses=documented(401, 503))
async def send_all_dead_again(gateway: GatewayDep, caller: CallerDep) -> list[SentAgain]:
    """All generations of the list, at most the newest 200; messages stay. Safe to repeat."""
    return await dead.send_all_again(gateway, caller)


@router.post("/{letter_id}/send-again", status_code=202, responses=documented(401, 404, 409, 422, 503))
async def send_dead_again(letter_id: str, gateway: GatewayDep, caller: CallerDep) -> SentAgain:
    """Try once more: a generation as a new one of its owner with `retry_of`, a message as it was. Safe to repeat."""
    return await dead.send_again(gateway, caller, letter_id)


@router.delete("/{letter_id}", status_code=204, responses=documented(401, 404, 409, 422, 503))
async def drop_dead(letter_id: str, gateway: GatewayDep) -> None:
    """Take it off the list: a generation stays as it is, a message is thrown away."""
    await dead.drop(gateway, letter_id)
