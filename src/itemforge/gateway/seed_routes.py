"""The routes of the original gateway, for clients and workers that were written for it."""

from uuid import UUID, uuid4

from fastapi import APIRouter
from starlette.requests import Request

from itemforge.contract import Status
from itemforge.gateway import submission
from itemforge.gateway.context import CallerDep, GatewayDep, SeesDep, image_url
from itemforge.gateway.generations import found
from itemforge.gateway.models import SeedAccepted, SeedGeneration, SeedMessage, SeedStatus, SeedUpdate
from itemforge.gateway.problems import Refusal, documented, wrong_field
from itemforge.jobs import claims
from itemforge.jobs.records import NewRequest

router = APIRouter(tags=["seed-compatible"])

#: The four statuses that the original knows.
_KNOWN = (Status.PENDING, Status.PROCESSING, Status.COMPLETED, Status.FAILED)


@router.post("/generate", status_code=202, responses=documented(400, 401, 413, 415, 422, 503))
async def generate(body: SeedGeneration, gateway: GatewayDep, caller: CallerDep) -> SeedAccepted:
    """Queue a prompt as it is; with a `style`, its words are added."""
    new = NewRequest(
        id=uuid4(),
        owner=caller.owner,
        prompt=body.prompt,
        params=await submission.resolve_seed(gateway, body),
        body_hash=submission.body_hash(body),
    )
    created = await submission.create(gateway, caller, new)
    return SeedAccepted(request_id=created.request.id)


@router.get(
    "/status/{request_id}", response_model_exclude_none=True, responses=documented(400, 401, 404, 422, 503)
)
async def status(request_id: str, gateway: GatewayDep, sees: SeesDep, request: Request) -> SeedStatus:
    """Where a request stands; what was cancelled shows as Failed."""
    row = await found(gateway, _id(request_id), sees)
    shown = Status.FAILED if row.status is Status.CANCELLED else row.status
    return SeedStatus(request_id=row.id, status=shown, image_url=image_url(row, gateway.base_url(request)))


@router.put("/update_db/{request_id}", responses=documented(400, 401, 404, 409, 413, 415, 422, 503))
async def update_db(request_id: str, body: SeedUpdate, gateway: GatewayDep) -> SeedMessage:
    """A worker's report without an attempt. It yields to a lease and never changes what has ended."""
    answer = await claims.set_status(gateway.db, _id(request_id), _known(body.status), body.image_url)
    if answer.code == 404:
        raise Refusal(404, "There is no request with this id.")
    if answer.code == 409:
        raise Refusal(409, "The request has ended, or another worker has its lease; drop the result.")
    return SeedMessage(message=f"The status of {answer.request_id} is {_known(body.status)}.")


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Refusal(
            400, "The request id must be a UUID.", fields=[("request_id", "must be a UUID")]
        ) from None


def _known(text: str) -> Status:
    try:
        status = Status(text)
    except ValueError:
        status = Status.CANCELLED
    if status not in _KNOWN:
        raise wrong_field("status", f"must be one of {', '.join(_KNOWN)}, in any case")
    return status
