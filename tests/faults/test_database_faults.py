"""The database breaks connections in the middle of transactions, or goes away for a while: F19."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import oracle
import pytest
from stack import QUORUM_IS_SLOW, Stack

from polling import wait_until
from services.postgres import PostgresCluster, PostgresServer, execute

_OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def _put(stack: Stack, request_id: str, codes: list[int]) -> None:
    """Until it is accepted: a client may repeat a PUT of its own id as often as it likes."""

    def accepted() -> bool:
        code = stack.put(request_id)
        codes.append(code)
        return httpx.codes.is_success(code)

    wait_until(accepted, 60, every=0.1, why=f"{request_id} is accepted; answers so far {codes}")


@QUORUM_IS_SLOW
def test_f19_connections_broken_in_mid_transaction_cost_no_request_and_no_500(any_stack: Stack) -> None:
    stack = any_stack
    gateway = stack.gateway()
    stack.worker()
    codes: list[int] = []
    with _breaking(stack) as broken:
        for _ in range(25):
            _put(stack, str(uuid.uuid4()), codes)
        wait_until(lambda: len(broken) > 20, 30)
    assert set(codes) <= {200, 202, 503}
    oracle.check(stack)
    crashed = gateway.events("background_task_crashed")
    assert not crashed, crashed


@contextmanager
def _breaking(stack: Stack) -> Iterator[list[int]]:
    """Inside the block, connections of everybody else are terminated again and again; gives their pids."""
    over = threading.Event()
    broken: list[int] = []

    def terminate() -> None:
        while not over.wait(0.15):
            rows = stack.query(f"SELECT pid, pg_terminate_backend(pid) {_OTHERS} ORDER BY random() LIMIT 3")
            broken.extend(row["pid"] for row in rows)

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        yield broken
    finally:
        over.set()
        thread.join()


def test_f19_while_postgresql_is_away_the_api_says_503_and_afterwards_all_goes_on(
    stack: Stack, postgres_server: PostgresServer
) -> None:
    if not isinstance(postgres_server, PostgresCluster):
        pytest.skip("the test stops the database, which is only done to our own")
    # The test cluster gives durability up; what was answered with 202 must survive this stop.
    name = stack.database_url.rsplit("/", 1)[1]
    execute(postgres_server.url, f'ALTER DATABASE "{name}" SET synchronous_commit = on')
    gateway = stack.gateway(ITEMFORGE_SWEEP_AFTER="60")
    stack.worker()
    drawn = stack.submit_many(4, "held key")
    more = stack.submit_many(4)
    stack.wait_drawing(drawn)
    postgres_server.stop()
    try:
        codes: list[int] = []
        stack.release()
        started = time.monotonic()
        while time.monotonic() - started < 3:
            codes.append(stack.put(str(uuid.uuid4())))
            codes.append(stack.http.get(f"/v1/generations/{more[0]}").status_code)
        assert set(codes) == {503}
        assert stack.http.get("/readyz").status_code == 503
        assert stack.http.get("/healthz").status_code == 200
    finally:
        postgres_server.start()
    _put(stack, str(uuid.uuid4()), [])
    oracle.check(stack)
    assert gateway.alive and not gateway.events("background_task_crashed")
    assert all(len(stack.draws(i)) == 1 for i in drawn), "a picture waits for the database, too"
