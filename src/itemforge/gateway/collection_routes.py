"""`/v1/collections`: generations put together under a name, by whoever calls and for them alone."""

from uuid import UUID

from fastapi import APIRouter

from itemforge.gateway.context import CallerDep, Gateway, GatewayDep
from itemforge.gateway.keyring import Caller
from itemforge.gateway.models import Chosen, CollectionChange, Collections, CollectionView
from itemforge.gateway.problems import Refusal, documented
from itemforge.jobs import collections, requests
from itemforge.jobs.collections import Collection

router = APIRouter(prefix="/v1/collections", tags=["collections"])

_ONE = documented(401, 404, 422, 503)
_BODY = documented(400, 413, 415)


async def known_collection(gateway: Gateway, caller: Caller, collection_id: UUID) -> Collection:
    """The caller's collection.

    Raises:
        Refusal: 404, they have none with this id.
    """
    if (known := await collections.get(gateway.db, caller.owner, collection_id)) is None:
        raise _unknown()
    return known


def _unknown() -> Refusal:
    return Refusal(404, "You have no collection with this id; see GET /v1/collections.")


async def _view(gateway: Gateway, caller: Caller, collection_id: UUID) -> CollectionView:
    return CollectionView.model_validate(vars(await known_collection(gateway, caller, collection_id)))


@router.get("", responses=documented(401, 503))
async def list_collections(gateway: GatewayDep, caller: CallerDep) -> Collections:
    """Your collections, by name."""
    mine = await collections.listed(gateway.db, caller.owner)
    return Collections(items=[CollectionView.model_validate(vars(each)) for each in mine])


@router.post("", status_code=201, responses=_BODY | documented(401, 422, 503))
async def create_collection(body: CollectionChange, gateway: GatewayDep, caller: CallerDep) -> CollectionView:
    """A new, empty collection."""
    return await _view(gateway, caller, await collections.create(gateway.db, caller.owner, body.name))


@router.get("/{collection_id}", responses=_ONE)
async def get_collection(collection_id: UUID, gateway: GatewayDep, caller: CallerDep) -> CollectionView:
    """A collection's name and size; what is in it: `GET /v1/generations?collection=` its id."""
    return await _view(gateway, caller, collection_id)


@router.patch("/{collection_id}", responses=_BODY | _ONE)
async def rename_collection(
    collection_id: UUID, body: CollectionChange, gateway: GatewayDep, caller: CallerDep
) -> CollectionView:
    """Give it another name."""
    if not await collections.rename(gateway.db, caller.owner, collection_id, body.name):
        raise _unknown()
    return await _view(gateway, caller, collection_id)


@router.delete("/{collection_id}", status_code=204, responses=_ONE)
async def delete_collection(collection_id: UUID, gateway: GatewayDep, caller: CallerDep) -> None:
    """Delete the collection; the generations stay."""
    if not await collections.remove(gateway.db, caller.owner, collection_id):
        raise _unknown()


@router.post("/{collection_id}/add", responses=_BODY | _ONE)
async def add_to_collection(
    collection_id: UUID, body: Chosen, gateway: GatewayDep, caller: CallerDep
) -> CollectionView:
    """Put generations in; those in it already are no error. One that you cannot see refuses all."""
    await known_collection(gateway, caller, collection_id)
    known = await requests.get_all(gateway.db, body.ids, caller.sees)
    if unknown := [str(each) for each in body.ids if each not in known]:
        raise Refusal(404, f"There is no generation with these ids: {', '.join(unknown[:5])}.")
    await collections.put_in(gateway.db, collection_id, body.ids, caller.sees)
    return await _view(gateway, caller, collection_id)


@router.post("/{collection_id}/remove", responses=_BODY | _ONE)
async def remove_from_collection(
    collection_id: UUID, body: Chosen, gateway: GatewayDep, caller: CallerDep
) -> CollectionView:
    """Take generations out; those not in it are no error."""
    await known_collection(gateway, caller, collection_id)
    await collections.take_out(gateway.db, collection_id, body.ids)
    return await _view(gateway, caller, collection_id)
