"""Signed uploads at the gateway: offered with a claim, renewed, and taken in where the store is a folder."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from rig import LOCAL, MemoryBroker, Rig, app_for, png, settings_for
from structlog.testing import capture_logs

from itemforge.errors import StorageUnavailable
from itemforge.gateway.listening import bind
from itemforge.gateway.server import serving
from itemforge.storage.folder import FolderStore
from polling import eventually

KEY = "admin-key-0123456789abcdef"


@asynccontextmanager
async def folder_rig(tmp_path: Path, **values: Any) -> AsyncIterator[Rig]:
    """A gateway with a key, on a socket, whose pictures lie in a folder."""
    database = f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}"
    settings = settings_for(database, tmp_path, admin_key=KEY, **values)
    store, broker = FolderStore(tmp_path / "objects"), MemoryBroker()
    app = app_for(settings, broker, store)  # type: ignore[arg-type]  # it is a store
    async with (
        serving(app, bind("127.0.0.1", 0)) as address,
        httpx.AsyncClient(
            base_url=address, timeout=30, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False
        ) as http,
    ):
        yield Rig(app, broker, store, http)  # type: ignore[arg-type]


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Rig]:
    async with folder_rig(tmp_path) as rig:
        yield rig


async def claim(rig: Rig, request_id: str, worker: str = "w1") -> dict[str, Any]:
    body = {"worker_id": worker, "jobs": [{"request_id": request_id}], "uploads": True}
    (answer,) = (await rig.http.post("/v1/worker/claims", json=body)).json()
    return dict(answer)


async def renew(rig: Rig, request_id: str, attempt: int = 1, worker: str = "w1") -> httpx.Response:
    body = {"worker_id": worker, "request_id": request_id, "attempt": attempt}
    return await rig.http.post("/v1/worker/uploads", json=body)


async def put(rig: Rig, upload: dict[str, Any], body: bytes | None = None, **changed: Any) -> httpx.Response:
    """As a worker without a key: the address is the whole permission."""
    method, url = changed.pop("method", "PUT"), changed.pop("url", upload["url"])
    headers = {k: v for k, v in upload["headers"].items() if k.lower() not in changed}
    headers |= {k: v for k, v in changed.items() if v is not None}
    async with httpx.AsyncClient(base_url=rig.http.base_url, trust_env=False, timeout=30) as http:
        return await http.request(method, url, content=png() if body is None else body, headers=headers)


async def first_upload(rig: Rig) -> dict[str, Any]:
    request_id = (await rig.submit())["id"]
    return dict((await claim(rig, request_id))["uploads"][0])


async def test_a_claim_brings_an_upload_for_each_image_and_a_report_of_it_completes(folder: Rig) -> None:
    request_id = (await folder.submit(num_images=2))["id"]
    claimed = await claim(folder, request_id)
    uploads = claimed["uploads"]
    keys = [f"generated/{request_id}/{n}.png" for n in (0, 1)]
    assert [(u["n"], u["key"]) for u in uploads] == list(enumerate(keys))
    assert all(u["url"].startswith("/v1/uploads/generated/") for u in uploads)
    assert all(u["expires_in_s"] == 900 for u in uploads)
    for upload in uploads:
        assert (await put(folder, upload)).status_code == 201
    images = [
        {
            "n": u["n"], "seed": "1", "bucket": u["bucket"], "key": u["key"],
            "url": u["public_url"], "width": 64, "height": 64,
        }
        for u in uploads
    ]  # fmt: skip
    assert await folder.report(request_id, 1, images=images) == 200
    shown = await folder.http.get(f"/v1/generations/{request_id}/image", params={"n": 1})
    assert shown.content == png()
    assert (await folder.http.get(f"/objects/{keys[0]}")).content == png()


async def test_who_does_not_ask_gets_no_uploads(folder: Rig) -> None:
    request_id = (await folder.submit())["id"]
    assert (await folder.claim(request_id))["uploads"] is None


async def test_only_claimed_requests_bring_uploads(folder: Rig) -> None:
    request_id = (await folder.submit())["id"]
    await claim(folder, request_id)
    leased = await claim(folder, request_id, worker="w2")
    assert (leased["outcome"], leased["uploads"]) == ("leased", None)


async def test_a_second_upload_hears_that_the_object_is_there_and_changes_nothing(folder: Rig) -> None:
    upload = await first_upload(folder)
    assert (await put(folder, upload, b"first")).status_code == 201
    again = await put(folder, upload, b"second")
    assert again.status_code == 412 and again.headers["content-type"] == "application/problem+json"
    assert await folder.store.get(upload["key"]) == b"first"


async def test_a_signature_permits_nothing_else(folder: Rig, tmp_path: Path) -> None:
    upload = await first_upload(folder)
    url = upload["url"]
    refused = [
        await put(folder, upload, url=url.replace(".png", "0.png")),
        await put(folder, upload, url=url.replace("generated/", "styles/")),
        await put(folder, upload, url=url.replace("expires=1", "expires=2")),
        await put(folder, upload, url=url[:-1] + ("0" if url[-1] != "0" else "1")),
        await put(folder, upload, url=url.partition("signature=")[0] + "signature=é"),
        await put(folder, upload, **{"content-type": "text/html"}),
        await put(folder, upload, **{"x-goog-if-generation-match": None}),
        await put(folder, upload, **{"x-goog-if-generation-match": "1"}),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    post = await put(folder, upload, method="POST")
    assert post.status_code == 401, "the exception is for PUT alone"
    assert (await put(folder, upload, url=url.partition("?")[0])).status_code == 422
    assert await folder.store.list("") == []


async def test_an_expired_signature_is_refused_and_a_new_one_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with folder_rig(tmp_path) as rig:
        upload = await first_upload(rig)
        monkeypatch.setattr("itemforge.storage.signing.time.time", lambda: 2.0**33)
        assert (await put(rig, upload)).status_code == 403
        monkeypatch.undo()
        request_id = upload["key"].removeprefix("generated/").removesuffix(".png")
        (renewed,) = (await renew(rig, request_id)).json()
        assert (await put(rig, renewed)).status_code == 201


async def test_uploads_are_renewed_for_the_live_attempt_of_its_worker_alone(folder: Rig) -> None:
    request_id = (await folder.submit())["id"]
    assert (await renew(folder, request_id, attempt=0)).status_code == 409, "nobody has claimed it"
    await claim(folder, request_id)
    assert (await renew(folder, request_id)).status_code == 200
    assert (await renew(folder, request_id, attempt=2)).status_code == 409
    assert (await renew(folder, request_id, worker="w2")).status_code == 409
    assert (await renew(folder, "00000000-0000-4000-8000-000000000000")).status_code == 404
    await folder.report(request_id, 1, "Released")
    assert (await renew(folder, request_id)).status_code == 409, "it was given back"
    await claim(folder, request_id, worker="w2")
    await folder.http.post(f"/v1/generations/{request_id}/cancel")
    cancelled = await renew(folder, request_id, attempt=2, worker="w2")
    assert cancelled.status_code == 409 and "drop its result" in cancelled.json()["detail"]


async def test_renewing_needs_a_key(folder: Rig) -> None:
    request_id = (await folder.submit())["id"]
    await claim(folder, request_id)
    folder.http.headers.pop("Authorization")
    assert (await renew(folder, request_id)).status_code == 401


async def test_a_picture_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    async with folder_rig(tmp_path, upload_max_mib=1) as rig:
        upload = await first_upload(rig)
        assert (await put(rig, upload, bytes(1024**2 + 1))).status_code == 413
        assert await rig.store.list("") == []
        assert (await put(rig, upload, bytes(1024**2))).status_code == 201


async def test_an_upload_that_breaks_off_leaves_no_object(folder: Rig) -> None:
    upload = await first_upload(folder)
    host, port = folder.http.base_url.host, folder.http.base_url.port or 0
    headers = "".join(f"{name}: {value}\r\n" for name, value in upload["headers"].items())
    head = f"PUT {upload['url']} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 5000\r\n\r\n"

    def half() -> None:
        with socket.create_connection((host, port)) as connection:
            connection.sendall(head.encode() + b"x" * 2000)

    with capture_logs() as lines:
        await asyncio.to_thread(half)
        served = await eventually(
            lambda: [line for line in lines if line.get("path", "").startswith("/v1/uploads/")],
            why="the gateway has noticed that the upload broke off",
        )
    assert [line["status_code"] for line in served] == [400]
    assert (await put(folder, upload, b"whole")).status_code == 201
    assert await folder.store.get(upload["key"]) == b"whole"


async def test_the_secret_of_a_folder_is_no_public_object(folder: Rig, tmp_path: Path) -> None:
    await first_upload(folder)
    secret = tmp_path / "objects/.itemforge/upload-secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    answer = await folder.http.get("/objects/.itemforge/upload-secret")
    assert answer.status_code == 404


async def test_a_gateway_with_a_bucket_takes_no_uploads_itself(rig: Rig) -> None:
    answer = await rig.http.put(f"{LOCAL}/v1/uploads/generated/x.png?expires=1&signature=x", content=b"x")
    assert answer.status_code == 404


async def test_a_claim_stands_when_its_uploads_cannot_be_signed_now(
    folder: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = (await folder.submit())["id"]

    async def away(*_: object) -> None:
        raise StorageUnavailable("the signing service is away")

    monkeypatch.setattr(folder.store, "sign_put", away)
    claimed = await claim(folder, request_id)
    assert (claimed["outcome"], claimed["attempt"], claimed["uploads"]) == ("claimed", 1, [])
    refused = await renew(folder, request_id)
    assert refused.status_code == 503 and "signing service" in refused.json()["detail"]
    monkeypatch.undo()
    assert len((await renew(folder, request_id)).json()) == 1
