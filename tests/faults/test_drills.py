"""The disaster drills of docs/sizing.md: each command as it stands there, and what it says one sees."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import oracle
import pytest
from stack import COMMON, Stack

from itemforge.contract import QUEUE
from polling import wait_until
from services.fakegcs import FakeGcs
from services.postgres import PostgresCluster, PostgresServer, find_binaries
from services.rabbitmq import RabbitNode

pytestmark = pytest.mark.timeout(400)  # on a busy machine; well under a minute on an idle one

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/sizing.md").read_text(encoding="utf-8")
#: Lines of the drills' shell blocks without their comments, except those that the page calls untried.
_COMMANDS = {
    line.split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", _PAGE.partition("# Disaster drills")[2], re.DOTALL)
    for line in block.splitlines()
    if "# not tried" not in line
}


class Operator:
    """Types what the page says, with the environment that it says."""

    def __init__(self, stack: Stack, node: RabbitNode, **values: str) -> None:
        binaries = find_binaries()
        path = [str(Path(sys.executable).parent), str(node.rabbitmqctl.parent), str(binaries)]
        self._env = {
            **node.environment(),
            **COMMON,
            "PATH": os.pathsep.join([*path, os.environ["PATH"]]),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "ITEMFORGE_HOME": str(stack.folder / "gateway-home"),
            "ITEMFORGE_AMQP_URL": stack.vhost.url,
            "API_GATEWAY_URL": stack.url,
            "DATABASE_URL": stack.database_url.replace("+asyncpg", ""),
            "GCS_BUCKET_NAME": stack.bucket,
            "STORAGE_EMULATOR_HOST": stack.emulator,
            "ITEMFORGE_STORAGE_PUBLIC_URL": f"{stack.emulator}/{stack.bucket}",
            "VHOST": stack.vhost.name,
            "WORKER_URL": "",
            **values,
        }
        self._folder = stack.folder

    def types(self, command: str, **values: str) -> str:
        """Run a command of the page; what it printed, errors too."""
        assert command in _COMMANDS, f"docs/sizing.md does not have: {command}"
        done = subprocess.run(
            ["sh", "-c", command],
            env={**self._env, **values},
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout


def _said(*words: str) -> None:
    """The page says so."""
    for word in words:
        assert word in _PAGE, f"docs/sizing.md does not say: {word}"


@pytest.fixture
def operator(rabbit_node: RabbitNode, stack: Stack) -> Operator:
    return Operator(stack, rabbit_node)


READY = "curl -s $API_GATEWAY_URL/readyz"
STATS = "curl -s $API_GATEWAY_URL/v1/stats"


def test_broker_lost(operator: Operator, stack: Stack) -> None:
    (worker,) = stack.start()
    operator.types("rabbitmqctl stop_app")
    wait_until(lambda: '"broker":"unavailable"' in operator.types(READY), 30)
    _said('"broker":"unavailable"')
    waiting = stack.submit_many(3)
    assert operator.types("itemforge jobs --status Pending").count("Pending") == 3
    wait_until(lambda: not worker.ready, 30)
    operator.types("rabbitmqctl start_app")
    stack.wait_ended(waiting, within=90)
    assert '"broker":"ok"' in operator.types(READY)
    oracle.check(stack)


def test_queue_lost(operator: Operator, stack: Stack) -> None:
    stack.gateway(ITEMFORGE_SWEEP_AFTER="2")
    waiting = stack.submit_many(3)
    wait_until(lambda: stack.ready_messages(QUEUE) == 3, 30)
    operator.types("rabbitmqctl -p $VHOST delete_queue image_generation_queue")
    stack.worker()
    stack.wait_ended(waiting, within=90)
    oracle.check(stack)


def test_database_lost_and_restored(
    operator: Operator, stack: Stack, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    if not isinstance(postgres_server, PostgresCluster):
        pytest.skip("the drill drops the database, which is only done to our own")
    gateway, worker = stack.gateway(), stack.worker()
    kept = stack.submit_many(3)
    stack.wait_ended(kept)
    dump = {"DUMP": str(tmp_path / "items.dump")}
    operator.types('pg_dump --format=custom --file "$DUMP" "$DATABASE_URL"', **dump)
    later = stack.submit()
    stack.wait_ended([later])
    server, _, name = stack.database_url.replace("+asyncpg", "").rpartition("/")
    names = {"SERVER_URL": f"{server}/postgres", "NAME": name}
    operator.types('psql "$SERVER_URL" -c "DROP DATABASE \\"$NAME\\" WITH (FORCE)"', **names)
    wait_until(lambda: '"database":"unavailable"' in operator.types(READY), 30)
    assert stack.put(str(uuid.uuid4())) == 503
    _said('"database":"unavailable"', "503")
    assert gateway.end() == 0 and worker.end() == 0
    operator.types('createdb --maintenance-db "$SERVER_URL" "$NAME"', **names)
    operator.types('pg_restore --dbname "$DATABASE_URL" "$DUMP"', **dump)
    operator.types("itemforge db upgrade")
    said = operator.types("itemforge db reconcile")
    assert f"{later} has pictures in the store" in said
    assert "1 known to the store only" in said
    _said("known to the store only")
    stack.accepted.discard(later)  # the dump is older
    stack.gateway(), stack.worker()
    stack.submit()
    assert set(kept) <= set(oracle.check(stack))


def test_bucket_unreachable(operator: Operator, stack: Stack, _fake_gcs: FakeGcs) -> None:
    stack.gateway()
    worker = stack.worker(ITEMFORGE_BREAKER_AFTER="2", ITEMFORGE_STORAGE_TIMEOUT="1")
    pid = {"STORE_PID": str(_fake_gcs.pid)}
    drawn = stack.submit_many(4, "held key")
    stack.wait_drawing(drawn)
    operator.types("kill -STOP $STORE_PID", **pid)
    try:
        stack.release()
        wait_until(lambda: worker.events("consuming_stopped"), 60, why="the worker takes no more")
        assert not worker.ready
        assert {stack.row(i).status for i in drawn} == {"Processing"}
        _said("consuming_stopped")
    finally:
        operator.types("kill -CONT $STORE_PID", **pid)
    wait_until(lambda: worker.events("consuming_resumed"), 60)
    oracle.check(stack, within=90)
    assert all(len(stack.draws(i)) == 1 for i in drawn), "no picture is drawn again"


def test_gateway_down(operator: Operator, stack: Stack) -> None:
    gateway, worker = stack.gateway(), stack.worker()
    drawn = stack.submit_many(4, "held key")
    stack.wait_drawing(drawn)
    operator.types("kill -9 $GATEWAY_PID", GATEWAY_PID=str(gateway.pid))
    gateway.process.wait(30)
    with pytest.raises(httpx.TransportError):
        stack.http.get("/readyz")
    stack.release()
    wait_until(lambda: worker.events("heartbeat_not_delivered"), 30)
    _said("heartbeat_not_delivered")
    stack.gateway()
    oracle.check(stack)
    assert all(len(stack.draws(i)) == 1 for i in drawn)


def test_all_workers_gone(operator: Operator, stack: Stack) -> None:
    workers = stack.start(2)
    drawn = stack.submit_many(8, "held key")
    stack.wait_drawing(drawn[:1])
    pids = " ".join(str(worker.pid) for worker in workers)
    operator.types("kill -9 $WORKER_PIDS", WORKER_PIDS=pids)
    for worker in workers:
        worker.process.wait(30)
    wait_until(lambda: '"workers":0' in operator.types(STATS), 30)
    wait_until(lambda: operator.types("itemforge jobs --status Pending").count("Pending") == 8, 30)
    _said('"workers":0')
    stack.release()
    stack.worker()
    rows = oracle.check(stack, within=90)
    assert max(row.attempt for row in rows.values()) == 2


def test_poison(operator: Operator, stack: Stack) -> None:
    stack.start()
    poison = stack.submit("kill key")
    stack.wait_status(poison, "Failed", within=90)
    fine = stack.submit()
    stack.wait_ended([fine])
    listed = operator.types("itemforge jobs --status Failed")
    assert poison in listed and "5 attempts ended without a result" in listed
    wait_until(lambda: poison in operator.types("itemforge dead"), 30)
    _said("5 attempts ended without a result")
    oracle.check(stack, failed=[poison])


def test_a_leaked_key(operator: Operator, stack: Stack) -> None:
    create = "itemforge keys create --role user --name studio"
    secret = _secret(operator.types(create))
    stack.gateway(ITEMFORGE_KEY_CACHE="1")
    header = {"X-API-Key": secret}
    assert stack.http.get("/v1/generations", headers=header).status_code == 200
    (line,) = [line for line in operator.types("itemforge keys list").splitlines() if "studio" in line]
    said = operator.types("itemforge keys revoke $KEY_ID", KEY_ID=line.split()[0])
    assert "is revoked since" in said
    wait_until(lambda: stack.http.get("/v1/generations", headers=header).status_code == 401, 30)
    assert _secret(operator.types(create)) != secret


def _secret(said: str) -> str:
    """The key, which is the only line of one word."""
    (word,) = [line for line in said.splitlines() if line and " " not in line]
    return word


def test_a_leaked_broker_password(operator: Operator, stack: Stack) -> None:
    name = f"rented-{uuid.uuid4().hex[:8]}"
    values = {"RABBITMQ_VHOST": stack.vhost.name, "WORKER": name}
    stack.gateway()
    password = operator.types("deploy/rabbitmq/worker_user.sh $WORKER", **values).strip()
    url = stack.vhost.url.replace("guest:guest@", f"{name}:{password}@")
    assert url != stack.vhost.url
    worker = stack.worker(ITEMFORGE_AMQP_URL=url)
    operator.types("deploy/rabbitmq/worker_user.sh --revoke $WORKER", **values)
    wait_until(lambda: not worker.ready, 30, why="its connection is closed, and it does not come back")
    waiting = stack.submit()
    stack.worker()
    stack.wait_ended([waiting])
    worker.kill()
    oracle.check(stack)


def test_the_brokers_disk_is_full(operator: Operator, stack: Stack) -> None:
    (worker,) = stack.start()
    operator.types("rabbitmqctl set_disk_free_limit 90000GB")
    try:
        wait_until(lambda: "disk" in operator.types("rabbitmq-diagnostics alarms").lower(), 30)
        waiting = stack.submit_many(3)
        assert {stack.row(i).status for i in waiting} == {"Pending"}
        assert worker.alive
    finally:
        operator.types("rabbitmqctl set_disk_free_limit 50MB")
    oracle.check(stack, within=90)


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of that size; skips where nobody may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0777", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    shutil.chown(folder, "postgres")  # whom the server runs as where root runs the tests
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_databases_disk_is_full(stack: Stack, postgres_server: PostgresServer) -> None:
    """Its tables are on a small file system: submits get 503, and none of the accepted is lost."""
    if not isinstance(postgres_server, PostgresCluster):
        pytest.skip("the drill moves a table, which is only done to our own")
    with small_disk(postgres_server.directory / "small", 8) as disk:
        space = f"small_{uuid.uuid4().hex[:8]}"
        stack.query(f"CREATE TABLESPACE {space} LOCATION '{disk}'")
        gateway = stack.gateway()
        try:
            stack.query(f"ALTER TABLE requests SET TABLESPACE {space}")
            kept = stack.submit_many(2)
            hog = disk / "hog"
            with pytest.raises(OSError), hog.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(65536))
            codes = set()
            started = time.monotonic()
            while 503 not in codes and time.monotonic() - started < 60:
                codes.add(stack.put(str(uuid.uuid4()), prompt="a key " * 300))
            assert codes <= {202, 503} and 503 in codes, codes
            assert gateway.alive
            hog.unlink()
            wait_until(lambda: stack.put(str(uuid.uuid4())) == 202, 30)
            stack.worker()
            assert set(kept) <= set(oracle.check(stack, within=120))
        finally:
            for process in stack.processes:
                process.kill()
            stack.query("ALTER TABLE requests SET TABLESPACE pg_default")
            stack.query(f"DROP TABLESPACE {space}")


def test_every_command_of_the_page_is_typed_by_a_drill_or_marked_as_not_tried() -> None:
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    typed = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert len(_COMMANDS) > 15
    assert _COMMANDS - typed == set()
