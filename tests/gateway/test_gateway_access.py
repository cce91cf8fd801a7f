from pathlib import Path

import pytest
from pydantic import SecretStr
from rig import MemoryStore, Rig, png, running, settings_for

from itemforge.errors import ConfigurationError
from itemforge.settings import GatewaySettings

KEY = "correct horse battery staple"
REQUEST_ID = "5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10"


def _keyed(settings: GatewaySettings, **values: object) -> GatewaySettings:
    return settings.model_copy(update={"admin_key": SecretStr(KEY), **values})


async def test_with_a_key_everything_but_the_probes_needs_it(settings: GatewaySettings) -> None:
    async with running(_keyed(settings)) as rig:
        for method, path in (
            ("GET", "/v1/generations"),
            ("POST", "/v1/generations"),
            ("GET", "/v1/stats"),
            ("POST", "/v1/worker/claims"),
            ("POST", "/generate"),
            ("GET", f"/status/{REQUEST_ID}"),
            ("PUT", f"/update_db/{REQUEST_ID}"),
            ("POST", "/docs"),
            ("GET", "/nothing"),
        ):
            answer = await rig.http.request(method, path)
            assert answer.status_code == 401, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["itemforge-contract"] == "1"
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
            assert (await rig.http.get(path)).status_code == 200, path


KEYS = [
    ({"Authorization": f"Bearer {KEY}"}, 200),
    ({"Authorization": f"bearer {KEY}"}, 200),
    ({"X-API-Key": KEY}, 200),
    ({"X-API-Key": KEY, "Host": "items.example", "Origin": "https://items.example"}, 200),
    ({"Authorization": "Bearer wrong"}, 401),
    ({"Authorization": f"Basic {KEY}"}, 401),
    ({"X-API-Key": KEY + "x"}, 401),
    ({"X-API-Key": ""}, 401),
    ({"X-API-Key": b"\xff\xfe"}, 401),
]


async def test_the_key_comes_in_either_header(settings: GatewaySettings) -> None:
    async with running(_keyed(settings)) as rig:
        for headers, status in KEYS:
            answer = await rig.http.get("/v1/generations", headers=headers)
            assert answer.status_code == status, headers


async def test_the_documentation_of_a_keyed_gateway_names_both_headers(settings: GatewaySettings) -> None:
    async with running(_keyed(settings), headers={"X-API-Key": KEY}) as rig:
        spec = (await rig.http.get("/openapi.json")).json()
        assert set(spec["components"]["securitySchemes"]) == {"HTTPBearer", "APIKeyHeader"}
        assert (await rig.http.get("/v1/stats")).status_code == 200


async def test_pictures_are_public(settings: GatewaySettings) -> None:
    store = MemoryStore(bucket="file:///objects", objects={"generated/a.png": png()})
    async with running(_keyed(settings), store=store) as rig:
        assert (await rig.http.get("/objects/generated/a.png")).status_code == 200
        assert (await rig.http.delete("/objects/generated/a.png")).status_code == 401
        # Found by fuzzing: a line break in the name made the address look like one that needs a key.
        assert (await rig.http.get("/objects/generated/a%0Ab.png")).status_code == 404


async def test_open_seed_routes_need_no_key_and_nothing_else_opens(settings: GatewaySettings) -> None:
    async with running(_keyed(settings, seed_routes="open")) as rig:
        answer = await rig.http.post("/generate", json={"prompt": "p"})
        assert answer.status_code == 202
        path = f"/status/{answer.json()['request_id']}"
        assert (await rig.http.get(path)).status_code == 200
        assert (await rig.http.get("/v1/generations")).status_code == 401


async def test_seed_routes_can_be_off(settings: GatewaySettings) -> None:
    async with running(settings.model_copy(update={"seed_routes": "off"})) as rig:
        assert (await rig.http.post("/generate", json={"prompt": "p"})).status_code == 404


PAGES = [
    ({"Host": "localhost:8000"}, 200),
    ({"Host": "127.0.0.1"}, 200),
    ({"Host": "[::1]:8000"}, 200),
    ({"Origin": "http://localhost:3000"}, 200),
    ({"Host": "evil.example"}, 403),
    ({"Host": "localhost.evil.example"}, 403),
    ({"Host": "127.0.0.1.evil.example:8000"}, 403),
    ({"Host": "10.0.0.5:8000"}, 403),
    ({"Host": "[::1"}, 403),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "http://localhost@evil.example"}, 403),
    ({"Origin": "null"}, 403),
]


async def test_without_a_key_no_web_page_can_post(rig: Rig) -> None:
    for headers, status in PAGES:
        answer = await rig.http.get("/v1/generations", headers=headers)
        assert answer.status_code == status, headers
        posted = await rig.http.post("/v1/generations", json={"prompt": "p"}, headers=headers)
        assert posted.status_code == (202 if status == 200 else status), headers


@pytest.mark.parametrize(
    "host, key, safe",
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("::1", None, True),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("", None, False),
        ("192.168.1.5", None, False),
        ("myhost", None, False),
        ("0.0.0.0", "", False),
        ("0.0.0.0", KEY, True),
    ],
)
async def test_beyond_loopback_a_key_is_required(
    host: str, key: str | None, safe: bool, tmp_path: Path
) -> None:
    settings = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", tmp_path, host=host).model_copy(
        update={"admin_key": SecretStr(key) if key is not None else None}
    )
    if safe:
        async with running(settings):
            pass
    else:
        with pytest.raises(ConfigurationError, match=r"keys create.*ITEMFORGE_ADMIN_KEY"):
            async with running(settings):
                pass
