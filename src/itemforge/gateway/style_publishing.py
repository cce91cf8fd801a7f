"""Publishing styles over HTTP, for admins: LoRA files, then the pack that names them, and the way back."""

import asyncio
import tempfile
from typing import IO

import structlog
from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from itemforge.gateway import views
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep
from itemforge.gateway.middleware import LORA_UPLOADS, discard_body
from itemforge.gateway.models import StyleMove, StylePublication, StyleRollback, StyleView, UploadedLora
from itemforge.gateway.problems import Refusal, documented, wrong_field
from itemforge.styles import registry
from itemforge.styles.files import MAX_BLOB
from itemforge.styles.local import LocalPacks
from itemforge.styles.lora_file import check_lora
from itemforge.styles.pack import StylePack, parse

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/styles", tags=["styles"])


@router.post(
    LORA_UPLOADS.removeprefix("/v1/styles"),
    status_code=201,
    responses=documented(400, 401, 413, 422, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_lora(gateway: GatewayDep, caller: CallerDep, request: Request) -> UploadedLora:
    """Send a LoRA file (`.safetensors`) for a pack to name by the sha256 that comes back; safe to repeat."""
    with tempfile.TemporaryFile() as file:
        size = await _received(request, file)
        tensors = await asyncio.to_thread(check_lora, file, size)
        file.seek(0)
        sha256 = await registry.put_lora(gateway.store, await asyncio.to_thread(file.read))
    log.info("lora_uploaded", sha256=sha256, bytes=size, key=caller.key_id)
    return UploadedLora(sha256=sha256, bytes=size, tensors=tensors)


@router.post("/publish", status_code=201, responses=documented(400, 401, 413, 415, 422, 503))
async def publish_style(body: StylePublication, gateway: GatewayDep, caller: CallerDep) -> StyleView:
    """Publish a pack as the next version of its style, and make that the current one: all draw with it from then on."""
    pack = parse(body.toml.encode())
    _check_base(gateway, pack)
    _check_files(pack, body.files)
    local = await asyncio.to_thread(LocalPacks, gateway.settings.home)
    made = await registry.publish_stored(gateway.store, pack, local)
    gateway.catalog.forget()
    log.info("style_published", style=made.name, key=caller.key_id)
    versions = await registry.versions(gateway.store, made.id)
    return views.style(made, gateway.model, versions)


@router.post("/{style}/rollback", responses=documented(400, 401, 404, 413, 415, 422, 503))
async def roll_back_style(
    style: str, body: StyleRollback, gateway: GatewayDep, caller: CallerDep
) -> StyleMove:
    """Make another published version of a style the current one; no version is lost."""
    before, now = await registry.rollback(gateway.store, style, body.version)
    gateway.catalog.forget()
    log.info("style_rolled_back", style=f"{style}@{now}", before=f"{style}@{before}", key=caller.key_id)
    return StyleMove(style=style, before=before, now=now)


async def _received(request: Request, file: IO[bytes]) -> int:
    """Take the body in; its size in bytes. It may be larger than what a process should hold."""
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BLOB:
                await discard_body(request.receive)
                raise Refusal(
                    413, f"A LoRA may have at most {MAX_BLOB} bytes.", headers={"Connection": "close"}
                )
            await asyncio.to_thread(file.write, chunk)
    except ClientDisconnect:
        raise Refusal(400, "The connection ended before the file did; send it again.") from None
    return size


def _check_base(gateway: Gateway, pack: StylePack) -> None:
    if pack.base not in (None, gateway.model.base):
        raise wrong_field(
            "toml",
            f"is for the base model {pack.base}; this deployment draws with {gateway.model.name}, {gateway.model.base}",
        )


def _check_files(pack: StylePack, files: list[str]) -> None:
    named = {lora.sha256 for lora in pack.loras}
    for n, sha256 in enumerate(files):
        if sha256 not in named:
            wanted = f"it names {', '.join(sorted(named))}" if named else "it names no LoRA at all"
            raise wrong_field(
                f"files.{n}",
                f"has the sha256 {sha256}, which is not in the pack: {wanted}; add a [[lora]] table, or choose the right file",
            )
