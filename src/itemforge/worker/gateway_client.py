"""The worker's side of the gateway: claims where they are spoken, `/update_db` where they are not.

Both kinds show one face, so the rest of the worker does not ask which gateway it has. Against a gateway
that knows only `PUT /update_db/{id}` a claim is the report `Processing`, there is no lease, no heartbeat
and no fencing; what protects the result there is that objects are written once.
"""

import ssl
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

import httpx
import structlog
from pydantic import TypeAdapter, ValidationError

from itemforge.bundler import Bundler
from itemforge.contract import (
    CONTRACT_HEADER,
    Claim,
    ClaimJob,
    ClaimRequest,
    Heartbeat,
    HeartbeatAnswer,
    Outcome,
    Report,
    ReportAnswer,
    ReportStatus,
    Status,
    Upload,
    UploadRequest,
)
from itemforge.errors import GatewayRefused, GatewayUnavailable, ObjectMissing, StyleNotFound
from itemforge.settings import WorkerSettings
from itemforge.tls import client_context, refusal

log = structlog.get_logger(__name__)

_CLAIMS = TypeAdapter(list[Claim])
_ANSWERS = TypeAdapter(list[HeartbeatAnswer])
_CODES = TypeAdapter(list[ReportAnswer])
_REPORTS = TypeAdapter(list[Report])
_UPLOADS = TypeAdapter(list[Upload])
T = TypeVar("T")

#: Requests, each with the `traceparent` of the attempt that would begin.
Wanted = Sequence[tuple[UUID, str | None]]
#: Reports in one call; the gateway takes 256.
_MOST_REPORTS = 64


class Gateway(Protocol):
    """What a worker asks of a gateway.

    Every call raises GatewayUnavailable (away, or 5xx) or GatewayRefused (4xx: a wrong key, mostly).
    """

    async def claim(self, wanted: Wanted) -> list[Claim]:
        """Try to take these requests; one answer for each, in their order."""
        ...

    async def heartbeat(self, beat: Heartbeat) -> list[HeartbeatAnswer]:
        """Renew the leases, tell the progress, hear of cancels."""
        ...

    async def report(self, report: Report) -> int:
        """End an attempt: 200 accepted (or already so), 409 stale, 404 unknown."""
        ...

    async def ping(self) -> None:
        """Find out whether the gateway answers."""
        ...


class HttpCaller:
    """One HTTP client for the gateway, whose failures come out as our two families."""

    def __init__(
        self,
        settings: WorkerSettings,
        transport: httpx.AsyncBaseTransport | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`trust` says whose certificates are believed; by default as the settings say.

        Raises:
            ConfigurationError: `ITEMFORGE_CA_FILE` cannot be read.
        """
        key = settings.api_key
        self._http = httpx.AsyncClient(
            base_url=settings.api_gateway_url,
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=settings.gateway_timeout,
            transport=transport,
            verify=trust or client_context(settings.ca_file),
        )

    async def send(self, method: str, path: str, json: Any = None) -> httpx.Response:
        """Send and return any answer below 500.

        Raises:
            GatewayUnavailable: no answer, or 5xx, or 429.
        """
        try:
            response = await self._http.request(method, path, json=json)
        except httpx.HTTPError as error:
            why = refusal(error) or f"{type(error).__name__} at {path}"
            raise GatewayUnavailable(f"no answer from the gateway: {why}") from error
        if response.status_code >= 500 or response.status_code == 429:
            raise GatewayUnavailable(f"the gateway answered {response.status_code} at {path}")
        return response

    async def expect(self, method: str, path: str, adapter: TypeAdapter[T], json: Any) -> T:
        """Send and read a 2xx answer.

        Raises:
            GatewayUnavailable: as `send`, or an answer that is not the contract's.
            GatewayRefused: 4xx.
        """
        response = await self.send(method, path, json)
        if not response.is_success:
            raise GatewayRefused(response.status_code, _detail(response))
        try:
            return adapter.validate_json(response.content)
        except ValidationError as error:
            raise GatewayUnavailable(f"the gateway's answer at {path} is not the contract's") from error

    async def close(self) -> None:
        await self._http.aclose()


class ClaimsGateway:
    """Our gateway: `/v1/worker/{claims,heartbeat,reports,uploads}`."""

    def __init__(self, caller: HttpCaller, worker_id: str) -> None:
        self._caller = caller
        self._worker_id = worker_id
        #: Whether claims shall bring signed uploads; a gateway of version 0.1 brings none.
        self.ask_for_uploads = False
        # One report that the gateway refuses spoils nothing for those that go with it.
        self._reports = Bundler(self._report_all, _MOST_REPORTS, alone=(GatewayRefused,))

    async def claim(self, wanted: Wanted) -> list[Claim]:
        jobs = [ClaimJob(request_id=request_id, traceparent=trace) for request_id, trace in wanted]
        request = ClaimRequest(worker_id=self._worker_id, jobs=jobs, uploads=self.ask_for_uploads)
        body = request.model_dump(mode="json", exclude_defaults=True)
        claims = await self._caller.expect("POST", "/v1/worker/claims", _CLAIMS, body)
        by_id = {claim.request_id: claim for claim in claims}
        if missing := [i for i, _ in wanted if i not in by_id]:
            raise GatewayUnavailable(f"the gateway did not answer the claim of {missing[0]}")
        return [by_id[i] for i, _ in wanted]

    async def heartbeat(self, beat: Heartbeat) -> list[HeartbeatAnswer]:
        body = beat.model_dump(mode="json", exclude_none=True)
        return await self._caller.expect("POST", "/v1/worker/heartbeat", _ANSWERS, body)

    async def report(self, report: Report) -> int:
        return await self._reports.call(report)

    async def _report_all(self, reports: Sequence[Report]) -> list[int]:
        body = _REPORTS.dump_python(list(reports), mode="json", exclude_none=True)
        answers = await self._caller.expect("POST", "/v1/worker/reports", _CODES, body)
        if len(answers) != len(reports):
            raise GatewayUnavailable(f"the gateway gave {len(answers)} answers to {len(reports)} reports")
        return [answer.code for answer in answers]

    async def uploads(self, request_id: UUID, attempt: int) -> list[Upload]:
        """New signed uploads for an attempt in hand.

        Raises:
            GatewayRefused: 409, the attempt is over; 404, the gateway signs none.
            GatewayUnavailable: as every call.
        """
        wanted = UploadRequest(worker_id=self._worker_id, request_id=request_id, attempt=attempt)
        body = wanted.model_dump(mode="json")
        return await self._caller.expect("POST", "/v1/worker/uploads", _UPLOADS, body)

    async def ping(self) -> None:
        await self.claim([])


class SeedGateway:
    """A gateway that knows only `PUT /update_db/{id}`."""

    def __init__(self, caller: HttpCaller) -> None:
        self._caller = caller

    async def claim(self, wanted: Wanted) -> list[Claim]:
        return [await self._claim_one(request_id) for request_id, _ in wanted]

    async def _claim_one(self, request_id: UUID) -> Claim:
        code = await self._update(request_id, {"status": Status.PROCESSING})
        # 409 comes only from a gateway that fences: the request has ended, or another worker draws it.
        outcome = {404: Outcome.UNKNOWN, 409: Outcome.DONE}.get(code, Outcome.CLAIMED)
        return Claim(request_id=request_id, outcome=outcome)

    async def heartbeat(self, beat: Heartbeat) -> list[HeartbeatAnswer]:
        return []

    async def report(self, report: Report) -> int:
        if report.status is ReportStatus.COMPLETED:
            url = report.images[0].url
            return await self._update(report.request_id, {"status": Status.COMPLETED, "image_url": url})
        if report.status is ReportStatus.FAILED:
            return await self._update(report.request_id, {"status": Status.FAILED})
        return 200  # it knows no retry: the row stays Processing until the message comes again

    async def ping(self) -> None:
        await self._caller.send("GET", "/")

    async def _update(self, request_id: UUID, body: dict[str, str]) -> int:
        response = await self._caller.send("PUT", f"/update_db/{request_id}", body)
        if response.is_success or response.status_code in (404, 409):
            return 200 if response.is_success else response.status_code
        raise GatewayRefused(response.status_code, _detail(response))


class GatewayStyles:
    """Style packs and LoRA files, read through the gateway."""

    def __init__(self, caller: HttpCaller) -> None:
        self._caller = caller

    async def pack_toml(self, style: str, version: int | None) -> bytes:
        """The pack's TOML; of the current version when `version` is None.

        Raises:
            StyleNotFound: the gateway has no such pack.
            GatewayUnavailable: as every call.
        """
        wanted = "current" if version is None else str(version)
        response = await self._caller.send("GET", f"/v1/styles/{style}/{wanted}.toml")
        if response.status_code == 404:
            raise StyleNotFound(f"the gateway has no style {style}@{wanted}")
        return _content(response)

    async def blob(self, sha256: str) -> bytes:
        """A LoRA file's bytes.

        Raises:
            ObjectMissing: the gateway has no such file.
            GatewayUnavailable: as every call.
        """
        response = await self._caller.send("GET", f"/v1/styles/blobs/{sha256}")
        if response.status_code == 404:
            raise ObjectMissing(f"the gateway has no style file {sha256}")
        return _content(response)


async def find_gateway(caller: HttpCaller, settings: WorkerSettings, worker_id: str) -> Gateway:
    """The gateway's kind, found out by an empty list of claims unless the settings say it.

    Raises:
        GatewayUnavailable: it cannot be told now; ask again.
    """
    if settings.gateway_mode == "seed":
        return SeedGateway(caller)
    claims = ClaimsGateway(caller, worker_id)
    if settings.gateway_mode == "claims":
        return claims
    body = ClaimRequest(worker_id=worker_id, jobs=[]).model_dump(mode="json", exclude_defaults=True)
    response = await caller.send("POST", "/v1/worker/claims", body)
    ours = CONTRACT_HEADER in response.headers
    if response.is_success and ours:
        return claims
    if response.status_code in (404, 405) and not ours:
        log.info("gateway_without_claims")
        return SeedGateway(caller)
    raise GatewayUnavailable(
        f"cannot tell what gateway this is: it answered {response.status_code} to an empty claim "
        f"({_detail(response)}); check API_GATEWAY_URL and ITEMFORGE_API_KEY"
    )


def _content(response: httpx.Response) -> bytes:
    if not response.is_success:  # a wrong key, mostly: the operator's to mend, and no fault of the job
        raise GatewayUnavailable(f"the gateway refused a style ({response.status_code}): {_detail(response)}")
    return response.content


def _detail(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return response.text[:200]
    return str(body.get("detail", body) if isinstance(body, dict) else body)[:200]
