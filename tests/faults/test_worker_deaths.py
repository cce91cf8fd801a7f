"""A worker dies or is told to end at every moment of a job: F1 to F6."""

import signal

import oracle
import pytest
from stack import Stack

from itemforge.contract import QUEUE
from polling import wait_until


def test_f1_a_worker_killed_during_inference_is_followed_by_a_second_attempt(any_stack: Stack) -> None:
    (first,) = any_stack.start()
    request_id = any_stack.submit("held key", seed=11)
    any_stack.wait_drawing([request_id])
    first.kill()
    any_stack.release()
    any_stack.worker()
    row = oracle.check(any_stack)[request_id]
    assert row.attempt == 2
    assert len(any_stack.draws(request_id)) == 2


@pytest.mark.parametrize("images", [1, 3])
def test_f2_a_worker_killed_between_upload_and_report_leaves_an_object_that_stays(
    stack: Stack, images: int
) -> None:
    stack.gateway()
    first = stack.worker(**stack.crashing("after upload"))
    request_id = stack.submit(seed=5, num_images=images)
    first.wait_killed()
    second = stack.worker()
    row = oracle.check(stack)[request_id]
    assert row.attempt == 2
    stored = {event["image"]: event["created"] for event in second.events("picture_stored")}
    assert len(stored) == images
    assert not all(stored.values()), "the first worker's object was taken as it is"


def test_f3_a_worker_killed_between_report_and_ack_is_not_followed_by_a_second_drawing(stack: Stack) -> None:
    stack.gateway()
    first = stack.worker(**stack.crashing("after report"))
    request_id = stack.submit(seed=6)
    first.wait_killed()
    assert stack.row(request_id).status == "Completed"
    second = stack.worker()
    row = oracle.check(stack)[request_id]
    assert row.attempt == 1
    assert len(stack.draws(request_id)) == 1
    (answer,) = second.events("claim_answered")
    assert answer["outcome"] == "done"


def test_f4_of_a_batch_of_four_with_two_acknowledged_only_two_are_delivered_again(any_stack: Stack) -> None:
    any_stack.gateway()
    first = any_stack.worker(**any_stack.crashing("after ack", at=2))
    ids = any_stack.submit_many(4, "held key")
    any_stack.wait_drawing(ids)
    any_stack.release()
    first.wait_killed()
    second = any_stack.worker()
    rows = oracle.check(any_stack)
    seen = {event["request_id"] for event in second.events("claim_answered")}
    assert len(seen) == 2
    assert seen < set(ids)
    assert all(len(any_stack.draws(i)) == rows[i].attempt for i in ids)
    assert all(rows[i].attempt == 1 for i in set(ids) - seen)


def test_f5_a_worker_told_to_end_finishes_its_batch_and_gives_the_rest_back(stack: Stack) -> None:
    (first,) = stack.start()
    ids = stack.submit_many(20, "held key")

    stack.wait_drawing(ids[:4])
    wait_until(
        lambda: sum(row.leased for row in stack.rows(ids).values()) == 8, 30, why="two batches claimed"
    )
    first.send(signal.SIGTERM)
    wait_until(lambda: first.events("draining"), 30, why="it drains")
    stack.release()
    assert first.process.wait(30) == 0
    rows = stack.rows(ids)
    done = [i for i in ids if rows[i].status == "Completed"]
    assert len(done) == 4, "the batch that was being drawn, and no more"
    assert all(rows[i].status == "Pending" and rows[i].charged == 0 for i in set(ids) - set(done))
    wait_until(lambda: stack.ready_messages(QUEUE) == 16, 10, why="the rest waits in the queue")
    stack.worker()
    rows = oracle.check(stack)
    assert all(len(stack.draws(i)) == 1 for i in done)
    assert all(row.charged == 1 for row in rows.values())


@pytest.mark.parametrize("how", ["twice", "grace exceeded"])
def test_f6_a_worker_that_must_end_at_once_loses_nothing(stack: Stack, how: str) -> None:
    stack.gateway()
    first = stack.worker(ITEMFORGE_DRAIN_TIMEOUT="20" if how == "twice" else "0.2")
    ids = stack.submit_many(6, "held key")
    stack.wait_drawing(ids[:4])
    first.send(signal.SIGTERM)
    if how == "twice":
        wait_until(lambda: first.events("draining"), 30, why="it drains")
        first.send(signal.SIGTERM)
    assert first.process.wait(15) == 0
    rows = stack.rows(ids)
    assert all(row.status == "Pending" and row.charged == 0 for row in rows.values())
    assert not stack.draws(what="done")
    stack.release()
    stack.worker()
    oracle.check(stack)
