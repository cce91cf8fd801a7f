"""Programs that are not ours, or not of this version, on the same queue and database: F35 and F36."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import backlog
import httpx
import oracle
from fake_engine import pixels_of
from PIL import Image
from stack import QUEUE, Stack, pika_channel

from contract.recorded import record
from polling import wait_until
from services.postgres import execute

#: As the original gateway publishes: a bare durable queue, the default exchange, confirms, delivery mode 2.
_PUBLISHER = """
import sys, pika
url, body = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare(queue="image_generation_queue", durable=True)
channel.confirm_delivery()
channel.basic_publish("", "image_generation_queue", body.encode(), pika.BasicProperties(delivery_mode=2))
connection.close()
"""


def _publish_as_a_foreigner(stack: Stack, body: bytes) -> None:
    command = [sys.executable, "-c", _PUBLISHER, stack.vhost.url, body.decode()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr  # a 406 would show here


def test_f35_a_foreign_publisher_declares_its_queue_before_and_after_us_without_a_406(
    any_stack: Stack,
) -> None:
    stack = any_stack
    before, after = backlog.insert(stack, "foreign", 2, published=True)
    _publish_as_a_foreigner(stack, backlog.body(stack, before))
    gateway = stack.gateway()
    worker = stack.worker()
    stack.wait_status(before, "Completed")
    _publish_as_a_foreigner(stack, backlog.body(stack, after))
    oracle.check(stack)
    for process in (gateway, worker):
        assert not process.events("broker_unreachable"), "we declare what is there already without a 406, too"


class OldWorker:
    """A worker of version 0.1: it says what was recorded, and reads only the fields that were recorded."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        calls = {call["name"]: call for call in record("calls")}
        self._claim, self._beat, self._report = (
            calls[name]["request"] for name in ("claim", "heartbeat", "reports")
        )
        self._known = set(calls["claim"]["answer"][0])
        self._over = threading.Event()
        self.completed: list[str] = []
        self.errors: list[BaseException] = []

    @contextmanager
    def running(self) -> Iterator["OldWorker"]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join(30)

    def _run(self) -> None:
        try:
            with pika_channel(self._stack.vhost.url) as channel:
                channel.queue_declare(QUEUE, durable=True)
                channel.basic_qos(prefetch_count=1)
                for method, _, body in channel.consume(QUEUE, inactivity_timeout=0.1):
                    if method is not None:
                        self._serve(json.loads(body)["request_id"])
                        channel.basic_ack(method.delivery_tag)
                    if self._over.is_set():
                        break
                channel.cancel()
        except BaseException as error:
            self.errors.append(error)

    def _call(self, what: str, body: Any) -> Any:
        answer = self._stack.http.post(f"/v1/worker/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _serve(self, request_id: str) -> None:
        (answer,) = self._call("claims", {**self._claim, "jobs": [{"request_id": request_id}]})
        claim = {key: answer[key] for key in self._known}
        if claim["outcome"] != "claimed":
            return
        row = {**self._beat["rows"][0], "request_id": request_id, "attempt": claim["attempt"]}
        (heard,) = self._call("heartbeat", {**self._beat, "rows": [row]})
        assert not heard["lost"] and not heard["cancel"]
        images = [self._upload(request_id, claim["params"])]
        report = {**self._report[0], "request_id": request_id, "attempt": claim["attempt"], "images": images}
        (said,) = self._call("reports", [report])
        assert said["code"] == 200
        self.completed.append(request_id)

    def _upload(self, request_id: str, params: dict[str, Any]) -> dict[str, Any]:
        key, out = f"generated/{request_id}.png", BytesIO()
        Image.fromarray(pixels_of(params["seed"])).save(out, "PNG")
        where = f"{self._stack.emulator}/upload/storage/v1/b/{self._stack.bucket}/o"
        asked = {"uploadType": "media", "name": key, "ifGenerationMatch": "0"}
        httpx.post(where, params=asked, content=out.getvalue(), trust_env=False).raise_for_status()
        image: dict[str, Any] = dict(self._report[0]["images"][0])
        url = f"{self._stack.emulator}/{self._stack.bucket}/{key}"
        return {**image, "seed": str(params["seed"]), "bucket": self._stack.bucket, "key": key, "url": url}


def test_f36_todays_gateway_migrates_and_serves_while_a_gateway_and_a_worker_of_0_1_are_at_work(
    stack: Stack,
) -> None:
    plain = stack.database_url.replace("+asyncpg", "")
    execute(plain, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public", *record("database")["postgresql"])
    backlog.insert(stack, "old", 10)
    old_gateway_ends = threading.Event()

    def submit_as_0_1() -> None:  # by the columns of version 0.1, before, during and after the migration
        while not old_gateway_ends.wait(0.05):
            backlog.insert(stack, "old", 1)

    old_gateway = threading.Thread(target=submit_as_0_1)
    old_gateway.start()
    try:
        stack.gateway()
        (revision,) = stack.query("SELECT version_num FROM alembic_version")
        assert revision["version_num"] != record("database")["revision"]
        with OldWorker(stack).running() as old_worker:
            wait_until(lambda: len(old_worker.completed) >= 10 or old_worker.errors, 60)
            stack.worker()
            old_gateway_ends.set()
            stack.wait_ended(within=60)
    finally:
        old_gateway_ends.set()
        old_gateway.join()
    assert not old_worker.errors, old_worker.errors
    rows = oracle.check(stack)
    assert len(rows) > 10
    assert {row.worker_id for row in rows.values()} >= {"old-worker"}
