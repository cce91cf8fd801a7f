"""Signed uploads for claimed requests: workers bring pictures without credentials of their own."""

from uuid import UUID

import structlog

from itemforge.contract import Claim, Upload, object_key
from itemforge.errors import ItemForgeError
from itemforge.gateway.context import Gateway

log = structlog.get_logger(__name__)

_TYPE = "image/png"


async def sign_uploads(gateway: Gateway, request_id: UUID, num_images: int) -> list[Upload]:
    """Permission to create each of a request's pictures.

    Raises:
        ConfigurationError, StorageUnavailable, PermanentError: as `ObjectStore.sign_put`.
    """
    return [await _sign(gateway, n, object_key(request_id, n, num_images)) for n in range(num_images)]


async def _sign(gateway: Gateway, n: int, key: str) -> Upload:
    settings, store = gateway.settings, gateway.store
    signed = await store.sign_put(key, _TYPE, int(settings.upload_time), settings.upload_max_mib * 1024**2)
    return Upload(
        n=n,
        url=signed.url,
        headers=dict(signed.headers),
        bucket=store.bucket,
        key=key,
        public_url=store.public_url(key),
        expires_in_s=int(settings.upload_time),
    )


async def offer_uploads(gateway: Gateway, claims: list[Claim]) -> list[Claim]:
    """The claims with their uploads. What cannot be signed now is left empty: the claim stands, and the
    worker asks again when its pictures are drawn.
    """
    return [await _offer(gateway, claim) for claim in claims]


async def _offer(gateway: Gateway, claim: Claim) -> Claim:
    if claim.params is None:
        return claim
    try:
        uploads = await sign_uploads(gateway, claim.request_id, claim.params.num_images)
    except ItemForgeError as error:
        log.error("uploads_not_signed", error=error, request_id=str(claim.request_id))
        uploads = []
    return claim.model_copy(update={"uploads": uploads})
