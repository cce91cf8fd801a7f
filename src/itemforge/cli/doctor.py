"""`itemforge doctor`: looks at the machine and the settings, and says how to mend what is wrong."""

import asyncio
import importlib.util
import sys
import uuid
from collections.abc import Awaitable, Callable

import httpx
import typer
from rich.console import Console

from itemforge.cli import doctor_machine as machine
from itemforge.cli.doctor_machine import Finding
from itemforge.contract import CONTRACT_HEADER
from itemforge.errors import DatabaseUnavailable, ItemForgeError
from itemforge.settings import GatewaySettings, WorkerSettings, load
from itemforge.telemetry.logs import Redactor, secrets_of
from itemforge.tls import client_context, refusal

Check = Callable[[WorkerSettings, GatewaySettings], Awaitable[Finding]]


def doctor() -> None:
    """Check Python, disk, memory, device, models, RabbitMQ, gateway, clock, database and object store.

    Exits with 1 when something is broken; what is not set up is only named.
    """
    worker, gateway = load(WorkerSettings), load(GatewaySettings)
    findings = asyncio.run(_examine(worker, gateway))
    hide = Redactor([*secrets_of(worker), *secrets_of(gateway)])
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for finding in findings:
        mark = {True: "ok", False: "BROKEN", None: "-"}[finding.ok]
        console.print(f"{mark:<7}{finding.name}: {hide(finding.text)}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


async def _examine(worker: WorkerSettings, gateway: GatewaySettings) -> list[Finding]:
    checks: dict[str, Check] = {
        "python": _python,
        "home": _home,
        "memory": _memory,
        "device": _device,
        "model": _model,
        "models": _models,
        "rabbitmq": _rabbitmq,
        "gateway": _gateway,
        "clock": _clock,
        "database": _database,
        "storage": _storage,
    }
    findings = []
    for name, check in checks.items():
        try:
            findings.append(await check(worker, gateway))
        except ItemForgeError as error:
            findings.append(Finding(name, False, str(error)))
        except OSError as error:  # a file or folder that is not as it should be; the other checks go on
            findings.append(Finding(name, False, f"{error.strerror or error}: {error.filename or 'no file'}"))
    return findings


async def _python(_: WorkerSettings, __: GatewaySettings) -> Finding:
    return Finding("python", True, sys.version.split()[0])


async def _home(worker: WorkerSettings, _: GatewaySettings) -> Finding:
    return machine.home(worker)


async def _memory(worker: WorkerSettings, _: GatewaySettings) -> Finding:
    return machine.memory(worker)


async def _device(worker: WorkerSettings, _: GatewaySettings) -> Finding:
    return await asyncio.to_thread(machine.device, worker)


async def _models(worker: WorkerSettings, _: GatewaySettings) -> Finding:
    return await machine.models(worker)


async def _clock(worker: WorkerSettings, _: GatewaySettings) -> Finding:
    return await machine.clock(worker)


async def _model(worker: WorkerSettings, _: GatewaySettings) -> Finding:
    from itemforge.styles.models import describe

    facts = await asyncio.to_thread(describe, worker.model, worker.home)
    return Finding("model", True, f"{facts.name}, {facts.width}x{facts.height}, sha256 {facts.base}")


async def _rabbitmq(worker: WorkerSettings, _: GatewaySettings) -> Finding:
    if worker.amqp_url is None:
        return Finding(
            "rabbitmq", None, "not set (ITEMFORGE_AMQP_URL or RABBITMQ_HOST); itemforge up needs none"
        )
    from itemforge.cli.broker import connected
    from itemforge.contract import QUEUE

    async with connected(worker) as broker:
        return Finding("rabbitmq", True, f"connected; {await broker.depth(QUEUE)} messages wait in {QUEUE}")


async def _gateway(worker: WorkerSettings, _: GatewaySettings) -> Finding:
    key = worker.api_key.get_secret_value() if worker.api_key else None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = worker.api_gateway_url
    try:
        trust = client_context(worker.ca_file)
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=5, verify=trust) as http:
            ready = await http.get("/readyz")
            allowed = await http.get("/v1/styles")
            if allowed.status_code == 403:  # a worker's key may only work
                allowed = await http.post("/v1/worker/claims", json={"worker_id": "doctor", "jobs": []})
    except httpx.HTTPError as error:
        if why := refusal(error):
            return Finding("gateway", False, f"{url}: {why}")
        return Finding(
            "gateway", None, f"no answer at {url} ({type(error).__name__}); start one, or set API_GATEWAY_URL"
        )
    if CONTRACT_HEADER not in ready.headers and ready.status_code < 500:
        if worker.gateway_mode == "seed":
            return Finding("gateway", True, f"{url}, as one of the original system")
        return Finding(
            "gateway", False, f"what answers at {url} ({ready.status_code}) is no gateway of ItemForge: mend "
            "API_GATEWAY_URL, or set ITEMFORGE_GATEWAY_MODE=seed for one of the original system",
        )  # fmt: skip
    if allowed.status_code in (401, 403):
        return Finding("gateway", False, f"{url} refuses the key; set ITEMFORGE_API_KEY")
    if not ready.is_success:
        return Finding("gateway", False, f"{url} is not ready ({ready.status_code}): {ready.text[:200]}")
    return Finding("gateway", True, url)


async def _database(_: WorkerSettings, gateway: GatewaySettings) -> Finding:
    if importlib.util.find_spec("sqlalchemy") is None:
        return Finding(
            "database", None, "not installed here: pip install 'itemforge[gateway]' to run a gateway"
        )
    if gateway.database_url_setting is None and not (gateway.home / "itemforge.db").exists():
        return Finding("database", None, "DATABASE_URL is not set; itemforge up makes a SQLite file at home")
    from itemforge.jobs.migrate import state

    try:
        return Finding("database", True, await state(gateway.database_url))
    except DatabaseUnavailable as error:
        why = str(error).removesuffix("; try again")
        return Finding(
            "database",
            False,
            f"{why}; check that it runs, and address, name, user and password in DATABASE_URL",
        )


async def _storage(worker: WorkerSettings, _: GatewaySettings) -> Finding:
    if worker.uploads == "signed":
        return Finding("storage", None, "none is needed here: the gateway hands out signed uploads")
    from itemforge.storage.opening import open_store

    store = open_store(worker)
    key = f"probes/{uuid.uuid4()}.txt"
    await store.put(key, b"itemforge doctor", "text/plain")
    try:
        if await store.get(key) != b"itemforge doctor":
            return Finding("storage", False, f"{store.bucket} gave other bytes back than were written")
    finally:
        await store.delete(key)
    return Finding("storage", True, f"wrote, read and deleted an object in {store.bucket}")
