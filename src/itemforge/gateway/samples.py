"""What a style looks like, for who chooses one."""

import asyncio

from itemforge.contract import Status
from itemforge.errors import InvalidInput, ObjectMissing
from itemforge.gateway.context import Gateway
from itemforge.gateway.pictures import original
from itemforge.imaging.sample import placeholder, sample_sheet
from itemforge.jobs import finding
from itemforge.jobs.finding import Filter
from itemforge.styles.pack import StylePack

#: Items on a sheet, and how many of the newest are tried.
_ITEMS, _TRIED = 4, 8


async def style_sample(gateway: Gateway, pack: StylePack, sees: str | None) -> tuple[bytes, bool]:
    """A WebP of the style, and whether it came with the style; if not, it changes as the caller draws.

    Others' pictures are nobody's business, so it is made of those that the caller may see.

    Raises:
        StorageUnavailable: a store cannot be reached.
    """
    if (made := await gateway.catalog.sample(pack)) is not None:
        return made, True
    pictures = await _latest(gateway, pack, sees)
    if not pictures:
        return await asyncio.to_thread(placeholder, pack.id), False
    try:
        return await asyncio.to_thread(sample_sheet, pictures), False
    except InvalidInput:  # one of them is no PNG that we open
        return await asyncio.to_thread(placeholder, pack.id), False


async def _latest(gateway: Gateway, pack: StylePack, sees: str | None) -> list[bytes]:
    wanted = Filter(status=Status.COMPLETED, style=pack.name, owner=sees)
    found: list[bytes] = []
    for row in await finding.find(gateway.db, wanted, _TRIED):
        try:
            found.append(await original(gateway.store, row, 0))
        except ObjectMissing:
            continue
        if len(found) == _ITEMS:
            break
    return found
