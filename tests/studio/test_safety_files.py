"""No route that a browser may call reads another file, however it is named."""

import io
import zipfile
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from hostile import png
from rig import Rig, listening, picture, settings_for
from sqlalchemy import update

from climbs import CLIMBS
from itemforge.jobs.tables import requests as table
from itemforge.storage.folder import FolderStore

SECRET = b"a file that no route may read"


def _spellings(target: Path) -> list[str]:
    """Ways to say the file `target`, which lies one and two folders above."""
    climbing = [climb * depth + target.name for climb in CLIMBS for depth in (1, 2)]
    whole = quote(str(target), safe="")
    return [*climbing, whole, whole.lower(), f"{target}", f"%2f{target}", f"file:%2f%2f{target}", f"{target.name}%00.png", f"x/..%2f..%2f{target.name}"]  # fmt: skip


async def test_no_route_of_the_pages_reads_another_file(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "objects"
    root.mkdir(parents=True)
    planted = [folder / "outside.png" for folder in (tmp_path, tmp_path / "deep")]
    for each in planted:
        each.write_bytes(SECRET)
    store = FolderStore(root)
    values = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", tmp_path)
    async with listening(values, store=store) as rig:  # type: ignore[arg-type]
        made = await _stored(rig, store)
        ways = [
            "/objects/{}",
            "/objects/generated/{}",
            "/studio/static/{}",
            "/studio/static/css/{}",
            "/v1/generations/{}/image",
            "/v1/generations/{}/thumbnail",
            f"/v1/generations/{made}/{{}}",
            f"/v1/generations/{made}/image?n={{}}",
            f"/v1/generations/{made}/image?format={{}}",
            f"/v1/generations/{made}/thumbnail?size={{}}",
            "/v1/styles/{}/1/sample",
            "/v1/styles/plain/{}/sample",
            "/items/{}",
            "/studio/batches/{}/export",
        ]
        for way in ways:
            for spelling in dict.fromkeys(text for each in planted for text in _spellings(each)):
                # As it is written: the client's own tidying of paths would undo the attack.
                request = rig.http.build_request("GET", "/")
                request.url = request.url.copy_with(raw_path=way.format(spelling).encode())
                answer = await rig.http.send(request)
                assert SECRET not in answer.content, (way, spelling)
                assert 400 <= answer.status_code < 500, (way, spelling, answer.status_code)
        await _named_elsewhere(rig, made, planted[0])


async def _stored(rig: Rig, store: FolderStore) -> str:
    made = str((await rig.submit())["id"])
    await rig.claim(made)
    await store.put(f"generated/{made}.png", png("x"), "image/png")
    assert await rig.report(made, images=[picture(made, store)]) == 200  # type: ignore[arg-type]
    assert (await rig.http.get(f"/v1/generations/{made}/image")).status_code == 200
    return made


def _unpacked(data: bytes) -> list[bytes]:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return [data]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [archive.read(name) for name in archive.namelist()]


async def _named_elsewhere(rig: Rig, made: str, target: Path) -> None:
    """Exports take ids alone; and even a row whose picture's key was changed leads nowhere else."""
    for name in (f"../{target.name}", str(target), f"{made}/../../{target.name}", f"{made}\0"):
        for body in (
            {"ids": [name]},
            {"ids": [made], "form": name},
            {"ids": [made], "output": {"format": name}},
        ):
            answer = await rig.http.post("/v1/exports", json=body)
            assert answer.status_code == 422 and SECRET not in answer.content, body
    bucket = rig.gateway.store.bucket
    for key in (
        "../outside.png",
        "../../outside.png",
        str(target),
        "generated/../../outside.png",
        "..\\outside.png",
    ):
        image = {**picture(made, rig.store), "key": key, "bucket": bucket}
        image["url"] = target.as_uri()
        async with rig.gateway.db.write() as write:
            await write.conn.execute(update(table).where(table.c.id == UUID(made)).values(images=[image]))
        for way in ("image", "thumbnail?size=64", "image?background=transparent"):
            answer = await rig.http.get(f"/v1/generations/{made}/{way}")
            assert answer.status_code >= 400 and SECRET not in answer.content, (key, way, answer.text)
        zipped = await rig.http.post("/v1/exports", json={"ids": [made]})
        assert SECRET not in b"".join(_unpacked(zipped.content)), key
