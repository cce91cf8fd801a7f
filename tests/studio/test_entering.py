"""The way in and out of the studio, and what a session may do."""

from typing import Any

import httpx
import pytest
from rig import LOCAL, Rig, headers_of, listening, running
from sqlalchemy import update

from itemforge.jobs import keys
from itemforge.jobs.clock import now
from itemforge.jobs.keys import Role
from itemforge.jobs.tables import sessions
from itemforge.settings import GatewaySettings

ORIGIN = {"Origin": LOCAL}


async def _enter(rig: Rig, secret: str, **more: Any) -> httpx.Response:
    return await rig.http.post("/enter", data={"key": secret, **more}, headers=ORIGIN)


async def _user(rig: Rig, role: Role = Role.USER) -> tuple[keys.Key, str]:
    return await keys.create(rig.gateway.db, f"a {role}", role)


async def test_a_page_asks_for_a_key_and_leads_back(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        _, secret = await _user(rig)
        answer = await rig.http.get("/gallery?style=tale")
        assert (answer.status_code, answer.headers["location"]) == (
            303,
            "/enter?next=/gallery%3Fstyle%3Dtale",
        )
        asked = await rig.http.get(answer.headers["location"])
        assert asked.status_code == 200
        assert 'value="/gallery?style=tale"' in asked.text
        answer = await _enter(rig, secret, next="/gallery?style=tale")
        assert (answer.status_code, answer.headers["location"]) == (303, "/gallery?style=tale")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and "Path=/" in cookie
        assert secret not in cookie
        assert (await rig.http.get("/v1/generations")).status_code == 200


async def test_over_tls_the_cookie_is_bound_to_the_host(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        _, secret = await _user(rig)
        rig.http.base_url = httpx.URL("https://127.0.0.1:8000")
        answer = await rig.http.post(
            "/enter", data={"key": secret}, headers={"Origin": "https://127.0.0.1:8000"}
        )
        assert answer.headers["set-cookie"].startswith("__Host-itemforge_session=")
        assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("trusted, bound", [("127.0.0.0/8,10.0.0.0/8", True), ("192.0.2.1", False)])
async def test_the_word_of_a_trusted_proxy_counts_for_tls(
    settings: GatewaySettings, trusted: str, bound: bool
) -> None:
    async with listening(settings.model_copy(update={"trusted_proxies": trusted})) as rig:
        _, secret = await _user(rig)
        told = {"Host": "items.my.org", "Origin": "https://items.my.org", "X-Forwarded-Proto": "https"}
        answer = await rig.http.post("/enter", data={"key": secret}, headers=told)
        assert answer.status_code == 303
        assert answer.headers["set-cookie"].startswith("__Host-") is bound


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "/v1/stats", "/studio/x", "nothing"],
)
async def test_nobody_is_led_away(settings: GatewaySettings, wanted: str) -> None:
    async with running(settings) as rig:
        _, secret = await _user(rig)
        assert (await _enter(rig, secret, next=wanted)).headers["location"] == "/"


async def test_wrong_keys_are_told_and_slowed(settings: GatewaySettings) -> None:
    async with running(settings.model_copy(update={"wrong_keys": 2})) as rig:
        _, secret = await _user(rig)
        _, worker = await _user(rig, Role.WORKER)
        assert (await _enter(rig, "")).status_code == 401
        assert (await _enter(rig, worker)).status_code == 403
        for status in (401, 401, 429):
            answer = await _enter(rig, "itf_wrong")
            assert answer.status_code == status
            assert "set-cookie" not in answer.headers
            assert "itf_wrong" not in answer.text
        assert (await _enter(rig, secret)).status_code == 429  # never seen before from anywhere


async def test_a_session_changes_things_from_our_own_pages_only(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        _, secret = await _user(rig)
        await _enter(rig, secret)
        body = {"prompt": "a cup"}
        for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            answer = await rig.http.post("/v1/generations", json=body, headers=headers)
            assert answer.status_code == 403, headers
        assert (await rig.http.post("/v1/generations", json=body, headers=ORIGIN)).status_code == 202
        for path in ("/enter", "/leave"):
            answer = await rig.http.post(
                path, data={"key": secret}, headers={"Origin": "https://evil.example"}
            )
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
        # A key that is sent is shown by a program, which no foreign page can be.
        rig.http.cookies.clear()
        keyed = {"X-API-Key": secret}
        assert (await rig.http.post("/v1/generations", json=body, headers=keyed)).status_code == 202


async def test_a_session_may_do_what_its_key_may(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        _, secret = await _user(rig)
        await _user(rig, Role.ADMIN)
        await _enter(rig, secret)
        assert (await rig.http.get("/v1/styles")).status_code == 200
        assert (await rig.http.get("/v1/dead")).status_code == 403


async def test_a_session_ends_with_its_key_its_time_or_by_its_holder(settings: GatewaySettings) -> None:
    async with running(settings.model_copy(update={"key_cache": 0.0})) as rig:
        key, secret = await _user(rig)

        async def come_in() -> dict[str, str]:
            rig.http.cookies.clear()
            cookie = (await _enter(rig, secret)).headers["set-cookie"].partition(";")[0]
            rig.http.cookies.clear()
            return {"Cookie": cookie, **ORIGIN}

        async def is_in(session: dict[str, str]) -> bool:
            return (await rig.http.get("/v1/generations", headers=session)).status_code == 200

        one, two, three = await come_in(), await come_in(), await come_in()
        assert await is_in(one)
        left = await rig.http.post("/leave", headers=one)
        assert (left.status_code, left.headers["location"]) == (303, "/enter")
        assert "itemforge_session" in left.headers["set-cookie"]
        assert [await is_in(each) for each in (one, two, three)] == [False, True, True]
        await rig.http.post("/leave", data={"everywhere": "1"}, headers=two)
        assert [await is_in(each) for each in (two, three)] == [False, False]

        four = await come_in()
        async with rig.gateway.db.write() as write:
            await write.conn.execute(update(sessions).values(expires_at=now(-1)))
        assert not await is_in(four)
        five = await come_in()
        assert await is_in(five)
        await keys.revoke(rig.gateway.db, key.id)
        assert not await is_in(five)


async def test_htmx_is_led_to_the_sign_in_page(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        await _user(rig)
        answer = await rig.http.get(
            "/studio/more", headers={"HX-Request": "true", "HX-Current-URL": f"{LOCAL}/gallery?style=a"}
        )
        assert answer.status_code == 401
        assert answer.headers["hx-redirect"] == "/enter?next=/gallery%3Fstyle%3Da"


async def test_who_needs_no_key_is_led_on(rig: Rig) -> None:
    answer = await rig.http.get("/enter?next=/gallery")
    assert (answer.status_code, answer.headers["location"]) == (303, "/gallery")


async def test_a_wrong_role_sees_a_page_that_says_so(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        answer = await rig.http.get("/gallery", headers=await headers_of(rig, Role.WORKER))
        assert answer.status_code == 403
        assert answer.headers["content-type"].startswith("text/html")
        assert "role worker" in answer.text


async def test_pages_forbid_what_they_do_not_need(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        await _user(rig)
        page = await rig.http.get("/enter")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert "<script>" not in page.text and "style=" not in page.text
        for name in ("studio.css", "studio.js", "theme.js", "htmx.min.js", "icon.svg"):
            answer = await rig.http.get(f"/studio/static/{name}")
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
        for name in ("../site.py", "%2e%2e/site.py", "css/10-base.css", "nothing"):
            assert (await rig.http.get(f"/studio/static/{name}")).status_code in (303, 404), name
