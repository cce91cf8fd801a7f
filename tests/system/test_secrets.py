"""Secrets stand in every setting and header, and come out nowhere: through successes and failures.

Logs of all processes at every level, answers over HTTP, metrics, PNGs, the database, queue messages,
objects with their metadata, command lines, and what commands say.
"""

import asyncio
import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import httpx
import pika
import psutil
import pytest
from commands import Command, environment, run
from PIL import Image
from planted import FOREIGN, Search, forms, new_secret, secret_settings

from ecs_schema import wrong
from itemforge.contract import DEAD_QUEUE, QUEUE
from otlp_sink import Sink
from polling import wait_until
from services.rabbitmq import Vhost


@pytest.fixture
def search() -> Search:
    return Search()


@pytest.fixture
def amqp_url(amqp_vhost: Vhost, search: Search) -> Iterator[str]:
    """The vhost's address for a user of its own, whose password is planted."""
    user, password = f"user-{amqp_vhost.name}", search.plant("amqp_password")
    amqp_vhost.api.call("PUT", f"users/{user}", {"password": password, "tags": ""})
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    amqp_vhost.api.call("PUT", f"permissions/{amqp_vhost.name}/{user}", rights)
    parts = urlsplit(amqp_vhost.url)
    yield parts._replace(netloc=f"{user}:{quote(password, safe='')}@{parts.hostname}:{parts.port}").geturl()
    amqp_vhost.api.call("DELETE", f"users/{user}")


@pytest.fixture
def database(postgres_url: str, search: Search) -> str:
    """The server asks for no password, so any will do."""
    url = postgres_url.replace("+asyncpg", "")
    return url.replace("itemforge@", f"itemforge:{quote(search.plant('database_password'), safe='')}@")


def _planted(search: Search, amqp_url: str, database: str) -> dict[str, str]:
    """Every secret setting and every foreign one; a new secret field is planted without a word here."""
    settings = {variable: search.plant(name) for name, variable in secret_settings().items()}
    settings |= {name: search.plant(name) for name in FOREIGN}
    search.secrets.pop("amqp_url_setting")
    search.secrets.pop("database_url_setting")
    settings |= {"ITEMFORGE_AMQP_URL": amqp_url, "DATABASE_URL": database}
    # One deployment: the worker's key must be one that the gateway knows.
    search.secrets.pop("api_key")
    # What the collector is sent are pairs, each written as in an address.
    search.secrets.pop("otel_headers")
    settings["OTEL_EXPORTER_OTLP_HEADERS"] = f"x-key={quote(search.plant('otel_header'), safe='')}"
    return settings | {"ITEMFORGE_API_KEY": settings["ITEMFORGE_ADMIN_KEY"]}


def _hostile_headers(search: Search) -> dict[str, str]:
    basic = base64.b64encode(f"user:{search.plant('basic')}".encode()).decode()
    return {
        "Authorization": f"Bearer {search.plant('bearer')}",
        "X-API-Key": search.plant("x_api_key"),
        "Cookie": f"session={search.plant('cookie')}",
        "Proxy-Authorization": f"Basic {basic}",
        "X-Goog-Api-Key": search.plant("goog"),
    }


def _look_at_answers(search: Search, gateway: str, probes: str, request_id: str, key: str) -> None:
    good = {"Authorization": f"Bearer {key}"}
    foreign = _hostile_headers(search)
    query = f"?access_token={search.plant('token')}&key={search.plant('query_key')}"
    calls = [
        ("GET", "/metrics", None), ("GET", "/traces", None), ("GET", "/healthz", None), ("GET", "/readyz", None),
        ("GET", "/openapi.json", None), ("GET", "/docs", None), ("GET", "/v1/workers", None), ("GET", "/v1/stats", None),
        ("GET", f"/v1/generations/{request_id}", None), ("GET", f"/v1/generations/{request_id}/image", None),
        ("GET", f"/v1/generations/{request_id}/events", None), ("GET", f"/status/{request_id}", None),
        ("POST", "/v1/generations", {"prompt": "a key", "num_inference_steps": 0, "api_key": 1}),
        ("POST", "/v1/worker/claims", {"worker_id": 7}), ("PUT", f"/update_db/{request_id}", {"status": "?"}),
        ("DELETE", "/nowhere", None),
    ]  # fmt: skip
    for method, path, body in calls:
        for headers in ({}, good, foreign, {**foreign, **good}):
            answer = httpx.request(method, f"{gateway}{path}{query}", json=body, headers=headers, timeout=30)
            search.look(
                f"answer to {method} {path}",
                f"{answer.status_code} {answer.headers} ".encode() + answer.content,
            )
    for path in ("/metrics", "/healthz", "/readyz", "/other"):
        search.look(f"worker's {path}", httpx.get(f"{probes}{path}", headers=foreign, timeout=30).content)


def _look_at_queues(search: Search, url: str) -> int:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    seen = 0
    try:
        channel = connection.channel()
        for queue in (QUEUE, DEAD_QUEUE):
            while True:
                method, properties, body = channel.basic_get(queue)
                if method is None:
                    break
                seen += 1
                search.look(f"a message of {queue}", repr(properties).encode() + body)
    finally:
        connection.close()
    return seen


async def _dump(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = {t[0]: await connection.fetch(f'SELECT * FROM "{t[0]}"') for t in tables}
        return {name: "\n".join(repr(dict(row)) for row in found) for name, found in rows.items()}
    finally:
        await connection.close()


def _look_at_objects(search: Search, emulator: str, bucket: str) -> int:
    listing = httpx.get(f"{emulator}/storage/v1/b/{bucket}/o").content
    search.look("object metadata", listing)
    items = json.loads(listing).get("items", [])
    for item in items:
        name = quote(item["name"], safe="")
        data = httpx.get(f"{emulator}/storage/v1/b/{bucket}/o/{name}", params={"alt": "media"}).content
        search.look(item["name"], data)
        if item["name"].endswith(".png"):
            search.look(f"text of {item['name']}", repr(Image.open(BytesIO(data)).info))
    return len(items)


def _look_at_command_lines(search: Search, *commands: Command) -> list[psutil.Process]:
    """Gives the processes: each command and its children."""
    processes = []
    for command in commands:
        parent = psutil.Process(command.process.pid)
        processes += [parent, *parent.children(recursive=True)]
    for process in processes:
        search.look(f"command line of {process.pid}", " ".join(process.cmdline()))
    return processes


def _assert_kept(search: Search) -> None:
    assert not search.leaks(), "\n".join(search.leaks())


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.mark.timeout(500)
def test_a_running_system_keeps_every_secret(
    tmp_path: Path,
    search: Search,
    amqp_url: str,
    database: str,
    gcs_emulator: str,
    gcs_bucket: str,
    sink: Sink,
) -> None:
    settings = _planted(search, amqp_url, database) | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
        "ITEMFORGE_LOG_LEVEL": "debug",
        "STORAGE_EMULATOR_HOST": gcs_emulator,
        "GCS_BUCKET_NAME": gcs_bucket,
        "ITEMFORGE_WEBHOOK_NETWORKS": "127.0.0.0/8",
    }
    key = settings["ITEMFORGE_ADMIN_KEY"]
    gateway = Command(
        tmp_path / "g", "gateway", "--port", "0", ITEMFORGE_HOME=str(tmp_path / "g/home"), **settings
    )
    with gateway:
        address = gateway.address()
        http = httpx.Client(base_url=address, headers={"X-API-Key": key}, timeout=30)

        def submit(**more: object) -> str:
            body = {"prompt": "a key", "num_inference_steps": 3, **more}
            return str(http.post("/v1/generations", json=body).raise_for_status().json()["id"])

        def ended(request_id: str) -> bool:
            status: str = http.get(f"/v1/generations/{request_id}").json()["status"]
            return status in ("Completed", "Failed")

        first = submit()
        kept = _make_webhook(search, http)
        wait_until(lambda: _look_at_queues(search, amqp_url) > 0, 30, every=0.2)
        worker = Command(
            tmp_path / "w", "worker", "--probe-port", "0", ITEMFORGE_HOME=str(tmp_path / "w/home"),
            API_GATEWAY_URL=address, **settings,
        )  # fmt: skip
        with worker, contextlib.closing(http):
            probes = worker.address()
            wait_until(lambda: httpx.get(f"{probes}/readyz").is_success, 200, every=0.2)
            second = submit()
            wait_until(lambda: ended(second), 60, every=0.1)
            assert http.get(f"/v1/generations/{second}").json()["status"] == "Completed"
            _publish(amqp_url, b"not json")
            slow = submit(num_inference_steps=150, num_images=8)
            wait_until(lambda: http.get(f"/v1/generations/{slow}").json()["status"] == "Processing", 60)
            engine = max(_look_at_command_lines(search, gateway, worker), key=lambda p: p.memory_info().rss)
            engine.kill()  # the one with torch in it; the worker says so and starts another
            wait_until(lambda: "engine_lost" in worker.log.read_text(), 60)
            _look_at_answers(search, address, probes, second, key)
            http.post(f"/v1/generations/{slow}/cancel")
            wait_until(lambda: _look_at_queues(search, amqp_url) > 0, 60, every=0.2)
            worker.end(within=100)
        gateway.end(within=100)
    assert first
    tables = asyncio.run(_dump(database))
    assert {"requests", "events", "workers", "api_keys", "webhook_deliveries"} <= tables.keys()
    assert "no connection" in tables["webhook_deliveries"]
    for secret in kept:  # a webhook's row has them, and nothing else has
        assert secret in tables["webhooks"]
        tables["webhooks"] = tables["webhooks"].replace(secret, "")
    for name, rows in tables.items():
        search.look(f"table {name}", rows)
    assert _look_at_objects(search, gcs_emulator, gcs_bucket) > 0
    for command in (gateway, worker):
        assert "request_served" in command.log.read_text() or "job_completed" in command.log.read_text()
        search.look(f"log of {command.log.stem}", command.log.read_bytes() + command.out.read_bytes())
        lines = [json.loads(line) for line in command.log.read_text().splitlines()]
        problems = {f"{problem} in {line['message']}" for line in lines for problem in wrong(line)}
        assert not problems
    engine_lines = [line for line in worker.events() if line["service"]["name"] == "itemforge-engine"]
    assert {line["itemforge"]["worker"]["id"] for line in engine_lines}
    assert {"POST /v1/generations", "denoise", "report"} <= {span.name for span in sink.spans}
    for body in sink.bodies:
        search.look("spans", body)
    assert sink.headers[0]["x-key"] == search.secrets["otel_header"]
    assert len(search.texts) > 70
    _assert_kept(search)


def _make_webhook(search: Search, http: httpx.Client) -> list[str]:
    """One that nobody listens at, with secrets in its address; gives what the database has to keep of it."""
    address = (
        f"https://127.0.0.1:9/{quote(search.plant('hook_path'))}?token={quote(search.plant('hook_token'))}"
    )
    webhook = http.post("/v1/webhooks", json={"url": address}).raise_for_status().json()
    http.post(f"/v1/webhooks/{webhook['id']}/test").raise_for_status()
    own = http.get("/v1/webhooks/secret").json()["secret"]
    search.secrets |= {"whsec": webhook["secret"], "own_whsec": own}
    search.look("deliveries", http.get("/v1/webhooks/deliveries").text.replace(address, ""))
    search.look("webhooks", http.get("/v1/webhooks").text.replace(address, ""))
    return [webhook["secret"], own, address]


def _publish(url: str, body: bytes) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().basic_publish("", QUEUE, body)
    connection.close()


def _key_file(folder: Path, search: Search) -> Path:
    """A service account's key whose private part is planted, and no key."""
    folder.mkdir(parents=True, exist_ok=True)
    pem = f"-----BEGIN PRIVATE KEY-----\n{search.plant('private_key')}\n-----END PRIVATE KEY-----\n"
    account = {"type": "service_account", "project_id": "p", "private_key_id": search.plant("key_id"), "private_key": pem,
               "client_email": "a@b", "token_uri": "http://127.0.0.1:9/"}  # fmt: skip
    path = folder / "key.json"
    path.write_text(json.dumps(account))
    return path


def _commands(search: Search, folder: Path) -> list[tuple[list[str], dict[str, str]]]:
    """Commands that fail, each with a secret in what it fails over."""

    def at(scheme: str, port: int = 9, path: str = "/x") -> str:
        return f"{scheme}://someone:{quote(search.plant(f'{scheme}{port}'), safe='')}@127.0.0.1:{port}{path}"

    away = {
        "ITEMFORGE_AMQP_URL": at("amqp"),
        "ITEMFORGE_PUBLISH_TIMEOUT": "0.5",
        "DATABASE_URL": at("postgresql"),
    }
    return [
        (["--help"], {}),
        (["doctor"], {**away, "API_GATEWAY_URL": at("http"), "GCS_BUCKET_NAME": "b", "ITEMFORGE_STORAGE_TIMEOUT": "1",
                      "GOOGLE_APPLICATION_CREDENTIALS": str(_key_file(folder, search))}),
        (["doctor"], {"ITEMFORGE_STORAGE_URL": at("s3")}),
        (["jobs", "--url", at("http")], {}),
        (["submit", "a key"], {"API_GATEWAY_URL": at("http")}),
        (["db", "current"], away),
        (["db", "current"], {"DATABASE_URL": search.plant("no_address")}),
        (["db", "current"], {"DATABASE_URL": at("postgresql").replace(":9/", ":port/")}),
        (["worker"], {"ITEMFORGE_AMQP_URL": at("http")}),
        (["worker"], {"ITEMFORGE_AMQP_URL": at("amqp").replace(":9/", ":port/")}),
        (["worker"], {"RABBITMQ_HOST": "h", "RABBITMQ_PORT": search.plant("port")}),
        (["worker"], {"RABBITMQ_HOST": "h", "ITEMFORGE_API_KEY": search.plant("key") + "ö"}),
        (["worker"], {**away, "ITEMFORGE_MODEL": "no-such-model", "ITEMFORGE_LOG_LEVEL": "debug"}),
        (["gateway"], {"ITEMFORGE_AMQP_URL": away["ITEMFORGE_AMQP_URL"], "ITEMFORGE_HOST": "0.0.0.0"}),
        (["gateway"], {**away, "ITEMFORGE_ADMIN_KEY": search.plant("admin") + "\nx"}),
        (["gateway"], {**away, "ITEMFORGE_STORAGE_URL": at("s3"), "ITEMFORGE_LOG_LEVEL": "debug"}),
    ]  # fmt: skip


@pytest.mark.timeout(400)
def test_commands_that_fail_say_no_secret(tmp_path: Path, search: Search) -> None:
    commands = _commands(search, tmp_path)

    def said(numbered: tuple[int, tuple[list[str], dict[str, str]]]) -> "subprocess.CompletedProcess[str]":
        number, (arguments, settings) = numbered
        folder = tmp_path / str(number)
        folder.mkdir()
        return run(folder, *arguments, **{"ITEMFORGE_HOME": str(folder / "home"), **settings})

    with ThreadPoolExecutor(4) as pool:
        for (arguments, settings), ended in zip(commands, pool.map(said, enumerate(commands)), strict=True):
            assert ended.returncode != 0 or arguments == ["--help"], arguments
            assert ended.stdout + ended.stderr
            search.look(f"{' '.join(arguments)} with {' '.join(settings)}", ended.stdout + ended.stderr)
    _assert_kept(search)


@pytest.mark.timeout(400)
def test_processes_that_are_refused_log_no_secret(
    tmp_path: Path, search: Search, amqp_url: str, postgres_url: str
) -> None:
    """A wrong password at the broker, a user that the database does not know, a key that is not right."""
    settings = _planted(search, amqp_url, postgres_url) | {
        "ITEMFORGE_LOG_LEVEL": "debug",
        "ITEMFORGE_LOG_FORMAT": "console",
        "ITEMFORGE_RECONNECT_MAX": "0.5",
    }
    parts = urlsplit(amqp_url)
    wrong = quote(search.plant("wrong_amqp"), safe="")
    refused = parts._replace(netloc=f"{parts.username}:{wrong}@{parts.hostname}:{parts.port}").geturl()
    database = postgres_url.replace("+asyncpg", "").replace(
        "itemforge@", f"nobody:{quote(search.plant('wrong_database'), safe='')}@"
    )
    broken = {**settings, "ITEMFORGE_AMQP_URL": refused, "DATABASE_URL": database}
    gateway = Command(
        tmp_path / "g", "gateway", "--port", "0", ITEMFORGE_HOME=str(tmp_path / "g/home"), **broken
    )
    with gateway:
        address = gateway.address()
        key = {**settings, "ITEMFORGE_API_KEY": search.plant("wrong_key")}
        worker = Command(
            tmp_path / "w", "worker", "--probe-port", "0", ITEMFORGE_HOME=str(tmp_path / "w/home"),
            API_GATEWAY_URL=address, **key,
        )  # fmt: skip
        with worker:
            wait_until(lambda: "database_away" in gateway.log.read_text(), 60)
            wait_until(lambda: "broker_unreachable" in gateway.log.read_text(), 60)
            wait_until(lambda: "gateway_not_found" in worker.log.read_text(), 100)
            headers = {"X-API-Key": settings["ITEMFORGE_ADMIN_KEY"]}
            answer = httpx.post(f"{address}/v1/generations", json={"prompt": "a key"}, headers=headers)
            assert answer.status_code == 503
            search.look("answer without a database", answer.text)
            search.look("readiness", httpx.get(f"{address}/readyz").text)
            worker.end(within=100)
        gateway.end(within=100)
    for command in (gateway, worker):
        search.look(f"log of {command.log.stem}", command.log.read_bytes() + command.out.read_bytes())
    _assert_kept(search)


CRASH = """
import structlog, threading
from itemforge.settings import GatewaySettings, WorkerSettings, load
from itemforge.telemetry.logs import setup_logs
settings = load({cls})
setup_logs(settings, "crash")
values = [v.get_secret_value() for v in (getattr(settings, n) for n in type(settings).model_fields) if hasattr(v, "get_secret_value")]
log = structlog.get_logger()
for value in values:
    log.info("said", value=value, nested={{"deep": [value, {{"er": value}}]}}, raw=value.encode())
    log.error("failed", error=RuntimeError(f"refused {{value}}"))
thread = threading.Thread(target=lambda: int(" ".join(values)))
thread.start()
thread.join()
raise RuntimeError(values)
"""


@pytest.mark.parametrize("cls", ["GatewaySettings", "WorkerSettings"])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_crash_with_every_secret_in_its_words_shows_none(
    cls: str, log_format: str, tmp_path: Path, search: Search
) -> None:
    amqp = f"amqp://user:{quote(search.plant('amqp'), safe='')}@h/"
    database = f"postgresql://user:{quote(search.plant('database'), safe='')}@h/d"
    settings = _planted(search, amqp, database) | {"ITEMFORGE_LOG_FORMAT": log_format}
    ended = subprocess.run(
        [sys.executable, "-c", CRASH.format(cls=cls)],
        capture_output=True, text=True, env=environment(settings), cwd=tmp_path, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.count("***") > 5, ended.stderr
    assert "RuntimeError" in ended.stderr
    search.look("the crash", ended.stdout + ended.stderr)
    _assert_kept(search)


def test_the_search_finds_what_is_there_in_every_form() -> None:
    search = Search()
    secret = search.plant("one")
    assert not search.leaks()
    written = {
        secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode(),
        base64.b64encode(f"user:{secret}".encode()).decode(), base64.urlsafe_b64encode(f"x:{secret}".encode()).decode(),
        json.dumps({"a": secret}), secret.encode().hex(),
    }  # fmt: skip
    for text in written:
        search.texts = [("here", f"before {text} after")]
        assert search.leaks(), text
    assert secret not in forms(new_secret("one"))


def test_every_secret_setting_is_known_to_the_search() -> None:
    found = secret_settings()
    assert {
        "amqp_url_setting",
        "rabbitmq_pass",
        "database_url_setting",
        "admin_key",
        "api_key",
    } <= found.keys()
    assert found["admin_key"] == "ITEMFORGE_ADMIN_KEY"
    assert found["rabbitmq_pass"] == "RABBITMQ_DEFAULT_PASS"
