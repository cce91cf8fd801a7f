"""`/v1/worker`: claims, heartbeat, reports, uploads. Mostly lists, so that one call serves several jobs."""

import time
from typing import Annotated

from fastapi import APIRouter, Body

from itemforge.contract import (
    Claim,
    ClaimRequest,
    Heartbeat,
    HeartbeatAnswer,
    Image,
    Report,
    ReportAnswer,
    ReportStatus,
    Upload,
    UploadRequest,
    object_key,
)
from itemforge.gateway.context import Gateway, GatewayDep
from itemforge.gateway.problems import Refusal, documented, wrong_field
from itemforge.gateway.uploads import offer_uploads, sign_uploads
from itemforge.jobs import claims, heartbeats, requests
from itemforge.jobs.states import OPEN
from itemforge.storage.face import is_folder

router = APIRouter(prefix="/v1/worker", tags=["workers"], responses=documented(400, 401, 413, 415, 422, 503))

_MAX_REPORTS = 256


@router.post("/claims")
async def claim_jobs(body: ClaimRequest, gateway: GatewayDep) -> list[Claim]:
    """Lease requests to a worker. An empty list asks only whether claims are spoken here."""
    if not body.jobs:
        return []
    ids = [job.request_id for job in body.jobs]
    traces = {job.request_id: job.traceparent for job in body.jobs if job.traceparent}
    answers = await claims.claim(gateway.db, body.worker_id, ids, gateway.settings.lease, traces)
    gateway.metrics.claims_answered(answer.outcome for answer in answers)
    return await offer_uploads(gateway, answers) if body.uploads else answers


@router.post("/uploads", responses=documented(404, 409))
async def renew_uploads(body: UploadRequest, gateway: GatewayDep) -> list[Upload]:
    """New signed uploads for an attempt, as long as its report would be accepted."""
    row = await requests.get(gateway.db, body.request_id)
    if row is None:
        raise Refusal(404, "There is no generation with this id.")
    given_back = row.reported is not None
    if row.status not in OPEN or (row.attempt, row.worker_id) != (body.attempt, body.worker_id) or given_back:
        raise Refusal(409, "This attempt is over or another worker's; drop its result.")
    return await sign_uploads(gateway, row.id, row.params.num_images)


@router.post("/heartbeat")
async def heartbeat(body: Heartbeat, gateway: GatewayDep) -> list[HeartbeatAnswer]:
    """Renew leases and tell progress; hear what was cancelled, lost, or is being watched."""
    return await heartbeats.beat(gateway.db, body, gateway.settings.lease, time.time)


@router.post("/reports")
async def report_results(
    body: Annotated[list[Report], Body(max_length=_MAX_REPORTS)], gateway: GatewayDep
) -> list[ReportAnswer]:
    """End attempts. 409 for an attempt that is not the row's any more: drop the result."""
    checked = [_checked(gateway, item, f"{place}.images") for place, item in enumerate(body)]
    answers = await claims.report(gateway.db, checked)
    for item, answer in zip(body, answers, strict=True):
        gateway.metrics.report_answered(item.status, answer.code)
    return answers


def _checked(gateway: Gateway, item: Report, field: str) -> Report:
    """The report with the addresses that this gateway vouches for."""
    if item.status is ReportStatus.COMPLETED and not item.images:
        raise wrong_field(field, "must name the pictures of a Completed request")
    images = []
    for n, image in enumerate(item.images):
        # The gateway will read and delete this key: a report opens no other object to it.
        allowed = [object_key(item.request_id, image.n, num_images) for num_images in (1, 16)]
        if image.key not in allowed:
            raise wrong_field(f"{field}.{n}.key", f"must be {' or '.join(allowed)}")
        images.append(_located(gateway, image, f"{field}.{n}.bucket"))
    return item.model_copy(update={"images": images})


def _located(gateway: Gateway, image: Image, field: str) -> Image:
    """Where the picture is, in this gateway's words: a rented worker must not send users elsewhere."""
    store = gateway.store
    if image.bucket == store.bucket or (is_folder(image.bucket) and is_folder(store.bucket)):
        return image.model_copy(update={"bucket": store.bucket, "url": store.public_url(image.key)})
    if gateway.settings.storage_set:
        raise wrong_field(
            field,
            f"must be {store.bucket}, this gateway's store; give gateway and worker the same "
            "ITEMFORGE_STORAGE_URL or GCS_BUCKET_NAME, or the worker ITEMFORGE_UPLOADS=signed",
        )
    return image  # a gateway without a store of its own: the worker's is the only one
