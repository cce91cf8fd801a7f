"""How pictures reach the store: with the worker's own credentials, or by addresses that a claim brought.

A worker on a rented machine has no credentials to a bucket. Each claim then brings one signed address for
each picture, good for creating that picture and nothing else; an expired one is asked for anew. Objects are
written once either way, so a repeated upload is harmless.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Protocol

import httpx
import structlog

from itemforge.contract import Upload, object_key
from itemforge.errors import ConfigurationError, GatewayRefused, PermanentError, StorageUnavailable
from itemforge.settings import WorkerSettings
from itemforge.storage.face import ObjectStore
from itemforge.tls import client_context, refusal
from itemforge.worker.gateway_client import ClaimsGateway, Gateway
from itemforge.worker.job import Dropped, Job

log = structlog.get_logger(__name__)

#: A key that is asked for to see whether the store answers.
PROBE_KEY = "itemforge-probe"
_TYPE = "image/png"
#: What a store answers when an address has expired, or was not signed for this upload.
_NOT_PERMITTED = (400, 401, 403)
#: The code in a refusal of Google's; the rest of its text quotes the request.
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")


@dataclass(frozen=True)
class Stored:
    """Where a picture lies. `created` is False when it lay there already."""

    bucket: str
    key: str
    url: str
    created: bool


class Uploads(Protocol):
    """What the rest of the worker asks; every call is safe to repeat.

    Every call raises StorageUnavailable or GatewayUnavailable (away), or PermanentError (refused).
    """

    async def put(self, job: Job, n: int, png: bytes) -> Stored:
        """Create image `n` of the job; a success also when it is there already.

        Raises:
            Dropped: the gateway says that the attempt is over.
        """
        ...

    async def find(self, job: Job, n: int) -> Stored | None:
        """Image `n`, if it is there already; asked only where no claims tell."""
        ...

    async def probe(self) -> None:
        """Whether the store answers, as far as this worker can tell."""
        ...

    async def close(self) -> None: ...


def open_uploads(settings: WorkerSettings, gateway: Gateway, store: ObjectStore) -> Uploads:
    """By the setting `ITEMFORGE_UPLOADS`, and by what the gateway can do.

    Raises:
        ConfigurationError: signed uploads are asked for, and the gateway has no claims to bring them.
    """
    direct = DirectUploads(store)
    claims = isinstance(gateway, ClaimsGateway)
    if settings.uploads == "signed" and not claims:
        raise ConfigurationError(
            "ITEMFORGE_UPLOADS is signed, and this gateway knows only /update_db, which brings no signed "
            "uploads; use a gateway of ItemForge, or set up storage here and ITEMFORGE_UPLOADS=direct"
        )
    if settings.uploads == "direct" or not claims or (settings.uploads == "auto" and settings.storage_set):
        return direct
    assert isinstance(gateway, ClaimsGateway)  # noqa: S101  # for the type checker
    gateway.ask_for_uploads = True
    return SignedUploads(settings, gateway, direct if settings.uploads == "auto" else None)


class DirectUploads:
    """`Uploads` into a store that this worker has the credentials for."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put(self, job: Job, n: int, png: bytes) -> Stored:
        key = object_key(job.request_id, n, job.params.num_images)
        metadata = {
            "request-id": str(job.request_id),
            "attempt": str(job.attempt or 0),
            "seed": str(job.params.seed + n),
        }
        return self._at(key, await self._store.put(key, png, _TYPE, metadata))

    async def find(self, job: Job, n: int) -> Stored | None:
        key = object_key(job.request_id, n, job.params.num_images)
        return self._at(key, created=False) if await self._store.exists(key) else None

    async def probe(self) -> None:
        await self._store.exists(PROBE_KEY)

    async def close(self) -> None:
        return

    def _at(self, key: str, created: bool) -> Stored:
        return Stored(self._store.bucket, key, self._store.public_url(key), created)


class SignedUploads:
    """`Uploads` by the addresses that claims bring; `otherwise` serves gateways that bring none."""

    def __init__(
        self, settings: WorkerSettings, gateway: ClaimsGateway, otherwise: DirectUploads | None
    ) -> None:
        self._gateway = gateway
        self._gateway_url = settings.api_gateway_url.rstrip("/")
        self._otherwise = otherwise
        self._timeout = settings.storage_timeout
        # A client without the gateway's key: the address is the whole permission.
        self._http = httpx.AsyncClient(timeout=self._timeout, verify=client_context(settings.ca_file))

    async def put(self, job: Job, n: int, png: bytes) -> Stored:
        if job.uploads is None and self._otherwise is not None:
            log.debug("gateway_signs_no_uploads")
            return await self._otherwise.put(job, n, png)
        upload = _upload_of(job, n) or await self._renewed(job, n)
        answer = await self._send(upload, png)
        if answer.status_code in _NOT_PERMITTED:
            log.info("upload_not_permitted", status_code=answer.status_code, refusal=_code(answer))
            upload = await self._renewed(job, n)
            answer = await self._send(upload, png)
        if answer.is_success or answer.status_code == 412:
            return Stored(upload.bucket, upload.key, upload.public_url, created=answer.is_success)
        raise PermanentError(
            f"the store refused a signed upload ({answer.status_code} {_code(answer)}); check that the "
            "gateway's service account may create objects in its bucket, and the clocks"
        )

    async def find(self, job: Job, n: int) -> Stored | None:
        return None  # claims tell what is done

    async def probe(self) -> None:
        return  # nothing can be asked without a picture to bring: waiting ones tell

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, upload: Upload, png: bytes) -> httpx.Response:
        """The store's answer, below 500. Errors never show the address: its query is the permission."""
        url = self._gateway_url + upload.url if upload.url.startswith("/") else upload.url
        try:
            async with asyncio.timeout(self._timeout):  # the client's own holds for each of its steps
                answer = await self._http.put(url, content=png, headers=upload.headers)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            why = refusal(error) or "check the network"
            raise StorageUnavailable(f"the store did not answer ({type(error).__name__}): {why}") from None
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            raise StorageUnavailable(f"the store answered {answer.status_code} to an upload")
        return answer

    async def _renewed(self, job: Job, n: int) -> Upload:
        try:
            job.uploads = await self._gateway.uploads(job.request_id, job.attempt or 0)
        except GatewayRefused as error:
            if error.status != 409:
                raise
            job.interrupt(Dropped("the gateway signs no more uploads: this attempt is over"))
            raise Dropped("this attempt is over") from None
        if (upload := _upload_of(job, n)) is None:
            raise StorageUnavailable(f"the gateway signed no upload for image {n}; its log says why")
        return upload


def _upload_of(job: Job, n: int) -> Upload | None:
    return next((upload for upload in job.uploads or () if upload.n == n), None)


def _code(answer: httpx.Response) -> str:
    found = _CODE.search(answer.text[:4096])
    return found.group(1) if found else ""
