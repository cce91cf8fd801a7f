"""`PUT /v1/uploads`: where a folder takes signed uploads. It answers as Google Cloud Storage would."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from itemforge.gateway.context import GatewayDep
from itemforge.gateway.middleware import discard_body
from itemforge.gateway.problems import Refusal, documented
from itemforge.storage.folder import FolderStore
from itemforge.storage.signing import ROUTE

router = APIRouter(tags=["workers"], responses=documented(403, 404, 413, 422, 503))


@router.put(
    ROUTE + "{key:path}",
    status_code=201,
    response_class=Response,
    responses={201: {"description": "Created"}, **documented(412)},
    openapi_extra={
        "requestBody": {"required": True, "content": {"image/png": {"schema": {"format": "binary"}}}}
    },
)
async def put_upload(
    key: str,
    gateway: GatewayDep,
    request: Request,
    expires: Annotated[int, Query(description="seconds since 1970", ge=0, le=2**40)],
    signature: Annotated[str, Query(max_length=200)],
) -> Response:
    """Create an object that a claim permitted; who has the signed address needs no key. 412 if it is there."""
    store = gateway.store
    if not isinstance(store, FolderStore):
        await discard_body(request.receive)
        raise Refusal(404, "This gateway's pictures lie in a bucket; uploads go there.")
    if not (await store.signer()).allows(key, expires, signature, request.headers):
        await discard_body(request.receive)
        raise Refusal(403, "The signature is wrong or has expired; ask /v1/worker/uploads for new ones.")
    limit = gateway.settings.upload_max_mib * 1024**2
    body = await _whole(request, limit)
    if not await store.put(key, body, request.headers["content-type"]):
        raise Refusal(412, "There is an object with this key already; its bytes stay.")
    return Response(status_code=201)


async def _whole(request: Request, limit: int) -> bytes:
    """All of the body: an object is for ever, so half of one must never become it."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                await discard_body(request.receive)
                raise Refusal(
                    413, f"The picture has more than {limit} bytes.", headers={"Connection": "close"}
                )
    except ClientDisconnect:
        raise Refusal(400, "The connection ended before the picture did; send it again.") from None
    return bytes(body)
