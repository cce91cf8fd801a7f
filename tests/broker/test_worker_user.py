"""The RabbitMQ user of one worker: what it can do, what it cannot, and its end (deploy/rabbitmq)."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
import pika.exceptions
import pytest

from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.contract import DEAD_QUEUE, QUEUE, RETRY_DELAYS, retry_queue
from itemforge.errors import BrokerUnavailable
from itemforge.settings import BrokerSettings, load
from polling import eventually, wait_until
from services.rabbitmq import RabbitNode, Vhost

DEPLOY = Path(__file__).parents[2] / "deploy/rabbitmq"
NAME = "worker-1"


def script(node: RabbitNode, vhost: Vhost, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = node.environment() | {"RABBITMQCTL": str(node.rabbitmqctl), "RABBITMQ_VHOST": vhost.name}
    # The node's own programs read RABBITMQ_VHOST as nothing: it is the script's.
    command = [str(DEPLOY / "worker_user.sh"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)


def url_of(node: RabbitNode, vhost: Vhost, password: str) -> str:
    return f"amqp://{NAME}:{password}@127.0.0.1:{node.port}/{quote(vhost.name, safe='')}"


@pytest.fixture
def worker_url(rabbit_node: RabbitNode, amqp_vhost: Vhost) -> str:
    made = script(rabbit_node, amqp_vhost, NAME)
    assert made.returncode == 0, made.stderr
    return url_of(rabbit_node, amqp_vhost, made.stdout.strip())


def broker_at(url: str) -> RabbitBroker:
    return RabbitBroker(load(BrokerSettings, amqp_url_setting=url, reconnect_max=0.1, retry_scale=0.01))


async def connected(url: str) -> RabbitBroker:
    broker = broker_at(url)
    await broker.start()
    await eventually(lambda: broker.connected, within=30, why=f"connects: {broker.trouble}")
    return broker


def may(url: str, call: Callable[[Any], Any]) -> bool:
    """Whether the broker lets this user do it."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        call(connection.channel())
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 403, error
        return False
    finally:
        connection.close()
    return True


async def test_the_least_user_does_all_that_a_worker_does(amqp_vhost: Vhost, worker_url: str) -> None:
    gateway = await connected(amqp_vhost.url)
    worker = await connected(worker_url)
    consumer = worker.consume(4)
    try:
        await gateway.publish(QUEUE, b"a job")
        delivery = await anext(aiter(consumer))
        await worker.publish(retry_queue("5s"), delivery.body, {"x-attempt": 1})
        await delivery.ack()
        again = await anext(aiter(consumer))
        assert again.headers["x-attempt"] == 1
        await worker.publish(DEAD_QUEUE, again.body)
        await again.ack()
        assert await worker.depth(DEAD_QUEUE) == 1
    finally:
        await worker.close()
        await gateway.close()


async def test_before_the_gateway_was_there_the_least_user_waits_and_says_for_what(
    amqp_vhost: Vhost, worker_url: str
) -> None:
    worker = broker_at(worker_url)
    await worker.start()
    try:
        trouble = await eventually(lambda: worker.trouble, within=30)
        assert "start the gateway" in trouble
        gateway = await connected(amqp_vhost.url)
        await gateway.close()
        await eventually(lambda: worker.connected, within=30)
    finally:
        await worker.close()


async def test_the_least_user_can_do_nothing_else(amqp_vhost: Vhost, worker_url: str) -> None:
    gateway = await connected(amqp_vhost.url)
    await gateway.close()
    forbidden: dict[str, Callable[[Any], Any]] = {
        "declare the job queue": lambda c: c.queue_declare(QUEUE, durable=True),
        "declare another queue": lambda c: c.queue_declare("of-my-own"),
        "declare an exchange": lambda c: c.exchange_declare("of-my-own"),
        "bind the job queue": lambda c: c.queue_bind(QUEUE, "amq.fanout"),
        "delete the job queue": lambda c: c.queue_delete(QUEUE),
        "publish to another exchange": lambda c: _published(c, "amq.fanout"),
        "read the dead queue": lambda c: c.basic_get(DEAD_QUEUE),
        "purge the dead queue": lambda c: c.queue_purge(DEAD_QUEUE),
        "delete the dead queue": lambda c: c.queue_delete(DEAD_QUEUE),
        "read a retry queue": lambda c: c.basic_get(retry_queue("10m")),
        "purge a retry queue": lambda c: c.queue_purge(retry_queue("10m")),
    }
    allowed = [what for what, call in forbidden.items() if may(worker_url, call)]
    assert allowed == []
    # Who may consume may also empty: RabbitMQ has one right for both. The sweeper refills the queue.
    assert may(worker_url, lambda c: c.queue_purge(QUEUE))


def _published(channel: Any, exchange: str) -> None:
    channel.confirm_delivery()
    channel.basic_publish(exchange, QUEUE, b"x")


async def test_a_revoked_user_loses_its_connection_and_cannot_come_back(
    rabbit_node: RabbitNode, amqp_vhost: Vhost, worker_url: str
) -> None:
    gateway = await connected(amqp_vhost.url)
    worker = await connected(worker_url)
    try:
        revoked = script(rabbit_node, amqp_vhost, "--revoke", NAME)
        assert revoked.returncode == 0, revoked.stderr
        await eventually(lambda: not worker.connected, within=30, why="the connection ends")
        trouble = await eventually(
            lambda: worker.trouble if "ACCESS_REFUSED" in (worker.trouble or "") else None, within=30
        )
        assert "ACCESS_REFUSED" in trouble and not worker.connected
        with pytest.raises(BrokerUnavailable):
            await worker.publish(QUEUE, b"x")
        assert gateway.connected, "others are not touched"
    finally:
        await worker.close()
        await gateway.close()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        pika.BlockingConnection(pika.URLParameters(worker_url))


def test_a_second_call_gives_a_new_password_and_the_old_one_is_void(
    rabbit_node: RabbitNode, amqp_vhost: Vhost, worker_url: str
) -> None:
    again = script(rabbit_node, amqp_vhost, NAME)
    assert again.returncode == 0, again.stderr
    pika.BlockingConnection(pika.URLParameters(url_of(rabbit_node, amqp_vhost, again.stdout.strip()))).close()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        pika.BlockingConnection(pika.URLParameters(worker_url))


@pytest.mark.parametrize("arguments", [(), ("guest",), ("a b",), ("--revoke",), ("x;y",), ("a", "b")])
def test_the_script_refuses_what_is_no_name(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    env = {**os.environ, "RABBITMQCTL": str(tmp_path / "never-called")}
    done = subprocess.run(
        [str(DEPLOY / "worker_user.sh"), *arguments], env=env, capture_output=True, text=True
    )
    assert done.returncode == 64 and done.stderr


async def test_the_policies_are_in_force_on_either_queue_type_and_lock_nobody_out(
    any_amqp_vhost: Vhost,
) -> None:
    definitions = json.loads((DEPLOY / "definitions.json").read_text())
    any_amqp_vhost.api.call("POST", f"definitions/{any_amqp_vhost.name}", definitions)
    broker = await connected(any_amqp_vhost.url)
    await broker.close()
    quorum = any_amqp_vhost.queue(QUEUE)["type"] == "quorum"
    for queue, policy in ((QUEUE, "itemforge-jobs"), (DEAD_QUEUE, "itemforge-dead")):
        # A policy with a delivery limit does not apply to classic queues at all, so there are two of each.
        wanted = f"{policy}-quorum" if quorum else policy
        wait_until(lambda q=queue, p=wanted: any_amqp_vhost.queue(q).get("policy") == p, 30)
    in_force = any_amqp_vhost.queue(QUEUE)["effective_policy_definition"]
    assert in_force["dead-letter-routing-key"] == DEAD_QUEUE
    assert in_force.get("delivery-limit", 0) >= 20 or not quorum
    assert not any(any_amqp_vhost.queue(retry_queue(name)).get("policy") for name in RETRY_DELAYS)
    # A foreign program declares the queue bare, as ever.
    connection = pika.BlockingConnection(pika.URLParameters(any_amqp_vhost.url))
    connection.channel().queue_declare(QUEUE, durable=True)
    connection.close()


async def test_a_message_that_comes_back_for_ever_ends_in_the_dead_queue(quorum_amqp_vhost: Vhost) -> None:
    definitions = json.loads((DEPLOY / "definitions.json").read_text())
    quorum_amqp_vhost.api.call("POST", f"definitions/{quorum_amqp_vhost.name}", definitions)
    limit = definitions["policies"][0]["definition"]["delivery-limit"]
    broker = await connected(quorum_amqp_vhost.url)
    consumer = broker.consume(1)
    try:
        await broker.publish(QUEUE, b"poison")
        deliveries = aiter(consumer)
        for _ in range(limit + 1):
            await (await anext(deliveries)).requeue()
        await eventually(lambda: broker.depth(DEAD_QUEUE), within=30)
        (letter,) = await broker.dead_letters(2)
        assert letter.body == b"poison"
    finally:
        await broker.close()


def test_the_policies_are_loaded_by_one_command(rabbit_node: RabbitNode) -> None:
    rabbit_node.ctl("import_definitions", str(DEPLOY / "definitions.json"))
    named = {policy["name"] for policy in rabbit_node.management.call("GET", "policies/%2F")}
    assert named == {"itemforge-jobs", "itemforge-jobs-quorum", "itemforge-dead", "itemforge-dead-quorum"}
