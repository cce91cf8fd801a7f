"""`/v1/exports`: many pictures in one ZIP."""

from collections.abc import AsyncIterator, Sequence
from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from itemforge.contract import Output, Status
from itemforge.gateway.context import Gateway, GatewayDep, SeesDep
from itemforge.gateway.exports import Item, list_items, on_sheets, zipped
from itemforge.gateway.models import AtlasOptions, ExportRequest
from itemforge.gateway.problems import Refusal, documented, wrong_field
from itemforge.jobs import requests
from itemforge.jobs.records import Request as JobRequest

router = APIRouter(prefix="/v1/exports", tags=["pictures"])

MAX_PICTURES = 500
#: Pixels of all pictures together: what leaves piece by piece, and what has to be in memory at once.
MAX_PIXELS = {"zip": 600_000_000, "atlas": 64_000_000}


@router.post(
    "",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}, **documented(401, 404, 409, 413, 415, 422, 503)},
)
async def create_export(body: ExportRequest, gateway: GatewayDep, sees: SeesDep) -> Response:
    """A ZIP of Completed generations' pictures with `manifest.json`; `atlas` puts them on sheets.

    Pictures that cannot be had are listed under `missing` in the manifest, with the reason.
    """
    if body.atlas is not None and body.form != "atlas":
        raise wrong_field("atlas", "is only for the form atlas; set form, or leave it out")
    ids = list(dict.fromkeys(body.ids))
    rows = _completed(ids, await requests.get_all(gateway.db, ids, sees))
    output = body.output
    if output is None and body.form == "atlas":
        output = Output(background="transparent")
    items = list_items(rows, output)
    if len(items) > MAX_PICTURES:
        raise wrong_field("ids", f"name {len(items)} pictures, and an export has at most {MAX_PICTURES}")
    return await send_zip(gateway, items, body.form, body.atlas)


async def send_zip(
    gateway: Gateway,
    items: Sequence[Item],
    form: Literal["zip", "atlas"],
    atlas: AtlasOptions | None,
    field: str = "ids",
) -> Response:
    """The ZIP as it is made; `field` named the pictures.

    Raises:
        Refusal: 422, the pictures are too large together.
        InvalidInput, StorageUnavailable: as `exports.zipped`.
    """
    _check_pixels(items, form, field)
    if form == "atlas":
        parts = on_sheets(gateway.store, gateway.derivatives, items, atlas or AtlasOptions())
    else:
        parts = zipped(gateway.store, gateway.derivatives, items)
    # Before the answer begins: later nothing can be refused any more, only broken off.
    first = await anext(parts)
    headers = {"Content-Disposition": f'attachment; filename="itemforge-{form}.zip"'}
    return StreamingResponse(_from(first, parts), media_type="application/zip", headers=headers)


def _completed(ids: Sequence[UUID], found: dict[UUID, JobRequest]) -> list[JobRequest]:
    if unknown := [str(each) for each in ids if each not in found]:
        raise Refusal(404, f"There is no generation with these ids: {_some(unknown)}.")
    if open_ := [str(each) for each in ids if found[each].status is not Status.COMPLETED]:
        raise Refusal(
            409, f"These generations are not Completed, so they have no pictures to export: {_some(open_)}."
        )
    return [found[each] for each in ids]


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return ", ".join(ids[:5]) + more


def _check_pixels(items: Sequence[Item], form: str, field: str) -> None:
    pixels = sum(item.pixels for item in items)
    if pixels > MAX_PIXELS[form]:
        raise wrong_field(
            field,
            f"name pictures of {pixels:,} pixels together, and a {form} has at most {MAX_PIXELS[form]:,}; "
            "take fewer, or a smaller output.size",
        )


async def _from(first: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in parts:
        yield part
