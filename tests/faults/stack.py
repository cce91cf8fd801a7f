"""A whole system of real processes on a vhost, a database and a bucket of its own, intervals scaled down.

All of it is synchronous: a test reads as the story of what an operator would see. `stack.accepted` is what
the oracle holds us to.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import counted_engine
import httpx
import pika
import pytest
from counted_engine import Draw
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from processes import Process

from itemforge.contract import DEAD_QUEUE, QUEUE, RETRY_DELAYS, retry_queue
from polling import wait_until
from services.postgres import Eyes
from services.process import free_port
from services.rabbitmq import Vhost

TERMINAL = ("Completed", "Failed", "Cancelled")
QUEUES = (*map(retry_queue, RETRY_DELAYS), QUEUE)  # in the order in which messages move

#: Seconds, unless they say otherwise. A lease outlives any pause of a loaded machine, hardly more.
COMMON = {
    "ITEMFORGE_PUBLISH_TIMEOUT": "3",
    "ITEMFORGE_AMQP_HEARTBEAT": "5",
    "ITEMFORGE_RECONNECT_MAX": "0.5",
    "ITEMFORGE_STALL_AFTER": "3",
    "ITEMFORGE_RETRY_SCALE": "0.01",  # 5 s is 0.05, 10 min is 6
    "ITEMFORGE_STORAGE_TIMEOUT": "3",
    "ITEMFORGE_LOG_LEVEL": "debug",
}
GATEWAY = {
    "ITEMFORGE_LEASE": "3",
    "ITEMFORGE_RELAY_INTERVAL": "0.3",
    "ITEMFORGE_SWEEP_INTERVAL": "0.5",
    "ITEMFORGE_SWEEP_AFTER": "600",  # or the sweeper would mend what the queue must not lose
    "ITEMFORGE_WORKER_TIMEOUT": "3",
}
WORKER = {
    "ITEMFORGE_BATCH_SIZE": "4",
    "ITEMFORGE_HEARTBEAT_INTERVAL": "0.1",
    "ITEMFORGE_HEARTBEAT_IDLE": "0.3",
    "ITEMFORGE_GATEWAY_TIMEOUT": "3",
    "ITEMFORGE_RETRY_PAUSE": "0.05",
    "ITEMFORGE_BREAKER_PROBE": "0.2",
    "ITEMFORGE_SPOOL_TIME": "30",
    "ITEMFORGE_ENGINE_SILENCE": "20",
    "ITEMFORGE_DRAIN_TIMEOUT": "20",
    "ITEMFORGE_GATEWAY_MODE": "claims",
    "ITEMFORGE_TEST_ENGINE": "counted_engine:load",
}

#: For `any_stack`: where the queue's type can hardly matter, quorum queues are for `make test-slow`.
QUORUM_IS_SLOW = pytest.mark.parametrize(
    "any_stack", ["stack", pytest.param("quorum_stack", marks=pytest.mark.slow)], indirect=True
)


@dataclass(frozen=True)
class Row:
    """A request as the database has it."""

    id: str
    status: str
    attempt: int
    charged: int
    params: dict[str, Any]
    images: list[dict[str, Any]]
    image_url: str | None
    error: str | None
    published: bool
    leased: bool
    worker_id: str | None
    progress: dict[str, Any]  # image -> its last reported step


@dataclass
class Stack:
    """`amqp_url` may lead through a proxy; `vhost` is where tests look for themselves."""

    folder: Path
    vhost: Vhost
    database_url: str
    storage_url: str  # of the emulator, or of a proxy in front of it
    emulator: str
    bucket: str
    amqp_url: str = ""
    accepted: set[str] = field(default_factory=set)
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.amqp_url = self.amqp_url or self.vhost.url
        self.gateway_port = free_port()
        self.url = f"http://127.0.0.1:{self.gateway_port}"
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=20)
        self._eyes = Eyes(self.database_url)
        self.arm_file = self.folder / "armed"
        self._hold = self.folder / "hold"
        self._draws = self.folder / "draws"
        self.hold()

    # ── Processes ──────────────────────────────────────────────────────────────────────────────

    def gateway(self, *, port: int | None = None, ready: bool = True, **settings: str) -> Process:
        """Start a gateway, at `url` unless a port is given."""
        values = {**COMMON, **GATEWAY, "DATABASE_URL": self.database_url.replace("+asyncpg", "")}
        process = self._start("gateway", ["--port", str(port or self.gateway_port)], {**values, **settings})
        return process.wait_ready() if ready else process

    def worker(self, *, ready: bool = True, **settings: str) -> Process:
        values = {**COMMON, **WORKER, "API_GATEWAY_URL": self.url}
        process = self._start("worker", ["--probe-port", "0"], {**values, **settings})
        return process.wait_ready() if ready else process

    def start(self, workers: int = 1) -> list[Process]:
        """A gateway and its workers, started at once; gives the workers."""
        gateway = self.gateway(ready=False)
        found = [self.worker(ready=False) for _ in range(workers)]
        for process in (gateway, *found):
            process.wait_ready()
        return found

    def crashing(self, point: str, at: int = 1) -> dict[str, str]:
        """Settings of a process that dies at the n-th time that it reaches the point, once."""
        self.arm_file.touch()
        return {"ITEMFORGE_TEST_CRASH": point, "ITEMFORGE_TEST_CRASH_AT": str(at)}

    def _start(self, role: str, arguments: list[str], settings: dict[str, str]) -> Process:
        name = f"{role}-{len(self.processes)}"
        common = {
            "ITEMFORGE_HOME": str(self.folder / f"{role}-home"),
            "ITEMFORGE_AMQP_URL": self.amqp_url,
            "GCS_BUCKET_NAME": self.bucket,
            "STORAGE_EMULATOR_HOST": self.storage_url,
            "ITEMFORGE_STORAGE_PUBLIC_URL": f"{self.emulator}/{self.bucket}",
            "ITEMFORGE_TEST_ARM": str(self.arm_file),
            counted_engine.LOG: str(self._draws),
            counted_engine.HOLD: str(self._hold),
        }
        if role == "worker":
            common["ITEMFORGE_WORKER_ID"] = name
        process = Process(self.folder, name, [role, *arguments], {**common, **settings})
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.http.close()
        self._eyes.close()

    # ── What users and foreign programs do ─────────────────────────────────────────────────────

    def submit(self, prompt: str = "a key", **body: Any) -> str:
        """POST /v1/generations; from its 202 on the request is accepted."""
        body = {"prompt": prompt, "num_inference_steps": 5, **body}
        answer = self.http.post("/v1/generations", json=body)
        assert answer.status_code == 202, answer.text
        return self._accept(answer.json()["id"])

    def put(self, request_id: str, prompt: str = "a key", **body: Any) -> int:
        """PUT with an id of our own; the status code. Accepted when it is 2xx, as `submit`."""
        body = {"prompt": prompt, "num_inference_steps": 5, **body}
        answer = self.http.put(f"/v1/generations/{request_id}", json=body)
        if answer.is_success:
            self._accept(request_id)
        return answer.status_code

    def submit_many(self, count: int, prompt: str = "a key", **body: Any) -> list[str]:
        """In order, with the seeds 1, 2, …"""
        return [self.submit(prompt, seed=seed, **body) for seed in range(1, count + 1)]

    def _accept(self, request_id: str) -> str:
        self.accepted.add(request_id)
        return request_id

    def publish(self, body: bytes, queue: str = QUEUE, headers: dict[str, Any] | None = None) -> None:
        """As a foreign program: straight to the broker, confirmed."""
        with pika_channel(self.vhost.url) as channel:
            channel.confirm_delivery()
            properties = pika.BasicProperties(delivery_mode=2, headers=headers)
            channel.basic_publish("", queue, body, properties, mandatory=True)

    def publish_copy(self, request_id: str, times: int = 1) -> None:
        """Duplicate the message of a request that has a row."""
        body = json.dumps({"request_id": request_id, "params": self.row(request_id).params}).encode()
        for _ in range(times):
            self.publish(body)

    # ── What can be seen ───────────────────────────────────────────────────────────────────────

    def query(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        return self._eyes.fetch(statement, *values)

    def rows(self, ids: Iterable[str] | None = None) -> dict[str, Row]:
        """All rows, or these."""
        found = self.query(
            "SELECT *, coalesce(lease_until > now() AT TIME ZONE 'utc', false) AS leased FROM requests"
        )
        rows = {str(row["id"]): _row(row) for row in found}
        return rows if ids is None else {each: rows[each] for each in ids}

    def row(self, request_id: str) -> Row:
        return self.rows()[request_id]

    def states(self, request_id: str) -> list[dict[str, Any]]:
        """What the `state` events of a request said, in order."""
        return self.all_states()[request_id]

    def all_states(self) -> dict[str, list[dict[str, Any]]]:
        found = self.query("SELECT request_id, data FROM events WHERE type = 'state' ORDER BY id")
        states: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in found:
            states[str(row["request_id"])].append(json.loads(row["data"]))
        return states

    def draws(self, request_id: str | None = None, what: str = "begun") -> list[Draw]:
        """Rows that engines were given (`begun`), or pictures that they finished (`done`)."""
        found = counted_engine.read(self._draws)
        return [d for d in found if d.what == what and request_id in (None, d.request_id)]

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/v1/stats").json()
        return found

    def ready_messages(self, queue: str) -> int:
        """Messages that wait in a queue, asked of the queue itself; 0 if there is none."""
        return self.all_ready_messages((queue,))[queue]

    def all_ready_messages(self, queues: Iterable[str] = QUEUES) -> dict[str, int]:
        """The same of several, one after the other."""
        counts = dict.fromkeys(queues, 0)
        with pika_connection(self.vhost.url) as connection:
            for queue in counts:
                channel = connection.channel()
                with suppress(ChannelClosedByBroker):  # there is no such queue
                    counts[queue] = channel.queue_declare(queue, passive=True).method.message_count
        return counts

    def unacked_messages(self) -> int:
        """Messages in somebody's hands; the broker counts them anew a few times a second."""
        return sum(self.vhost.unacked(queue) for queue in QUEUES)

    def dead(self) -> list[dict[str, Any]]:
        """The dead queue's messages (`body`, `reason`), left where they are."""
        found = []
        with pika_channel(self.vhost.url) as channel:
            try:
                while (got := channel.basic_get(DEAD_QUEUE))[0] is not None:
                    headers = got[1].headers or {}
                    found.append({"body": got[2], "reason": headers.get("x-reason")})
            except ChannelClosedByBroker:
                return []
        return found

    # ── Waiting ────────────────────────────────────────────────────────────────────────────────

    def hold(self) -> None:
        """From now on `held` prompts stop after their first step."""
        self._hold.touch()

    def release(self) -> None:
        self._hold.unlink(missing_ok=True)

    def wait_drawing(self, ids: Iterable[str], within: float = 30.0) -> None:
        """Until the engine is in the middle of all of these: heartbeats have told a first step."""
        wanted = list(ids)

        def drawing() -> bool:
            return all(
                row.status == "Processing" and any(p["step"] > 0 for p in row.progress.values())
                for row in self.rows(wanted).values()
            )

        wait_until(drawing, within, every=0.05, why=f"an engine draws {wanted}")

    def wait_queues_kept(self) -> None:
        """Until the queues survive a kill of the broker. RabbitMQ 3.10 keeps a quorum queue's membership in
        a table that reaches the disk some seconds late: killed before, the queue has no leader for ever.
        """
        wait_until(lambda: self.vhost.has_queue(QUEUE), 30, why="the queues are declared")
        if self.vhost.is_quorum:
            declared = time.monotonic()
            wait_until(lambda: time.monotonic() - declared > 5, 10)

    def wait_status(self, request_id: str, *statuses: str, within: float = 30.0) -> Row:
        wait_until(lambda: self.row(request_id).status in statuses, within, 0.05, f"{request_id} {statuses}")
        return self.row(request_id)

    def wait_ended(self, ids: Iterable[str] | None = None, within: float = 60.0) -> None:
        """Until these, or all that was accepted, are in a terminal state."""
        wanted = self.accepted if ids is None else set(ids)

        def ended() -> bool:
            rows = self.rows()
            return all(i in rows and rows[i].status in TERMINAL for i in wanted)

        wait_until(ended, within, every=0.1, why="all that was accepted has ended")


def _row(row: dict[str, Any]) -> Row:
    return Row(
        id=str(row["id"]),
        status=row["status"],
        attempt=row["attempt"],
        charged=row["charged"],
        params=json.loads(row["params"]),
        images=json.loads(row["images"]) if row["images"] else [],
        image_url=row["image_url"],
        error=row["error"],
        published=row["published_at"] is not None,
        leased=row["leased"],
        worker_id=row["worker_id"],
        progress=json.loads(row["progress"] or "null") or {},
    )


@contextmanager
def pika_connection(url: str) -> Iterator[pika.BlockingConnection]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def pika_channel(url: str) -> Iterator[BlockingChannel]:
    """A channel of a connection of its own."""
    with pika_connection(url) as connection:
        yield connection.channel()
