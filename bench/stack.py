"""RabbitMQ, PostgreSQL, a GCS emulator and a gateway for a bench: private, on free ports, gone afterwards."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg2

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from services import fakegcs, postgres, rabbitmq

#: Settings of the developer's that would change a measurement.
_FOREIGN = ("ITEMFORGE_", "RABBITMQ_", "GCS_", "DATABASE_URL", "API_GATEWAY_URL", "STORAGE_EMULATOR_HOST")


def environment(**settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**clean, "ITEMFORGE_LOG_FORMAT": "json", **settings}


class Program:
    """A child process with its output in a file; `said` waits for a line of it."""

    def __init__(self, folder: Path, name: str, *command: str, **settings: str) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(**settings),
                cwd=folder,
            )

    def said(self, pattern: str, within: float = 180.0) -> str:
        deadline = time.monotonic() + within
        while not (found := re.search(pattern, self.log.read_text(errors="replace"))):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.log} does not say {pattern!r}: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        return found.group()

    def cpu(self) -> float:
        """Seconds of processor time of the process, without its children."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Stack:
    """One gateway with a queue, a database and a bucket of its own."""

    folder: Path
    amqp: str
    database: str
    emulator: str
    bucket: str
    gateway: Program
    address: str

    def settings(self, home: Path) -> dict[str, str]:
        """What `itemforge worker` reads."""
        return {
            "ITEMFORGE_HOME": str(home),
            "ITEMFORGE_AMQP_URL": self.amqp,
            "API_GATEWAY_URL": self.address,
            "GCS_BUCKET_NAME": self.bucket,
            "STORAGE_EMULATOR_HOST": self.emulator,
            "ITEMFORGE_WORKER_PORT": "0",
        }

    def submit(self, prompts: list[str], **params: object) -> list[str]:
        with httpx.Client(base_url=self.address, trust_env=False, timeout=30) as client:
            bodies = [{"prompt": p, "seed": n, **params} for n, p in enumerate(prompts)]
            answers = [client.post("/generate", json=body).raise_for_status() for body in bodies]
        return [answer.json()["request_id"] for answer in answers]

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.database)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, values)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def seconds(self, ids: list[str], within: float = 600.0) -> float:
        """Wait for all to be completed; from the first one's row to the last one's end, by the database.

        Raises:
            RuntimeError: one failed, or they are not done in time.
        """
        deadline = time.monotonic() + within
        while True:
            ((done, bad, taken),) = self.query(
                "SELECT count(*) FILTER (WHERE status = 'Completed'),"
                " count(*) FILTER (WHERE status IN ('Failed', 'Cancelled')),"
                " extract(epoch FROM max(finished_at) - min(created_at))"
                " FROM requests WHERE id = ANY(%s::uuid[])",
                ids,
            )
            if done == len(ids):
                return float(taken)
            if bad or time.monotonic() > deadline:
                raise RuntimeError(f"{done} of {len(ids)} are completed, {bad} failed; see {self.folder}")
            time.sleep(0.5)


class Services:
    """The servers that stacks share."""

    def __init__(self) -> None:
        self._exits = ExitStack()
        self.folder = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="itemforge-bench-")))
        server, binaries, emulator = rabbitmq.find_server(), postgres.find_binaries(), fakegcs.find_binary()
        if server is None or binaries is None or emulator is None:
            raise SystemExit("the bench needs rabbitmq-server, postgresql and the extra `dev`; see README.md")
        self.rabbit = rabbitmq.RabbitNode(server)
        self._exits.callback(self.rabbit.remove)
        self.rabbit.start()
        self.postgres = postgres.PostgresCluster(binaries)
        self._exits.callback(self.postgres.remove)
        self.postgres.start()
        self.gcs = fakegcs.FakeGcs(emulator)
        self._exits.callback(self.gcs.remove)
        self.gcs.start()

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    @contextmanager
    def stack(self, name: str) -> Iterator[Stack]:
        folder = self.folder / name
        folder.mkdir()
        bucket = self.gcs.new_bucket()
        with rabbitmq.fresh_vhost(self.rabbit) as vhost, self.postgres.database() as url:
            database = url.replace("+asyncpg", "")
            settings = {
                "ITEMFORGE_HOME": str(folder / "gateway-home"),
                "ITEMFORGE_AMQP_URL": vhost.url,
                "DATABASE_URL": database,
                "GCS_BUCKET_NAME": bucket,
                "STORAGE_EMULATOR_HOST": self.gcs.url,
                "ITEMFORGE_SEED_ROUTES": "open",
            }
            subprocess.run(
                [sys.executable, "-m", "itemforge", "db", "upgrade"], env=environment(**settings), check=True
            )
            gateway = Program(folder, "gateway", "-m", "itemforge", "gateway", "--port", "0", **settings)
            try:
                address = gateway.said(r"http://127\.0\.0\.1:\d+")
                yield Stack(folder, vhost.url, database, self.gcs.url, bucket, gateway, address)
            finally:
                gateway.stop()


def read_stages(path: Path) -> dict[str, Any]:
    """What `bench/staged.py` wrote: `stages`, `rows` and `steps`."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found
