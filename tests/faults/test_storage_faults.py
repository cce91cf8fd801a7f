"""Storage or gateway are away or lie while pictures wait to be delivered: F20 to F22, F33."""

import time
from collections.abc import Iterator

import oracle
import pytest
from processes import Process
from stack import QUEUE, QUORUM_IS_SLOW, Stack

from polling import wait_until
from services.flaky import DROP_ANSWER, REFUSE, FlakyProxy


class Outage(list[str]):
    """Every request meets the same fault until the list is cleared."""

    def pop(self, _: object = -1) -> str:
        return self[0]


@pytest.fixture
def storage(stack: Stack) -> Iterator[FlakyProxy]:
    """In front of the emulator, for the worker alone; the public address stays the emulator's own."""
    with FlakyProxy(stack.emulator).running() as proxy:
        yield proxy
        proxy.faults.clear()
        for process in stack.processes:  # nobody may still wait for an answer when the proxy ends
            process.kill()


@QUORUM_IS_SLOW
def test_f20_pictures_wait_for_a_gateway_that_is_away_and_no_more_are_taken(any_stack: Stack) -> None:
    stack = any_stack
    # The sweeper's patience is longer than a worker's spool, as it is by default.
    patient = {"ITEMFORGE_SWEEP_AFTER": "120"}
    gateway = stack.gateway(**patient)
    worker = stack.worker(ITEMFORGE_BREAKER_AFTER="3")
    drawn = stack.submit_many(4, "held key")
    stack.wait_drawing(drawn)
    gateway.kill()
    stack.release()
    wait_until(lambda: len(stack.draws(what="done")) == 4, 30)
    wait_until(lambda: worker.events("consuming_stopped"), 30)
    waiting = [str(i) for i in range(6)]
    for _ in waiting:
        stack.publish(b"not json")  # would be buried at once by a worker that still consumes
    wait_until(lambda: stack.ready_messages(QUEUE) == len(waiting) and not worker.ready, 30)
    assert len(stack.draws()) == 4
    stack.gateway(**patient)
    rows = oracle.check(stack, dead=[None] * len(waiting))
    wait_until(lambda: worker.events("consuming_resumed"), 30)
    assert all(row.attempt == 1 for row in rows.values())
    assert len(stack.draws()) == 4, "nothing was drawn twice"


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(4, id="scaled"),
        pytest.param(300, id="five minutes", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_f21_while_storage_fails_nothing_is_drawn_again_and_then_all_is_delivered(
    stack: Stack, storage: FlakyProxy, seconds: float
) -> None:
    stack.gateway(ITEMFORGE_SWEEP_AFTER="900")
    worker = stack.worker(STORAGE_EMULATOR_HOST=storage.url, ITEMFORGE_SPOOL_TIME="600")
    storage.faults = Outage([REFUSE])
    ids = stack.submit_many(6, num_images=2)
    wait_until(lambda: worker.events("consuming_stopped"), 60)
    started = time.monotonic()
    wait_until(lambda: time.monotonic() - started > seconds, seconds + 30, every=0.2)
    assert not any(row.status == "Completed" for row in stack.rows(ids).values())
    drawn = {(draw.request_id, draw.n) for draw in stack.draws()}
    storage.faults.clear()
    rows = oracle.check(stack, within=90)
    assert drawn
    # The last report may be through before the worker has looked at the store again.
    wait_until(lambda: worker.events("consuming_resumed"), 30)
    assert all(row.attempt == 1 for row in rows.values())
    assert len(stack.draws()) == 2 * len(ids), "each picture was drawn once"


def test_f21_a_picture_that_waited_too_long_goes_through_the_spool_and_is_not_drawn_again(
    stack: Stack, storage: FlakyProxy
) -> None:
    stack.gateway()
    worker = stack.worker(STORAGE_EMULATOR_HOST=storage.url, ITEMFORGE_SPOOL_TIME="1")
    storage.faults = Outage([REFUSE])
    ids = stack.submit_many(3)
    wait_until(lambda: len(_given_back(worker)) >= len(ids), 90)
    storage.faults.clear()
    rows = oracle.check(stack)
    assert worker.events("picture_from_spool")
    assert all(row.attempt >= 2 for row in rows.values())
    assert len(stack.draws()) == len(ids)


def _given_back(worker: Process) -> set[str]:
    return {event["request_id"] for event in worker.events("job_given_back")}


def test_f22_an_upload_whose_answer_was_lost_counts_as_done(stack: Stack, storage: FlakyProxy) -> None:
    stack.gateway()
    worker = stack.worker(STORAGE_EMULATOR_HOST=storage.url)
    storage.faults = [DROP_ANSWER] * 3
    ids = stack.submit_many(3)
    rows = oracle.check(stack)
    assert not storage.faults
    assert all(row.attempt == 1 for row in rows.values())
    assert len(stack.draws()) == len(ids)
    stored = worker.events("picture_stored")
    assert len(stored) == 3 and not all(event["created"] for event in stored), "412 was met, and is a success"


def test_f33_without_a_writable_spool_the_message_goes_back_and_nothing_is_lost(
    stack: Stack, storage: FlakyProxy
) -> None:
    home = stack.folder / "worker-home"
    home.mkdir()
    (home / "spool").write_text("a file where a folder should be: nobody, not even root, can write into it")
    stack.gateway()
    worker = stack.worker(STORAGE_EMULATOR_HOST=storage.url, ITEMFORGE_SPOOL_TIME="1")
    storage.faults = Outage([REFUSE])
    ids = stack.submit_many(3)
    wait_until(lambda: len(_given_back(worker)) == len(ids), 90)
    assert worker.events("spool_unwritable")
    storage.faults.clear()
    rows = oracle.check(stack)
    assert all(row.attempt >= 2 for row in rows.values())
    assert len(stack.draws()) >= 2 * len(ids), "they were drawn again: the spool is a cache, not a promise"
