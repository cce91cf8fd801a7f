"""API keys in the database."""

import re

import pytest
from sqlalchemy import select, update

from itemforge.errors import InvalidInput
from itemforge.jobs import keys
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.keys import Role
from itemforge.jobs.tables import api_keys


async def test_only_the_hash_of_a_key_is_in_the_database(db: Database) -> None:
    key, secret = await keys.create(db, " ann's laptop ", Role.USER, rate=5, quota=0)
    assert re.fullmatch(r"itf_[A-Za-z0-9_-]{43}", secret), "256 bits"
    async with db.read() as conn:
        (row,) = (await conn.execute(select(api_keys))).tuples()
    assert keys.digest(secret) in row
    assert secret not in str(row) and secret.removeprefix("itf_") not in str(row) + repr(key)
    assert (key.name, key.role, key.rate, key.quota) == ("ann's laptop", Role.USER, 5, 0)
    assert key.revoked_at is None and key.last_used_at is None


async def test_a_key_is_found_by_its_digest_alone(db: Database) -> None:
    key, secret = await keys.create(db, "ann", Role.WORKER)
    await keys.create(db, "bob", Role.USER)
    assert await keys.find(db, keys.digest(secret)) == key
    assert await keys.find(db, keys.digest(secret + "x")) is None
    assert await keys.find(db, key.id) is None


async def test_no_two_keys_are_the_same(db: Database) -> None:
    made = [await keys.create(db, "same name", Role.USER) for _ in range(20)]
    assert len({key.id for key, _ in made}) == len({secret for _, secret in made}) == 20
    assert [key.id for key in await keys.all_keys(db)] == [key.id for key, _ in made]


async def test_a_revoked_key_stays_and_says_since_when(db: Database) -> None:
    key, secret = await keys.create(db, "ann", Role.USER)
    ended = await keys.revoke(db, key.id)
    assert ended.revoked_at is not None
    assert (await keys.revoke(db, key.id)).revoked_at == ended.revoked_at, "again changes nothing"
    assert await keys.find(db, keys.digest(secret)) == ended
    with pytest.raises(InvalidInput, match="keys list"):
        await keys.revoke(db, "none")


async def test_a_use_is_noted_about_once_a_minute(db: Database) -> None:
    key, secret = await keys.create(db, "ann", Role.USER)
    assert key.use_is_old
    await keys.note_use(db, key)
    first = await keys.find(db, keys.digest(secret))
    assert first is not None and first.last_used_at is not None and not first.use_is_old
    await keys.note_use(db, first)
    second = await keys.find(db, keys.digest(secret))
    assert second is not None and second.last_used_at == first.last_used_at
    async with db.write() as write:
        await write.conn.execute(update(api_keys).values(last_used_at=now(-61)))
    old = await keys.find(db, keys.digest(secret))
    assert old is not None and old.use_is_old
    await keys.note_use(db, old)
    third = await keys.find(db, keys.digest(secret))
    assert third is not None and third.last_used_at is not None
    assert third.last_used_at >= first.last_used_at


async def test_who_can_come_in(db: Database) -> None:
    assert not await keys.any_made(db) and not await keys.anybody_can_ask(db)
    await keys.create(db, "w", Role.WORKER)
    assert await keys.any_made(db) and not await keys.anybody_can_ask(db), "a worker cannot ask"
    for role in (Role.USER, Role.ADMIN):
        key, _ = await keys.create(db, "a", role)
        assert await keys.anybody_can_ask(db)
        await keys.revoke(db, key.id)
        assert not await keys.anybody_can_ask(db)
    assert await keys.any_made(db)


@pytest.mark.parametrize(
    "values, named",
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"rate": -1}, "rate"),
        ({"quota": 2**31}, "quota"),
    ],
)
async def test_a_wrong_value_is_named(db: Database, values: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        await keys.create(db, **{"name": "a", "role": Role.USER, **values})  # type: ignore[arg-type]
    assert not await keys.any_made(db)
