"""What must not be lost, held or charged when things go wrong at an inconvenient moment."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from worker_system import RETRIES, System

from gateways import ClaimingGateway
from itemforge.broker.embedded import EmbeddedBroker
from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.contract import DEAD_QUEUE, QUEUE, Heartbeat, HeartbeatAnswer, JobParams
from itemforge.engine.rows import Finished
from itemforge.errors import ModelError
from itemforge.settings import BrokerSettings, load
from itemforge.telemetry.attempts import Attempt, Picture
from itemforge.worker.engine_child import Beat, _Child
from itemforge.worker.gateway_client import Gateway
from itemforge.worker.job import Drawing, Job
from polling import eventually, wait_until
from services.rabbitmq import Vhost

# ── The engine's process ────────────────────────────────────────────────────────────────────────

_PARENT = """
import asyncio, sys
from pathlib import Path
from itemforge.contract import Scheduler
from itemforge.engine.rows import Row
from itemforge.settings import WorkerSettings
from itemforge.worker.engine_process import EngineProcess

async def main(factory, home):
    settings = WorkerSettings(home=Path(home), engine_silence=2.5)
    engine = EngineProcess(settings, lambda event: None, print, lambda: None, factory)
    starting = asyncio.create_task(engine.start())
    hung = False
    while True:
        if engine.info and "slowly" not in factory and not hung and "hang" in sys.argv:
            engine.submit(Row("r/0/0", "hang", "", 5, 1.0, 1, Scheduler.DDIM, 64, 64))
            hung = True
        print(engine.pid, bool(engine.info), hung, flush=True)
        await asyncio.sleep(0.05)

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
"""


class Parent:
    """A process with an engine, that says at each turn the engine's pid, whether it is warm and has work."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        script = folder / "parent.py"
        script.write_text(_PARENT)
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, str(script), arguments[0], str(folder / "home"), *arguments[1:]],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def turn(self) -> list[str]:
        assert self.process.stdout
        return self.process.stdout.readline().split()

    def end(self) -> None:
        self.process.kill()
        self.process.wait(30)
        if self.process.stdout:
            self.process.stdout.close()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("phase", ["loading", "hanging", "idle"])
def test_the_engine_ends_with_a_worker_that_was_killed(tmp_path: Path, phase: str) -> None:
    factory = "fake_engine:load_slowly" if phase == "loading" else "fake_engine:load"
    parent = Parent(tmp_path, factory, *(["hang"] if phase == "hanging" else []))
    try:
        wanted = {"loading": ["False", "False"], "hanging": ["True", "True"], "idle": ["True", "False"]}[
            phase
        ]
        turn = wait_until(lambda: (t := parent.turn())[0].isdigit() and t[1:] == wanted and t, 30)
        pid = int(turn[0])
        if phase == "loading":  # its own code has begun, and sleeps in it
            wait_until(lambda: b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes(), 10)
        assert _alive(pid)
    finally:
        parent.end()
    wait_until(lambda: not _alive(pid), 10, why="the engine has ended")


def test_a_worker_that_was_frozen_does_not_blame_its_engine(tmp_path: Path) -> None:
    parent = Parent(tmp_path, "fake_engine:load")
    try:
        first = wait_until(lambda: (t := parent.turn())[1] == "True" and t, 30)
        parent.process.send_signal(signal.SIGSTOP)
        time.sleep(6)  # the fault itself: longer than the engine may be silent
        parent.process.send_signal(signal.SIGCONT)
        turns = [parent.turn() for _ in range(30)]
        assert all(turn == first for turn in turns), turns
    finally:
        parent.end()


def test_how_long_loading_took_says_nothing_of_a_step() -> None:
    ours, theirs = Pipe()
    child = _Child(theirs)
    child.on_stage("load", 300.0)
    assert ours.recv() == Beat(0.0)
    child.on_stage("measure", 2.5)
    child.beat()
    assert ours.recv() == Beat(2.5)
    ours.close()
    theirs.close()


async def test_an_error_that_the_engine_lets_out_costs_the_process_and_not_the_worker(claims: System) -> None:
    broken, good = claims.gateway.add(), claims.gateway.add()
    async with claims.run(breaker_after=100) as worker:
        await claims.send(broken, "break")
        await eventually(lambda: "Retry" in claims.gateway.rows[broken].history, 20)
        claims.gateway.rows[broken].status = "Cancelled"
        await claims.send(good)
        await claims.ended(good, "Completed")
        assert worker.state in ("ready", "paused")


# ── Ending ──────────────────────────────────────────────────────────────────────────────────────


async def test_an_engine_beyond_help_ends_the_worker_after_what_is_drawn_was_delivered(
    claims: System,
) -> None:
    drawn, killer = claims.gateway.add(), claims.gateway.add()
    claims.store.broken = True
    worker = claims.worker("fake_engine:load_once", breaker_after=1000)
    running = asyncio.create_task(worker.run())
    await claims.send(drawn)
    await eventually(lambda: claims.store.puts, 20)
    await claims.send(killer, "kill")
    await eventually(lambda: worker.state == "draining", 20)
    claims.store.broken = False
    with pytest.raises(ModelError, match="removed meanwhile"):
        await asyncio.wait_for(running, 20)
    assert claims.gateway.rows[drawn].history == ["Processing", "Completed"]
    assert not claims.gateway.rows[killer].leased
    await claims.broker.close()


async def test_stopping_while_the_engine_is_replaced_gives_back_who_waits_for_it(claims: System) -> None:
    killer, waiting = claims.gateway.add(), claims.gateway.add()
    for request_id in (killer, waiting):
        claims.gateway.rows[request_id].charged = 1  # suspects, who enter the engine one by one
    row = claims.gateway.rows[waiting]
    worker = claims.worker("fake_engine:load_then_slowly", breaker_after=1000)
    running = asyncio.create_task(worker.run())
    await claims.send(killer, "kill")
    await claims.send(waiting)
    await eventually(lambda: "Retry" in claims.gateway.rows[killer].history, 20)
    assert row.leased
    worker.stop()
    await asyncio.wait_for(running, 10)
    assert row.history == ["Processing", "Released"]
    assert row.charged == 1
    await claims.broker.close()


class SlowClaims(ClaimingGateway):
    """Leases at once, and takes its time to say so."""

    def _claim(self, request_id: str) -> dict[str, Any]:
        answer = super()._claim(request_id)
        time.sleep(0.5)
        return answer


@pytest.fixture
def slow_claims(tmp_path: Path) -> Iterator[System]:
    gateway = SlowClaims()
    yield System(tmp_path / "home", gateway)
    gateway.close()


async def test_a_stop_during_a_claim_gives_back_what_it_leased(slow_claims: System) -> None:
    system = slow_claims
    request_id = system.gateway.add()
    row = system.gateway.rows[request_id]
    worker = system.worker()
    running = asyncio.create_task(worker.run())
    await system.send(request_id)
    await eventually(lambda: row.leased, 20, every=0.005)
    worker.stop()
    await asyncio.wait_for(running, 20)
    assert row.history == ["Processing", "Released"]
    assert row.charged == 0
    assert await system.broker.depth(QUEUE) == 1
    await system.broker.close()


async def test_a_second_stop_does_not_wait_for_the_next_try_of_an_upload(claims: System) -> None:
    request_id = claims.gateway.add()
    claims.store.broken = True
    worker = claims.worker(retry_pause=60.0)
    running = asyncio.create_task(worker.run())
    await claims.send(request_id)
    await eventually(lambda: list((claims.home / "spool").glob("*.png")), 20)
    worker.stop()
    worker.stop()
    await asyncio.wait_for(running, 4)
    assert claims.gateway.rows[request_id].history == ["Processing", "Released"]
    assert await claims.broker.depth(QUEUE) == 1
    await claims.broker.close()


# ── Jobs ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_cancelled_at_the_gate_leaves_at_once(claims: System) -> None:
    drawn, cancelled = claims.gateway.add(), claims.gateway.add()
    for request_id in (drawn, cancelled):
        claims.gateway.rows[request_id].charged = 1
    async with claims.run() as worker:
        await claims.send(drawn, "slow apple", num_inference_steps=150)
        await claims.send(cancelled)
        await eventually(lambda: any(s for s, _ in claims.gateway.rows[drawn].progress), 20)
        assert claims.gateway.rows[cancelled].leased
        claims.gateway.rows[cancelled].cancel = True
        await eventually(lambda: len(worker._jobs) == 1, 5)
        assert claims.gateway.rows[drawn].status == "Processing"
        await claims.ended(drawn, "Completed")


async def test_a_job_cancelled_while_its_upload_waits_leaves_at_once(claims: System) -> None:
    request_id = claims.gateway.add()
    row = claims.gateway.rows[request_id]
    claims.store.broken = True
    async with claims.run(retry_pause=60.0):
        await claims.send(request_id)
        await eventually(lambda: claims.store.puts, 20)
        row.cancel = True
        await claims.quiet()
    assert row.status == "Cancelled"


async def test_who_is_watched_while_waiting_at_the_gate_shows_previews_later(claims: System) -> None:
    first, watched = claims.gateway.add(), claims.gateway.add()
    for request_id in (first, watched):
        claims.gateway.rows[request_id].charged = 1
    claims.gateway.rows[watched].watch = True
    async with claims.run():
        await claims.send(first, "slow apple", num_inference_steps=20)
        await claims.send(watched, "slow apple", num_inference_steps=20)
        await claims.ended(watched, "Completed")
    assert claims.gateway.rows[watched].previews > 0


class LostTooLate(Gateway):
    """While it answers that the first attempt is lost, the worker begins the second."""

    def __init__(self, meanwhile: Any) -> None:
        self._meanwhile = meanwhile

    async def heartbeat(self, beat: Heartbeat) -> list[HeartbeatAnswer]:
        self._meanwhile()
        return [HeartbeatAnswer(request_id=beat.rows[0].request_id, lost=True)]


async def test_a_lost_attempt_does_not_take_a_newer_one_with_it(claims: System) -> None:
    broker = claims.broker
    await broker.start()
    await claims.send(claims.gateway.add())
    delivery = await anext(aiter(broker.consume(1)))
    request_id = UUID(int=7)

    def job(attempt: int) -> Job:
        trace = Attempt(delivery.headers, str(request_id))
        job = Job(request_id, JobParams(prompt="a key"), attempt, False, delivery, trace)
        drawn: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        job.drawings[job.row_id(0)] = Drawing(0, 5, drawn, Picture(trace, 0))
        return job

    older, newer = job(1), job(2)
    worker = claims.worker()
    worker._jobs.add(older)

    def begin_newer() -> None:
        worker._jobs.add(newer)

    await worker._beat(LostTooLate(begin_newer))
    assert older.interruption is not None
    assert newer.interruption is None
    await worker._caller.close()
    await broker.close()


class NoDeadQueue(EmbeddedBroker):
    """Fails at the dead queue in a way that nobody foresaw, once."""

    failed = False

    async def publish(self, queue: str, body: bytes, headers: Mapping[str, str | int] | None = None) -> None:
        if queue == DEAD_QUEUE and not self.failed:
            self.failed = True
            raise RuntimeError("out of the blue")
        await super().publish(queue, body, headers)


async def test_an_unforeseen_error_at_the_end_of_a_job_does_not_keep_its_message(claims: System) -> None:
    request_id = claims.gateway.add()
    claims.broker = broker = NoDeadQueue(retry_scale=0.002)
    async with claims.run():
        await claims.send(request_id, "bad prompt")
        await claims.ended(request_id, "Failed")
        await eventually(lambda: broker.failed)
        await claims.quiet()


async def test_a_store_that_answers_but_takes_nothing_does_not_eat_the_queue(claims: System) -> None:
    ids = [claims.gateway.add() for _ in range(30)]
    rows = [claims.gateway.rows[i] for i in ids]
    claims.store.full = True
    async with claims.run(breaker_probe=0.02) as worker:
        for request_id in ids:
            await claims.send(request_id)
        await eventually(lambda: worker.state == "paused", 20)
        calls = len(claims.gateway.calls)
        await eventually(lambda: len(claims.gateway.calls) > calls + 40, 20)
        assert worker.state == "paused"
        assert sum(row.leased for row in rows) <= 4 + 4
        claims.store.full = False
        for request_id in ids:
            await claims.ended(request_id, "Completed")
    assert all(row.history == ["Processing", "Completed"] for row in rows)


async def test_rabbitmq_that_goes_away_in_the_middle_of_a_job_costs_nothing(
    claims: System, amqp_vhost: Vhost
) -> None:
    settings = load(BrokerSettings, amqp_url_setting=amqp_vhost.url, retry_scale=0.002, reconnect_max=0.2)
    broker = RabbitBroker(settings)
    claims.broker = broker  # type: ignore[assignment]  # the other broker behind the same face
    request_id = claims.gateway.add()
    row = claims.gateway.rows[request_id]
    async with claims.run() as worker:
        await eventually(lambda: worker.ready and broker.connected, 20)
        # The management's list lags behind by seconds.
        await eventually(lambda: asyncio.to_thread(lambda: len(amqp_vhost.connections()) == 2), 20, every=0.2)
        await claims.send(request_id, "slow apple", num_inference_steps=140)
        await eventually(lambda: any(step for step, _ in row.progress), 20)
        assert await asyncio.to_thread(amqp_vhost.close_connections) == 2
        await eventually(lambda: not worker.ready, 20)
        await claims.ended(request_id, "Completed")
        await eventually(lambda: worker.ready and broker.connected, 20)

        async def empty() -> bool:
            return not any([await broker.depth(name) for name in (QUEUE, DEAD_QUEUE, *RETRIES)])

        await eventually(empty, 20)
    assert row.history == ["Processing", "Completed"]
    assert claims.store.puts == 1
