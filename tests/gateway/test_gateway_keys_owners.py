"""Users see their own requests and nothing of anybody else's; admins see all."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from pydantic import SecretStr
from rig import Rig, headers_of, running

from itemforge.jobs import finding
from itemforge.jobs.keys import Role
from itemforge.settings import GatewaySettings

ADMIN = {"X-API-Key": "the bootstrap key of these tests"}
Headers = dict[str, str]


@pytest.fixture
async def rig(settings: GatewaySettings) -> AsyncIterator[Rig]:
    keyed = settings.model_copy(update={"admin_key": SecretStr(ADMIN["X-API-Key"])})
    async with running(keyed) as made:
        yield made


@pytest.fixture
async def ann(rig: Rig) -> Headers:
    return await headers_of(rig, Role.USER)


@pytest.fixture
async def bob(rig: Rig) -> Headers:
    return await headers_of(rig, Role.USER)


async def _submit(rig: Rig, headers: Headers, prompt: str = "a secret sword") -> str:
    answer = await rig.http.post("/v1/generations", json={"prompt": prompt}, headers=headers)
    assert answer.status_code == 202
    return str(answer.json()["id"])


async def _drawn(rig: Rig, headers: Headers) -> str:
    """A Completed request."""
    request_id = await _submit(rig, headers)
    rig.http.headers.update(ADMIN)
    await rig.draw(request_id)
    del rig.http.headers["X-API-Key"]
    return request_id


async def test_anothers_request_looks_as_if_it_were_not_there(rig: Rig, ann: Headers, bob: Headers) -> None:
    request_id = await _drawn(rig, ann)
    for method, path in (
        ("GET", "/v1/generations/{}"),
        ("GET", "/v1/generations/{}/image"),
        ("HEAD", "/v1/generations/{}/image"),
        ("GET", "/v1/generations/{}/thumbnail"),
        ("GET", "/v1/generations/{}/events"),
        ("POST", "/v1/generations/{}/cancel"),
        ("POST", "/v1/generations/{}/retry"),
        ("DELETE", "/v1/generations/{}"),
        ("GET", "/status/{}"),
    ):
        theirs = await rig.http.request(method, path.format(request_id), headers=bob)
        nobodys = await rig.http.request(method, path.format(uuid4()), headers=bob)
        assert theirs.status_code == nobodys.status_code == 404, path
        assert theirs.text == nobodys.text, "the answer does not tell the two apart"
    own = await rig.http.get(f"/v1/generations/{request_id}", headers=ann)
    assert own.json()["status"] == "Completed", "and nothing happened to it"
    assert (await rig.http.get(f"/v1/generations/{request_id}/image", headers=ann)).status_code == 200
    assert (await rig.http.get(f"/status/{request_id}", headers=ann)).status_code == 200


async def test_an_open_request_of_another_cannot_be_cancelled_or_deleted(
    rig: Rig, ann: Headers, bob: Headers
) -> None:
    request_id = await _submit(rig, ann)
    path = f"/v1/generations/{request_id}"
    assert (await rig.http.post(f"{path}/cancel", headers=bob)).status_code == 404
    assert (await rig.http.delete(path, headers=bob)).status_code == 404
    assert (await rig.http.get(path, headers=ann)).json()["status"] == "Pending"
    assert (await rig.http.post(f"{path}/cancel", headers=ann)).json()["status"] == "Cancelled"
    assert (await rig.http.delete(path, headers=ann)).status_code == 204


@pytest.mark.parametrize("deleted", [False, True])
async def test_an_id_that_another_chose_tells_nothing_of_it(
    rig: Rig, ann: Headers, bob: Headers, deleted: bool
) -> None:
    path = f"/v1/generations/{uuid4()}"
    body = {"prompt": "a secret sword"}
    assert (await rig.http.put(path, json=body, headers=ann)).status_code == 202
    if deleted:
        await rig.http.delete(path, headers=ann)
    for caller in (bob, ADMIN):
        answer = await rig.http.put(path, json=body, headers=caller)
        assert answer.status_code == 409
        assert "secret" not in answer.text and "deleted" not in answer.text
    assert (await rig.http.put(path, json=body, headers=ann)).status_code == (409 if deleted else 200)


async def test_idempotency_keys_of_two_users_do_not_meet(rig: Rig, ann: Headers, bob: Headers) -> None:
    ids = set()
    for caller in (ann, bob, ann):
        headers = {**caller, "Idempotency-Key": "one"}
        answer = await rig.http.post("/v1/generations", json={"prompt": "p"}, headers=headers)
        ids.add((answer.status_code, answer.json()["id"]))
    assert sorted(status for status, _ in ids) == [200, 202, 202]
    assert len({request_id for _, request_id in ids}) == 2


async def test_lists_and_figures_are_ones_own(rig: Rig, ann: Headers, bob: Headers) -> None:
    mine = {await _submit(rig, ann) for _ in range(3)}
    theirs = {await _submit(rig, bob) for _ in range(2)}
    for caller, ids in ((ann, mine), (bob, theirs), (ADMIN, mine | theirs)):
        page = (await rig.http.get("/v1/generations", params={"limit": 2}, headers=caller)).json()
        listed = {item["id"] for item in page["items"]}
        while page["next_cursor"]:
            more = {"limit": "2", "cursor": page["next_cursor"]}
            page = (await rig.http.get("/v1/generations", params=more, headers=caller)).json()
            listed |= {item["id"] for item in page["items"]}
        assert listed == ids
        stats = (await rig.http.get("/v1/stats", headers=caller)).json()
        assert stats["requests"]["Pending"] == len(ids)


async def test_an_admin_may_do_everything_with_anybodys(rig: Rig, ann: Headers) -> None:
    drawn, waiting = await _drawn(rig, ann), await _submit(rig, ann)
    admins = [ADMIN, await headers_of(rig, Role.ADMIN)]
    for admin in admins:
        for path in (f"/v1/generations/{drawn}", f"/v1/generations/{drawn}/image", f"/status/{drawn}"):
            assert (await rig.http.get(path, headers=admin)).status_code == 200
    cancelled = await rig.http.post(f"/v1/generations/{waiting}/cancel", headers=admins[1])
    assert cancelled.json()["status"] == "Cancelled"
    again = await rig.http.post(f"/v1/generations/{waiting}/retry", headers=ADMIN)
    assert again.status_code == 202
    rows = await finding.find(rig.gateway.db, finding.Filter(owner="admin"), 10)
    assert [str(row.id) for row in rows] == [again.json()["id"]]
    assert (await rig.http.delete(f"/v1/generations/{drawn}", headers=admins[1])).status_code == 204


async def test_a_retry_of_ones_own_stays_ones_own(rig: Rig, ann: Headers, bob: Headers) -> None:
    request_id = await _drawn(rig, ann)
    again = await rig.http.post(f"/v1/generations/{request_id}/retry", headers=ann)
    assert again.status_code == 202
    path = f"/v1/generations/{again.json()['id']}"
    assert (await rig.http.get(path, headers=ann)).json()["retry_of"] == request_id
    assert (await rig.http.get(path, headers=bob)).status_code == 404


async def test_users_of_the_original_routes_see_their_own(rig: Rig, ann: Headers, bob: Headers) -> None:
    made = await rig.http.post("/generate", json={"prompt": "p"}, headers=ann)
    path = f"/status/{made.json()['request_id']}"
    statuses = [(await rig.http.get(path, headers=who)).status_code for who in (ann, bob, ADMIN)]
    assert statuses == [200, 404, 200]
