"""Writing the registry of styles in the object store: publish a version, and go back to an earlier one.

A version is written once. What a bare id means is one small object, replaced last, so gateways see the old style or the
new one and nothing in between; they look every few seconds, and workers need no restart.
"""

import hashlib
import re
from collections.abc import Sequence

from itemforge.errors import InvalidInput, InvalidStyle, ObjectMissing, StyleNotFound
from itemforge.storage.face import ObjectStore
from itemforge.styles.catalog import blob_key, current_key, toml_key
from itemforge.styles.local import LocalPacks
from itemforge.styles.pack import PackLora, StylePack

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TYPES = {"toml": "application/toml", "blob": "application/octet-stream", "current": "text/plain"}


async def versions(store: ObjectStore, style: str) -> list[int]:
    """The published versions of a style, the oldest first.

    Raises:
        StorageUnavailable, PermanentError: as `ObjectStore.list`.
    """
    name = re.compile(re.escape(f"styles/{style}/") + r"([1-9][0-9]{0,8})\.toml")
    keys = await store.list(f"styles/{style}/")
    return sorted(int(found[1]) for key in keys if (found := name.fullmatch(key)))


async def publish(
    store: ObjectStore, pack: StylePack, loras: Sequence[tuple[bytes, float]], local: LocalPacks
) -> StylePack:
    """Publish the pack with these LoRA files and weights under the next version, and make that the current one.

    Raises:
        InvalidInput: a style of this id ships with the project, which would win over the registry's.
        StorageUnavailable, PermanentError: as `ObjectStore.put`; nothing is current that is not whole.
    """
    _check_free(pack, local)
    tables = [PackLora(source="blob", sha256=await put_lora(store, data), weight=w) for data, w in loras]
    return await _write(store, pack, tables)


async def put_lora(store: ObjectStore, data: bytes) -> str:
    """Store a LoRA file for packs to name; its sha256."""
    sha256 = hashlib.sha256(data).hexdigest()
    await store.put(blob_key(sha256), data, _TYPES["blob"])
    return sha256


async def publish_stored(store: ObjectStore, pack: StylePack, local: LocalPacks) -> StylePack:
    """As `publish`, of a pack whose LoRA files are in the registry already, by `put_lora` or of an earlier version.

    Raises:
        InvalidInput, StorageUnavailable, PermanentError: as `publish`.
        InvalidStyle: a LoRA that the pack names is not there.
    """
    _check_free(pack, local)
    for lora in pack.loras:
        if not await store.exists(blob_key(lora.sha256)):
            raise InvalidStyle(
                f"the pack names a LoRA ({lora.source}) with the sha256 {lora.sha256}, which is not here; upload that file"
            )
    return await _write(store, pack, [lora.model_copy(update={"source": "blob"}) for lora in pack.loras])


def _check_free(pack: StylePack, local: LocalPacks) -> None:
    if (shipped := local.find(pack.id)) is not None:
        raise InvalidInput(
            f"{shipped.pack.name} lies in {shipped.folder}, where it wins over the registry; choose another id"
        )


async def _write(store: ObjectStore, pack: StylePack, tables: Sequence[PackLora]) -> StylePack:
    version = max(await versions(store, pack.id), default=0)
    while True:  # somebody may publish at the same time
        version += 1
        made = pack.model_copy(update={"version": version, "loras": tuple(tables)})
        if await store.put(toml_key(pack.id, version), made.to_toml().encode(), _TYPES["toml"]):
            break
    await _make_current(store, pack.id, version)
    return made


async def rollback(store: ObjectStore, style: str, version: int | None = None) -> tuple[int, int]:
    """Make an earlier version current, by default the one before; the version until now, and the new one.

    Raises:
        StyleNotFound: the style or the version was never published, or there is none before.
    """
    known = await versions(store, style) if _ID.fullmatch(style) else []
    if not known:
        raise StyleNotFound(f"the registry has no style {style[:80]!r}")
    try:
        text = (await store.get(current_key(style))).strip()
        now = int(text) if text.isdigit() else known[-1]
    except ObjectMissing:
        now = known[-1]
    earlier = [each for each in known if each < now]
    if version is None and not earlier:
        raise StyleNotFound(f"{style}@{now} is the first version; there is none before it")
    chosen = earlier[-1] if version is None else version
    if chosen not in known:
        raise StyleNotFound(f"the registry has no {style}@{chosen}; it has {', '.join(map(str, known))}")
    await _make_current(store, style, chosen)
    return now, chosen


async def _make_current(store: ObjectStore, style: str, version: int) -> None:
    await store.replace(current_key(style), str(version).encode(), _TYPES["current"])
