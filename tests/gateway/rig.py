"""A gateway with its outside in memory: a queue and a store that do as they are told."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from PIL import Image as PillowImage

from itemforge.broker.face import DeadLetter
from itemforge.contract import DEAD_QUEUE, QUEUE, Scheduler
from itemforge.errors import BrokerUnavailable, ObjectMissing, StyleNotFound
from itemforge.gateway.app import create_app
from itemforge.gateway.context import Gateway
from itemforge.gateway.listening import bind
from itemforge.gateway.server import serving
from itemforge.jobs import keys
from itemforge.jobs.database import Database
from itemforge.jobs.keys import Role
from itemforge.settings import GatewaySettings
from itemforge.storage.keys import check_key
from itemforge.studio import site
from itemforge.styles.models import ModelFacts
from itemforge.styles.pack import Defaults, Size, StylePack

LOCAL = "http://127.0.0.1:8000"
REQUEST_ID = "5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10"
BASE = "a" * 64
BLOB = "b" * 64


@dataclass
class MemoryBroker:
    """Publishes into lists. `connected` and `failing` break it; `delay` makes it slow."""

    connected: bool = True
    failing: bool = False
    delay: float = 0.0
    started: bool = False
    queues: dict[str, list[bytes]] = field(default_factory=dict)

    async def start(self) -> None:
        self.started = True

    async def publish(self, queue: str, body: bytes, headers: object = None) -> None:
        await asyncio.sleep(self.delay)
        if not self.connected or self.failing:
            raise BrokerUnavailable("the broker is away")
        self.queues.setdefault(queue, []).append(body)

    async def depth(self, queue: str) -> int:
        if not self.connected:
            raise BrokerUnavailable("the broker is away")
        return len(self.queues.get(queue, []))

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        if not self.connected:
            raise BrokerUnavailable("the broker is away")
        return [DeadLetter(body, {}) for body in self.queues.get(DEAD_QUEUE, [])[:limit]]

    async def take_dead(
        self, limit: int, wanted: Callable[[DeadLetter], bool], then: Callable[[DeadLetter], Awaitable[None]]
    ) -> int:
        taken = [letter for letter in await self.dead_letters(limit) if wanted(letter)]
        for letter in taken:
            await then(letter)
            self.queues[DEAD_QUEUE].remove(letter.body)
        return len(taken)

    @property
    def ids(self) -> list[str]:
        """Request ids on the main queue, in order."""
        return [json.loads(body)["request_id"] for body in self.queues.get(QUEUE, [])]


@dataclass
class MemoryStore:
    """Objects in a dict. A bucket that begins with file:// makes the gateway serve them."""

    bucket: str = "bucket"
    objects: dict[str, bytes] = field(default_factory=dict)

    async def put(self, key: str, data: bytes, content_type: str, metadata: object = None) -> bool:
        new = key not in self.objects
        self.objects.setdefault(key, data)
        return new

    async def replace(self, key: str, data: bytes, content_type: str) -> None:
        self.objects[key] = data

    async def get(self, key: str) -> bytes:
        if check_key(key) not in self.objects:
            raise ObjectMissing(f"no object {key}")
        return self.objects[key]

    async def exists(self, key: str) -> bool:
        return key in self.objects

    async def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    async def list(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))

    def public_url(self, key: str) -> str:
        return f"https://store.example/{key}"


PACKS = [
    StylePack(id="plain", version=1, licence="CC0-1.0"),
    StylePack(
        id="tale",
        version=3,
        base=BASE,
        trigger="trg",
        template="{prompt}, thick outlines",
        negative="blurry",
        size=Size(width=96, height=64, min=32, max=128),
        defaults=Defaults(num_inference_steps=20, guidance_scale=5.0, scheduler=Scheduler.EULER),
    ),
    StylePack(id="alien", version=1, base="c" * 64),
]


class Packs:
    """A catalog of three styles, one of them for another base model."""

    async def list(self) -> list[StylePack]:
        return list(PACKS)

    async def versions(self) -> Mapping[str, Sequence[int]]:
        return {"tale": [2, 3]}

    def forget(self) -> None:
        """Nothing changes here."""

    async def get(self, name: str) -> StylePack:
        for pack in PACKS:
            if name in (pack.id, pack.name):
                return pack
        raise StyleNotFound(f"there is no style {name!r}")

    async def toml(self, style: str, version: int) -> bytes:
        return (await self.get(f"{style}@{version}")).to_toml().encode()

    async def blob(self, sha256: str) -> bytes:
        if sha256 != BLOB:
            raise ObjectMissing("no style has this file")
        return b"weights"

    async def sample(self, pack: StylePack) -> bytes | None:
        return b"a picture" if pack.id == "plain" else None


FACTS = ModelFacts("starter", None, BASE, 64, 64, 8)


@dataclass
class Rig:
    app: FastAPI
    broker: MemoryBroker
    store: MemoryStore
    http: httpx.AsyncClient

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway

    async def submit(self, prompt: str = "a red apple", **fields: Any) -> dict[str, Any]:
        answer = await self.http.post("/v1/generations", json={"prompt": prompt, **fields})
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def claim(self, request_id: str, worker: str = "w1") -> dict[str, Any]:
        answer = await self.http.post(
            "/v1/worker/claims", json={"worker_id": worker, "jobs": [{"request_id": request_id}]}
        )
        assert answer.status_code == 200, answer.text
        (claim,) = answer.json()
        return dict(claim)

    async def report(self, request_id: str, attempt: int = 1, status: str = "Completed", **more: Any) -> int:
        item = {"request_id": request_id, "attempt": attempt, "status": status, **more}
        if status == "Completed":
            item.setdefault("images", [picture(request_id, self.store)])
        answer = await self.http.post("/v1/worker/reports", json=[item])
        assert answer.status_code == 200, answer.text
        return int(answer.json()[0]["code"])

    async def all_published(self) -> bool:
        return bool((await self.http.get("/v1/stats")).json()["unpublished"] == 0)

    async def draw(self, request_id: str) -> None:
        """Be the worker: claim, upload, report."""
        attempt = (await self.claim(request_id))["attempt"]
        key = f"generated/{request_id}.png"
        await self.store.put(key, png(), "image/png")
        assert await self.report(request_id, attempt) == 200


@dataclass
class Clock:
    """Stands still unless the test moves it."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def headers_of(rig: Rig, role: Role, **limits: Any) -> dict[str, str]:
    """The headers of a caller with a new key."""
    _, secret = await keys.create(rig.gateway.db, f"a {role}", role, **limits)
    return {"X-API-Key": secret}


@contextmanager
def away(rig: Rig) -> Iterator[None]:
    """The gateway's database cannot be reached inside the block."""
    engine = rig.gateway.db.engine
    rig.gateway.db.engine = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none").engine
    try:
        yield
    finally:
        rig.gateway.db.engine = engine


def picture(request_id: str, store: MemoryStore, n: int = 0) -> dict[str, Any]:
    key = f"generated/{request_id}.png" if n == 0 else f"generated/{request_id}/{n}.png"
    return {
        "n": n,
        "seed": str(7 + n),
        "bucket": store.bucket,
        "key": key,
        "url": store.public_url(key),
        "width": 64,
        "height": 64,
    }


def png(width: int = 512, height: int = 256) -> bytes:
    out = io.BytesIO()
    PillowImage.new("RGB", (width, height), "tomato").save(out, "PNG")
    return out.getvalue()


def settings_for(database_url: str, home: Path, **values: Any) -> GatewaySettings:
    quick = {"relay_interval": 0.05, "sweep_interval": 3600.0, "clean_interval": 3600.0}
    return GatewaySettings(database_url_setting=database_url, home=home, **{**quick, **values})


def app_for(
    settings: GatewaySettings,
    broker: MemoryBroker,
    store: MemoryStore,
    *,
    embedded: bool = False,
    worker_key: str | None = None,
) -> FastAPI:
    return create_app(
        settings,
        broker=broker,
        store=store,
        catalog=Packs(),
        model=FACTS,
        embedded=embedded,
        worker_key=worker_key,
        studio=site.install,
    )


@asynccontextmanager
async def running(
    settings: GatewaySettings,
    broker: MemoryBroker | None = None,
    store: MemoryStore | None = None,
    *,
    headers: dict[str, str] | None = None,
    embedded: bool = False,
    worker_key: str | None = None,
) -> AsyncIterator[Rig]:
    """A gateway without a socket."""
    broker, store = broker or MemoryBroker(), store or MemoryStore()
    app = app_for(settings, broker, store, embedded=embedded, worker_key=worker_key)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=LOCAL, headers=headers) as http,
    ):
        yield Rig(app, broker, store, http)


@asynccontextmanager
async def listening(
    settings: GatewaySettings, broker: MemoryBroker | None = None, store: MemoryStore | None = None
) -> AsyncIterator[Rig]:
    """A gateway behind uvicorn on a free port."""
    broker, store = broker or MemoryBroker(), store or MemoryStore()
    app = app_for(settings, broker, store)
    async with (
        serving(app, bind("127.0.0.1", 0)) as address,
        httpx.AsyncClient(base_url=address, timeout=30) as http,
    ):
        yield Rig(app, broker, store, http)
