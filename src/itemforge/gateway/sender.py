"""Sends webhooks: takes what is due from the outbox, posts it, and writes down how that went.

At least once: a receiver that answers while nobody can write it down is told again under the same `webhook-id`.
"""

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property

import httpcore
import structlog

import itemforge
from itemforge import retry_after
from itemforge.errors import RetryableError
from itemforge.gateway import signature, views
from itemforge.gateway.context import Gateway
from itemforge.gateway.guard import AddressRefused, GuardedBackend
from itemforge.jobs import deliveries
from itemforge.jobs.deliveries import Sending, State
from itemforge.tls import client_context, refusal

log = structlog.get_logger(__name__)

#: Seconds before the second and each further try, about a day in all; each differs by up to a fifth.
PAUSES = (5.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 50000.0)
#: A receiver may ask for a later try, but not for one after its day is over.
_LONGEST_PAUSE = 86400.0
#: Tries under way at once in one gateway.
_PLACES = 16
#: So much (bytes) of an answer is taken in, for politeness; nobody reads it.
_MAX_ANSWER = 16 * 1024
#: Beyond a try's own time, after which another sender may have it.
_LEASE_MARGIN = 15.0


@dataclass(frozen=True)
class Answer:
    """What came back: a status, or the reason why there is none. `retry_after` in seconds."""

    status: int | None = None
    problem: str | None = None
    retry_after: float = 0.0


class Sender:
    """One per gateway process; several share a PostgreSQL without having the same try in hand."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = gateway.settings
        self._wake = gateway.db.signals.deliver
        self._in_hand: Counter[str] = Counter()

    @cached_property
    def _http(self) -> httpcore.AsyncConnectionPool:
        """Made at its first use, because reading all certificates takes a while. It follows no redirect."""
        return httpcore.AsyncConnectionPool(
            ssl_context=client_context(self._settings.ca_file),
            max_connections=_PLACES,
            max_keepalive_connections=0,  # each try is a new connection, so each is checked
            network_backend=GuardedBackend(self._gateway.guard),
        )

    async def run(self) -> None:
        """Run until cancelled; what is under way then is due again after its lease."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                try:
                    for sending in await self._take():
                        self._in_hand[sending.webhook.id] += 1
                        group.create_task(self._kept(sending))
                except RetryableError as error:
                    log.warning("sender_held", reason=str(error))
                try:
                    async with asyncio.timeout(self._settings.relay_interval):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _take(self) -> list[Sending]:
        places = _PLACES - self._in_hand.total()
        if not places:
            return []
        lease = self._settings.webhook_timeout + _LEASE_MARGIN
        return await deliveries.take(self._gateway.db, places, self._in_hand, lease)

    async def _kept(self, sending: Sending) -> None:
        """Supervises one delivery: its trouble, a bug included, is not the others'; its tries are counted."""
        try:
            await self.deliver(sending)
        except RetryableError as error:
            log.warning("webhook_not_recorded", delivery=sending.delivery.id, reason=str(error))
        except Exception:
            log.exception("webhook_crashed", delivery=sending.delivery.id)
        finally:
            self._in_hand -= Counter((sending.webhook.id,))
            self._wake.set()

    async def deliver(self, sending: Sending) -> None:
        """Make one try of what was taken, and record it.

        Raises:
            DatabaseUnavailable: it was made and is not recorded, so it will be made again.
        """
        hopeless = _hopeless(sending)
        if hopeless is not None:
            await self._end(sending, State.FAILED, Answer(problem=hopeless))
            return
        began = time.perf_counter()
        answer = await self._post(sending)
        log.debug(
            "webhook_tried",
            delivery=sending.delivery.id,
            status_code=answer.status,
            reason=answer.problem,
            ms=(time.perf_counter() - began) * 1000,
        )
        if answer.status is not None and 200 <= answer.status < 300:
            await self._end(sending, State.DELIVERED, answer)
        elif answer.status == 410 or sending.delivery.tries_left <= 0:
            await self._end(sending, State.FAILED, answer)
        else:
            await self._again(sending, answer)

    async def _again(self, sending: Sending, answer: Answer) -> None:
        pause = self._settings.retry_scale * _pause(sending.delivery.tries_left)
        wait = max(pause, answer.retry_after)
        recorded = await deliveries.record(
            self._gateway.db, sending, State.WAITING, status=answer.status, error=_said(answer), wait=wait
        )
        if recorded:
            self._gateway.metrics.webhook_tried("retried")
            log.info(
                "webhook_held",
                delivery=sending.delivery.id,
                webhook=sending.webhook.id,
                reason=_said(answer),
                retry_in_s=wait,
            )

    async def _end(self, sending: Sending, state: State, answer: Answer) -> None:
        error = None if state is State.DELIVERED else _said(answer)
        gone = answer.status == 410
        recorded = await deliveries.record(
            self._gateway.db, sending, state, status=answer.status, error=error, gone=gone
        )
        if recorded:
            self._gateway.metrics.webhook_tried(state.value)
            tell = log.info if state is State.DELIVERED else log.warning
            tell(
                f"webhook_{state.value}",
                delivery=sending.delivery.id,
                webhook=sending.webhook.id,
                reason=error,
                status_code=answer.status,
            )

    async def _post(self, sending: Sending) -> Answer:
        body = payload(sending, self._gateway.own_url)
        secrets = filter(None, (sending.webhook.secret, sending.webhook.old_secret))
        headers = {
            "content-type": "application/json",
            "user-agent": f"ItemForge/{itemforge.__version__}",
            **signature.headers(sending.delivery.id, int(time.time()), body, secrets),
        }
        limit = self._settings.webhook_timeout
        try:
            async with asyncio.timeout(limit):
                return await self._answered(sending.url or "", headers, body)
        except (TimeoutError, httpcore.TimeoutException):
            return Answer(problem=f"no answer within {limit:g} s")
        except AddressRefused as error:
            return Answer(problem=f"the address {error}")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return Answer(problem=refusal(error) or f"no connection ({type(error).__name__})")

    async def _answered(self, address: str, headers: dict[str, str], body: bytes) -> Answer:
        url = self._gateway.guard.read(address)
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        sent: list[tuple[bytes | str, bytes | str]] = [("host", url.netloc), *headers.items()]
        async with self._http.stream("POST", target, headers=sent, content=body) as response:
            taken = 0
            async for chunk in response.aiter_stream():
                taken += len(chunk)
                if taken > _MAX_ANSWER:
                    break
            return Answer(response.status, retry_after=_retry_after(response.headers))


def payload(sending: Sending, base_url: str) -> bytes:
    """What the receiver reads: type, time and the generation as `GET /v1/generations/{id}` shows it.

    The same for each try, as what has ended does not change, unless it is deleted meanwhile.
    """
    request, delivery = sending.request, sending.delivery
    if request is None:
        at, data = delivery.created_at, {"webhook_id": sending.webhook.id}
    else:
        at = request.finished_at or delivery.created_at
        data = views.generation(request, base_url).model_dump(mode="json")
    told = {"type": delivery.type, "timestamp": at.astimezone(UTC).isoformat(), "data": data}
    return json.dumps(told, separators=(",", ":")).encode()


def _hopeless(sending: Sending) -> str | None:
    """Why this is not even tried."""
    if sending.revoked:
        return "the key that asked for it was revoked"
    if sending.webhook.disabled_at is not None:
        return "the webhook is disabled; enable it, then send this again"
    if sending.delivery.tries_left < 0:
        return "its last try was cut off"
    return None


def _said(answer: Answer) -> str:
    if answer.status == 410:
        return "the receiver answered 410: it wants nothing more"
    return answer.problem or f"the receiver answered {answer.status}"


def _pause(tries_left: int) -> float:
    made = min(max(deliveries.TRIES - tries_left, 1), len(PAUSES))
    return PAUSES[made - 1] * random.uniform(0.8, 1.2)  # noqa: S311  # no secret


def _retry_after(headers: list[tuple[bytes, bytes]]) -> float:
    """The seconds that the receiver asks for; 0 if it does not."""
    text = next((value for name, value in headers if name.lower() == b"retry-after"), b"").decode("latin-1")
    return min(retry_after.seconds(text) or 0.0, _LONGEST_PAUSE)
