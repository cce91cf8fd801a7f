"""From a gateway in need over Prometheus and Alertmanager to a channel of Discord."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from towers import alertmanager, prometheus

from polling import wait_until
from services.rabbitmq import Vhost
from system.commands import Command

pytestmark = pytest.mark.timeout(300)


class Channel:
    """Takes what Discord's "Execute Webhook" takes, and nothing else (its limits are in their API reference)."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.refused: list[str] = []
        channel = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                wrong = channel.take(self.path, self.headers.get("Content-Type", ""), body)
                self.send_response(400 if wrong else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/webhooks/1234/a-token"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def take(self, path: str, content_type: str, body: bytes) -> str | None:
        """Why a message is refused; None when it is taken."""
        wrong = None if path == "/api/webhooks/1234/a-token" else f"path {path}"
        wrong = wrong or (None if content_type.startswith("application/json") else f"type {content_type}")
        message = json.loads(body)
        wrong = wrong or _wrong(message)
        if wrong:
            self.refused.append(f"{wrong}: {body!r}")
        else:
            self.messages.append(message)
        return wrong

    def told(self, text: str) -> bool:
        return any(text in embed["description"] for m in self.messages for embed in m["embeds"])

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _wrong(message: dict[str, Any]) -> str | None:
    embeds = message.get("embeds") or []
    if not (message.get("content") or embeds):
        return "an empty message"
    if len(message.get("content") or "") > 2000 or len(embeds) > 10:
        return "too long"
    for embed in embeds:
        if len(embed.get("title", "")) > 256 or len(embed.get("description", "")) > 4096:
            return "an embed that is too long"
        if not isinstance(embed.get("color", 0), int):
            return "a colour that is no number"
    return None


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel()
    yield channel
    channel.close()


def test_work_without_workers_and_a_silent_worker_reach_the_channel(
    tmp_path: Path, amqp_vhost: Vhost, channel: Channel
) -> None:
    gateway = Command(
        tmp_path / "gateway",
        "gateway",
        "--port",
        "0",
        ITEMFORGE_HOME=str(tmp_path / "home"),
        ITEMFORGE_AMQP_URL=amqp_vhost.url,
        ITEMFORGE_WORKER_TIMEOUT="1",
    )
    with gateway:
        url = gateway.address()
        targets = {"itemforge-gateway": url.removeprefix("http://")}
        with (
            alertmanager(tmp_path / "alertmanager", channel.url) as manager,
            prometheus(tmp_path / "prometheus", targets, "no key", manager, at_once=True) as tower,
        ):
            wait_until(lambda: tower.targets().get("itemforge-gateway") == "up", 60, every=0.2)
            wait_until(lambda: tower.query("itemforge_workers"), 30, every=0.2)
            assert tower.firing() == set()
            assert httpx.post(f"{url}/v1/generations", json={"prompt": "a key"}).status_code == 202
            beat = {"worker_id": "one-that-vanishes", "state": "ready", "free": 4, "rows": []}
            assert httpx.post(f"{url}/v1/worker/heartbeat", json=beat).status_code == 200
            wait_until(lambda: {"NoConsumer", "WorkerSilent"} <= tower.firing(), 60, every=0.2)
            wait_until(lambda: channel.told("1 requests wait and no worker takes any"), 60, every=0.2)
            wait_until(lambda: channel.told("1 workers fell silent"), 60, every=0.2)
            assert not channel.refused
            assert any("FIRING: NoConsumer" in e["title"] for m in channel.messages for e in m["embeds"])
            assert channel.told("docs/metrics.md#noconsumer")
            # It comes back, and says so.
            stop = threading.Event()
            beating = threading.Thread(target=_beat, args=(url, beat, stop))
            beating.start()
            try:
                resolved = "RESOLVED: WorkerSilent"
                wait_until(
                    lambda: any(resolved in e["title"] for m in channel.messages for e in m["embeds"]),
                    90,
                    every=0.2,
                )
            finally:
                stop.set()
                beating.join()


def _beat(url: str, beat: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(0.2):
        httpx.post(f"{url}/v1/worker/heartbeat", json=beat)
