"""Messages and prompts that nobody can serve, or only with trouble: F26 to F31."""

import json
import uuid
from io import BytesIO

import backlog
import httpx
import oracle
from stack import QUORUM_IS_SLOW, Stack

from itemforge.imaging.png import read_recipe
from polling import wait_until

FAULTY = {"ITEMFORGE_TEST_ENGINE": "faulty_engine:load"}


@QUORUM_IS_SLOW
def test_f26_a_prompt_that_kills_the_engine_ends_after_five_claims_and_harms_no_neighbour(
    any_stack: Stack,
) -> None:
    stack = any_stack
    stack.gateway()
    worker = stack.worker()
    neighbours = stack.submit_many(3, "held key")
    stack.wait_drawing(neighbours)
    poison = stack.submit("kill key")
    wait_until(lambda: stack.row(poison).charged >= 1, 30)
    stack.release()
    more = stack.submit_many(4)
    rows = oracle.check(stack, failed=[poison])
    assert (rows[poison].attempt, rows[poison].charged) == (5, 5)
    assert "5 attempts ended without a result" in (rows[poison].error or "")
    # A neighbour dies with it once; from then on it is drawn alone.
    assert all(rows[i].attempt <= 2 for i in (*neighbours, *more))
    assert worker.process.returncode == 0, "the worker itself stayed up until it was told to end"


def test_f27_what_is_no_job_message_goes_to_the_dead_queue_and_the_loop_lives_on(any_stack: Stack) -> None:
    stack = any_stack
    stack.gateway()
    wrong_type, no_prompt, extra, good = backlog.insert(stack, "local", 4, published=True)
    nobodys = str(uuid.uuid4())
    broken: list[tuple[str | None, bytes]] = [
        (None, b"not json"),
        (None, b""),
        (None, b"\xff\xfe\x00"),
        (None, b"[]"),
        (None, b'{"params": {"prompt": "a key"}}'),
        (nobodys, json.dumps({"request_id": nobodys, "params": {"prompt": 5}}).encode()),
        (no_prompt, json.dumps({"request_id": no_prompt, "params": {"seed": 1}}).encode()),
        (
            wrong_type,
            json.dumps({"request_id": wrong_type, "params": {"prompt": "x", "seed": True}}).encode(),
        ),
    ]
    huge = b'{"request_id": "' + b"x" * 10 * 1024 * 1024 + b'"}'
    for _, body in broken:
        stack.publish(body)
    stack.publish(huge)
    more = json.loads(backlog.body(stack, extra))
    more |= {"priority": 9, "x": {"y": [1]}, "params": {**more["params"], "upscaler": "4x", "vae": None}}
    stack.publish(json.dumps(more).encode(), headers={"traceparent": "00-0-0-00", "x-attempt": "many"})
    stack.publish(backlog.body(stack, good))
    stack.worker()
    dead = [request_id for request_id, _ in broken] + ["x" * 10 * 1024 * 1024]
    rows = oracle.check(stack, failed=[no_prompt, wrong_type], dead=dead)
    assert "prompt" in (rows[no_prompt].error or "") and "seed" in (rows[wrong_type].error or "")
    reasons = [message["reason"] for message in stack.dead()]
    assert all(reason and reason.startswith("invalid message: ") for reason in reasons)


@QUORUM_IS_SLOW
def test_f28_a_valid_message_for_an_unknown_request_goes_to_the_dead_queue(any_stack: Stack) -> None:
    stack = any_stack
    stack.gateway()
    worker = stack.worker()
    unknown = [str(uuid.uuid4()) for _ in range(3)]
    for request_id in unknown:
        stack.publish(json.dumps({"request_id": request_id, "params": {"prompt": "a key"}}).encode())
    known = stack.submit()
    oracle.check(stack, dead=unknown)
    assert [draw.request_id for draw in stack.draws()] == [known]
    assert all("does not know this request" in message["reason"] for message in stack.dead())
    assert len(worker.events("message_buried")) == len(unknown)


def test_f29_rows_that_run_out_of_memory_are_drawn_at_another_time_and_their_batch_is_not(
    stack: Stack,
) -> None:
    stack.gateway()
    stack.worker(**FAULTY, ITEMFORGE_BREAKER_AFTER="100")
    fine = stack.submit_many(2, "held key")
    stack.wait_drawing(fine)
    short = stack.submit_many(2, "oomonce key")
    wait_until(lambda: all(stack.row(i).attempt == 2 for i in short), 30)
    stack.release()
    rows = oracle.check(stack)
    assert [rows[i].attempt for i in (*fine, *short)] == [1, 1, 2, 2]
    assert [len(stack.draws(i)) for i in (*fine, *short)] == [1, 1, 2, 2]


@QUORUM_IS_SLOW
def test_f30_after_a_sticky_device_error_the_engine_is_replaced_and_the_worker_stays_up(
    any_stack: Stack,
) -> None:
    stack = any_stack
    stack.gateway()
    worker = stack.worker(**FAULTY)
    innocent = stack.submit_many(2, "held key")
    stack.wait_drawing(innocent)
    guilty = stack.submit("sticky key", seed=77)
    wait_until(lambda: worker.events("engine_lost"), 30)
    stack.release()
    rows = oracle.check(stack)
    assert worker.process.returncode == 0
    assert len(worker.events("engine_lost")) == 1
    assert [rows[i].attempt for i in (*innocent, guilty)] == [2, 2, 2]
    engines = {i: [draw.pid for draw in stack.draws(i)] for i in (*innocent, guilty)}
    assert all(len(pids) == 2 and pids[0] != pids[1] for pids in engines.values()), engines


def test_f31_rows_of_different_steps_and_guidance_share_a_batch_and_stay_themselves(stack: Stack) -> None:
    stack.gateway()
    stack.worker(ITEMFORGE_BATCH_SIZE="8")
    asked = [
        {"num_inference_steps": steps, "guidance_scale": guidance, "seed": 10 * steps + int(guidance)}
        for steps in (3, 5, 9, 20)
        for guidance in (1.0, 7.5)
    ]
    ids = [stack.submit("held key", **params) for params in asked]
    stack.wait_drawing(ids)  # all of them at once
    stack.release()
    rows = oracle.check(stack)  # every picture shows its own seed
    for request_id, params in zip(ids, asked, strict=True):
        url = rows[request_id].image_url
        assert url
        recipe = read_recipe(BytesIO(httpx.get(url, trust_env=False).content).getvalue())
        assert (recipe.steps, recipe.guidance, recipe.seed) == tuple(params.values())
        assert len(stack.draws(request_id)) == 1
