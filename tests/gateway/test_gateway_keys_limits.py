"""Wrong keys are slowed; submissions a minute and images a day have their limits, each with a clear 429."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from rig import LOCAL, Clock, Rig, headers_of, listening, running
from structlog.testing import capture_logs

from databases import age
from itemforge.gateway.limits import WINDOW, MovingWindow, network
from itemforge.jobs.keys import Role
from itemforge.settings import GatewaySettings

ADMIN = {"X-API-Key": "the bootstrap key of these tests"}
WRONG = {"X-API-Key": "itf_a-wrong-key-of-somebody"}
Headers = dict[str, str]


def _keyed(settings: GatewaySettings, **values: object) -> GatewaySettings:
    admin = SecretStr(ADMIN["X-API-Key"])
    return settings.model_copy(update={"admin_key": admin, "key_cache": 0.0, "wrong_keys": 3, **values})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def rig(settings: GatewaySettings, clock: Clock) -> AsyncIterator[Rig]:
    async with running(_keyed(settings)) as made:
        made.gateway.wrong_keys = MovingWindow(clock)
        made.gateway.submissions = MovingWindow(clock)
        yield made


# ── Wrong keys ───────────────────────────────────────────────────────────────────────────────────


async def test_after_some_wrong_keys_an_address_has_to_wait(rig: Rig, clock: Clock) -> None:
    with capture_logs() as logs:
        answers = [await rig.http.get("/v1/styles", headers=WRONG) for _ in range(6)]
    assert [a.status_code for a in answers] == [401, 401, 401, 429, 429, 429]
    last = answers[-1]
    assert last.headers["retry-after"] == "60"
    assert last.headers["content-type"] == "application/problem+json"
    assert "wait 60 s" in last.json()["detail"]
    told = json.dumps(logs) + "".join(a.text for a in answers)
    assert WRONG["X-API-Key"] not in told
    clock.now += WINDOW
    assert (await rig.http.get("/v1/styles", headers=WRONG)).status_code == 401


async def test_guesses_that_come_at_once_get_no_further(rig: Rig) -> None:
    answers = await asyncio.gather(*(rig.http.get("/v1/styles", headers=WRONG) for _ in range(20)))
    assert sorted(a.status_code for a in answers) == [401] * 3 + [429] * 17


async def test_a_blocked_address_does_not_stop_who_was_good_before(rig: Rig) -> None:
    known, new = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)
    assert (await rig.http.get("/v1/styles", headers=known)).status_code == 200
    for _ in range(5):
        await rig.http.get("/v1/styles", headers=WRONG)
    for headers in (known, ADMIN):
        assert (await rig.http.get("/v1/styles", headers=headers)).status_code == 200
    assert (await rig.http.get("/v1/styles", headers=new)).status_code == 429, "guessing gets no answer"


async def test_no_key_at_all_is_no_guess(rig: Rig) -> None:
    for _ in range(5):
        assert (await rig.http.get("/v1/styles")).status_code == 401
    assert (await rig.http.get("/v1/styles", headers=WRONG)).status_code == 401


async def test_each_address_is_counted_for_itself(rig: Rig) -> None:
    for address, status in (("203.0.113.7", 429), ("203.0.113.8", 401)):
        transport = httpx.ASGITransport(rig.app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as http:
            for _ in range(3 if status == 429 else 0):
                await http.get("/v1/styles", headers=WRONG)
            assert (await http.get("/v1/styles", headers=WRONG)).status_code == status


@pytest.mark.parametrize(
    "trusted, statuses", [("127.0.0.1", [401] * 5), ("192.0.2.1", [401] * 3 + [429] * 2)]
)
async def test_behind_a_trusted_proxy_its_clients_are_told_apart(
    settings: GatewaySettings, trusted: str, statuses: list[int]
) -> None:
    async with listening(_keyed(settings, trusted_proxies=trusted)) as rig:
        found = []
        for n in range(5):
            headers = {**WRONG, "X-Forwarded-For": f"203.0.113.{n}"}
            found.append((await rig.http.get("/v1/styles", headers=headers)).status_code)
        assert found == statuses


@pytest.mark.parametrize(
    "address, counted_as",
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("/run/a.sock", "/run/a.sock"),
        (None, "unknown"),
    ],
)
def test_what_an_address_counts_as(address: str | None, counted_as: str) -> None:
    assert network(address) == counted_as


# ── The window itself ────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 40), st.booleans()), max_size=80))
def test_the_window_counts_as_a_plain_list_does(steps: list[tuple[str, float, bool]]) -> None:
    clock = Clock()
    window = MovingWindow(clock)
    seen: dict[str, deque[float]] = {name: deque() for name in "abc"}
    for name, pause, undo in steps:
        clock.now += pause
        inside = [at for at in seen[name] if at > clock.now - WINDOW]
        wait = window.take(name, 4)
        if len(inside) < 4:
            assert wait == 0
            seen[name].append(clock.now)
            if undo:
                window.give_back(name)
                seen[name].pop()
        else:
            assert wait == pytest.approx(inside[-4] + WINDOW - clock.now, abs=0.002)


def test_strangers_cannot_fill_the_memory() -> None:
    clock = Clock()
    window = MovingWindow(clock, max_names=100)
    for n in range(5000):
        window.take(f"address {n}", 3)
    assert len(window._seen) <= 101
    assert window.take("another", 3) > 0, "beyond the bound new names share one window"
    assert window.take("address 5", 3) == 0, "those that are known keep their own"
    clock.now += WINDOW + 1
    assert window.take("another", 3) == 0
    assert len(window._seen) == 1, "what is over is forgotten"


# ── Submissions a minute ─────────────────────────────────────────────────────────────────────────


async def _post(rig: Rig, headers: Headers, **fields: Any) -> httpx.Response:
    return await rig.http.post("/v1/generations", json={"prompt": "p", **fields}, headers=headers)


async def test_more_submissions_than_the_rate_have_to_wait(rig: Rig, clock: Clock) -> None:
    ann, bob = await headers_of(rig, Role.USER, rate=3), await headers_of(rig, Role.USER, rate=3)
    first = await _post(rig, ann)
    clock.now += 20
    assert (await rig.http.post("/generate", json={"prompt": "p"}, headers=ann)).status_code == 202
    path = f"/v1/generations/{uuid4()}"
    assert (await rig.http.put(path, json={"prompt": "p"}, headers=ann)).status_code == 202
    for refused in (
        await _post(rig, ann),
        await rig.http.post("/generate", json={"prompt": "p"}, headers=ann),
        await rig.http.put(f"/v1/generations/{uuid4()}", json={"prompt": "p"}, headers=ann),
    ):
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "40"
        detail = refused.json()["detail"]
        assert "3 submissions a minute" in detail and "40 s" in detail and "operator" in detail
    await rig.http.post(f"/v1/generations/{first.json()['id']}/cancel", headers=ann)
    retry = await rig.http.post(f"/v1/generations/{first.json()['id']}/retry", headers=ann)
    assert retry.status_code == 429
    assert (await _post(rig, bob)).status_code == 202, "every key has a rate of its own"
    assert (await rig.http.get("/v1/generations", headers=ann)).status_code == 200, "reading is free"
    clock.now += 40
    assert (await _post(rig, ann)).status_code == 202
    assert (await _post(rig, ann)).status_code == 429


async def test_what_makes_no_request_counts_nothing(rig: Rig) -> None:
    ann = await headers_of(rig, Role.USER, rate=2)
    repeated = {**ann, "Idempotency-Key": "one"}
    path = f"/v1/generations/{uuid4()}"
    for _ in range(3):
        assert (await _post(rig, repeated)).status_code in (200, 202)
        assert (await _post(rig, ann, style="none")).status_code == 422
        assert (await _post(rig, {**ann, "Idempotency-Key": "one"}, seed="9")).status_code == 409
    assert (await rig.http.put(path, json={"prompt": "p"}, headers=ann)).status_code == 202
    for _ in range(3):
        assert (await rig.http.put(path, json={"prompt": "p"}, headers=ann)).status_code == 200
        assert (await _post(rig, repeated)).status_code == 200
    assert (await _post(rig, ann)).status_code == 429


async def test_a_repeated_retry_counts_once(rig: Rig) -> None:
    ann = await headers_of(rig, Role.USER, rate=2)
    first = (await _post(rig, ann)).json()["id"]
    await rig.http.post(f"/v1/generations/{first}/cancel", headers=ann)
    headers = {**ann, "Idempotency-Key": "again"}
    path = f"/v1/generations/{first}/retry"
    answers = [await rig.http.post(path, headers=headers) for _ in range(3)]
    assert [a.status_code for a in answers] == [202, 200, 200]
    assert len({a.json()["id"] for a in answers}) == 1


async def test_the_rate_is_exact_when_all_come_at_once(rig: Rig) -> None:
    ann = await headers_of(rig, Role.USER, rate=5)
    answers = await asyncio.gather(*(_post(rig, ann) for _ in range(15)))
    assert sorted(a.status_code for a in answers) == [202] * 5 + [429] * 10
    same = {**(await headers_of(rig, Role.USER, rate=2)), "Idempotency-Key": "one"}
    answers = await asyncio.gather(*(_post(rig, same) for _ in range(2)))
    assert sorted(a.status_code for a in answers) == [200, 202]
    del same["Idempotency-Key"]
    answers = [await _post(rig, same), await _post(rig, same)]
    assert [a.status_code for a in answers] == [202, 429], "the repetition gave its place back"


async def test_limits_come_from_the_settings_for_users_only(settings: GatewaySettings) -> None:
    async with running(_keyed(settings, rate_limit=1, quota=0)) as rig:
        user = await headers_of(rig, Role.USER)
        assert [(await _post(rig, user)).status_code for _ in range(2)] == [202, 429]
        free = await headers_of(rig, Role.USER, rate=0)
        for headers in (free, ADMIN, await headers_of(rig, Role.ADMIN)):
            assert [(await _post(rig, headers)).status_code for _ in range(3)] == [202] * 3
    async with running(_keyed(settings, rate_limit=0, quota=1)) as rig:
        user = await headers_of(rig, Role.USER)
        assert [(await _post(rig, user)).status_code for _ in range(2)] == [202, 429]
        for headers in (await headers_of(rig, Role.USER, quota=0), ADMIN):
            assert (await _post(rig, headers, num_images=4)).status_code == 202


async def test_a_keyless_loopback_gateway_has_no_limits(settings: GatewaySettings) -> None:
    async with running(settings.model_copy(update={"rate_limit": 1, "quota": 1})) as rig:
        assert [(await _post(rig, {})).status_code for _ in range(3)] == [202] * 3


# ── Images a day ─────────────────────────────────────────────────────────────────────────────────


async def test_more_images_than_the_quota_have_to_wait_until_older_ones_are_a_day_old(rig: Rig) -> None:
    ann, bob = await headers_of(rig, Role.USER, quota=4), await headers_of(rig, Role.USER, quota=4)
    ids = [(await _post(rig, ann, num_images=n)).json()["id"] for n in (1, 1, 2)]
    for hours, request_id in zip((20, 10, 5), ids, strict=True):
        await age(rig.gateway.db, UUID(request_id), "created_at", hours * 3600)
    one, two = await _post(rig, ann), await _post(rig, ann, num_images=2)
    assert (one.status_code, two.status_code) == (429, 429)
    assert "4 images a day" in one.json()["detail"] and "operator" in one.json()["detail"]
    assert int(one.headers["retry-after"]) == pytest.approx(4 * 3600, abs=60)
    assert int(two.headers["retry-after"]) == pytest.approx(14 * 3600, abs=60)
    assert (await rig.http.post("/generate", json={"prompt": "p"}, headers=ann)).status_code == 429
    assert (await _post(rig, bob)).status_code == 202, "every key has a quota of its own"
    await age(rig.gateway.db, UUID(ids[0]), "created_at", 24 * 3600 + 60)
    assert (await _post(rig, ann)).status_code == 202
    assert (await _post(rig, ann)).status_code == 429


async def test_nothing_is_left_of_a_refused_submission(rig: Rig) -> None:
    ann = await headers_of(rig, Role.USER, quota=1, rate=2)
    assert (await _post(rig, ann)).status_code == 202
    for _ in range(3):
        refused = await _post(rig, ann)
        assert "images a day" in refused.json()["detail"], "a refused one does not use up the rate"
    listed = (await rig.http.get("/v1/generations", headers=ann)).json()["items"]
    assert len(listed) == 1


async def test_what_was_cancelled_before_its_start_does_not_count_and_what_was_drawn_does(rig: Rig) -> None:
    ann = await headers_of(rig, Role.USER, quota=1)
    waiting = (await _post(rig, ann)).json()["id"]
    await rig.http.post(f"/v1/generations/{waiting}/cancel", headers=ann)
    begun = (await _post(rig, ann)).json()["id"]
    rig.http.headers.update(ADMIN)
    await rig.claim(begun)
    del rig.http.headers["X-API-Key"]
    await rig.http.delete(f"/v1/generations/{begun}", headers=ann)
    assert (await _post(rig, ann)).status_code == 429


async def test_more_images_at_once_than_a_days_are_a_wrong_field(rig: Rig) -> None:
    ann = await headers_of(rig, Role.USER, quota=3)
    answer = await _post(rig, ann, num_images=4)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "num_images"


async def test_a_repetition_is_answered_though_the_quota_is_used_up(rig: Rig) -> None:
    ann = await headers_of(rig, Role.USER, quota=1)
    headers = {**ann, "Idempotency-Key": "one"}
    assert [(await _post(rig, headers)).status_code for _ in range(3)] == [202, 200, 200]


async def test_the_quota_is_exact_when_all_come_at_once(rig: Rig) -> None:
    ann = await headers_of(rig, Role.USER, quota=6)
    answers = await asyncio.gather(*(_post(rig, ann, num_images=2) for _ in range(12)))
    assert sorted(a.status_code for a in answers) == [202] * 3 + [429] * 9
