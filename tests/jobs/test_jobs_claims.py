import asyncio
from collections import Counter
from uuid import uuid4

import pytest

from databases import age, completed, image, new_request, reload, report, states
from itemforge.contract import (
    MAX_ATTEMPTS,
    MAX_CHARGED,
    Outcome,
    Report,
    ReportStatus,
    Status,
)
from itemforge.jobs import claims, publishing, requests
from itemforge.jobs.database import Database

RELEASED, RETRY, FAILED = ReportStatus.RELEASED, ReportStatus.RETRY, ReportStatus.FAILED
EXPIRED = -1.0  # a lease that has run out when it begins


async def _claim(db: Database, request_id, lease: float = 30.0, worker: str = "w"):  # type: ignore[no-untyped-def]
    (answer,) = await claims.claim(db, worker, [request_id], lease)
    return answer


async def _report(db: Database, item: Report) -> int:
    (answer,) = await claims.report(db, [item])
    return answer.code


async def test_a_claim_leases_the_row_and_gives_its_parameters(db: Database) -> None:
    request = await new_request(db, seed=2**63 - 1)
    answer = await _claim(db, request.id)
    assert (answer.outcome, answer.attempt, answer.lease_s, answer.alone) == ("claimed", 1, 30.0, False)
    assert answer.params == request.params
    row = await reload(db, request.id)
    assert (row.status, row.charged, row.worker_id, row.leased) == (Status.PROCESSING, 1, "w", True)
    assert await states(db, request.id) == ["Pending", "Processing"]


async def test_answers_come_in_the_order_asked(db: Database) -> None:
    mine, taken, ended = [await new_request(db) for _ in range(3)]
    await _claim(db, taken.id)
    await requests.cancel(db, ended.id)
    unknown = uuid4()
    answers = await claims.claim(db, "w", [ended.id, unknown, mine.id, taken.id, mine.id], 30)
    assert [a.outcome for a in answers] == ["done", "unknown", "claimed", "leased", "leased"]
    assert [a.request_id for a in answers] == [ended.id, unknown, mine.id, taken.id, mine.id]


async def test_of_twenty_claims_at_once_one_wins(db: Database) -> None:
    request = await new_request(db)
    answers = await asyncio.gather(*(_claim(db, request.id, worker=f"w{n}") for n in range(20)))
    assert Counter(a.outcome for a in answers) == {Outcome.CLAIMED: 1, Outcome.LEASED: 19}
    assert (await reload(db, request.id)).attempt == 1


async def test_claims_of_the_same_rows_in_other_orders_do_not_block_each_other(db: Database) -> None:
    ids = [(await new_request(db)).id for _ in range(6)]
    calls = (claims.claim(db, f"w{n}", ids if n % 2 else ids[::-1], 30) for n in range(6))
    answers = [answer for call in await asyncio.gather(*calls) for answer in call]
    assert Counter(a.outcome for a in answers) == {Outcome.CLAIMED: 6, Outcome.LEASED: 30}


async def test_a_row_whose_lease_ran_out_is_claimed_again_and_drawn_alone(db: Database) -> None:
    request = await new_request(db)
    await _claim(db, request.id, EXPIRED)
    answer = await _claim(db, request.id, worker="other")
    assert (answer.outcome, answer.attempt, answer.alone) == ("claimed", 2, True)


async def test_the_sixth_claim_of_a_row_that_kills_its_workers_fails_it(db: Database) -> None:
    request = await new_request(db)
    for _ in range(MAX_CHARGED):
        assert (await _claim(db, request.id, EXPIRED)).outcome == "claimed"
    assert (await _claim(db, request.id)).outcome == "exhausted"
    row = await reload(db, request.id)
    assert row.status is Status.FAILED and row.error is not None and "5 attempts" in row.error
    assert (await _claim(db, request.id)).outcome == "done"


async def test_a_row_with_a_live_lease_is_not_exhausted(db: Database) -> None:
    request = await new_request(db)
    for _ in range(MAX_CHARGED - 1):
        await _claim(db, request.id, EXPIRED)
    assert (await _claim(db, request.id, 30)).attempt == MAX_CHARGED
    assert (await _claim(db, request.id)).outcome == "leased"
    assert await _report(db, completed(request.id, MAX_CHARGED)) == 200


async def test_polite_releases_are_not_charged_but_attempts_are_bounded(db: Database) -> None:
    request = await new_request(db)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        answer = await _claim(db, request.id)
        assert (answer.outcome, answer.attempt, answer.alone) == ("claimed", attempt, False)
        assert await _report(db, report(request.id, RELEASED, attempt)) == 200
        assert (await reload(db, request.id)).charged == 0
    assert (await _claim(db, request.id)).outcome == "exhausted"
    assert (await reload(db, request.id)).attempt == MAX_ATTEMPTS


async def test_a_completed_report_ends_the_request_with_sorted_images(db: Database) -> None:
    request = await new_request(db, num_images=2)
    await _claim(db, request.id)
    images = [image(request.id, 1), image(request.id, 0)]
    done = Report(request_id=request.id, attempt=1, status=ReportStatus.COMPLETED, images=images)
    assert await _report(db, done) == 200
    row = await reload(db, request.id)
    assert row.status is Status.COMPLETED and row.finished_at is not None and not row.leased
    assert [i.n for i in row.images] == [0, 1] and row.image_url == images[1].url
    assert await _report(db, done) == 200, "the same report again is no error"
    assert await states(db, request.id) == ["Pending", "Processing", "Completed"]


async def test_what_has_ended_never_changes(db: Database) -> None:
    request = await new_request(db)
    await _claim(db, request.id)
    await _report(db, completed(request.id))
    other = completed(request.id)
    other = other.model_copy(update={"images": [other.images[0].model_copy(update={"url": "https://x/y"})]})
    stale = [other, *(report(request.id, status) for status in (FAILED, RETRY, RELEASED))]
    assert [await _report(db, item) for item in stale] == [409] * 4
    row = await reload(db, request.id)
    assert row.status is Status.COMPLETED and row.image_url == image(request.id).url


async def test_only_the_newest_attempt_is_heard(db: Database) -> None:
    request = await new_request(db)
    await _claim(db, request.id, EXPIRED)
    await _claim(db, request.id)
    assert await _report(db, completed(request.id, 1)) == 409
    assert await _report(db, completed(request.id, 3)) == 409
    assert (await reload(db, request.id)).status is Status.PROCESSING
    assert await _report(db, completed(request.id, 2)) == 200


async def test_a_report_for_a_row_that_nobody_claimed_is_refused(db: Database) -> None:
    request = await new_request(db)
    assert await _report(db, completed(request.id, 0)) == 409
    assert await _report(db, completed(uuid4(), 1)) == 404


async def test_a_picture_that_comes_after_its_lease_was_swept_is_accepted(db: Database) -> None:
    request = await new_request(db)
    await _claim(db, request.id, EXPIRED)
    assert await publishing.expire_leases(db) == 1
    assert (await reload(db, request.id)).status is Status.PENDING
    assert await _report(db, completed(request.id)) == 200
    expected = ["Pending", "Processing", "Pending", "Processing", "Completed"]
    assert await states(db, request.id) == expected


async def test_retry_keeps_the_message_and_says_why(db: Database) -> None:
    request = await new_request(db)
    await age(db, request.id, "published_at", 60)
    before = (await reload(db, request.id)).published_at
    await _claim(db, request.id)
    retried = report(request.id, RETRY, error="out of memory")
    assert await _report(db, retried) == 200
    row = await reload(db, request.id)
    assert (row.status, row.charged, row.leased, row.error) == (Status.PENDING, 1, False, "out of memory")
    assert row.published_at == before
    assert await _report(db, retried) == 200
    assert await _report(db, report(request.id, RELEASED)) == 409
    assert (await _claim(db, request.id)).alone


async def test_a_repeated_release_is_credited_once(db: Database) -> None:
    request = await new_request(db)
    await _claim(db, request.id, EXPIRED)
    await _claim(db, request.id)
    for _ in range(3):
        assert await _report(db, report(request.id, RELEASED, 2)) == 200
    assert (await reload(db, request.id)).charged == 1


async def test_a_failed_report_keeps_its_reason_and_cuts_it(db: Database) -> None:
    request = await new_request(db)
    await _claim(db, request.id)
    failed = report(request.id, FAILED, error="x" * 5000)
    assert await _report(db, failed) == 200
    assert (await reload(db, request.id)).error == "x" * 2000
    assert await _report(db, failed) == 200
    assert await _report(db, report(request.id, FAILED, error="another")) == 409


async def test_claims_and_a_cancel_at_once_leave_one_story(db: Database) -> None:
    ids = [(await new_request(db)).id for _ in range(10)]
    results = await asyncio.gather(
        *(_claim(db, request_id) for request_id in ids),
        *(requests.cancel(db, request_id) for request_id in ids),
    )
    for request_id, answer in zip(ids, results[:10], strict=True):
        assert (await reload(db, request_id)).status is Status.CANCELLED
        told = await states(db, request_id)
        assert told == (
            ["Pending", "Processing", "Cancelled"]
            if answer.outcome == "claimed"  # type: ignore[union-attr]
            else ["Pending", "Cancelled"]
        )
        assert await _report(db, completed(request_id)) == 409


# ── The original worker's reports ────────────────────────────────────────────────────────────────


async def _set(db: Database, request_id, status: Status, url: str | None = None) -> int:  # type: ignore[no-untyped-def]
    return (await claims.set_status(db, request_id, status, url)).code


async def test_the_original_worker_goes_through_without_attempts(db: Database) -> None:
    request = await new_request(db)
    assert await _set(db, request.id, Status.PROCESSING) == 200
    assert await _set(db, request.id, Status.PROCESSING) == 200
    row = await reload(db, request.id)
    assert (row.status, row.attempt, row.leased) == (Status.PROCESSING, 0, False)
    assert await _set(db, request.id, Status.COMPLETED, "https://x/1.png") == 200
    assert (await reload(db, request.id)).image_url == "https://x/1.png"
    assert await _set(db, uuid4(), Status.FAILED) == 404


async def test_without_an_attempt_nothing_ended_or_leased_is_changed(db: Database) -> None:
    leased, done = await new_request(db), await new_request(db)
    await _claim(db, leased.id)
    assert await _set(db, leased.id, Status.FAILED) == 409
    assert await _set(db, leased.id, Status.PROCESSING) == 200, "it is so already"
    assert (await reload(db, leased.id)).status is Status.PROCESSING
    await _set(db, done.id, Status.COMPLETED, "https://x/1.png")
    assert await _set(db, done.id, Status.COMPLETED, "https://x/2.png") == 409
    assert await _set(db, done.id, Status.FAILED) == 409
    assert await _set(db, done.id, Status.COMPLETED, "https://x/1.png") == 200
    assert (await reload(db, done.id)).image_url == "https://x/1.png"


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.FAILED])
async def test_a_row_the_original_worker_took_can_be_claimed(db: Database, status: Status) -> None:
    request = await new_request(db)
    await _set(db, request.id, status)
    outcome = (await _claim(db, request.id)).outcome
    assert outcome == ("claimed" if status is Status.PROCESSING else "done")
