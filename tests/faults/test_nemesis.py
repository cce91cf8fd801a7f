"""The whole stack is killed, cut, frozen and robbed at random while users submit, and then healed: F34."""

import os
import random
import time
from collections.abc import Iterator

import oracle
import pytest
from nemesis import Nemesis, Users
from stack import Stack

from services.flaky import FlakyProxy
from services.postgres import PostgresCluster, PostgresServer, execute
from services.rabbitmq import RabbitNode

SECONDS = float(os.environ.get("ITEMFORGE_TEST_NEMESIS_SECONDS", "30"))
SEED = int(os.environ.get("ITEMFORGE_TEST_NEMESIS_SEED", str(random.SystemRandom().randrange(2**32))))


@pytest.fixture
def storage(stack: Stack) -> Iterator[FlakyProxy]:
    with FlakyProxy(stack.emulator).running() as proxy:
        yield proxy
        proxy.faults = []
        for process in stack.processes:
            process.kill()


@pytest.mark.timeout(SECONDS * 2 + 600)
def test_f34_after_any_outage_in_any_order_every_accepted_request_has_one_right_end(
    rabbit_node: RabbitNode, postgres_server: PostgresServer, stack: Stack, storage: FlakyProxy
) -> None:
    if not isinstance(postgres_server, PostgresCluster):
        pytest.skip("the test stops the database, which is only done to our own")
    print(f"nemesis: ITEMFORGE_TEST_NEMESIS_SEED={SEED}, {SECONDS:.0f} s", flush=True)
    name = stack.database_url.rsplit("/", 1)[1]
    execute(postgres_server.url, f'ALTER DATABASE "{name}" SET synchronous_commit = on')
    chance = random.Random(SEED)
    nemesis = Nemesis(stack, chance, rabbit_node, postgres_server, storage)
    stack.release()
    users = Users(nemesis.urls, stack.accepted, SEED)
    users.start()
    started = time.monotonic()
    deeds = []
    try:
        # A slow machine gets its blows, too.
        while (at := time.monotonic() - started) < SECONDS or len(deeds) < 8:
            deeds.append(nemesis.strike())
            print(f"nemesis: {at:6.1f} s {deeds[-1]}, {len(stack.accepted)} accepted", flush=True)
            time.sleep(chance.uniform(0.2, 1.0) * min(SECONDS / 15, 10))  # the pace of the nemesis
    finally:
        nemesis.calm()
        users.end()
    assert users.codes <= {200, 202, 503}, users.codes
    stack.wait_ended(within=240)
    # Whom the nemesis met five times in a row is given up with the reason, by design.
    unlucky = {row.id for row in stack.rows().values() if row.status == "Failed" and row.charged >= 5}
    rows = oracle.check(stack, failed=unlucky, within=120)
    print(
        f"nemesis: {len(deeds)} deeds, {len(rows)} accepted, {len(unlucky)} given up, {len(stack.draws())} draws"
    )
    assert len(unlucky) <= 1 + len(rows) // 50
