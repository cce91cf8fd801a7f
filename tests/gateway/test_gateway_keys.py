"""Keys of the database: what each role may do, how soon a revoked one ends, and what an outage lets in."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import SecretStr
from rig import REQUEST_ID, Clock, Rig, away, headers_of, listening, running
from structlog.testing import capture_logs

from itemforge.errors import ConfigurationError
from itemforge.gateway.auth import is_public, roles
from itemforge.gateway.keyring import Keyring
from itemforge.jobs import finding, keys
from itemforge.jobs.database import Database
from itemforge.jobs.keys import Role
from itemforge.settings import GatewaySettings
from polling import eventually

ADMIN = "the bootstrap key of these tests"

#: Each call with the roles that may make it beside admin.
CALLS = [
    ("GET", "/v1/generations", "user"),
    ("POST", "/v1/generations", "user"),
    ("GET", f"/v1/generations/{REQUEST_ID}", "user"),
    ("PUT", f"/v1/generations/{REQUEST_ID}", "user"),
    ("DELETE", f"/v1/generations/{REQUEST_ID}", "user"),
    ("POST", f"/v1/generations/{REQUEST_ID}/cancel", "user"),
    ("POST", f"/v1/generations/{REQUEST_ID}/retry", "user"),
    ("GET", f"/v1/generations/{REQUEST_ID}/events", "user"),
    ("GET", f"/v1/generations/{REQUEST_ID}/image", "user"),
    ("GET", f"/v1/generations/{REQUEST_ID}/thumbnail", "user"),
    ("GET", "/v1/styles", "user"),
    ("GET", "/v1/stats", "user"),
    ("POST", "/generate", "user"),
    ("GET", f"/status/{REQUEST_ID}", "user"),
    ("POST", "/v1/worker/claims", "worker"),
    ("POST", "/v1/worker/heartbeat", "worker"),
    ("POST", "/v1/worker/reports", "worker"),
    ("GET", "/v1/styles/plain/1.toml", "worker"),
    ("GET", f"/v1/styles/blobs/{'b' * 64}", "worker"),
    ("PUT", f"/update_db/{REQUEST_ID}", "worker"),
    ("GET", "/metrics", "monitor"),
    ("GET", "/v1/workers", "user"),
    ("GET", "/v1/stats/throughput", "user"),
    ("POST", "/v1/styles/blobs", None),
    ("POST", "/v1/styles/publish", None),
    ("POST", "/v1/styles/tale/rollback", None),
    ("GET", "/v1/dead", None),
    ("POST", f"/v1/dead/{REQUEST_ID}/send-again", None),
    ("DELETE", f"/v1/dead/{REQUEST_ID}", None),
    ("GET", "/nothing", None),
    ("POST", "/v1/generations%0A", None),
]

#: Addresses that are for admins alone.
ADMINS = {
    "/v1/styles/blobs",
    "/v1/styles/publish",
    "/v1/styles/{style}/rollback",
    "/v1/dead",
    "/v1/dead/send-again",
    "/v1/dead/{letter_id}",
    "/v1/dead/{letter_id}/send-again",
}


def _keyed(settings: GatewaySettings, **values: object) -> GatewaySettings:
    return settings.model_copy(update={"admin_key": SecretStr(ADMIN), "key_cache": 0.0, **values})


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_may_do_its_own_work_and_nothing_else(settings: GatewaySettings, role: Role) -> None:
    async with running(_keyed(settings)) as rig:
        headers = await headers_of(rig, role)
        for method, path, wanted in CALLS:
            answer = await rig.http.request(method, path, headers=headers)
            if role in (Role.ADMIN, wanted):
                assert answer.status_code not in (401, 403, 429, 500, 503), (path, answer.text)
                continue
            assert answer.status_code == 403, (path, answer.text)
            detail = answer.json()["detail"]
            assert f"role {wanted} or admin" in detail if wanted else "role admin" in detail
            assert f"has the role {role}" in detail


async def test_every_route_says_who_may_call_it(rig: Rig) -> None:
    document = (await rig.http.get("/openapi.json")).json()
    told = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    public = {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/objects/{key}"),
        ("PUT", "/v1/uploads/{key}"),
    }
    assert {call for call in told if is_public(*call)} == public
    assert {path for _, path in told - public if roles(path) == [Role.ADMIN]} == ADMINS
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            keyed = (method.upper(), path) not in public
            assert ("security" in operation) == keyed, path
            assert ({"401", "403", "429"} <= set(operation["responses"])) == keyed, path
    assert set(document["components"]["securitySchemes"]) == {"HTTPBearer", "APIKeyHeader"}


async def test_the_owner_of_a_keyed_call_is_its_key(settings: GatewaySettings) -> None:
    async with running(_keyed(settings)) as rig:
        key, secret = await keys.create(rig.gateway.db, "ann", Role.USER)
        await rig.http.post("/v1/generations", json={"prompt": "p"}, headers={"X-API-Key": secret})
        await rig.http.post("/v1/generations", json={"prompt": "p"}, headers={"X-API-Key": ADMIN})
        assert await _owners(rig) == {f"key:{key.id}", "admin"}


async def _owners(rig: Rig) -> set[str]:
    return {row.owner for row in await finding.find(rig.gateway.db, finding.Filter(), 10)}


async def test_a_revoked_key_is_refused_within_seconds(settings: GatewaySettings) -> None:
    clock = Clock()
    async with running(_keyed(settings, key_cache=5.0)) as rig:
        rig.gateway.keyring = Keyring(rig.gateway.settings, rig.gateway.db, rig.gateway.migrated, None, clock)
        key, secret = await keys.create(rig.gateway.db, "ann", Role.USER)
        headers = {"X-API-Key": secret}
        assert (await rig.http.get("/v1/generations", headers=headers)).status_code == 200
        await keys.revoke(rig.gateway.db, key.id)
        clock.now += 4.9
        assert (await rig.http.get("/v1/generations", headers=headers)).status_code == 200
        clock.now += 0.2
        with capture_logs() as logs:
            answer = await rig.http.get("/v1/generations", headers=headers)
        assert answer.status_code == 401
        assert key.id in [line.get("key") for line in logs], "the log says whose key it was"
        assert secret not in json.dumps(logs) + answer.text


async def test_a_stream_ends_when_its_key_is_revoked(settings: GatewaySettings) -> None:
    async with listening(_keyed(settings)) as rig, asyncio.timeout(30):
        key, secret = await keys.create(rig.gateway.db, "ann", Role.USER)
        headers = {"X-API-Key": secret}
        made = await rig.http.post("/v1/generations", json={"prompt": "p"}, headers=headers)
        path = f"/v1/generations/{made.json()['id']}/events"
        async with rig.http.stream("GET", path, headers=headers) as stream:
            lines = stream.aiter_lines()
            assert "event: state" in [await anext(lines) for _ in range(3)]
            await keys.revoke(rig.gateway.db, key.id)
            async for _ in lines:  # ends, though the request has not
                pass
        assert (await rig.http.get(path, headers=headers)).status_code == 401
        now = await rig.http.get(path.removesuffix("/events"), headers={"X-API-Key": ADMIN})
        assert now.json()["status"] == "Pending"


async def test_the_database_is_asked_once_for_many_calls(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(_keyed(settings, key_cache=60.0)) as rig:
        headers = await headers_of(rig, Role.USER)
        asked: list[str] = []
        find = keys.find

        async def counted(db: Database, digest: str) -> Any:
            asked.append(digest)
            return await find(db, digest)

        monkeypatch.setattr(keys, "find", counted)
        for _ in range(5):
            assert (await rig.http.get("/v1/styles", headers=headers)).status_code == 200
        assert len(asked) == 1


async def test_a_use_is_noted(settings: GatewaySettings) -> None:
    async with running(_keyed(settings)) as rig:
        key, secret = await keys.create(rig.gateway.db, "ann", Role.USER)
        assert key.last_used_at is None
        for _ in range(3):
            await rig.http.get("/v1/styles", headers={"X-API-Key": secret})
        (found,) = await keys.all_keys(rig.gateway.db)
        assert found.last_used_at is not None and found.last_used_at >= key.created_at


async def test_while_the_database_is_away_only_known_keys_go_on_and_only_for_a_while(
    settings: GatewaySettings,
) -> None:
    clock = Clock()
    async with running(_keyed(settings, key_cache=5.0)) as rig:
        rig.gateway.keyring = Keyring(rig.gateway.settings, rig.gateway.db, rig.gateway.migrated, None, clock)
        known, unknown = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)
        assert (await rig.http.get("/v1/styles", headers=known)).status_code == 200
        with away(rig):
            assert (await rig.http.get("/v1/styles", headers=known)).status_code == 200
            for headers in (unknown, {"X-API-Key": "guessed"}):
                await _is_503(rig, headers)
            clock.now += 5.1
            await _is_503(rig, known)
            admin = {"X-API-Key": ADMIN}
            assert (await rig.http.get("/v1/styles", headers=admin)).status_code == 200
        assert (await rig.http.get("/v1/styles", headers=unknown)).status_code == 200


async def _is_503(rig: Rig, headers: dict[str, str]) -> None:
    answer = await rig.http.get("/v1/styles", headers=headers)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_first_key_closes_a_loopback_gateway(settings: GatewaySettings) -> None:
    async with running(settings.model_copy(update={"key_cache": 0.0})) as rig:
        assert (await rig.http.get("/v1/generations")).status_code == 200
        key, secret = await keys.create(rig.gateway.db, "worker one", Role.WORKER)
        assert (await rig.http.get("/v1/generations")).status_code == 401
        await keys.revoke(rig.gateway.db, key.id)
        assert (await rig.http.get("/v1/generations")).status_code == 401, "a revoked one does not open it"
        headers = {"X-API-Key": secret}
        assert (await rig.http.post("/v1/worker/claims", headers=headers)).status_code == 401
        for path in ("/healthz", "/docs", "/openapi.json"):
            assert (await rig.http.get(path)).status_code == 200
    async with running(settings) as rig:
        assert (await rig.http.get("/v1/generations")).status_code == 401, "nor does a new start"


async def test_nobody_knows_whether_a_key_is_needed_while_the_database_is_away(
    settings: GatewaySettings,
) -> None:
    async with running(settings.model_copy(update={"key_cache": 0.0})) as rig:
        assert (await rig.http.get("/v1/styles")).status_code == 200
        with away(rig):
            await _is_503(rig, {})
            assert (await rig.http.get("/docs")).status_code == 200


async def test_beyond_loopback_a_live_key_of_the_database_is_enough(settings: GatewaySettings) -> None:
    outside = settings.model_copy(update={"host": "0.0.0.0", "key_cache": 0.0})
    async with running(settings) as rig:
        await keys.create(rig.gateway.db, "w", Role.WORKER)
    with pytest.raises(ConfigurationError, match="live user or admin key"):
        async with running(outside):
            pass
    async with running(settings) as rig:
        key, secret = await keys.create(rig.gateway.db, "ann", Role.USER)
    async with running(outside) as rig:
        assert (await rig.http.get("/v1/styles")).status_code == 401, "loopback's Host does not help"
        assert (await rig.http.get("/v1/styles", headers={"X-API-Key": secret})).status_code == 200
        await keys.revoke(rig.gateway.db, key.id)
        assert (await rig.http.get("/v1/styles")).status_code == 401
    with pytest.raises(ConfigurationError, match="live user or admin key"):
        async with running(outside):
            pass


async def test_beyond_loopback_nobody_comes_in_while_the_database_is_away_at_the_start(
    settings: GatewaySettings,
) -> None:
    url = SecretStr("postgresql://nobody@127.0.0.1:1/none")
    lost = settings.model_copy(update={"host": "0.0.0.0", "database_url_setting": url})
    async with running(lost) as rig:
        assert (await rig.http.get("/v1/styles")).status_code == 401
        assert (await rig.http.get("/v1/styles", headers={"X-API-Key": "x"})).status_code == 503


async def test_the_embedded_worker_has_a_key_of_its_own_and_can_only_work(settings: GatewaySettings) -> None:
    async with running(_keyed(settings), worker_key="made at the start") as rig:
        headers = {"X-API-Key": "made at the start"}
        claims = {"worker_id": "w", "jobs": []}
        answer = await rig.http.post("/v1/worker/claims", headers=headers, json=claims)
        assert answer.status_code == 200
        assert (await rig.http.get("/v1/generations", headers=headers)).status_code == 403


async def test_open_seed_routes_know_a_key_that_comes_along(settings: GatewaySettings) -> None:
    async with running(_keyed(settings, seed_routes="open", wrong_keys=3)) as rig:
        key, secret = await keys.create(rig.gateway.db, "ann", Role.USER)
        headers = {"X-API-Key": secret}
        mine = (await rig.http.post("/generate", json={"prompt": "p"}, headers=headers)).json()["request_id"]
        anybodys = (await rig.http.post("/generate", json={"prompt": "p"})).json()["request_id"]
        assert await _owners(rig) == {f"key:{key.id}", "open"}
        assert (await rig.http.get(f"/status/{mine}")).status_code == 200
        assert (await rig.http.get(f"/status/{anybodys}", headers=headers)).status_code == 404
        for _ in range(5):
            wrong = await rig.http.get(f"/status/{mine}", headers={"X-API-Key": "wrong"})
            assert wrong.status_code == 200
        guess = await rig.http.get("/v1/styles", headers={"X-API-Key": "wrong"})
        assert guess.status_code == 429, "guessing on an open route counts too"


async def test_keys_made_while_the_gateway_runs_come_in_at_once(settings: GatewaySettings) -> None:
    async with running(_keyed(settings, key_cache=60.0)) as rig:
        assert (await rig.http.get("/v1/styles", headers={"X-API-Key": "itf_x"})).status_code == 401
        headers = await headers_of(rig, Role.USER)

        async def lets_in() -> bool:
            return (await rig.http.get("/v1/styles", headers=headers)).status_code == 200

        await eventually(lets_in)
