"""The services themselves: private, fresh for each test, and gone with the session."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import httpx
import pika
import pytest

from polling import eventually, wait_until
from services.postgres import PostgresServer
from services.process import Service, listens, unavailable
from services.rabbitmq import Vhost


def test_every_vhost_has_queues_of_its_default_type(
    any_amqp_vhost: Vhost, request: pytest.FixtureRequest
) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(any_amqp_vhost.url))
    connection.channel().queue_declare("q", durable=True)
    connection.close()
    if any_amqp_vhost.management is not None:
        assert any_amqp_vhost.queue("q")["type"] == request.node.callspec.params["any_amqp_vhost"]


@pytest.mark.parametrize("_round", [1, 2])
async def test_every_test_has_an_empty_database_of_its_own(postgres_url: str, _round: int) -> None:
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE first_of_all (a int)")
    await connection.close()


async def test_a_database_can_be_a_copy_of_another(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE t AS SELECT 7 AS a")
    await connection.close()
    with postgres_server.database(template=postgres_url.rpartition("/")[2]) as copy:
        connection = await asyncpg.connect(copy.replace("+asyncpg", ""))
        assert await connection.fetchval("SELECT a FROM t") == 7
        await connection.close()


def test_the_emulator_has_a_fresh_bucket(gcs_emulator: str, gcs_bucket: str) -> None:
    answer = httpx.get(f"{gcs_emulator}/storage/v1/b/{gcs_bucket}/o", trust_env=False)
    assert answer.status_code == 200 and "items" not in answer.json()


def test_a_service_does_not_outlive_a_session_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from services.process import Service\n"
        "print(Service(['sleep', '1000'], Path('log')).pid, flush=True); time.sleep(1000)\n"
    )
    tests = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", script, tests], stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdout is not None
        pid = int(session.stdout.readline())
        os.kill(pid, 0)
        session.send_signal(signal.SIGKILL)

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(gone, why="the leash kills the service")


def test_a_service_that_ends_at_once_says_why(tmp_path: Path) -> None:
    service = Service(["sh", "-c", "echo no such luck; exit 3"], tmp_path / "log")
    with pytest.raises(RuntimeError, match="no such luck"):
        service.wait_until(lambda: listens(1), within=10)
    service.stop()


def test_a_missing_service_fails_in_ci_and_skips_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no such service"):
        unavailable("no such service")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no such service"):
        unavailable("no such service")


async def test_eventually_returns_the_first_true_value_and_gives_up_in_time() -> None:
    values = iter([0, None, 3])

    async def check() -> int | None:
        await asyncio.sleep(0)
        return next(values)

    assert await eventually(check) == 3
    began = time.monotonic()
    with pytest.raises(AssertionError, match="the moon is cheese"):
        await eventually(lambda: False, within=0.05, why="the moon is cheese")
    assert time.monotonic() - began < 5
