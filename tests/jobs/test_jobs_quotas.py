"""Quotas inside the transaction that inserts."""

import asyncio
from uuid import uuid4

import pytest

from databases import age
from itemforge.contract import JobParams
from itemforge.errors import QuotaExceeded
from itemforge.jobs import quotas, requests
from itemforge.jobs.database import Database
from itemforge.jobs.records import NewRequest


def _new(owner: str = "ann", images: int = 1, quota: int = 4) -> NewRequest:
    params = JobParams(prompt="p", num_images=images)
    return NewRequest(id=uuid4(), owner=owner, prompt="p", params=params, body_hash="1", quota=quota)


async def test_a_bundle_takes_what_fits_and_names_the_rest(db: Database) -> None:
    await requests.create(db, _new(images=2))
    bundle = [_new(), _new(images=2), _new(), _new(), _new("bob", 4), _new("bob"), _new("eve", 9, quota=0)]
    async with db.write() as write:
        refused = await quotas.exceeded(write, bundle)
    assert list(refused) == [bundle[1].id, bundle[3].id, bundle[5].id]


async def test_the_wait_is_until_enough_images_are_a_day_old(db: Database) -> None:
    for hours in (23, 22, 1):
        created = await requests.create(db, _new())
        await age(db, created.request.id, "created_at", hours * 3600)
    for images, hours in ((2, 1), (3, 2), (4, 23)):
        with pytest.raises(QuotaExceeded) as refused:
            await requests.create(db, _new(images=images))
        assert refused.value.wait == pytest.approx(hours * 3600, abs=60)
    with pytest.raises(QuotaExceeded) as refused:
        await requests.create(db, _new(images=5))
    assert refused.value.wait is None, "it will never fit"


async def test_transactions_at_once_share_one_quota(db: Database) -> None:
    tries = [requests.create(db, _new(owner)) for _ in range(10) for owner in ("ann", "bob")]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, requests.Created) for result in results) == 8
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 12
