"""The whole system with its watchers, after some jobs: what dashboards and counters are checked against."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pika
from towers import Prometheus, node_exporter, prometheus

from itemforge.client import Client
from itemforge.contract import QUEUE, Status
from polling import wait_until
from services.postgres import Eyes
from services.rabbitmq import RabbitNode, Vhost
from system.commands import Command, run

ADMIN_KEY = "admin-key-0123456789abcdef"
PRICE = "0.36"


@dataclass
class Watched:
    """`key` may read the gateway's figures and nothing else. `rows` looks into the database."""

    gateway: str
    worker: str
    worker_id: str
    key: str
    rows: Eyes
    prometheus: Prometheus
    #: Requests: what became of each.
    ids: dict[str, str]

    def gateway_text(self) -> str:
        answer = httpx.get(
            f"{self.gateway}/metrics", headers={"Authorization": f"Bearer {self.key}"}, timeout=60
        )
        assert answer.status_code == 200, answer.text
        return answer.text

    def worker_text(self) -> str:
        answer = httpx.get(f"{self.worker}/metrics", timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.text


@contextmanager
def watched_system(folder: Path, vhost: Vhost, database: str, node: RabbitNode) -> Iterator[Watched]:
    common = {
        "DATABASE_URL": database.replace("+asyncpg", ""),
        "ITEMFORGE_AMQP_URL": vhost.url,
        "ITEMFORGE_HOME": str(folder / "home"),
        "ITEMFORGE_STORAGE_URL": (folder / "objects").as_uri(),
    }
    gateway = Command(folder / "gateway", "gateway", "--port", "0", ITEMFORGE_ADMIN_KEY=ADMIN_KEY, **common)
    with gateway, node_exporter(folder / "node") as exporter:
        address = gateway.address()
        key = _monitor_key(folder, common)
        failing = str(uuid4())
        with Client(address, ADMIN_KEY) as client:
            asked = httpx.put(
                f"{address}/v1/generations/{failing}",
                json={"prompt": "a broken key"},
                headers={"X-API-Key": ADMIN_KEY},
                timeout=60,
            )
            assert asked.status_code == 202, asked.text
            _break_message(vhost.url, failing)
            worker = Command(
                folder / "worker",
                "worker",
                "--probe-port",
                "0",
                API_GATEWAY_URL=address,
                ITEMFORGE_API_KEY=ADMIN_KEY,
                ITEMFORGE_PRICE_PER_HOUR=PRICE,
                ITEMFORGE_WORKER_ID="a-worker-of-the-test",
                **common,
            )
            with worker:
                probes = worker.address()
                targets = {
                    "itemforge-gateway": address.removeprefix("http://"),
                    "itemforge-worker": probes.removeprefix("http://"),
                    "rabbitmq": f"127.0.0.1:{node.metrics_port}",
                    "rabbitmq-queues": f"127.0.0.1:{node.metrics_port}",
                    "node": exporter,
                }
                with prometheus(folder / "prometheus", targets, key) as tower:
                    # As long as the worker itself allows its engine: a machine that is busy otherwise takes minutes.
                    wait_until(lambda: _ready(probes), 600, every=0.2, why=f"see {worker.log}")
                    ids = {failing: "Failed", **_jobs(client, tower)}
                    wait_until(lambda: client.get(failing).status is Status.FAILED, 60, every=0.2)
                    eyes = Eyes(database)
                    try:
                        yield Watched(address, probes, "a-worker-of-the-test", key, eyes, tower, ids)
                    finally:
                        eyes.close()


def _ready(probes: str) -> bool:
    try:
        return httpx.get(f"{probes}/readyz", timeout=30).is_success
    except httpx.HTTPError:
        return False


def _monitor_key(folder: Path, common: dict[str, str]) -> str:
    made = run(folder, "keys", "create", "--name", "prometheus", "--role", "monitor", **common)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def _break_message(url: str, request_id: str) -> None:
    """Only one message is in the queue, and now nobody can draw its parameters; its id can be read."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        # With the good one beside it in the worker's hands, chance would say which of the two ends the request.
        wait_until(lambda: channel.queue_purge(QUEUE).method.message_count == 1, 30, every=0.1)
        body = f'{{"request_id": "{request_id}", "params": {{"prompt": "a key", "num_inference_steps": -1}}}}'
        channel.basic_publish("", QUEUE, body.encode(), pika.BasicProperties(delivery_mode=2))


def _jobs(client: Client, tower: Prometheus) -> dict[str, str]:
    """Two rounds, since what was counted before the first scrape has no rate; one is cancelled."""
    ended = {}
    for prompts in (("a red apple", "a key"), ("a sword", "a shield")):
        asked = [client.submit(p, num_inference_steps=2, num_images=n + 1) for n, p in enumerate(prompts)]
        for request in asked:
            wait_until(lambda id=request.id: client.get(id).status.terminal, 120, every=0.2)  # type: ignore[misc]
            ended[request.id] = "Completed"
        # Seen by Prometheus, of gateway and worker, before the next round begins.
        images = 3 * len(ended) / 2
        for metric in ("itemforge_images_total", "itemforge_worker_images_total"):
            wait_until(lambda m=metric, n=images: _sum(tower, m) == n, 60, every=0.2)  # type: ignore[misc]
    cancelled = client.submit("a sword that nobody wants", num_inference_steps=100)
    # Before that it may never become a message, and what is delivered is counted.
    wait_until(lambda: client.get(cancelled.id).status is not Status.PENDING, 60, every=0.05)
    client.cancel(cancelled.id)
    return {**ended, cancelled.id: "Cancelled"}


def _sum(tower: Prometheus, metric: str) -> float:
    found = tower.query(f"sum({metric})")
    return float(found[0]["value"][1]) if found else 0.0


def without_comments(text: str) -> str:
    return re.sub(r"(?m)^#.*\n", "", text)
