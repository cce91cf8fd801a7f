"""What workers do to a request: claim it, keep its lease, report its end.

`attempt` is the fencing token: a claim adds one, and only who holds the row's attempt is heard.
`charged` counts claims that were not politely given back, so work that kills its worker is bounded.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import case, update

from itemforge.contract import (
    MAX_ATTEMPTS,
    MAX_CHARGED,
    STATUS_ERROR_LENGTH,
    Claim,
    Image,
    Outcome,
    Report,
    ReportAnswer,
    ReportStatus,
    Status,
)
from itemforge.jobs import events
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database, Write
from itemforge.jobs.records import Request, change, request_columns, to_request
from itemforge.jobs.requests import finish, lock, lock_all, set_state
from itemforge.jobs.states import OPEN, TERMINAL
from itemforge.jobs.tables import requests


async def claim(
    db: Database,
    worker_id: str,
    ids: Sequence[UUID],
    lease: float,
    traces: Mapping[UUID, str] | None = None,
) -> list[Claim]:
    """Lease each request to the worker for `lease` seconds, if it is free; answers in the order asked.

    `traces` are the trace contexts of the attempts that begin.
    """
    answers: list[Claim] = []
    async with db.write() as write:
        rows = await lock_all(write, set(ids))
        before = {row.id: row.attempt_traceparent for row in rows.values()}
        free = [row.id for row in rows.values() if _is_free(row)]
        taken = await _take(write, worker_id, free, lease, traces or {})
        for request_id in ids:
            if (request := taken.pop(request_id, None)) is None:
                answers.append(await _refuse(write, request_id, rows.get(request_id)))
                continue
            rows[request_id] = request  # asked for twice, it is claimed by the first and leased to the second
            # A row whose lease ran out may still be Processing: the new attempt is news all the same.
            events.add_states(write, request, (Status.PROCESSING,))
            write.counted.append(change("claimed", request))
            write.relay = True
            answers.append(_claimed(request, lease, before[request_id]))
    return answers


def _is_free(request: Request) -> bool:
    return request.status in OPEN and not request.leased and not _is_used_up(request)


def _is_used_up(request: Request) -> bool:
    return request.charged >= MAX_CHARGED or request.attempt >= MAX_ATTEMPTS


async def _take(
    write: Write, worker_id: str, ids: Sequence[UUID], lease: float, traces: Mapping[UUID, str]
) -> dict[UUID, Request]:
    """Lease these locked rows to the worker."""
    if not ids:
        return {}
    told = {request_id: traces[request_id] for request_id in ids if request_id in traces}
    column = requests.c.attempt_traceparent
    traced = {column.name: case(told, value=requests.c.id, else_=column)} if told else {}
    taken = await write.conn.execute(
        update(requests)
        .where(requests.c.id.in_(ids))
        .values(
            status=Status.PROCESSING,
            attempt=requests.c.attempt + 1,
            charged=requests.c.charged + 1,
            lease_until=now(lease),
            worker_id=worker_id,
            reported=None,
            progress=None,
            updated_at=now(),
            **traced,
        )
        .returning(*request_columns())
    )
    return {request.id: request for request in map(to_request, taken)}


def _claimed(request: Request, lease: float, previous: str | None) -> Claim:
    return Claim(
        request_id=request.id,
        outcome=Outcome.CLAIMED,
        attempt=request.attempt,
        lease_s=lease,
        params=request.params,
        alone=request.charged > 1,
        traceparent=request.traceparent,
        previous=previous,
    )


async def _refuse(write: Write, request_id: UUID, request: Request | None) -> Claim:
    """Say why nothing was claimed; a request that was charged too often ends here."""
    if request is None:
        return Claim(request_id=request_id, outcome=Outcome.UNKNOWN)
    if request.status in TERMINAL:
        return Claim(request_id=request_id, outcome=Outcome.DONE, attempt=request.attempt)
    if request.leased or not _is_used_up(request):
        return Claim(request_id=request_id, outcome=Outcome.LEASED, attempt=request.attempt)
    if request.charged >= MAX_CHARGED:
        reason = f"given up: {request.charged} attempts ended without a result"
    else:
        reason = f"given up after {request.attempt} attempts"
    reason = f"{reason} (last worker: {request.worker_id}); send it again if the cause is gone"
    await finish(write, request, Status.FAILED, error=reason)
    return Claim(request_id=request_id, outcome=Outcome.EXHAUSTED, attempt=request.attempt)


async def report(db: Database, reports: Sequence[Report]) -> list[ReportAnswer]:
    """Record how attempts ended; answers in the order asked."""
    answers: list[ReportAnswer] = []
    async with db.write() as write:
        rows = await lock_all(write, {item.request_id for item in reports})
        for place, item in enumerate(reports):
            request = rows.get(item.request_id)
            code = 404 if request is None else 200 if await _report(write, request, item) else 409
            answers.append(ReportAnswer.model_validate({"request_id": item.request_id, "code": code}))
            if request is not None and item.request_id in {
                later.request_id for later in reports[place + 1 :]
            }:
                rows |= await lock_all(write, [item.request_id])  # the next report must see this one
    return answers


async def _report(write: Write, request: Request, report: Report) -> bool:
    """Whether the report counts: now, or already when it is a repetition."""
    if report.attempt != request.attempt or report.attempt < 1:
        return False
    if request.status in TERMINAL:
        return _is_repetition(request, report)
    match report.status:
        case ReportStatus.COMPLETED:
            await finish(write, request, Status.COMPLETED, **_result(_sorted(report)))
        case ReportStatus.FAILED:
            await finish(write, request, Status.FAILED, error=_reason(report))
        case ReportStatus.RETRY | ReportStatus.RELEASED:
            return await _give_back(write, request, report)
    return True


def _is_repetition(request: Request, report: Report) -> bool:
    if report.status == ReportStatus.COMPLETED:
        same = [image.url for image in request.images] == [image.url for image in _sorted(report)]
        return request.status is Status.COMPLETED and same
    return (
        report.status == ReportStatus.FAILED
        and request.status is Status.FAILED
        and request.error == _reason(report)
    )


async def _give_back(write: Write, request: Request, report: Report) -> bool:
    if request.reported is not None:
        return request.reported == report.status
    values: dict[str, Any] = {"lease_until": None, "reported": report.status.value}
    if report.status is ReportStatus.RELEASED:
        values["charged"] = max(0, request.charged - 1)
    if report.status is ReportStatus.RETRY:
        values["error"] = _reason(report)
    if request.status is Status.PENDING:  # its lease had run out before it was given back
        await write.conn.execute(update(requests).where(requests.c.id == request.id).values(**values))
    else:
        await set_state(write, request, Status.PENDING, **values)
    return True


async def restore(db: Database, request_id: UUID, images: Sequence[Image]) -> bool:
    """Complete an open request whose pictures are stored already; False when a worker has it, or it ended."""
    async with db.write() as write:
        request = await lock(write, request_id)
        if request is None or request.status not in OPEN or request.leased:
            return False
        await finish(write, request, Status.COMPLETED, **_result(images))
        return True


def _sorted(report: Report) -> list[Image]:
    return sorted(report.images, key=lambda image: image.n)


def _result(images: Sequence[Image]) -> dict[str, Any]:
    return {
        "images": [image.model_dump(mode="json") for image in images],
        "image_url": images[0].url,
        "error": None,
    }


def _reason(report: Report) -> str:
    return (report.error or "the worker gave no reason")[:STATUS_ERROR_LENGTH]


async def set_status(db: Database, request_id: UUID, status: Status, image_url: str | None) -> ReportAnswer:
    """The original worker's report: no attempt, no lease, so it yields to whoever has one."""
    async with db.write() as write:
        request = await lock(write, request_id)
        if request is None:
            return ReportAnswer(request_id=request_id, code=404)
        same_url = status is not Status.COMPLETED or image_url in (None, request.image_url)
        if request.status is status and same_url:
            return ReportAnswer(request_id=request_id, code=200)
        if request.status in TERMINAL or request.leased:
            return ReportAnswer(request_id=request_id, code=409)
        if status is Status.COMPLETED:
            await finish(write, request, status, image_url=image_url, error=None)
        elif status is Status.FAILED:
            await finish(write, request, status, error="the worker reported a failure")
        else:
            await set_state(write, request, status)
        return ReportAnswer(request_id=request_id, code=200)
