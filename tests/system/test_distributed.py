"""Gateway and worker as processes on RabbitMQ, PostgreSQL and a GCS emulator, with the starter model.

Around them, the programs of the existing system in our own words: a publisher on plain pika, a gateway
that knows only `/update_db`, a worker that reports in lower case and without an attempt.
"""

import asyncio
import json
import signal
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import asyncpg
import httpx
import pika
import pytest
from commands import Command, run
from PIL import Image

from gateways import SeedLikeGateway
from itemforge.client import Client, StateEvent
from itemforge.contract import DEAD_QUEUE, QUEUE, Status
from polling import wait_until
from services.rabbitmq import Vhost

ADMIN_KEY = "admin-key-0123456789abcdef"
BUCKET_PATH = "/storage/v1/b/{bucket}/o/{key}?alt=media"


def _publish(url: str, body: bytes) -> None:
    """As the original gateway does it: a bare durable queue, the default exchange, a persistent message."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", QUEUE, body, pika.BasicProperties(delivery_mode=2))
    finally:
        connection.close()


def _message(request_id: str, **params: object) -> bytes:
    values = {"prompt": "a key", "num_inference_steps": 5, "guidance_scale": 4.0, "seed": 7, **params}
    return json.dumps({"request_id": request_id, "params": values}).encode()


def _object(emulator: str, bucket: str, key: str) -> bytes:
    url = emulator + BUCKET_PATH.format(bucket=bucket, key=key.replace("/", "%2F"))
    answer = httpx.get(url)
    answer.raise_for_status()
    return answer.content


def _depth(url: str, queue: str) -> int:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)
    finally:
        connection.close()


@pytest.fixture
def seed_gateway() -> Iterator[SeedLikeGateway]:
    gateway = SeedLikeGateway()
    yield gateway
    gateway.close()


def _worker(folder: Path, amqp: str, gateway: str, emulator: str, bucket: str, **settings: str) -> Command:
    return Command(
        folder,
        "worker",
        "--probe-port",
        "0",
        ITEMFORGE_HOME=str(folder / "home"),
        ITEMFORGE_AMQP_URL=amqp,
        API_GATEWAY_URL=gateway,
        GCS_BUCKET_NAME=bucket,
        STORAGE_EMULATOR_HOST=emulator,
        **settings,
    )


def test_a_prompt_becomes_a_picture_through_rabbitmq_postgresql_and_gcs(
    tmp_path: Path, any_amqp_vhost: Vhost, postgres_url: str, gcs_emulator: str, gcs_bucket: str
) -> None:
    common = {"ITEMFORGE_AMQP_URL": any_amqp_vhost.url, "GCS_BUCKET_NAME": gcs_bucket}
    database = postgres_url.replace("+asyncpg", "")
    migrated = run(tmp_path, "db", "upgrade", DATABASE_URL=database)
    assert migrated.returncode == 0, migrated.stderr
    gateway = Command(
        tmp_path / "gateway",
        "gateway",
        "--port",
        "0",
        ITEMFORGE_HOME=str(tmp_path / "gateway-home"),
        DATABASE_URL=database,
        STORAGE_EMULATOR_HOST=gcs_emulator,
        ITEMFORGE_ADMIN_KEY=ADMIN_KEY,
        **common,
    )
    with gateway, Client(gateway.address(), ADMIN_KEY) as client:
        early = client.submit("a red apple", num_inference_steps=5, seed="3")
        worker = _worker(
            tmp_path / "worker",
            any_amqp_vhost.url,
            gateway.address(),
            gcs_emulator,
            gcs_bucket,
            ITEMFORGE_API_KEY=ADMIN_KEY,
        )
        with worker:
            probes = worker.address()
            wait_until(lambda: httpx.get(f"{probes}/readyz").is_success, 100, every=0.2)
            late = client.submit("a key", num_inference_steps=5, num_images=2)
            states = [event.status for event in client.events(late) if isinstance(event, StateEvent)]
            assert states[-2:] == ["Processing", "Completed"]
            wait_until(lambda: client.get(early.id).status is Status.COMPLETED, 60)
            # A foreign program puts a message for an id that the gateway knows: it is served as well, once.
            _publish(any_amqp_vhost.url, _message(early.id))
            _publish(any_amqp_vhost.url, _message(str(uuid.uuid4())))
            _publish(any_amqp_vhost.url, b"not json")
            wait_until(lambda: _depth(any_amqp_vhost.url, DEAD_QUEUE) == 2, 60, every=0.2)
            wait_until(lambda: _depth(any_amqp_vhost.url, QUEUE) == 0, 60, every=0.2)
            assert worker.end(signal.SIGTERM) == 0
        dead = run(tmp_path, "dead", ITEMFORGE_AMQP_URL=any_amqp_vhost.url)
        assert "does not know this request id" in dead.stdout
        assert "invalid message" in dead.stdout
        images = client.get(late.id).images
        assert gateway.end(signal.SIGINT) == 0

    picture = Image.open(BytesIO(_object(gcs_emulator, gcs_bucket, f"generated/{early.id}.png")))
    assert picture.size == (64, 64)
    for n in (0, 1):
        _object(gcs_emulator, gcs_bucket, f"generated/{late.id}/{n}.png")
    assert len({image.url for image in images}) == 2
    row = asyncio.run(_row(database, early.id))
    assert row["status"] == "Completed"
    assert str(row["image_url"]).endswith(f"generated/{early.id}.png")
    assert row["attempt"] == 1
    for log in (gateway, worker):
        assert all("message" in event for event in log.events())
        assert ADMIN_KEY not in log.log.read_text()
        assert any_amqp_vhost.url not in log.log.read_text()


async def _row(database: str, request_id: str) -> asyncpg.Record:
    connection = await asyncpg.connect(database)
    try:
        return await connection.fetchrow("SELECT * FROM requests WHERE id = $1", uuid.UUID(request_id))
    finally:
        await connection.close()


def test_a_foreign_publisher_and_a_gateway_without_claims_are_served(
    tmp_path: Path,
    any_amqp_vhost: Vhost,
    gcs_emulator: str,
    gcs_bucket: str,
    seed_gateway: SeedLikeGateway,
) -> None:
    before, after, invalid = (seed_gateway.add() for _ in range(3))
    unknown = str(uuid.uuid4())
    _publish(any_amqp_vhost.url, _message(before))
    with _worker(tmp_path, any_amqp_vhost.url, seed_gateway.url, gcs_emulator, gcs_bucket) as worker:
        wait_until(lambda: seed_gateway.rows[before].status == "Completed", 100)
        _publish(any_amqp_vhost.url, _message(invalid, num_inference_steps=0))
        _publish(any_amqp_vhost.url, _message(unknown))
        _publish(any_amqp_vhost.url, b'{"request_id": 5}')
        _publish(any_amqp_vhost.url, _message(after))
        wait_until(lambda: seed_gateway.rows[after].status == "Completed", 60)
        wait_until(lambda: seed_gateway.rows[invalid].status == "Failed", 60)
        wait_until(lambda: _depth(any_amqp_vhost.url, DEAD_QUEUE) == 3, 60, every=0.2)
        assert worker.end(signal.SIGINT) == 0
    assert seed_gateway.rows[before].history == ["Processing", "Completed"]
    for request_id in (before, after):
        (image,) = seed_gateway.rows[request_id].images
        assert image["url"].endswith(f"/{gcs_bucket}/generated/{request_id}.png")
        assert _object(gcs_emulator, gcs_bucket, f"generated/{request_id}.png").startswith(b"\x89PNG")
    assert _depth(any_amqp_vhost.url, QUEUE) == 0


def test_our_gateway_serves_a_worker_as_the_seeds_is(
    tmp_path: Path, amqp_vhost: Vhost, postgres_url: str
) -> None:
    gateway = Command(
        tmp_path,
        "gateway",
        "--port",
        "0",
        ITEMFORGE_HOME=str(tmp_path / "home"),
        ITEMFORGE_AMQP_URL=amqp_vhost.url,
        DATABASE_URL=postgres_url.replace("+asyncpg", ""),
    )
    with gateway:
        url = gateway.address()
        prompt = {"prompt": "tsuki_advtr, a key", "seed": 9, "guidance_scale": 6.5}
        good = httpx.post(f"{url}/generate", json=prompt)
        assert good.status_code == 202
        bad = httpx.post(f"{url}/generate", json={"prompt": "tsuki_advtr, a lock"})
        ids = [answer.json()["request_id"] for answer in (good, bad)]

        connection = pika.BlockingConnection(pika.URLParameters(amqp_vhost.url))
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        bodies: dict[str, dict[str, object]] = {}
        for method, _, body in channel.consume(QUEUE, inactivity_timeout=30):
            assert method is not None, "the gateway did not publish in time"
            message = json.loads(body)
            request_id = message["request_id"]
            bodies[request_id] = message["params"]
            reported = httpx.put(f"{url}/update_db/{request_id}", json={"status": "processing"})
            assert reported.is_success, reported.text
            assert httpx.get(f"{url}/status/{request_id}").json()["status"] == "Processing"
            result = (
                {"status": "Completed", "image_url": "https://store.example/x.png"}
                if request_id == ids[0]
                else {"status": "failed"}
            )
            assert httpx.put(f"{url}/update_db/{request_id}", json=result).is_success
            channel.basic_ack(method.delivery_tag)
            if len(bodies) == 2:
                break
        channel.cancel()
        connection.close()

        assert bodies[ids[0]]["prompt"] == "tsuki_advtr, a key"
        assert bodies[ids[0]]["seed"] == 9
        assert bodies[ids[0]]["guidance_scale"] == 6.5
        assert bodies[ids[1]]["num_inference_steps"] == 50
        assert bodies[ids[1]]["seed"] == 50
        assert httpx.get(f"{url}/status/{ids[0]}").json() == {
            "request_id": ids[0],
            "status": "Completed",
            "image_url": "https://store.example/x.png",
        }
        assert httpx.get(f"{url}/status/{ids[1]}").json() == {"request_id": ids[1], "status": "Failed"}
        assert gateway.end() == 0
