"""`deploy/rabbitmq/setup.sh` on a real node: virtual host, policies, users with the least rights, queue types."""

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pika
import pika.exceptions
import pytest

from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.contract import DEAD_QUEUE, QUEUE, retry_queue
from itemforge.settings import BrokerSettings, load
from polling import eventually, wait_until
from services.process import unavailable
from services.rabbitmq import Management, RabbitNode, find_server

DEPLOY = Path(__file__).parents[2] / "deploy/rabbitmq"
USERS = {"gateway": "GATEWAY_PASSWORD", "worker": "WORKER_PASSWORD", "monitor": "MONITOR_PASSWORD"}


@dataclass
class Broker:
    node: RabbitNode
    vhost: str
    passwords: dict[str, str]

    def setup(self, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        env = self.node.environment() | {"RABBITMQCTL": str(self.node.rabbitmqctl)} | variables
        command = [str(DEPLOY / "setup.sh"), "--vhost", self.vhost, *options]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)

    def url(self, user: str) -> str:
        login = f"itemforge-{user}:{self.passwords[user]}"
        return f"amqp://{login}@127.0.0.1:{self.node.port}/{quote(self.vhost, safe='')}"

    def channel(self, user: str) -> Any:
        return pika.BlockingConnection(pika.URLParameters(self.url(user))).channel()

    def may(self, user: str, call: Callable[[Any], Any]) -> bool:
        channel = self.channel(user)
        try:
            call(channel)
        except pika.exceptions.ChannelClosedByBroker as error:
            assert error.reply_code == 403, error
            return False
        finally:
            channel.connection.close()
        return True

    def queue(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.node.management.call(
            "GET", f"queues/{quote(self.vhost, safe='')}/{quote(name, safe='')}"
        )
        return found


def _forget(node: RabbitNode, path: str) -> None:
    try:
        node.management.call("DELETE", path)
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404, error


@pytest.fixture
def fresh(rabbit_node: RabbitNode) -> Iterator[Broker]:
    """A virtual host that does not exist yet."""
    passwords = {user: f"secret-{user}-{uuid.uuid4().hex}" for user in USERS}
    broker = Broker(rabbit_node, f"setup-{uuid.uuid4().hex[:8]}", passwords)
    yield broker
    _forget(rabbit_node, f"vhosts/{broker.vhost}")
    for user in USERS:
        _forget(rabbit_node, f"users/itemforge-{user}")


def variables(broker: Broker) -> dict[str, str]:
    return {name: broker.passwords[user] for user, name in USERS.items()}


async def started(url: str) -> RabbitBroker:
    broker = RabbitBroker(load(BrokerSettings, amqp_url_setting=url, reconnect_max=0.1, retry_scale=0.01))
    await broker.start()
    await eventually(lambda: broker.connected, within=30, why=f"connects: {broker.trouble}")
    return broker


async def test_a_fresh_broker_serves_all_programs_and_lets_none_do_more(fresh: Broker) -> None:
    done = fresh.setup("--queue-type", "quorum", **variables(fresh))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert not any(password in done.stdout for password in fresh.passwords.values())
    await _serves_everybody(fresh)
    wait_until(lambda: fresh.queue(QUEUE).get("policy") == "itemforge-jobs-quorum", 30)
    assert fresh.queue(QUEUE)["type"] == "quorum"
    in_force = fresh.queue(QUEUE)["effective_policy_definition"]
    assert in_force["dead-letter-routing-key"] == DEAD_QUEUE and in_force["max-length"] > 0
    assert in_force["delivery-limit"] >= 20
    _nobody_may_do_more(fresh)

    # Again, as an operator does after a new version: passwords that are not given stay as they are.
    again = fresh.setup()
    assert again.returncode == 0, again.stderr
    for user in USERS:
        fresh.channel(user).connection.close()
    fresh.passwords["worker"], old = "another-password-1", fresh.url("worker")
    assert fresh.setup(WORKER_PASSWORD=fresh.passwords["worker"]).returncode == 0
    fresh.channel("worker").connection.close()
    fresh.channel("gateway").connection.close()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        pika.BlockingConnection(pika.URLParameters(old))


async def _serves_everybody(fresh: Broker) -> None:
    # A foreign program comes first and declares the queue bare, as it always did.
    foreign = fresh.channel("gateway")
    foreign.queue_declare(QUEUE, durable=True)
    gateway = await started(fresh.url("gateway"))
    worker = await started(fresh.url("worker"))
    consumer = worker.consume(4)
    try:
        await gateway.publish(QUEUE, b"a job")
        delivery = await anext(aiter(consumer))
        await worker.publish(retry_queue("5s"), delivery.body, {"x-attempt": 1})
        await delivery.ack()
        again = await anext(aiter(consumer))
        await worker.publish(DEAD_QUEUE, again.body)
        await again.ack()
        (letter,) = await gateway.dead_letters(2)
        assert letter.body == b"a job"
        foreign.queue_declare(QUEUE, durable=True)
        foreign.basic_publish("", QUEUE, b"a foreign job")
        assert (await anext(aiter(consumer))).body == b"a foreign job"
    finally:
        foreign.connection.close()
        await worker.close()
        await gateway.close()


def _nobody_may_do_more(fresh: Broker) -> None:
    forbidden: dict[str, list[Callable[[Any], Any]]] = {
        "gateway": [
            lambda c: c.queue_declare("of-my-own"),
            lambda c: c.queue_declare(f"{QUEUE}.other"),
            lambda c: c.exchange_declare("of-my-own"),
            lambda c: c.queue_bind(QUEUE, "amq.fanout"),
        ],
        "worker": [
            lambda c: c.queue_declare(QUEUE, durable=True),
            lambda c: c.queue_delete(QUEUE),
            lambda c: c.basic_get(DEAD_QUEUE),
        ],
        "monitor": [
            lambda c: c.basic_get(QUEUE),
            lambda c: c.queue_purge(QUEUE),
            lambda c: c.queue_declare("of-my-own"),
        ],
    }
    for user, calls in forbidden.items():
        assert [number for number, call in enumerate(calls) if fresh.may(user, call)] == [], user
    look = Management(
        str(fresh.node.management._http.base_url), "itemforge-monitor", fresh.passwords["monitor"]
    )
    assert look.call("GET", "overview")["node"] and look.call("GET", f"queues/{fresh.vhost}")
    for user in ("gateway", "worker"):  # figures of the whole broker are the monitor's alone
        blind = Management(
            str(fresh.node.management._http.base_url), f"itemforge-{user}", fresh.passwords[user]
        )
        with pytest.raises(httpx.HTTPStatusError):
            blind.call("GET", "overview")
        blind.close()
    look.close()


def test_where_the_job_queue_is_classic_it_stays_so_and_nobody_is_locked_out(fresh: Broker) -> None:
    assert fresh.setup(GATEWAY_PASSWORD=fresh.passwords["gateway"]).returncode == 0
    channel = fresh.channel("gateway")
    channel.queue_declare(QUEUE, durable=True)
    channel.basic_publish("", QUEUE, b"from before")
    channel.connection.close()
    done = fresh.setup("--queue-type", "quorum")
    assert done.returncode == 0 and "stays" in done.stderr
    channel = fresh.channel("gateway")
    channel.queue_declare(QUEUE, durable=True)
    channel.connection.close()
    wait_until(lambda: fresh.queue(QUEUE).get("policy") == "itemforge-jobs", 30)
    channel = fresh.channel("gateway")
    assert channel.basic_get(QUEUE)[2] == b"from before"
    channel.connection.close()


@pytest.mark.parametrize(
    "options", [("--vhost",), ("--vhost", "a b"), ("--vhost", 'x"#e'), ("--queue-type", "stream"), ("other",)]
)
def test_the_script_refuses_what_it_does_not_know(tmp_path: Path, options: tuple[str, ...]) -> None:
    env = {**os.environ, "RABBITMQCTL": str(tmp_path / "never-called")}
    done = subprocess.run([str(DEPLOY / "setup.sh"), *options], env=env, capture_output=True, text=True)
    assert done.returncode == 64 and done.stderr


class _Configured(RabbitNode):
    """A node with our rabbitmq.conf besides the test's own."""

    def _write_configuration(self) -> None:
        super()._write_configuration()
        own = self.directory / "conf/rabbitmq.conf"
        lines = own.read_text().splitlines()
        ours = (DEPLOY / "rabbitmq.conf").read_text()
        kept = [line for line in lines if not line.startswith(("disk_free_limit", "vm_memory"))]
        own.write_text("\n".join(kept) + "\n" + ours)


def test_a_node_starts_with_our_configuration_and_obeys_it() -> None:
    if (server := find_server()) is None:
        unavailable("no RabbitMQ: install rabbitmq-server")
    node = _Configured(server)
    try:
        node.start()
        wait_until(lambda: "disk_free_limit" in node.management.call("GET", "nodes")[0], 30)
        (about,) = node.management.call("GET", "nodes")
        assert about["disk_free_limit"] == 2_000_000_000
        assert about["mem_limit"] > 0 and not about["mem_alarm"]
        done = subprocess.run(
            [str(node.rabbitmqctl), "-q", "eval", "application:get_env(rabbit, consumer_timeout)."],
            env=node.environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "7200000" in done.stdout
    finally:
        node.remove()


def test_the_policies_hold_the_documented_limits() -> None:
    policies = json.loads((DEPLOY / "definitions.json").read_text())["policies"]
    limits = [p["definition"]["delivery-limit"] for p in policies if "delivery-limit" in p["definition"]]
    assert limits and min(limits) >= 20
    assert all(p["definition"]["max-length"] > 0 for p in policies)
