"""The worker against a gateway that knows only `PUT /update_db/{id}`."""

import uuid

import pytest
from worker_system import System

from itemforge.contract import DEAD_QUEUE
from polling import eventually


async def test_it_finds_out_and_reports_processing_then_completed_with_the_url(seed: System) -> None:
    request_id = seed.gateway.add()
    async with seed.run():
        await seed.send(request_id, seed=3)
        await seed.ended(request_id, "Completed")
        await seed.quiet()
    row = seed.gateway.rows[request_id]
    assert row.history == ["Processing", "Completed"]
    assert row.images == [{"url": f"https://store.example/generated/{request_id}.png"}]
    assert "POST /v1/worker/claims" in seed.gateway.calls
    assert "POST /v1/worker/heartbeat" not in seed.gateway.calls


async def test_a_job_that_cannot_be_drawn_is_failed(seed: System) -> None:
    request_id = seed.gateway.add()
    async with seed.run():
        await seed.send(request_id, "bad prompt")
        await seed.ended(request_id, "Failed")
        await eventually(lambda: seed.broker.depth(DEAD_QUEUE))
        await seed.quiet()
    assert seed.gateway.rows[request_id].history == ["Processing", "Failed"]


async def test_tries_are_counted_by_the_message_and_bounded(seed: System) -> None:
    request_id = seed.gateway.add()
    async with seed.run(breaker_after=100):
        await seed.send(request_id, "oom")
        await seed.ended(request_id, "Failed", within=60)
        await eventually(lambda: seed.broker.depth(DEAD_QUEUE))
        await seed.quiet()
        (letter,) = await seed.broker.dead_letters(10)
    assert letter.headers["x-attempt"] == 4
    assert seed.gateway.rows[request_id].history == ["Processing"] * 5 + ["Failed"]


async def test_an_unknown_request_goes_to_the_dead_queue(seed: System) -> None:
    async with seed.run():
        await seed.send(str(uuid.uuid4()))
        await eventually(lambda: seed.broker.depth(DEAD_QUEUE), 20)
        await seed.quiet()
    assert seed.store.puts == 0


async def test_an_invalid_message_with_a_readable_id_is_failed(seed: System) -> None:
    request_id = seed.gateway.add()
    async with seed.run():
        await seed.send(request_id, prompt="")
        await seed.ended(request_id, "Failed")
        await eventually(lambda: seed.broker.depth(DEAD_QUEUE))


async def test_two_copies_of_a_message_give_one_picture(seed: System) -> None:
    request_id = seed.gateway.add()
    async with seed.run():
        for _ in range(2):
            await seed.send(request_id, "slow apple", num_inference_steps=10)
        await seed.ended(request_id, "Completed")
        await seed.quiet()
    assert len(seed.store.objects) == 1


async def test_a_redelivered_message_whose_picture_is_stored_is_not_drawn_again(seed: System) -> None:
    request_id = seed.gateway.add()
    await seed.broker.start()
    await seed.send(request_id, "slow apple")
    consumer = seed.broker.consume(1)
    delivery = await anext(aiter(consumer))
    await consumer.stop()
    await delivery.requeue()  # as if its worker had died after the upload
    seed.store.objects[f"generated/{request_id}.png"] = b"the picture"
    async with seed.run():
        await seed.ended(request_id, "Completed")
        await seed.quiet()
    assert seed.store.puts == 0


@pytest.mark.parametrize("mode", ["seed", "auto"])
async def test_our_claims_are_not_asked_for_when_the_settings_say_seed(seed: System, mode: str) -> None:
    request_id = seed.gateway.add()
    async with seed.run(gateway_mode=mode):
        await seed.send(request_id)
        await seed.ended(request_id, "Completed")
    assert ("POST /v1/worker/claims" in seed.gateway.calls) == (mode == "auto")


async def test_a_gateway_that_is_away_at_the_start_is_asked_again(seed: System) -> None:
    request_id = seed.gateway.add()
    seed.gateway.broken = True
    async with seed.run() as worker:
        await seed.send(request_id)
        await eventually(lambda: len(seed.gateway.calls) >= 2, 20)
        assert worker.state == "starting"
        seed.gateway.broken = False
        await seed.ended(request_id, "Completed")
