"""From the queue to claimed jobs: validate, claim while there is room, settle what is not ours to draw."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from uuid import UUID

import structlog
from pydantic import ValidationError

from itemforge.broker.face import Broker, Consumer, Delivery, Headers
from itemforge.contract import (
    ATTEMPT_HEADER,
    DEAD_QUEUE,
    REASON_HEADER,
    RETRY_DELAYS,
    Claim,
    JobMessage,
    Outcome,
    Report,
    ReportStatus,
    clean_text,
    readable_request_id,
    retry_queue,
)
from itemforge.errors import GatewayRefused, GatewayUnavailable, ItemForgeError
from itemforge.telemetry.attempts import Attempt, carried
from itemforge.worker.breaker import Breaker
from itemforge.worker.gateway_client import Gateway
from itemforge.worker.job import attempt_of

log = structlog.get_logger(__name__)

#: A body above this is no job message.
MAX_BODY = 256 * 1024
#: Most claims in one call.
_MAX_CLAIMS = 64


@dataclass(frozen=True)
class Waiting:
    """A valid message that is not claimed yet."""

    delivery: Delivery
    message: JobMessage
    trace: Attempt


async def send_back(
    broker: Broker, delivery: Delivery, tries: int, delay: str | None = None, headers: Headers | None = None
) -> None:
    """Copy the message to a retry queue, then acknowledge it; a crash between the two gives a duplicate.

    Where the broker does not take the copy, the message itself goes back to the queue. `headers` tell of
    the trace that it belongs to, by default the message's own.
    """
    names = list(RETRY_DELAYS)
    queue = retry_queue(delay or names[min(max(tries - 1, 0), len(names) - 1)])
    try:
        kept = carried(delivery.headers) if headers is None else headers
        await broker.publish(queue, delivery.body, {**kept, ATTEMPT_HEADER: tries})
    except ItemForgeError as error:
        log.warning("retry_not_published", error=error)
        await delivery.requeue()
        return
    await delivery.ack()


async def bury(broker: Broker, delivery: Delivery, reason: str, headers: Headers | None = None) -> None:
    """Copy the message to the dead queue with the reason, then acknowledge it; `headers` as `send_back`."""
    kept = carried(delivery.headers) if headers is None else headers
    headers = {
        **kept,
        REASON_HEADER: clean_text(reason)[:500],
        ATTEMPT_HEADER: attempt_of(delivery),
    }
    try:
        await broker.publish(DEAD_QUEUE, delivery.body, headers)
    except ItemForgeError as error:
        log.warning("dead_letter_not_published", error=error)
        await delivery.requeue()
        return
    log.warning("message_buried", error=reason)
    await delivery.ack()


class Intake:
    """`room` says how many more images may be claimed; `begin` takes a claimed request."""

    def __init__(
        self,
        broker: Broker,
        gateway: Gateway,
        breaker: Breaker,
        room: Callable[[], int],
        begin: Callable[[Waiting, Claim], None],
        pause: float,
    ) -> None:
        self._broker = broker
        self._gateway = gateway
        self._breaker = breaker
        self._room = room
        self._begin = begin
        self._pause = pause
        self._waiting: deque[Waiting] = deque()
        self._claiming = 0
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._settling: set[asyncio.Task[None]] = set()

    @property
    def held(self) -> int:
        """Valid messages that are not claimed yet, those of a claim under way among them."""
        return len(self._waiting) + self._claiming

    def wake(self) -> None:
        """There may be room again."""
        self._wake.set()

    async def run(self, consumer: Consumer, until: Coroutine[None, None, None]) -> None:
        """Take messages until `until` ends; what was not claimed goes back to the queue."""
        reader = asyncio.create_task(self._read(consumer))
        claimer = asyncio.create_task(self._claim_until_ending())
        stop = asyncio.create_task(until)
        try:
            await asyncio.wait((reader, claimer, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            # A claim under way is not cut off: what it may have leased would be charged and wait for its
            # lease to run out. It is begun, and given back by whoever ends us.
            self._ending.set()
            self._wake.set()
            await consumer.stop()
            ended = await asyncio.gather(reader, claimer, stop, return_exceptions=True)
            while self._waiting:
                await self._waiting.popleft().delivery.requeue()
            await asyncio.gather(*self._settling)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _read(self, consumer: Consumer) -> None:
        async for delivery in consumer:
            try:
                if len(delivery.body) > MAX_BODY:
                    raise ValueError(f"the body has {len(delivery.body)} bytes, more than {MAX_BODY}")
                message = JobMessage.model_validate_json(delivery.body)
            except ValueError as error:
                self._settle(self._reject(delivery, _why(error)))
                continue
            trace = Attempt(delivery.headers, str(message.request_id))
            self._waiting.append(Waiting(delivery, message, trace))
            self._wake.set()

    async def _claim_until_ending(self) -> None:
        pause = self._pause
        while not self._ending.is_set():
            self._wake.clear()
            taken = self._take()
            if not taken:
                await self._wake.wait()
                continue
            self._claiming = len(taken)
            for waiting in taken:
                waiting.trace.claiming()
            try:
                claims = await self._gateway.claim(
                    [(w.message.request_id, w.trace.traceparent) for w in taken]
                )
            except (GatewayUnavailable, GatewayRefused) as error:
                self._waiting.extendleft(reversed(taken))
                self._breaker.failure("claim", error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), pause)
                pause = min(pause * 2, 30.0)
                continue
            finally:
                self._claiming = 0
            pause = self._pause
            for waiting, claim in zip(taken, claims, strict=True):
                self._answer(waiting, claim)

    def _take(self) -> list[Waiting]:
        room = self._room()
        taken: list[Waiting] = []
        ids: set[UUID] = set()
        while self._waiting and room > 0 and len(taken) < _MAX_CLAIMS:
            if self._waiting[0].message.request_id in ids:
                break  # a second copy of the same request: its claim must see the first one's
            taken.append(self._waiting.popleft())
            ids.add(taken[-1].message.request_id)
            room -= taken[-1].message.params.num_images
        return taken

    def _answer(self, waiting: Waiting, claim: Claim) -> None:
        with structlog.contextvars.bound_contextvars(request_id=str(claim.request_id)):
            log.debug("claim_answered", outcome=str(claim.outcome), attempt=claim.attempt)
            match claim.outcome:
                case Outcome.CLAIMED:
                    self._begin(waiting, claim)
                case Outcome.LEASED:
                    tries = attempt_of(waiting.delivery)
                    self._settle(send_back(self._broker, waiting.delivery, tries, delay="30s"))
                case Outcome.DONE:
                    self._settle(waiting.delivery.ack())
                case Outcome.UNKNOWN:
                    reason = "the gateway does not know this request id"
                    self._settle(bury(self._broker, waiting.delivery, reason))
                case Outcome.EXHAUSTED:
                    reason = "failed too often; the request's row says how"
                    self._settle(bury(self._broker, waiting.delivery, reason))

    async def _reject(self, delivery: Delivery, reason: str) -> None:
        """An invalid message: its request fails where the id can be read, and the message is kept."""
        request_id = readable_request_id(delivery.body)
        known = {} if request_id is None else {"request_id": str(request_id)}
        with structlog.contextvars.bound_contextvars(**known):
            try:
                if request_id is not None:
                    await self._fail(request_id, f"the message is invalid: {reason}")
            except (GatewayUnavailable, GatewayRefused) as error:
                self._breaker.failure("claim", error)
                await send_back(self._broker, delivery, attempt_of(delivery), delay="30s")
            else:
                await bury(self._broker, delivery, f"invalid message: {reason}")

    async def _fail(self, request_id: UUID, reason: str) -> None:
        (claim,) = await self._gateway.claim([(request_id, None)])
        if claim.outcome is Outcome.CLAIMED:
            report = Report(
                request_id=request_id,
                attempt=claim.attempt or 0,
                status=ReportStatus.FAILED,
                error=clean_text(reason),
            )
            await self._gateway.report(report)

    def _settle(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)


def _why(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    parts = (f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()[:5])
    return "; ".join(parts)
