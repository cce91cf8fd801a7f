"""Work that ended without a result, and what an operator does about it.

Of a request the row is the truth; its message in the dead queue is a copy, which is removed with it. A message that
belongs to no row of ours is in the dead queue alone: it is looked at where it lies, and leaves it only after it is
safe on the main queue, or when it is dropped.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Set
from dataclasses import replace
from uuid import UUID

import structlog

from itemforge.broker.face import DeadLetter
from itemforge.contract import ATTEMPT_HEADER, QUEUE, REASON_HEADER, Status, clean_text, readable_request_id
from itemforge.errors import BrokerUnavailable, Unroutable
from itemforge.gateway import submission
from itemforge.gateway.context import Gateway
from itemforge.gateway.keyring import Caller
from itemforge.gateway.models import DeadLetters, DeadLetterView, SentAgain
from itemforge.gateway.problems import Refusal
from itemforge.jobs import dead, requests
from itemforge.jobs.records import Request

log = structlog.get_logger(__name__)

#: Messages of the dead queue that are looked at, the oldest ones. Each look is a round trip to the broker for each.
LOOKED_AT = 200
_SHOWN = 2000
_MOST_ATTEMPTS = 1_000_000
_MESSAGE = "message-"
_NO_REASON = "no reason came with it: the broker put it there, after too many deliveries perhaps"


async def letters(gateway: Gateway, limit: int) -> DeadLetters:
    """What is unsettled: at most `limit` generations, and the messages among the first `LOOKED_AT`.

    Raises:
        DatabaseUnavailable: what failed is not known now.
    """
    rows = await dead.unsettled(gateway.db, limit + 1)
    trouble = None
    try:
        messages = await _foreign(gateway)
    except BrokerUnavailable as error:
        messages, trouble = [], str(error)
    items = [*map(_of_row, rows[:limit]), *messages]
    return DeadLetters(items=items, more=len(rows) > limit, broker=trouble)


async def send_again(gateway: Gateway, caller: Caller, letter_id: str) -> SentAgain:
    """A generation as a new one of the same owner, outside of their quota; safe to repeat. A message as it was.

    Raises:
        Refusal: 404, there is no such one; 409, it has not failed.
        BrokerUnavailable: a message cannot be moved now; it stays where it is.
    """
    if letter_id.startswith(_MESSAGE):

        async def publish(letter: DeadLetter) -> None:
            kept = {k: v for k, v in letter.headers.items() if k not in (REASON_HEADER, ATTEMPT_HEADER)}
            await gateway.broker.publish(QUEUE, letter.body, kept)

        await _take_message(gateway, letter_id, publish)
        log.info("dead_letter_sent_again", letter=letter_id)
        return SentAgain(id=letter_id, request_id=None)
    row = await _failed(gateway, letter_id)
    sent = await _resubmitted(gateway, caller, row)
    await _clear_copies(gateway, {row.id})
    return sent


async def send_all_again(gateway: Gateway, caller: Caller) -> list[SentAgain]:
    """The newest `LOOKED_AT` generations that are unsettled, as `send_again`; messages stay where they are."""
    rows = await dead.unsettled(gateway.db, LOOKED_AT)
    sent = [await _resubmitted(gateway, caller, row) for row in rows]
    if rows:
        await _clear_copies(gateway, {row.id for row in rows})
    return sent


async def drop(gateway: Gateway, letter_id: str) -> None:
    """Let it be: a generation stays Failed and leaves the list, a message is thrown away.

    Raises:
        Refusal, BrokerUnavailable: as `send_again`.
    """
    if letter_id.startswith(_MESSAGE):

        async def nothing(letter: DeadLetter) -> None:
            return

        await _take_message(gateway, letter_id, nothing)
    else:
        row = await _failed(gateway, letter_id)
        await dead.settle(gateway.db, row.id)
        await _clear_copies(gateway, {row.id})
    log.info("dead_letter_dropped", letter=letter_id)


async def _failed(gateway: Gateway, letter_id: str) -> Request:
    try:
        row = await requests.get(gateway.db, UUID(letter_id))
    except ValueError:
        row = None
    if row is None:
        raise _unknown()
    if row.status is not Status.FAILED:
        raise Refusal(409, f"The generation is {row.status}; only a Failed one is a dead letter.")
    return row


async def _resubmitted(gateway: Gateway, caller: Caller, row: Request) -> SentAgain:
    owner = replace(caller, owner=row.owner, rate=0, quota=0)
    created = await submission.resubmit(gateway, owner, row, f"dead letter {row.id}")
    await dead.settle(gateway.db, row.id)
    log.info("dead_letter_sent_again", letter=str(row.id), request_id=str(created.request.id))
    return SentAgain(id=str(row.id), request_id=created.request.id)


async def _clear_copies(gateway: Gateway, ids: Set[UUID]) -> None:
    """Of settled requests; one that stays is known for a copy at the next look, by its row."""

    async def nothing(letter: DeadLetter) -> None:
        return

    try:
        await gateway.broker.take_dead(LOOKED_AT, lambda each: readable_request_id(each.body) in ids, nothing)
    except BrokerUnavailable as error:
        log.warning("dead_copies_stay", rows=len(ids), reason=str(error))


async def _take_message(
    gateway: Gateway, letter_id: str, then: Callable[[DeadLetter], Awaitable[None]]
) -> None:
    try:
        taken = await gateway.broker.take_dead(LOOKED_AT, lambda each: _id_of(each) == letter_id, then)
    except Unroutable as error:
        raise Refusal(409, f"The message cannot be sent again: {error}") from None
    if not taken:
        raise _unknown()


async def _foreign(gateway: Gateway) -> list[DeadLetterView]:
    """Messages whose request we do not know; equal ones are one line."""
    found = await gateway.broker.dead_letters(LOOKED_AT)
    ids = {i for letter in found if (i := readable_request_id(letter.body)) is not None}
    known = await requests.known(gateway.db, list(ids))
    shown: dict[str, DeadLetterView] = {}
    for letter in found:
        letter_id, request_id = _id_of(letter), readable_request_id(letter.body)
        if letter_id in shown:
            shown[letter_id].times += 1
        elif request_id not in known:
            shown[letter_id] = _of_message(letter_id, request_id, letter)
    return list(shown.values())


def _id_of(letter: DeadLetter) -> str:
    """A message has no name of its own; this one stays as long as it lies there."""
    told = letter.body + b"\0" + json.dumps(dict(letter.headers), sort_keys=True).encode()
    return f"{_MESSAGE}{hashlib.sha256(told).hexdigest()[:32]}"


def _of_message(letter_id: str, request_id: UUID | None, letter: DeadLetter) -> DeadLetterView:
    attempts = letter.headers.get(ATTEMPT_HEADER, 0)
    return DeadLetterView(
        id=letter_id,
        kind="message",
        request_id=request_id,
        reason=clean_text(str(letter.headers.get(REASON_HEADER) or _NO_REASON)),
        at=None,
        attempts=attempts if isinstance(attempts, int) and 0 <= attempts < _MOST_ATTEMPTS else 0,
        worker_id=None,
        style=None,
        prompt=None,
        body=letter.body[:_SHOWN].decode(errors="replace"),
    )


def _of_row(row: Request) -> DeadLetterView:
    return DeadLetterView(
        id=str(row.id),
        kind="generation",
        request_id=row.id,
        reason=row.error or "no reason was told",
        at=row.finished_at,
        attempts=row.attempt,
        worker_id=row.worker_id,
        style=row.style,
        prompt=row.prompt,
        body=None,
    )


def _unknown() -> Refusal:
    return Refusal(
        404, "There is no such dead letter; it may be settled already. Look at GET /v1/dead again."
    )
