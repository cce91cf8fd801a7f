"""What strangers write stays text on every page and in every answer, and other sites change nothing."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from hostile import HOSTILE, MARK, NAMES, TAME, World, faults, filled, page_routes, routes, shape
from pydantic import SecretStr
from rig import LOCAL, Rig, headers_of, running, settings_for
from sqlalchemy import select

from itemforge.gateway import pages
from itemforge.jobs import keys
from itemforge.jobs.keys import Role
from itemforge.jobs.tables import metadata
from itemforge.settings import GatewaySettings
from itemforge.storage.signing import ROUTE as SIGNED_UPLOADS
from itemforge.studio import rendering
from polling import eventually

ADMIN = {"X-API-Key": "the bootstrap key of these tests"}
CHANGING = ("POST", "PUT", "PATCH", "DELETE")


def _settings(home: Path, **more: Any) -> GatewaySettings:
    key = SecretStr(ADMIN["X-API-Key"])
    return settings_for(f"sqlite+aiosqlite:///{home / 'x.db'}", home, admin_key=key, key_cache=0.0, **more)


@dataclass
class Full:
    rig: Rig
    world: World
    words: tuple[str, ...]
    headers: dict[str, str]  # of a session whose key has a name of `words`


async def _enter(rig: Rig, secret: str) -> dict[str, str]:
    """The cookie of a new session, alone."""
    answer = await rig.http.post("/enter", data={"key": secret}, headers={"Origin": LOCAL})
    assert answer.status_code == 303, answer.text
    rig.http.cookies.clear()
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Full, Full]]:
    """The same twice: with hostile and with harmless strings."""
    homes = [tmp_path / "hostile", tmp_path / "tame"]
    for home in homes:
        home.mkdir()
    async with (
        running(_settings(homes[0], use_notice=HOSTILE[0]), headers=ADMIN) as one,
        running(_settings(homes[1], use_notice=TAME[0]), headers=ADMIN) as two,
    ):
        yield await _full(one, HOSTILE), await _full(two, TAME)


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Full]:
    async with running(_settings(tmp_path), headers=ADMIN) as rig:
        yield await _full(rig, HOSTILE, 2)


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Full]:
    async with running(_settings(tmp_path), headers=ADMIN) as rig:
        yield await _full(rig, HOSTILE)


async def _full(rig: Rig, words: tuple[str, ...], items: int = len(HOSTILE)) -> Full:
    _, secret = await keys.create(rig.gateway.db, words[1], Role.ADMIN)
    rig.http.headers["X-API-Key"] = secret
    world = await filled(rig, words, items)
    session = await _enter(rig, secret)
    del rig.http.headers["X-API-Key"]
    return Full(rig, world, words, session)


def _addresses(full: Full) -> list[str]:
    """Every page and fragment that can be got, with what it needs."""
    world, found = full.world, []
    for path in page_routes(full.rig.app, "GET"):
        if "{request_id}" in path:
            found += [path.replace("{request_id}", each) for each in world.items]
        elif "{batch_id}" in path:
            found += [path.replace("{batch_id}", each) for each in world.batches]
        else:
            found.append(path)
    ids = ",".join([*world.drawn, *world.failed, *world.open])
    more = {
        "/gallery": [
            f"?collection={world.collections[0]}&status=any&q={MARK}",
            "?status=any",
            "?status=Failed",
            "?deleted=1",
        ],
        "/gallery/compare": [f"?a={world.drawn[0]}&b={world.failed[1]}"],
        "/studio/gallery/more": ["?status=any"],
        "/studio/make/cards": [f"?ids={ids}"],
        "/": [f"?like={world.drawn[0]}", "?style=tale"],
    }
    return found + [path + query for path, queries in more.items() for query in queries]


#: Pages on which a text of somebody comes out, by the beginning of their address.
TELLING = (
    "/?like=",
    "/gallery?status=any",
    "/gallery/compare?a",
    "/items/",
    "/batches",
    "/styles",
    "/fleet",
    "/studio/batches/list",
    "/studio/fleet/now",
    "/studio/fleet/dead",
    "/studio/gallery/more?",
    "/studio/make/cards?",
    "/studio/styles/list",
)


async def test_no_text_becomes_more_than_text_on_any_page(both: tuple[Full, Full]) -> None:
    seen: set[str] = set()
    pairs = list(zip(*map(_addresses, both), strict=True))
    assert len(pairs) > 30
    for addresses in pairs:
        bodies = []
        for full, address in zip(both, addresses, strict=True):
            answer = await full.rig.http.get(address, headers=full.headers)
            assert answer.status_code < 500, address
            assert answer.headers["x-content-type-options"] == "nosniff"
            bodies.append(answer)
        hostile, tame = bodies
        assert hostile.status_code == tame.status_code, addresses
        assert hostile.headers.get("content-type") == tame.headers.get("content-type")
        if not hostile.headers.get("content-type", "").startswith("text/html"):
            continue
        for name, value in rendering.HEADERS.items():
            assert hostile.headers[name] == value, (name, addresses[0])
        assert faults(hostile.text) == [], addresses[0]
        # The plot's bars depend on the clock.
        counted = "fleet" not in addresses[0]
        assert shape(hostile.text, counted=counted) == shape(tame.text, counted=counted), addresses[0]
        assert f"49{MARK}" not in hostile.text and "49#" not in hostile.text
        if MARK in hostile.text and hostile.status_code == 200:
            seen.update(each for each in TELLING if addresses[0].startswith(each))
    assert seen == set(TELLING), "each of these pages shows what somebody wrote"


def _json_texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _json_texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _json_texts(each)]
    return [value] if isinstance(value, str) else []


async def test_answers_of_the_api_give_each_text_back_as_json(whole: Full) -> None:
    full, world = whole, whole.world
    got = [
        "/v1/generations?limit=100",
        f"/v1/generations/{world.drawn[1]}",
        f"/v1/generations/{world.failed[0]}",
        f"/v1/batches/{world.batches[0]}",
        "/v1/batches",
        "/v1/collections",
        "/v1/styles",
        "/v1/workers",
        "/v1/dead",
    ]
    texts: set[str] = set()
    for path in got:
        answer = await full.rig.http.get(path, headers=ADMIN)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        texts.update(_texts(answer.json()))
    assert set(HOSTILE) <= texts
    image = await full.rig.http.get(f"/v1/generations/{world.drawn[0]}/image", headers=ADMIN)
    assert (image.headers["content-type"], image.headers["x-content-type-options"]) == (
        "image/png",
        "nosniff",
    )
    for n, text in enumerate(HOSTILE):
        answer = await full.rig.http.post("/v1/generations", json={"prompt": "a", text: text}, headers=ADMIN)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        if n not in NAMES:
            named = await full.rig.http.post("/v1/collections", json={"name": text}, headers=ADMIN)
            assert named.status_code == 422
    await _asked_for_nonsense(full)
    await _posted_nonsense(full)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _is_inert(answer: httpx.Response) -> None:
    where = str(answer.request.url)
    assert answer.status_code < 500, where
    kind = answer.headers.get("content-type", "")
    if kind.startswith("text/html"):
        assert faults(answer.text) == [], where
        assert answer.headers["content-security-policy"] == rendering.HEADERS["Content-Security-Policy"], (
            where
        )
    elif answer.content:
        assert kind in ("application/json", "application/problem+json"), where


async def _asked_for_nonsense(full: Full) -> None:
    """In addresses and their queries."""
    http = full.rig.http
    names = ("q", "style", "status", "next", "like", "cursor", "collection", "since", "n", "span", "tz")
    for n, text in enumerate(HOSTILE):
        for path in ("/gallery", "/enter", "/", "/batches", f"/items/{full.world.drawn[0]}", "/fleet"):
            _is_inert(await http.get(path, params={"q": text, names[n]: text}, headers=full.headers))
        for place in ("items", "gallery", "studio", "batches", "v1", "objects"):
            answer = await http.get(f"/{place}/{quote(text, safe='')}", headers=full.headers)
            _is_inert(answer)
            assert 400 <= answer.status_code < 500, text


async def _posted_nonsense(full: Full) -> None:
    names = ("prompt", "style", "text", "things", "name", "seed", "id", "ids", "count", "press", "version", "key", "next")  # fmt: skip
    headers = {**full.headers, "Origin": LOCAL, "HX-Request": "true"}
    for text in (HOSTILE[0], HOSTILE[1], HOSTILE[-1]):
        for path in page_routes(full.rig.app, "POST"):
            if path != "/leave":
                path = path.replace("{request_id}", full.world.failed[0]).replace("{batch_id}", str(uuid4()))
                _is_inert(await full.rig.http.post(path, data=dict.fromkeys(names, text), headers=headers))


async def _everything(rig: Rig) -> Any:
    """All that a change would change: rows, messages, objects."""
    rows = {}
    async with rig.gateway.db.engine.connect() as conn:
        for each in metadata.sorted_tables:
            kept = [column for column in each.c if column.name not in _SEEN]
            rows[each.name] = sorted(map(repr, (await conn.execute(select(*kept))).all()))
    return rows, {name: list(queue) for name, queue in rig.broker.queues.items()}, dict(rig.store.objects)


#: When somebody was last seen changes by looking.
_SEEN = ("last_used_at",)


async def _settled(rig: Rig) -> Any:
    """Everything, when the relay has sent what it may."""
    last: list[Any] = [None]

    async def same_again() -> bool:
        last.append(await _everything(rig))
        return bool(last[-1] == last[-2])

    await eventually(same_again, within=30, every=0.3)
    return last[-1]


FOREIGN = (
    None,
    "null",
    "https://evil.example",
    "http://127.0.0.1:9",
    f"{LOCAL}.evil.example",
    f"{LOCAL}@evil.example",
)


def _filled_in(path: str, world: World) -> str:
    known = {
        "request_id": world.open[0],
        "batch_id": world.batches[0],
        "collection_id": world.collections[0],
        "style": "tale",
        "webhook_id": "wh_0123456789abcdef",
        "delivery_id": "msg_" + "0" * 32,
        "letter_id": world.failed[0],
    }
    return re.sub(r"{(\w+)(:path)?}", lambda found: known.get(found[1], "x"), path)


async def test_no_other_site_changes_anything_with_a_session(full: Full) -> None:
    rig, world = full.rig, full.world
    before = await _settled(rig)
    found = sorted({(method, path) for method, path in routes(rig.app) if method in CHANGING})
    assert len(found) > 50 and len(page_routes(rig.app, "POST")) > 15
    body = {
        "ids": [*world.drawn],
        "id": world.failed[0],
        "prompt": "a cup",
        "name": "x",
        "style": "tale",
        "key": "x",
    }
    for n, (method, path) in enumerate(found):
        address = _filled_in(path, world)
        page = pages.is_page(path)
        for origin in FOREIGN if page else (FOREIGN[n % len(FOREIGN)],):
            headers = {**full.headers, **({"Origin": origin} if origin else {})}
            sent = {"data": body} if page and n % 2 else {"json": body}
            answer = await rig.http.request(method, address, headers=headers, **sent)  # type: ignore[arg-type]
            # An upload's address is its permission, whatever the browser says of itself.
            refused = (403, 422) if address.startswith(SIGNED_UPLOADS) else (403,)
            assert answer.status_code in refused, (method, address, origin, answer.text[:200])
            assert "set-cookie" not in answer.headers
    assert await _everything(rig) == before
    # The same call from a page of ours does something.
    ours = {**full.headers, "Origin": LOCAL}
    answer = await rig.http.post("/studio/gallery/delete", json={"ids": world.drawn}, headers=ours)
    assert (answer.status_code, answer.json()["count"]) == (200, len(world.drawn))
    assert await _everything(rig) != before


async def test_each_page_asks_who_is_there(full: Full) -> None:
    rig, world = full.rig, full.world
    key, secret = await keys.create(rig.gateway.db, "a user", Role.USER)
    session = await _enter(rig, secret)
    gets = [each for each in _addresses(full) if not pages.is_public(each.partition("?")[0])]
    posts = [_filled_in(path, world) for path in page_routes(rig.app, "POST") if not pages.is_public(path)]
    worker = await headers_of(rig, Role.WORKER)
    for method, paths in (("GET", gets), ("POST", posts)):
        for path in paths:
            answer = await rig.http.request(method, path)
            way = answer.headers.get("location", "")
            assert (answer.status_code, way.partition("?")[0]) == (303, "/enter"), path
            asked = await rig.http.request(method, path, headers={"HX-Request": "true"})
            assert (asked.status_code, asked.headers["hx-redirect"].partition("?")[0]) == (401, "/enter"), (
                path
            )
            no = await rig.http.request(method, path, headers={**worker, "Origin": LOCAL})
            assert no.status_code == 403, path
            told = answer.text + asked.text + no.text
            assert not any(each in told for each in (*world.items, *world.batches, *world.collections)), path
    assert (await rig.http.get("/gallery", headers=session)).status_code == 200
    await keys.revoke(rig.gateway.db, key.id)
    for path in gets[:10]:
        assert (await rig.http.get(path, headers=session)).status_code == 303, path
    answer = await rig.http.post("/enter", data={"key": worker["X-API-Key"]}, headers={"Origin": LOCAL})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
