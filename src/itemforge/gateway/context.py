"""What the routes and the background tasks work with; made once by the app factory."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Protocol, TypeVar
from urllib.parse import quote

from fastapi import Depends, Request, Response
from sqlalchemy.exc import DBAPIError
from starlette.types import Scope

from itemforge.broker.face import Broker
from itemforge.bundler import Bundler
from itemforge.contract import Image
from itemforge.errors import DatabaseUnavailable
from itemforge.gateway.block_list import BlockList
from itemforge.gateway.guard import Guard
from itemforge.gateway.keyring import Caller, Keyring
from itemforge.gateway.limits import MovingWindow
from itemforge.gateway.outputs import Derivatives
from itemforge.gateway.problems import Refusal
from itemforge.jobs.creation import MOST, Inserted, insert_new
from itemforge.jobs.database import Database
from itemforge.jobs.records import NewRequest
from itemforge.jobs.records import Request as JobRequest
from itemforge.jobs.slow_counts import SlowCounts
from itemforge.settings import GatewaySettings
from itemforge.storage.face import ObjectStore, is_folder
from itemforge.styles.models import ModelFacts
from itemforge.styles.pack import StylePack
from itemforge.telemetry.gateway_metrics import GatewayMetrics

T = TypeVar("T")


class Styles(Protocol):
    """What the gateway asks of a style catalog; `styles.catalog.Catalog` is the real one."""

    async def list(self) -> list[StylePack]: ...

    async def versions(self) -> Mapping[str, Sequence[int]]: ...

    def forget(self) -> None: ...

    async def get(self, name: str) -> StylePack: ...

    async def toml(self, style: str, version: int) -> bytes: ...

    async def blob(self, sha256: str) -> bytes: ...

    async def sample(self, pack: StylePack) -> bytes | None: ...


class Studio(Protocol):
    """The pages, as far as the gateway knows them: how it says no to a browser."""

    def refused(self, scope: Scope, refusal: Refusal) -> Response: ...


@dataclass
class Gateway:
    """`embedded`: queue and worker live in this process and die with it; the worker calls with `worker_key`."""

    settings: GatewaySettings
    db: Database
    broker: Broker
    store: ObjectStore
    catalog: Styles
    model: ModelFacts
    embedded: bool = False
    worker_key: str | None = None
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)
    studio: Studio | None = None
    #: Where the gateway answers, once it does.
    address: str | None = None
    #: What stands between webhooks and our own network.
    guard: Guard = field(init=False)
    #: Inserts a new request, together with those that come meanwhile.
    insert: Bundler[NewRequest, Inserted] = field(init=False)
    #: Set when the schema is there; until then the database counts as away.
    migrated: asyncio.Event = field(default_factory=asyncio.Event)
    #: Of the last minute: submissions by owner, wrong keys by the address that they came from.
    submissions: MovingWindow = field(default_factory=MovingWindow)
    wrong_keys: MovingWindow = field(default_factory=MovingWindow)
    keyring: Keyring = field(init=False)
    derivatives: Derivatives = field(init=False)
    block_list: BlockList = field(init=False)

    def __post_init__(self) -> None:
        self.keyring = Keyring(self.settings, self.db, self.migrated, self.worker_key)
        self.derivatives = Derivatives(self.store)
        self.block_list = BlockList(self.settings.block_list)
        self.guard = Guard(self.settings)
        work = partial(insert_new, self.db)
        self.insert = Bundler(work, MOST, alone=(DBAPIError,))
        self._slow_counts = SlowCounts(self.db)

    async def counted(self, count: Callable[..., Awaitable[T]], *of: str | None) -> T:
        """A figure of the whole table, which may be some seconds old when the table is large."""
        return await self._slow_counts.get(count, *of)

    def base_url(self, request: Request) -> str:
        """The gateway's address as this client sees it, without a slash at the end."""
        return (self.settings.public_url or str(request.base_url)).rstrip("/")

    @property
    def own_url(self) -> str:
        """The gateway's address where no client's call tells it."""
        where = self.settings.public_url or self.address
        return (where or f"http://{self.settings.host}:{self.settings.port}").rstrip("/")

    @property
    def serves_objects(self) -> bool:
        """Whether pictures lie in a folder, which nobody else serves."""
        return is_folder(self.store.bucket)


def picture_url(image: Image, base_url: str) -> str:
    """A folder's pictures are served by the gateway, wherever it is reached; others have their own URL."""
    if is_folder(image.bucket):
        return f"{base_url}/objects/{quote(image.key)}"
    return image.url


def image_url(request: JobRequest, base_url: str) -> str | None:
    """The address of the first picture."""
    return picture_url(request.images[0], base_url) if request.images else request.image_url


# Async, because FastAPI sends plain functions to a thread, which costs more than they do.
async def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    if not gateway.migrated.is_set():
        raise DatabaseUnavailable("the database is not ready yet; try again")
    return gateway


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller  # set by auth.Access for every route but the probes
    return caller


async def _sees(request: Request) -> str | None:
    return (await _caller(request)).sees


#: Dependencies of the routes.
GatewayDep = Annotated[Gateway, Depends(_gateway)]
CallerDep = Annotated[Caller, Depends(_caller)]
#: The owner whose requests the caller may see; None: everybody's.
SeesDep = Annotated[str | None, Depends(_sees)]
