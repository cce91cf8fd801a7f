"""The worker with claims: every job ends, once, whatever fails; acknowledging is the last step."""

import asyncio
import os
import signal
import uuid
from io import BytesIO

import pytest
from fake_engine import pixels_of
from PIL import Image
from worker_system import System

from itemforge.contract import DEAD_QUEUE, QUEUE
from itemforge.errors import ModelError
from itemforge.imaging.png import read_recipe
from polling import eventually


async def test_a_job_is_drawn_stored_reported_and_acknowledged(claims: System) -> None:
    request_id = claims.gateway.add()
    async with claims.run():
        await claims.send(request_id, "an apple", seed=7)
        await claims.ended(request_id, "Completed")
        await claims.quiet()
    row = claims.gateway.rows[request_id]
    assert row.history == ["Processing", "Completed"]
    key = f"generated/{request_id}.png"
    assert row.images[0]["url"] == f"https://store.example/{key}"
    png = claims.store.objects[key]
    assert Image.open(BytesIO(png)).getpixel((0, 0)) == tuple(pixels_of(7)[0, 0])
    assert read_recipe(png).seed == 7


async def test_the_rows_parameters_win_over_the_messages(claims: System) -> None:
    request_id = claims.gateway.add({"prompt": "what the row says", "seed": 9, "num_inference_steps": 3})
    async with claims.run():
        await claims.send(request_id, "what the message says", seed=1)
        await claims.ended(request_id, "Completed")
    recipe = read_recipe(claims.store.objects[f"generated/{request_id}.png"])
    assert (recipe.prompt, recipe.seed, recipe.steps) == ("what the row says", 9, 3)


async def test_several_images_have_their_own_seeds_and_keys(claims: System) -> None:
    request_id = claims.gateway.add()
    async with claims.run():
        await claims.send(request_id, seed=100, num_images=3)
        await claims.ended(request_id, "Completed")
    seeds = [read_recipe(claims.store.objects[f"generated/{request_id}/{n}.png"]).seed for n in range(3)]
    assert seeds == [100, 101, 102]
    assert [image["n"] for image in claims.gateway.rows[request_id].images] == [0, 1, 2]


async def test_many_jobs_at_once_all_complete(claims: System) -> None:
    ids = [claims.gateway.add() for _ in range(40)]
    async with claims.run():
        for n, request_id in enumerate(ids):
            await claims.send(request_id, seed=n)
        for request_id in ids:
            await claims.ended(request_id, "Completed")
        await claims.quiet()
    assert claims.store.puts == 40


async def test_a_job_that_cannot_be_drawn_fails_with_the_reason_and_is_kept(claims: System) -> None:
    bad, good = claims.gateway.add(), claims.gateway.add()
    async with claims.run():
        await claims.send(bad, "bad prompt")
        await claims.send(good)
        await claims.ended(bad, "Failed")
        await claims.ended(good, "Completed")
        await claims.quiet()
        (letter,) = await claims.broker.dead_letters(10)
    assert claims.gateway.rows[bad].error == "this prompt cannot be drawn"
    assert bad.encode() in letter.body
    assert letter.headers["x-reason"] == "this prompt cannot be drawn"


async def test_a_style_that_does_not_exist_fails_the_job(claims: System) -> None:
    request_id = claims.gateway.add()
    async with claims.run():
        await claims.send(request_id, style="nowhere@3")
        await claims.ended(request_id, "Failed")
    assert "nowhere" in (claims.gateway.rows[request_id].error or "")


async def test_an_engine_failure_is_retried_and_bounded(claims: System) -> None:
    request_id = claims.gateway.add()
    async with claims.run(breaker_after=100):
        await claims.send(request_id, "oom")
        await claims.ended(request_id, "Failed", within=40)
        await claims.quiet()
        assert await claims.broker.depth(DEAD_QUEUE) == 1
    row = claims.gateway.rows[request_id]
    assert row.history == ["Processing", "Retry"] * 5
    assert row.attempt == 5


async def test_a_prompt_that_kills_the_engine_is_bounded_and_its_neighbours_complete(claims: System) -> None:
    neighbours = [claims.gateway.add() for _ in range(3)]
    poison = claims.gateway.add()
    async with claims.run(breaker_after=100) as worker:
        for request_id in neighbours:
            await claims.send(request_id, "slow apple", num_inference_steps=20)
        await claims.send(poison, "kill", num_inference_steps=20)
        await claims.ended(poison, "Failed", within=60)
        for request_id in neighbours:
            await claims.ended(request_id, "Completed", within=60)
        await claims.quiet()
        assert await claims.broker.depth(DEAD_QUEUE) == 1
        assert worker.engine_pid is not None
    assert claims.gateway.rows[poison].attempt == 5


async def test_a_silent_engine_is_replaced_and_the_job_retried(claims: System) -> None:
    hung, good = claims.gateway.add(), claims.gateway.add()
    async with claims.run(engine_silence=1.5, breaker_after=100) as worker:
        await eventually(lambda: worker.ready, 20)
        first = worker.engine_pid
        await claims.send(hung, "hang")
        await eventually(lambda: "Retry" in claims.gateway.rows[hung].history, 20)
        claims.gateway.rows[hung].status = "Cancelled"
        await claims.send(good)
        await claims.ended(good, "Completed", within=30)
        assert worker.engine_pid not in (None, first)


async def test_an_engine_killed_from_outside_is_replaced(claims: System) -> None:
    request_id = claims.gateway.add()
    async with claims.run() as worker:
        await claims.send(request_id, "slow apple", num_inference_steps=50)
        row = claims.gateway.rows[request_id]
        await eventually(lambda: any(step for step, _ in row.progress), 20)
        assert worker.engine_pid
        os.kill(worker.engine_pid, signal.SIGKILL)
        await claims.ended(request_id, "Completed", within=30)
        await claims.quiet()
    assert row.history == ["Processing", "Retry", "Processing", "Completed"]


async def test_a_model_that_cannot_be_used_ends_the_worker_with_its_reason(claims: System) -> None:
    worker = claims.worker("fake_engine:load_broken")
    with pytest.raises(ModelError, match="put one there"):
        await asyncio.wait_for(worker.run(), 30)


async def test_an_engine_that_never_starts_is_given_up_with_the_reason(claims: System) -> None:
    worker = claims.worker("fake_engine:load_crashing")
    with pytest.raises(ModelError, match=r"5 times.*the device is on fire"):
        await asyncio.wait_for(worker.run(), 60)


async def test_stopping_while_the_engine_warms_up_ends_at_once(claims: System) -> None:
    worker = claims.worker("fake_engine:load_slowly")
    running = asyncio.create_task(worker.run())
    await eventually(lambda: worker.engine_pid is not None, 20)
    worker.stop()
    await asyncio.wait_for(running, 10)


async def test_progress_is_heard_and_previews_only_while_somebody_watches(claims: System) -> None:
    watched, unwatched = claims.gateway.add(), claims.gateway.add()
    claims.gateway.rows[watched].watch = True
    async with claims.run():
        for request_id in (watched, unwatched):
            await claims.send(request_id, "slow apple", num_inference_steps=40)
        for request_id in (watched, unwatched):
            await claims.ended(request_id, "Completed")
    steps = [step for step, _ in claims.gateway.rows[watched].progress]
    assert steps == sorted(steps)
    assert len(set(steps)) > 3
    assert claims.gateway.rows[watched].previews > 0
    assert claims.gateway.rows[unwatched].previews == 0


async def test_a_cancelled_job_stops_and_is_acknowledged(claims: System) -> None:
    request_id = claims.gateway.add()
    row = claims.gateway.rows[request_id]
    async with claims.run():
        await claims.send(request_id, "slow apple", num_inference_steps=150)
        await eventually(lambda: any(step for step, _ in row.progress), 20)
        row.cancel = True
        await claims.quiet()
    assert row.status == "Cancelled"
    assert row.progress[-1][0] < 150
    assert claims.store.objects == {}


async def test_a_lost_lease_drops_the_work(claims: System) -> None:
    request_id = claims.gateway.add()
    row = claims.gateway.rows[request_id]
    async with claims.run():
        await claims.send(request_id, "slow apple", num_inference_steps=150)
        await eventually(lambda: any(step for step, _ in row.progress), 20)
        row.attempt += 1  # another worker claimed it
        await claims.quiet()
    assert row.history == ["Processing"]


async def test_a_leased_request_waits_in_the_retry_queue_and_an_ended_one_is_acknowledged(
    claims: System,
) -> None:
    leased, done = claims.gateway.add(), claims.gateway.add()
    claims.gateway.rows[leased].leased = True
    claims.gateway.rows[done].status = "Completed"
    async with claims.run():
        await claims.send(leased)
        await claims.send(done)
        await eventually(lambda: claims.gateway.calls.count("POST /v1/worker/claims") >= 2, 20)
        claims.gateway.rows[leased].leased = False
        await claims.ended(leased, "Completed")
        await claims.quiet()
    assert claims.gateway.rows[done].history == []
    assert claims.store.puts == 1


async def test_an_unknown_request_goes_to_the_dead_queue(claims: System) -> None:
    unknown = str(uuid.uuid4())
    async with claims.run():
        await claims.send(unknown)
        await eventually(lambda: claims.broker.depth(DEAD_QUEUE), 20)
        await claims.quiet()
    assert claims.store.puts == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"request_id": "x", "params": {"prompt": "a"}}',
        b'{"params": {"prompt": "a"}}',
        b"[" * 100_000,
        b'"' + b"x" * 1_000_000 + b'"',
    ],
)
async def test_an_undecodable_message_is_kept_apart_and_harms_nothing(claims: System, body: bytes) -> None:
    good = claims.gateway.add()
    async with claims.run():
        await claims.send_raw(body)
        await claims.send(good)
        await claims.ended(good, "Completed")
        await eventually(lambda: claims.broker.depth(DEAD_QUEUE), 20)
        await claims.quiet()
        (letter,) = await claims.broker.dead_letters(10)
    assert letter.body == body
    assert str(letter.headers["x-reason"]).startswith("invalid message")


async def test_an_invalid_message_with_a_readable_id_fails_its_request(claims: System) -> None:
    request_id = claims.gateway.add()
    async with claims.run():
        await claims.send(request_id, num_inference_steps=100_000)
        await claims.ended(request_id, "Failed")
        await claims.quiet()
        assert await claims.broker.depth(DEAD_QUEUE) == 1
    assert "num_inference_steps" in (claims.gateway.rows[request_id].error or "")


async def test_a_picture_is_not_drawn_again_because_the_store_was_away(claims: System) -> None:
    request_id = claims.gateway.add()
    claims.store.broken = True
    async with claims.run() as worker:
        await claims.send(request_id)
        await eventually(lambda: claims.store.puts >= 4, 20)
        await eventually(lambda: worker.state == "paused", 20, why="the breaker stops the consumer")
        claims.store.broken = False
        await claims.ended(request_id, "Completed")
        await eventually(lambda: worker.state == "ready", 20)
        await claims.quiet()
    assert claims.gateway.rows[request_id].history == ["Processing", "Completed"]


async def test_what_waits_too_long_goes_back_and_comes_from_the_spool(claims: System) -> None:
    request_id = claims.gateway.add()
    row = claims.gateway.rows[request_id]
    claims.store.broken = True
    async with claims.run(spool_time=0.3) as worker:
        await claims.send(request_id, seed=5)
        await eventually(lambda: "Released" in row.history, 20)
        assert list((claims.home / "spool").glob("*.png"))
        claims.store.broken = False
        await claims.ended(request_id, "Completed")
        assert worker.engine_pid
    # Drawn once: the second attempt's lease was renewed without a single step.
    assert row.history == ["Processing", "Released", "Processing", "Completed"]
    assert read_recipe(claims.store.objects[f"generated/{request_id}.png"]).seed == 5
    assert not list((claims.home / "spool").glob("*.png"))


async def test_results_wait_for_a_gateway_that_is_away(claims: System) -> None:
    request_id = claims.gateway.add()
    row = claims.gateway.rows[request_id]
    async with claims.run():
        await claims.send(request_id, "slow apple", num_inference_steps=30)
        await eventually(lambda: any(step for step, _ in row.progress), 20)
        claims.gateway.broken = True
        await eventually(lambda: claims.store.objects, 20)
        calls = len(claims.gateway.calls)
        await eventually(lambda: len(claims.gateway.calls) > calls + 3, 20)
        claims.gateway.broken = False
        await claims.ended(request_id, "Completed")
        await claims.quiet()
    assert row.history == ["Processing", "Completed"]


async def test_messages_wait_unclaimed_beyond_two_batches(claims: System) -> None:
    ids = [claims.gateway.add() for _ in range(20)]
    async with claims.run(batch_size=2):
        for request_id in ids:
            await claims.send(request_id, "slow apple", num_inference_steps=20)
        await eventually(lambda: any(claims.gateway.rows[i].leased for i in ids), 20)
        most = 0
        while any(claims.gateway.rows[i].status != "Completed" for i in ids):
            most = max(most, sum(claims.gateway.rows[i].leased for i in ids))
            await asyncio.sleep(0.005)
    # Two batches in the engine, and those whose picture is on its way out.
    assert 2 < most <= 2 * 2 + 4


async def test_the_heartbeat_tells_how_many_messages_wait_unclaimed(claims: System) -> None:
    ids = [claims.gateway.add() for _ in range(10)]
    async with claims.run(batch_size=1, upload_places=4):
        for request_id in ids:
            await claims.send(request_id, "slow apple", num_inference_steps=20)
        # Prefetch is the batch and the upload places; two images are claimed.
        await eventually(lambda: claims.gateway.held == 3, 20)
        for request_id in ids:
            await claims.ended(request_id, "Completed", within=40)
        await eventually(lambda: claims.gateway.held == 0, 20)


async def test_draining_finishes_what_has_begun_and_gives_the_rest_back(claims: System) -> None:
    ids = [claims.gateway.add() for _ in range(12)]
    worker = claims.worker(batch_size=1)
    running = asyncio.create_task(worker.run())
    for request_id in ids:
        await claims.send(request_id, "slow apple", num_inference_steps=30)
    rows = [claims.gateway.rows[i] for i in ids]
    await eventually(lambda: any(step for row in rows for step, _ in row.progress), 20)
    worker.stop()
    await asyncio.wait_for(running, 20)
    completed = [row for row in rows if row.status == "Completed"]
    assert 1 <= len(completed) <= 2
    for row in rows:
        if row not in completed:
            assert row.status == "Pending"
            assert row.charged == 0
    assert await claims.broker.depth(QUEUE) == len(ids) - len(completed)
    await claims.broker.close()


async def test_a_second_stop_gives_everything_back_at_once(claims: System) -> None:
    request_id = claims.gateway.add()
    row = claims.gateway.rows[request_id]
    worker = claims.worker()
    running = asyncio.create_task(worker.run())
    await claims.send(request_id, "slow apple", num_inference_steps=150)
    await eventually(lambda: any(step for step, _ in row.progress), 20)
    worker.stop()
    worker.stop()
    await asyncio.wait_for(running, 10)
    assert row.history == ["Processing", "Released"]
    assert await claims.broker.depth(QUEUE) == 1
    await claims.broker.close()
