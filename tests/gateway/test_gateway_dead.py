"""Dead letters: what failed for good is listed with its reason, sent again, or dropped; messages are never lost on the way."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from rig import LOCAL, Rig, headers_of, running

from databases import reload
from itemforge.broker.face import Broker
from itemforge.broker.opening import open_broker
from itemforge.contract import ATTEMPT_HEADER, DEAD_QUEUE, QUEUE, REASON_HEADER
from itemforge.jobs.keys import Role
from itemforge.settings import BrokerSettings, GatewaySettings, load
from polling import eventually

ADMIN = {"X-API-Key": "the bootstrap key of these tests"}


async def _dead(rig: Rig, **query: Any) -> dict[str, Any]:
    answer = await rig.http.get("/v1/dead", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def _failed(rig: Rig, prompt: str = "a red apple", headers: dict[str, str] | None = None) -> str:
    """A request whose worker gave up, with its copy in the dead queue."""
    answer = await rig.http.post("/v1/generations", json={"prompt": prompt}, headers=headers)
    request_id: str = answer.json()["id"]
    await rig.claim(request_id)
    assert await rig.report(request_id, status="Failed", error=f"no {prompt} today") == 200
    body = json.dumps({"request_id": request_id, "params": {"prompt": prompt}}).encode()
    await rig.broker.publish(DEAD_QUEUE, body)
    return request_id


async def test_what_failed_is_listed_sent_again_for_its_owner_and_dropped(settings: GatewaySettings) -> None:
    secret = SecretStr(ADMIN["X-API-Key"])
    keyed = settings.model_copy(update={"admin_key": secret, "key_cache": 0.0})
    async with running(keyed, headers=ADMIN) as rig:
        ann = await headers_of(rig, Role.USER, quota=1)
        first, second = await _failed(rig, "a cup", ann), await _failed(rig, "a jug")
        found = await _dead(rig)
        assert [item["id"] for item in found["items"]] == [second, first]
        assert (found["more"], found["broker"]) == (False, None)
        item = found["items"][1]
        told = {"kind": "generation", "request_id": first, "reason": "no a cup today", "attempts": 1}
        assert {key: item[key] for key in told} == told
        assert (item["worker_id"], item["prompt"], item["style"]) == ("w1", "a cup", "plain@1")
        assert (await _dead(rig, limit=1))["more"] is True

        # Ann's day is used up, but it was not she who asked twice.
        sent = [(await rig.http.post(f"/v1/dead/{first}/send-again")) for _ in range(2)]
        assert [answer.status_code for answer in sent] == [202, 202]
        new = sent[0].json()["request_id"]
        assert sent[1].json() == {"id": first, "request_id": new}
        hers = (await rig.http.get(f"/v1/generations/{new}", headers=ann)).json()
        assert (hers["retry_of"], hers["prompt"], hers["status"]) == (first, "a cup", "Pending")
        assert [item["id"] for item in (await _dead(rig))["items"]] == [second]

        assert (await rig.http.delete(f"/v1/dead/{second}")).status_code == 204
        assert (await _dead(rig))["items"] == []
        assert (await rig.http.get(f"/v1/generations/{second}")).json()["status"] == "Failed"
        assert await rig.broker.depth(DEAD_QUEUE) == 0  # the copies went with them


async def test_after_an_outage_all_are_sent_again_at_once(rig: Rig) -> None:
    failed = [await _failed(rig, f"cup {n}") for n in range(3)]
    await rig.broker.publish(DEAD_QUEUE, b"of nobody")
    answers = [await rig.http.post("/v1/dead/send-again") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202] and answers[1].json() == []
    sent = {each["id"]: each["request_id"] for each in answers[0].json()}
    assert list(sent) == failed[::-1]
    for old, new in sent.items():
        assert (await rig.http.get(f"/v1/generations/{new}")).json()["retry_of"] == old
    assert [item["body"] for item in (await _dead(rig))["items"]] == ["of nobody"]
    assert rig.broker.queues[DEAD_QUEUE] == [b"of nobody"]


async def test_what_is_no_dead_letter_is_refused(rig: Rig) -> None:
    running_one = (await rig.submit())["id"]
    for letter, status in ((running_one, 409), (uuid4(), 404), ("message-" + "0" * 32, 404), ("x", 404)):
        for answer in (
            await rig.http.post(f"/v1/dead/{letter}/send-again"),
            await rig.http.delete(f"/v1/dead/{letter}"),
        ):
            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
    hidden = await _failed(rig)
    await rig.http.delete(f"/v1/generations/{hidden}")
    assert (await _dead(rig))["items"] == []


async def test_without_the_broker_the_rows_are_there_still(rig: Rig) -> None:
    failed = await _failed(rig)
    rig.broker.connected = False
    found = await _dead(rig)
    assert [item["id"] for item in found["items"]] == [failed]
    assert found["broker"] == "the broker is away"
    assert (await rig.http.post(f"/v1/dead/{failed}/send-again")).status_code == 202
    assert (await _dead(rig))["items"] == []
    rig.broker.connected = True
    assert (await _dead(rig))["items"] == []  # the copy stayed; it is known for one


@pytest.fixture(params=["embedded", "classic", "quorum"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    url = None
    if request.param != "embedded":
        prefix = "quorum_" if request.param == "quorum" else ""
        url = request.getfixturevalue(f"{prefix}amqp_vhost").url
    broker = open_broker(load(BrokerSettings, amqp_url_setting=url, reconnect_max=0.2))
    await broker.start()
    await eventually(lambda: broker.connected, 30)
    yield broker
    await broker.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_messages_of_nobody_are_seen_where_they_lie_and_moved_one_by_one(
    settings: GatewaySettings, broker: Broker
) -> None:
    unknown, headers = uuid4(), {REASON_HEADER: "nobody knows it", ATTEMPT_HEADER: 3, "note": "kept"}
    bodies = [b"not JSON \xff", json.dumps({"request_id": str(unknown)}).encode(), b"<b>third</b>"]
    async with running(settings) as rig:
        rig.gateway.broker = broker  # the relay keeps the one in memory
        failed = await _failed(rig)
        await broker.publish(DEAD_QUEUE, json.dumps({"request_id": failed}).encode())
        for body in [*bodies, bodies[2]]:
            await broker.publish(DEAD_QUEUE, body, headers)
        await eventually(lambda: _depth(broker, DEAD_QUEUE, 5), 30)
        for _ in range(3):  # to look takes nothing away
            items = {item["body"]: item for item in (await _dead(rig))["items"] if item["kind"] == "message"}
            assert set(items) == {"not JSON \ufffd", bodies[1].decode(), "<b>third</b>"}
        told = items[bodies[1].decode()]
        assert (told["request_id"], told["reason"], told["attempts"]) == (str(unknown), "nobody knows it", 3)
        assert items["<b>third</b>"]["times"] == 2

        answer = await rig.http.post(f"/v1/dead/{told['id']}/send-again")
        assert (answer.status_code, answer.json()["request_id"]) == (202, None)
        consumer = broker.consume(5)
        delivery = await anext(aiter(consumer))
        assert (delivery.body, dict(delivery.headers)) == (bodies[1], {"note": "kept"})
        await delivery.ack()
        assert (await rig.http.delete(f"/v1/dead/{items['<b>third</b>']['id']}")).status_code == 204
        await eventually(lambda: _depth(broker, DEAD_QUEUE, 2), 30)
        (left,) = [item for item in (await _dead(rig))["items"] if item["kind"] == "message"]
        assert left["body"] == "not JSON \ufffd"
        assert (await rig.http.post(f"/v1/dead/{failed}/send-again")).status_code == 202
        await eventually(lambda: _depth(broker, DEAD_QUEUE, 1), 30)
        assert [letter.body for letter in await broker.dead_letters(9)] == [bodies[0]]
        assert await broker.depth(QUEUE) == 0
        await consumer.stop()


async def _depth(broker: Broker, queue: str, wanted: int) -> bool:
    return await broker.depth(queue) == wanted


async def test_what_cannot_be_published_stays_dead(rig: Rig) -> None:
    await rig.broker.publish(DEAD_QUEUE, b"stays")
    (letter,) = (await _dead(rig))["items"]
    rig.broker.failing = True
    assert (await rig.http.post(f"/v1/dead/{letter['id']}/send-again")).status_code == 503
    rig.broker.failing = False
    assert [item["body"] for item in (await _dead(rig))["items"]] == ["stays"]


async def test_the_page_is_for_admins_and_shows_text_as_text(settings: GatewaySettings) -> None:
    secret = SecretStr(ADMIN["X-API-Key"])
    keyed = settings.model_copy(update={"admin_key": secret, "key_cache": 0.0})
    async with running(keyed, headers=ADMIN) as rig:
        failed = await _failed(rig, "<script>alert(1)</script>", ADMIN)
        user = await headers_of(rig, Role.USER)
        for method, path in (("GET", ""), ("POST", "/send-again"), ("POST", "/drop")):
            answer = await rig.http.request(
                method,
                f"/studio/fleet/dead{path}",
                data={"id": failed} if method == "POST" else None,
                headers=user,
            )
            assert answer.status_code == 403 and failed not in answer.text, path
        assert "Dead letters" not in (await rig.http.get("/fleet", headers=user)).text
        admin = ADMIN | {"Origin": LOCAL}
        assert "Dead letters" in (await rig.http.get("/fleet", headers=admin)).text
        text = (await rig.http.get("/studio/fleet/dead", headers=admin)).text
        assert "no &lt;script&gt;alert(1)&lt;/script&gt; today" in text and "<script>" not in text
        answer = await rig.http.post("/studio/fleet/dead/drop", data={"id": failed}, headers=admin)
        assert answer.status_code == 200 and "all that failed is settled" in answer.text
        assert (await reload(rig.gateway.db, UUID(failed))).status == "Failed"
