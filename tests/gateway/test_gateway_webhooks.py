"""Webhooks: who is told what, by which signature, and what happens when nobody listens."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from receiver import Receiver, receiving
from rig import Rig, headers_of, running, settings_for
from sqlalchemy import update
from standardwebhooks import Webhook, WebhookVerificationError

from databases import age, reload
from itemforge.contract import Status
from itemforge.gateway import upkeep
from itemforge.gateway.sender import Sender
from itemforge.jobs import claims, deliveries, keys, requests, webhooks
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.keys import Role
from itemforge.jobs.tables import webhook_deliveries
from itemforge.jobs.webhooks import EventType
from itemforge.settings import GatewaySettings
from polling import eventually

#: Most tests' receiver is on loopback, and waits of hours are milliseconds.
LOCAL = {"webhook_http": True, "webhook_networks": "127.0.0.0/8", "retry_scale": 1e-6}


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> GatewaySettings:
    return settings_for(database_url, tmp_path, **LOCAL)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


async def _made(rig: Rig, url: str, **more: Any) -> dict[str, Any]:
    answer = await rig.http.post("/v1/webhooks", json={"url": url, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def _deliveries(rig: Rig, where: str) -> list[dict[str, Any]]:
    found = (await rig.http.get(f"{where}/deliveries")).json()
    return list(found if isinstance(found, list) else found["items"])


async def _settled(rig: Rig, where: str) -> list[dict[str, Any]]:
    async def ended() -> list[dict[str, Any]]:
        found = await _deliveries(rig, where)
        return found if found and all(each["state"] != "waiting" for each in found) else []

    return await eventually(ended, 30)


async def test_an_endpoint_hears_of_every_end_and_can_verify_it(rig: Rig, receiver: Receiver) -> None:
    webhook = await _made(rig, f"{receiver.url}/hook?x=1")
    ids = [(await rig.submit())["id"] for _ in range(3)]
    await rig.draw(ids[0])
    attempt = (await rig.claim(ids[1]))["attempt"]
    await rig.report(ids[1], attempt, "Failed", error="no such thing")
    await rig.http.post(f"/v1/generations/{ids[2]}/cancel")
    await eventually(lambda: len(receiver.calls) == 3, 30)
    told = {call.told["data"]["id"]: call.told for call in receiver.calls}
    assert {told[i]["type"] for i in ids} == {
        "generation.completed", "generation.failed", "generation.cancelled",
    }  # fmt: skip
    verify = Webhook(webhook["secret"])
    for call in receiver.calls:
        assert verify.verify(call.body, call.headers) == call.told
        with pytest.raises(WebhookVerificationError):
            verify.verify(call.body.replace(b"a red apple", b"a red pear "), call.headers)
        assert call.path == "/hook?x=1" and call.headers["content-type"] == "application/json"
        assert set(call.told) == {"type", "timestamp", "data"}
    for i in ids:
        seen = (await rig.http.get(f"/v1/generations/{i}")).json()
        # It has another address here: the gateway's own, as no caller's is known there.
        assert told[i]["data"]["status"] == seen["status"]
        assert told[i]["data"]["error"] == seen["error"] and told[i]["data"]["seed"] == seen["seed"]
        assert told[i]["timestamp"] == told[i]["data"]["finished_at"].replace("Z", "+00:00")
    listed = await _settled(rig, f"/v1/webhooks/{webhook['id']}")
    assert {each["generation_id"] for each in listed} == set(ids)
    assert {(each["state"], each["attempts"], each["last_status_code"]) for each in listed} == {
        ("delivered", 1, 204)
    }
    assert sorted(each["id"] for each in listed) == sorted(receiver.ids)


async def test_a_batch_that_is_cancelled_is_told_too(rig: Rig, receiver: Receiver) -> None:
    made = await _made(rig, receiver.url)
    asked = {"items": ["a cup", "a hat"], "variations": 1}
    batch = (await rig.http.post("/v1/batches", json=asked)).json()
    cancelled = await rig.http.post(f"/v1/batches/{batch['id']}/cancel")
    assert cancelled.json()["changed"] == 2
    told = await _settled(rig, f"/v1/webhooks/{made['id']}")
    assert [each["type"] for each in told] == ["generation.cancelled"] * 2


async def test_a_request_brings_its_own_address_and_the_keys_secret_signs(
    rig: Rig, receiver: Receiver
) -> None:
    body = await rig.submit(webhook=f"{receiver.url}/own")
    assert (await rig.submit())["id"] != body["id"]
    secret = (await rig.http.get("/v1/webhooks/secret")).json()["secret"]
    assert secret.startswith("whsec_")
    await rig.draw(body["id"])
    await eventually(lambda: receiver.calls, 30)
    (call,) = receiver.calls
    Webhook(secret).verify(call.body, call.headers)
    assert call.told["data"]["id"] == body["id"] and call.path == "/own"
    (listed,) = await _settled(rig, f"/v1/generations/{body['id']}")
    assert (listed["webhook_id"], listed["url"]) == (None, f"{receiver.url}/own")
    assert (await rig.http.get("/v1/webhooks")).json() == [], "it is no endpoint"
    again = (await rig.http.post(f"/v1/generations/{body['id']}/retry")).json()
    await rig.draw(again["id"])
    await eventually(lambda: len(receiver.calls) == 2, 30, why="a retry tells the same address")


async def test_what_is_filtered_belongs_to_another_or_is_revoked_is_not_told(
    settings: GatewaySettings, receiver: Receiver
) -> None:
    async with running(settings) as rig:
        key, secret = await keys.create(rig.gateway.db, "ann", Role.USER)
        ann, bob = {"X-API-Key": secret}, await headers_of(rig, Role.USER)
        admin = await headers_of(rig, Role.ADMIN)
        rig.http.headers.update(ann)
        mine = await _made(rig, f"{receiver.url}/failed", events=["generation.failed"])
        other = await rig.http.post("/v1/webhooks", json={"url": f"{receiver.url}/bob"}, headers=bob)
        assert other.status_code == 201
        ids = [(await rig.submit())["id"] for _ in range(3)]
        assert (await rig.http.post(f"/v1/generations/{ids[0]}/cancel")).status_code == 200
        await claims.set_status(rig.gateway.db, UUID(ids[1]), Status.FAILED, None)
        await eventually(lambda: receiver.calls, 30)
        assert [call.path for call in receiver.calls] == ["/failed"]
        # Nobody sees, turns or sends again what is another's.
        rig.http.headers.update(bob)
        (seen,) = (await rig.http.get("/v1/webhooks")).json()
        assert seen["id"] == other.json()["id"] and "secret" not in seen
        path = f"/v1/webhooks/{mine['id']}"
        for method, way in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/test"), ("POST", "/enable"), ("GET", "/deliveries")):  # fmt: skip
            assert (await rig.http.request(method, path + way)).status_code == 404, way
        again = f"/v1/webhooks/deliveries/{receiver.ids[0]}/resend"
        assert (await rig.http.post(again)).status_code == 404
        assert (await rig.http.get("/v1/webhooks/deliveries")).json()["items"] == []
        assert len((await rig.http.get("/v1/webhooks", headers=admin)).json()) == 2
        # A key that has ended takes its webhooks along, also what was under way.
        await keys.revoke(rig.gateway.db, key.id)
        await claims.set_status(rig.gateway.db, UUID(ids[2]), Status.FAILED, None)
        rig.http.headers.update(admin)
        listed = {each["generation_id"]: each for each in await _settled(rig, path)}
        assert listed[ids[2]]["state"] == "failed" and "revoked" in listed[ids[2]]["error"]
        assert len(receiver.calls) == 1
        worker = await headers_of(rig, Role.WORKER)
        assert (await rig.http.get("/v1/webhooks", headers=worker)).status_code == 403


async def test_a_receiver_in_trouble_is_tried_again_under_the_same_id(rig: Rig, receiver: Receiver) -> None:
    webhook = await _made(rig, receiver.url)
    receiver.answers = [(500, ""), (302, "Location: /elsewhere\r\n"), (503, "Retry-After: 1\r\n")]
    await rig.http.post(f"/v1/webhooks/{webhook['id']}/test")
    (listed,) = await _settled(rig, f"/v1/webhooks/{webhook['id']}")
    assert (listed["state"], listed["attempts"], listed["type"]) == ("delivered", 4, "webhook.test")
    assert len(receiver.calls) == 4 and len(set(receiver.ids)) == 1
    assert len({call.body for call in receiver.calls}) == 1
    assert {call.path for call in receiver.calls} == {"/"}, "no redirect was followed"
    times = [int(call.headers["webhook-timestamp"]) for call in receiver.calls]
    assert times[3] >= times[2] + 1, "Retry-After was waited for"
    figures = (await rig.http.get("/metrics")).text
    assert 'itemforge_webhooks_total{outcome="retried"} 3.0' in figures
    assert 'itemforge_webhooks_total{outcome="delivered"} 1.0' in figures
    assert "itemforge_webhooks_waiting 0.0" in figures


async def test_what_is_given_up_can_be_sent_again(rig: Rig, receiver: Receiver) -> None:
    webhook = await _made(rig, receiver.url)
    receiver.answers = [(500, "")] * deliveries.TRIES
    await rig.http.post(f"/v1/webhooks/{webhook['id']}/test")
    (listed,) = await _settled(rig, f"/v1/webhooks/{webhook['id']}")
    assert (listed["state"], listed["attempts"], listed["last_status_code"]) == ("failed", 8, 500)
    assert listed["next_try_at"] is None and "500" in listed["error"]
    answer = await rig.http.post(f"/v1/webhooks/deliveries/{listed['id']}/resend")
    assert answer.status_code == 202 and answer.json()["state"] == "waiting"
    (listed,) = await _settled(rig, f"/v1/webhooks/{webhook['id']}")
    assert (listed["state"], listed["attempts"]) == ("delivered", 9)
    assert len(set(receiver.ids)) == 1
    assert (await rig.http.post(f"/v1/webhooks/deliveries/msg_{'0' * 32}/resend")).status_code == 404


async def test_a_receiver_that_is_gone_is_left_alone_until_it_is_enabled(
    rig: Rig, receiver: Receiver
) -> None:
    webhook = await _made(rig, receiver.url)
    path = f"/v1/webhooks/{webhook['id']}"
    receiver.answers = [(410, "")]
    await rig.http.post(f"{path}/test")
    await _settled(rig, path)
    seen = (await rig.http.get(path)).json()
    assert seen["disabled_at"] is not None and "410" in seen["disabled_reason"]
    assert (await rig.http.post(f"{path}/test")).status_code == 409
    await rig.http.post(f"/v1/generations/{(await rig.submit())['id']}/cancel")
    assert len(await _deliveries(rig, path)) == 1
    assert (await rig.http.post(f"{path}/enable")).json()["disabled_at"] is None
    await rig.http.post(f"/v1/generations/{(await rig.submit())['id']}/cancel")
    await eventually(lambda: len(receiver.calls) == 2, 30)
    assert (await rig.http.delete(path)).status_code == 204
    assert (await rig.http.get(path)).status_code == 404
    assert (await rig.http.get("/v1/webhooks/deliveries")).json()["items"] == []


def _example() -> str:
    """The Python of the guide."""
    guide = (Path(__file__).parents[2] / "docs/webhooks.md").read_text()
    return guide.partition("```python\n")[2].partition("```")[0]


async def test_both_secrets_sign_for_a_day_after_a_rotation(rig: Rig, receiver: Receiver) -> None:
    webhook = await _made(rig, receiver.url)
    path = f"/v1/webhooks/{webhook['id']}"
    new = (await rig.http.post(f"{path}/rotate")).json()
    assert new["secret"] != webhook["secret"] and new["old_secret_until"]
    await rig.http.post(f"{path}/test")
    await eventually(lambda: receiver.calls, 30)
    (call,) = receiver.calls
    documented: dict[str, Any] = {}
    exec(_example(), documented)
    is_ours = documented["is_ours"]
    for secret in (new["secret"], webhook["secret"]):
        Webhook(secret).verify(call.body, call.headers)
        assert is_ours(call.headers, call.body, secret)
    assert not is_ours(call.headers, call.body + b" ", new["secret"])
    assert not is_ours({**call.headers, "webhook-id": "msg_0"}, call.body, new["secret"])
    late = {**call.headers, "webhook-timestamp": str(int(call.headers["webhook-timestamp"]) - 400)}
    assert not is_ours(late, call.body, new["secret"])
    async with rig.gateway.db.write() as write:
        await write.conn.execute(update(webhooks.webhooks).values(old_until=now(-1)))
    await rig.http.post(f"{path}/test")
    await eventually(lambda: len(receiver.calls) == 2, 30)
    Webhook(new["secret"]).verify(receiver.calls[1].body, receiver.calls[1].headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhook["secret"]).verify(receiver.calls[1].body, receiver.calls[1].headers)
    assert (await rig.http.get(path)).json()["old_secret_until"] is None
    before = (await rig.http.get("/v1/webhooks/secret")).json()["secret"]
    assert (await rig.http.post("/v1/webhooks/secret/rotate")).json()["secret"] != before


async def test_slow_and_endless_receivers_cost_their_time_and_nobody_elses(
    settings: GatewaySettings, receiver: Receiver
) -> None:
    quick = settings.model_copy(update={"webhook_timeout": 1.0})
    async with running(quick) as rig, receiving() as silent, receiving() as endless:
        silent.silent, endless.endless = True, True
        slow = await _made(rig, silent.url, events=["generation.failed"])
        begun = time.monotonic()
        for _ in range(20):
            await rig.http.post(f"/v1/webhooks/{slow['id']}/test")
        good = await _made(rig, receiver.url)
        await rig.http.post(f"/v1/webhooks/{good['id']}/test")
        await eventually(lambda: receiver.calls, 30)
        # Each try holds its place for a second.
        most = deliveries.AT_ONCE * (1 + math.ceil(time.monotonic() - begun))
        assert silent.connections <= most, "so few of its twenty are tried at once"
        flood = await _made(rig, endless.url)
        await rig.http.post(f"/v1/webhooks/{flood['id']}/test")
        (listed,) = await _settled(rig, f"/v1/webhooks/{flood['id']}")
        assert listed["state"] == "delivered" and listed["last_status_code"] == 200

        async def given_up() -> bool:
            held = await _deliveries(rig, f"/v1/webhooks/{slow['id']}")
            return any("no answer within 1 s" in (each["error"] or "") for each in held)

        await eventually(given_up, 30)


async def test_a_sender_that_is_killed_loses_nothing_and_its_late_word_is_not_heard(
    database_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """Between commit and send, and between send and record."""
    settings = settings_for(database_url, tmp_path, **LOCAL, relay_interval=3600.0)
    async with running(settings) as rig:
        await eventually(rig.gateway.migrated.is_set)
        db = rig.gateway.db
        webhook = await _made(rig, receiver.url)
        await eventually(lambda: _is_quiet(rig))
        body = await rig.submit()
        async with db.write() as write:
            request = await requests.lock(write, UUID(body["id"]))
            assert request is not None
            await requests.finish(write, request, Status.FAILED, error="x")
            write.deliver = False  # the process ends here, with the commit
        assert not receiver.calls
        (lost,) = await deliveries.take(db, 8, {}, 0.0)  # another has it, and is killed before it sends
        assert await deliveries.take(db, 8, {lost.webhook.id: deliveries.AT_ONCE}, 0.0) == []
        (again,) = await eventually(lambda: deliveries.take(db, 8, {}, 30.0), 30)
        assert await deliveries.take(db, 8, {}, 30.0) == [], "it is in a sender's hands"
        await Sender(rig.gateway).deliver(again)
        assert [call.told["data"]["id"] for call in receiver.calls] == [body["id"]]
        assert not await deliveries.record(db, lost, deliveries.State.FAILED, error="late")
        (listed,) = await _deliveries(rig, f"/v1/webhooks/{webhook['id']}")
        assert (listed["state"], listed["attempts"]) == ("delivered", 2)


async def _is_quiet(rig: Rig) -> bool:
    """The sender has had its first look and sleeps."""
    return not rig.gateway.db.signals.deliver.is_set()


async def test_senders_side_by_side_never_have_the_same_try(db: Database) -> None:
    """As several gateways on one database; and none takes more of a webhook than it may have at once."""
    hooks = [await webhooks.create(db, "ann", f"https://{n}.example/", list(EventType)) for n in range(5)]
    for hook in hooks * 6:
        await deliveries.add_test(db, hook)
    others = Database(db.engine.url.render_as_string(hide_password=False))
    taken: list[str] = []
    while True:
        hands = await asyncio.gather(*(deliveries.take(each, 16, {}, 60.0) for each in (db, others) * 2))
        for hand in hands:
            assert all(n <= deliveries.AT_ONCE for n in Counter(s.webhook.id for s in hand).values())
            taken += [sending.delivery.id for sending in hand]
        if not any(hands):
            break
    assert len(taken) == len(set(taken)) == 30
    await others.close()


async def test_deliveries_are_paged_filtered_and_cleaned_and_hold_their_request(
    rig: Rig, receiver: Receiver
) -> None:
    webhook = await _made(rig, receiver.url)
    for _ in range(5):
        await rig.http.post(f"/v1/webhooks/{webhook['id']}/test")
    await _settled(rig, f"/v1/webhooks/{webhook['id']}")
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await rig.http.get(f"/v1/webhooks/deliveries?limit=2{cursor}")).json()
        seen += [each["id"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(seen) == sorted(receiver.ids) and len(seen) == 5
    assert (await rig.http.get("/v1/webhooks/deliveries?state=failed")).json()["items"] == []
    assert (await rig.http.get("/v1/webhooks/deliveries?state=lost")).status_code == 422
    db = rig.gateway.db
    async with db.write() as write:
        await write.conn.execute(update(webhook_deliveries).values(ended_at=now(-8 * 86400)))
    await upkeep.clean(rig.gateway.settings, db, rig.store)
    assert (await rig.http.get("/v1/webhooks/deliveries")).json()["items"] == []
    # An ended request is kept for as long as its end is not told, however soon it would go.
    receiver.answers = [(500, "Retry-After: 3600\r\n")]
    body = await rig.submit()
    await rig.http.delete(f"/v1/generations/{body['id']}")
    await eventually(lambda: len(receiver.calls) == 6, 30)
    await age(db, UUID(body["id"]), "deleted_at", 2 * 86400)
    await upkeep.clean(rig.gateway.settings, db, rig.store)
    assert (await reload(db, UUID(body["id"]))).deleted_at
