"""What a worker tells of itself in its heartbeats."""

from fake_engine import BASE
from worker_system import System

import itemforge
from gateways import ClaimingGateway
from itemforge.engine.rows import Event, Progress
from itemforge.worker.engine_child import Happened
from itemforge.worker.facts import Facts
from polling import eventually


async def test_heartbeats_tell_what_the_worker_is_and_did(claims: System) -> None:
    gateway = claims.gateway
    assert isinstance(gateway, ClaimingGateway)
    async with claims.run(default_style="plain"):
        good = [gateway.add({"prompt": "slow apple", "num_inference_steps": 12}) for _ in range(2)]
        bad = gateway.add({"prompt": "bad luck"})
        for request_id, prompt in [(good[0], "slow apple"), (good[1], "slow apple"), (bad, "bad luck")]:
            await claims.send(request_id, prompt)

        def told() -> dict[str, object] | None:
            facts = gateway.facts
            return facts if facts and (facts["done"], facts["failed"]) == (2, 1) else None

        facts = await eventually(told, 30)
    assert (facts["version"], facts["model"], facts["base"]) == (itemforge.__version__, "fake", BASE)
    assert (facts["device"], facts["styles"]) == ("no device", ["plain"])
    # Both rows take 20 ms a step, one after the other.
    assert 1 < facts["steps_per_second"] <= 100


def test_the_pace_is_that_of_drawing_and_not_of_waiting() -> None:
    clock = [0.0]
    facts = Facts(lambda: clock[0])
    assert facts.told().steps_per_second is None

    def turn(rows: int, after: float, *more: Event) -> None:
        clock[0] += after
        steps = tuple(Progress(f"r{n}", 1, 20, 0.0) for n in range(rows))
        facts.worked(Happened((*steps, *more)))

    turn(4, 100.0)
    assert facts.told().steps_per_second is None  # when it began is not known
    for _ in range(10):
        turn(4, 0.5)
    assert facts.told().steps_per_second == 8.0
    turn(4, 3600.0)  # an hour of nothing
    assert facts.told().steps_per_second == 8.0
    for _ in range(100):
        turn(2, 0.5)
    assert facts.told().steps_per_second == 4.0


def test_the_style_that_was_drawn_last_comes_first() -> None:
    facts = Facts()
    for style in ("a@1", "a@1", "b@1", "c@2", "a@1", "d@1", "e@1"):
        facts.drew(style)
    assert facts.told().styles == ["e@1", "d@1", "a@1", "c@2"]
