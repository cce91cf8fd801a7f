"""Backup and restore of the database: what objects can restore is not lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import oracle
import pytest
from stack import COMMON, Stack

from itemforge.contract import QUEUE
from services.postgres import PostgresServer, find_binaries
from services.process import unavailable

pytestmark = pytest.mark.timeout(400)  # on a busy machine; well under a minute on an idle one


def _programs() -> Path:
    if (binaries := find_binaries()) is None or not (binaries / "pg_dump").exists():
        if shutil.which("pg_dump") is None:
            unavailable("no pg_dump: install PostgreSQL's client programs")
        return Path(shutil.which("pg_dump") or "").parent
    return binaries


def _pg(program: str, url: str, *arguments: str) -> None:
    plain = urlsplit(url)._replace(scheme="postgresql").geturl()
    command = [str(_programs() / program), *arguments, "--dbname", plain]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})


def _reconcile(stack: Stack) -> str:
    settings = {
        **COMMON,
        "ITEMFORGE_HOME": str(stack.folder / "gateway-home"),
        "DATABASE_URL": stack.database_url.replace("+asyncpg", ""),
        "GCS_BUCKET_NAME": stack.bucket,
        "STORAGE_EMULATOR_HOST": stack.emulator,
        "ITEMFORGE_STORAGE_PUBLIC_URL": f"{stack.emulator}/{stack.bucket}",
    }
    command = [sys.executable, "-m", "itemforge", "db", "reconcile"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **settings}, cwd=stack.folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("by", ["reconcile", "drawing again"])
def test_an_older_database_is_restored_and_every_picture_keeps_its_url(
    stack: Stack, postgres_server: PostgresServer, by: str
) -> None:
    """Rows go back to Pending and Processing while their objects exist; they end as they had ended."""
    dump = stack.folder / "dump"
    gateway, worker = stack.gateway(), stack.worker()
    ended = stack.submit_many(2)
    stack.wait_ended(ended)
    running = stack.submit_many(2, "held key", num_images=2)
    stack.wait_drawing(running)
    waiting = stack.submit_many(6, "held box")  # more than the engine has places for
    _pg("pg_dump", stack.database_url, "--format=custom", "--file", str(dump))
    later = stack.submit_many(2)
    stack.release()
    before = oracle.check(stack)
    draws = len(stack.draws())
    gateway.kill()
    assert not worker.alive, "workers are stopped before a restore"

    _pg("pg_restore", stack.database_url, "--clean", "--if-exists", "--single-transaction", str(dump))
    stack.accepted -= set(later)  # the dump is older than they are
    restored = stack.rows()
    assert set(restored) == {*ended, *running, *waiting}
    assert {restored[i].status for i in running} == {"Processing"}
    assert {restored[i].status for i in (*running, *waiting)} <= {"Processing", "Pending"}

    if by == "reconcile":
        # A lease of the old time may still run for a moment; such a row is left to its worker.
        stack.query("UPDATE requests SET lease_until = NULL WHERE lease_until <= now() + interval '9 s'")
        said = _reconcile(stack)
        assert f"{len(running) + len(waiting)} completed, {len(later)} known to the store only" in said
        assert all(f"{i} has pictures in the store" in said for i in later)
        assert "0 completed" in _reconcile(stack), "it is safe to repeat"
    assert stack.ready_messages(QUEUE) == 0, "the queue has forgotten them; the sweeper publishes them again"
    stack.gateway(ITEMFORGE_SWEEP_AFTER="1")
    stack.worker()
    rows = oracle.check(stack, within=90)
    for request_id in (*ended, *running, *waiting):
        now, then = rows[request_id], before[request_id]
        assert (now.status, now.image_url, now.images) == (then.status, then.image_url, then.images)
    drawn_again = len(stack.draws()) - draws
    assert drawn_again == (0 if by == "reconcile" else 2 * len(running) + len(waiting))
