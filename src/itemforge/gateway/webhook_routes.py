"""`/v1/webhooks`: who is told of the ends of generations, by which secret, and how the telling went."""

from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Path, Query

from itemforge.gateway import submission
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep, SeesDep
from itemforge.gateway.generations import found
from itemforge.gateway.problems import Refusal, documented
from itemforge.gateway.webhook_models import (
    DeliveryPage,
    DeliveryView,
    OwnSecret,
    WebhookRequest,
    WebhookView,
    WebhookWithSecret,
)
from itemforge.jobs import deliveries, webhooks
from itemforge.jobs.deliveries import Listed, State
from itemforge.jobs.webhooks import Webhook

log = structlog.get_logger(__name__)
router = APIRouter(tags=["webhooks"])

WebhookId = Annotated[str, Path(pattern=r"^wh_[0-9a-f]{16}$", description="as `GET /v1/webhooks` lists it")]
DeliveryId = Annotated[str, Path(pattern=r"^msg_[0-9a-f]{32}$", description="the header `webhook-id`")]
StateQuery = Annotated[State | None, Query(description="only those that stand so")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[
    str | None, Query(pattern=r"^msg_[0-9a-f]{32}$", description="next_cursor of the last page")
]
_FOUND = documented(401, 404, 422, 503)


@router.post("/v1/webhooks", status_code=201, responses=documented(400, 401, 413, 415, 422, 503))
async def create_webhook(body: WebhookRequest, gateway: GatewayDep, caller: CallerDep) -> WebhookWithSecret:
    """Have an address told of the ends of this key's generations. Keep the secret: it is shown this once."""
    await gateway.guard.check_url("url", body.url)
    webhook = await webhooks.create(gateway.db, caller.owner, body.url, list(dict.fromkeys(body.events)))
    log.info("webhook_made", webhook=webhook.id, key=caller.key_id)
    return _with_secret(webhook)


@router.get("/v1/webhooks", responses=documented(401, 503))
async def list_webhooks(gateway: GatewayDep, sees: SeesDep) -> list[WebhookView]:
    """Your webhooks, the oldest first, or with an admin's key everybody's."""
    return [_view(webhook) for webhook in await webhooks.all_of(gateway.db, sees)]


@router.get("/v1/webhooks/secret", responses=documented(401, 503))
async def get_own_secret(gateway: GatewayDep, caller: CallerDep) -> OwnSecret:
    """The secret of this key, which signs the webhooks that generations bring along; made at its first use."""
    return _own(await webhooks.own(gateway.db, caller.owner))


@router.post("/v1/webhooks/secret/rotate", responses=documented(401, 503))
async def rotate_own_secret(gateway: GatewayDep, caller: CallerDep) -> OwnSecret:
    """A new secret for this key; the one before signs besides for a day."""
    rotated = await webhooks.rotate(gateway.db, await webhooks.own(gateway.db, caller.owner))
    return _own(_known(rotated))


@router.get("/v1/webhooks/deliveries", responses=documented(401, 422, 503))
async def list_deliveries(
    gateway: GatewayDep, sees: SeesDep, state: StateQuery = None, limit: Limit = 50, cursor: Cursor = None
) -> DeliveryPage:
    """What your webhooks were or will be told, newest first, the webhooks of single generations among them."""
    return _page(await deliveries.find(gateway.db, sees, limit + 1, state=state, before=cursor), limit)


@router.post(
    "/v1/webhooks/deliveries/{delivery_id}/resend", status_code=202, responses=_FOUND | documented(409)
)
async def resend_delivery(delivery_id: DeliveryId, gateway: GatewayDep, caller: CallerDep) -> DeliveryView:
    """Send it now, and again as often as if it were new; it keeps its `webhook-id`, and counts as a submission."""
    with submission.within_limits(gateway, caller):
        sent = await deliveries.resend(gateway.db, delivery_id, caller.sees)
    if sent is None:
        raise Refusal(404, "There is no delivery with this id.")
    return _delivery(sent)


@router.get("/v1/webhooks/{webhook_id}", responses=_FOUND)
async def get_webhook(webhook_id: WebhookId, gateway: GatewayDep, sees: SeesDep) -> WebhookView:
    """One of them."""
    return _view(await _found(gateway, webhook_id, sees))


@router.delete("/v1/webhooks/{webhook_id}", status_code=204, responses=_FOUND)
async def delete_webhook(webhook_id: WebhookId, gateway: GatewayDep, sees: SeesDep) -> None:
    """Delete it with its deliveries; what was not told by then is not told."""
    if not await webhooks.remove(gateway.db, webhook_id, sees):
        raise _unknown()
    log.info("webhook_deleted", webhook=webhook_id)


@router.post("/v1/webhooks/{webhook_id}/rotate", responses=_FOUND)
async def rotate_webhook(webhook_id: WebhookId, gateway: GatewayDep, sees: SeesDep) -> WebhookWithSecret:
    """A new secret, shown this once; the one before signs besides for a day."""
    webhook = await _found(gateway, webhook_id, sees)
    return _with_secret(_known(await webhooks.rotate(gateway.db, webhook)))


@router.post("/v1/webhooks/{webhook_id}/enable", responses=_FOUND)
async def enable_webhook(webhook_id: WebhookId, gateway: GatewayDep, sees: SeesDep) -> WebhookView:
    """Tell it again what ends from now on, after its receiver had answered 410."""
    return _view(_known(await webhooks.enable(gateway.db, webhook_id, sees)))


@router.post("/v1/webhooks/{webhook_id}/test", status_code=202, responses=_FOUND | documented(409))
async def test_webhook(webhook_id: WebhookId, gateway: GatewayDep, caller: CallerDep) -> DeliveryView:
    """Send it a `webhook.test`, signed and retried as any other; see its deliveries for how that went."""
    webhook = await _found(gateway, webhook_id, caller.sees)
    if webhook.disabled_at is not None:
        raise Refusal(409, "The webhook is disabled; enable it first.")
    with submission.within_limits(gateway, caller):
        return _delivery(await deliveries.add_test(gateway.db, webhook))


@router.get("/v1/webhooks/{webhook_id}/deliveries", responses=_FOUND)
async def list_webhook_deliveries(
    webhook_id: WebhookId,
    gateway: GatewayDep,
    sees: SeesDep,
    state: StateQuery = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DeliveryPage:
    """What it was or will be told, newest first."""
    await _found(gateway, webhook_id, sees)
    rows = await deliveries.find(
        gateway.db, sees, limit + 1, webhook_id=webhook_id, state=state, before=cursor
    )
    return _page(rows, limit)


@router.get("/v1/generations/{request_id}/deliveries", responses=_FOUND)
async def list_generation_deliveries(
    request_id: UUID, gateway: GatewayDep, sees: SeesDep
) -> list[DeliveryView]:
    """Who was or will be told of this generation's end; empty while it has not ended."""
    await found(gateway, request_id, sees)
    rows = await deliveries.find(gateway.db, sees, webhooks.MOST + 1, request_id=request_id)
    return [_delivery(row) for row in rows]


async def _found(gateway: Gateway, webhook_id: str, sees: str | None) -> Webhook:
    return _known(await webhooks.get(gateway.db, webhook_id, sees))


def _known(webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise _unknown()
    return webhook


def _unknown() -> Refusal:
    return Refusal(404, "There is no webhook with this id.")


def _view(webhook: Webhook) -> WebhookView:
    return WebhookView(
        id=webhook.id,
        url=webhook.url or "",
        events=list(webhook.events),
        created_at=webhook.created_at,
        old_secret_until=webhook.old_until,
        disabled_at=webhook.disabled_at,
        disabled_reason=webhook.disabled_reason,
    )


def _with_secret(webhook: Webhook) -> WebhookWithSecret:
    return WebhookWithSecret(**_view(webhook).model_dump(), secret=webhook.secret)


def _own(webhook: Webhook) -> OwnSecret:
    return OwnSecret(secret=webhook.secret, old_secret_until=webhook.old_until)


def _page(rows: list[Listed], limit: int) -> DeliveryPage:
    shown = [_delivery(row) for row in rows[:limit]]
    return DeliveryPage(items=shown, next_cursor=shown[-1].id if len(rows) > limit else None)


def _delivery(listed: Listed) -> DeliveryView:
    delivery = listed.delivery
    return DeliveryView(
        id=delivery.id,
        webhook_id=None if listed.single else delivery.webhook_id,
        generation_id=delivery.request_id,
        type=delivery.type,
        url=listed.url,
        state=delivery.state,
        attempts=delivery.attempts,
        last_status_code=delivery.last_status,
        error=delivery.error,
        next_try_at=delivery.next_at,
        created_at=delivery.created_at,
        ended_at=delivery.ended_at,
    )
