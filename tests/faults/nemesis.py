"""Breaks everything at random, again and again, and heals it: the order is the seed's."""

import random
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

import httpx
from pika.exceptions import UnroutableError
from processes import Process
from stack import QUEUE, Stack, pika_channel

from services.flaky import DROP_ANSWER, FORBID, REFUSE, FlakyProxy
from services.postgres import PostgresCluster
from services.process import free_port
from services.rabbitmq import RabbitNode

_OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Nemesis:
    """Two gateways and two workers, which are always brought back; `calm` heals all."""

    def __init__(
        self,
        stack: Stack,
        chance: random.Random,
        node: RabbitNode,
        database: PostgresCluster,
        storage: FlakyProxy,
    ) -> None:
        self._stack, self._chance = stack, chance
        self._node, self._database, self._storage = node, database, storage
        self._ports = (stack.gateway_port, free_port())
        self.urls = [f"http://127.0.0.1:{port}" for port in self._ports]
        self._gateways = [self._gateway(n) for n in range(2)]
        for gateway in self._gateways:
            gateway.wait_ready()
        self._workers = [self._worker(n) for n in range(2)]
        for worker in self._workers:
            worker.wait_ready()

    def _gateway(self, n: int) -> Process:
        return self._stack.gateway(port=self._ports[n], ready=False, ITEMFORGE_SWEEP_AFTER="5")

    def _worker(self, n: int) -> Process:
        return self._stack.worker(
            ready=False, API_GATEWAY_URL=self.urls[n], STORAGE_EMULATOR_HOST=self._storage.url
        )

    def strike(self) -> str:
        """Break one thing and mend it; what it was."""
        deeds: list[tuple[int, Callable[[], None]]] = [
            (5, self.kill_worker),
            (4, self.kill_gateway),
            (3, self.freeze),
            (2, self.kill_everything),
            (2, self.restart_broker),
            (3, self.cut_broker_connections),
            (2, self.lose_the_queue),
            (2, self.restart_database),
            (3, self.cut_database_connections),
            (3, self.break_storage),
            (2, self.duplicate),
        ]
        (deed,) = self._chance.choices([deed for _, deed in deeds], [weight for weight, _ in deeds])
        deed()
        return deed.__name__

    def kill_worker(self) -> None:
        n = self._chance.randrange(2)
        self._workers[n].kill()
        self._pause(1)
        self._workers[n] = self._worker(n)

    def kill_gateway(self) -> None:
        n = self._chance.randrange(2)
        self._gateways[n].kill()
        self._pause(1)
        self._gateways[n] = self._gateway(n)

    def kill_everything(self) -> None:
        for process in (*self._gateways, *self._workers):
            process.kill()
        self._pause(1)
        self._gateways = [self._gateway(n) for n in range(2)]
        self._workers = [self._worker(n) for n in range(2)]

    def freeze(self) -> None:
        process = self._chance.choice([*self._gateways, *self._workers])
        process.freeze()
        self._pause(5)
        process.thaw()

    def restart_broker(self) -> None:
        self._node.stop()
        self._node.start()

    def cut_broker_connections(self) -> None:
        with suppress(httpx.HTTPStatusError):  # it closed by itself meanwhile
            self._stack.vhost.close_connections()

    def lose_the_queue(self) -> None:
        with pika_channel(self._stack.vhost.url) as channel:
            channel.queue_delete(QUEUE)

    def restart_database(self) -> None:
        self._database.stop()
        self._pause(1)
        self._database.start()

    def cut_database_connections(self) -> None:
        self._stack.query(f"SELECT pg_terminate_backend(pid) {_OTHERS}")

    def break_storage(self) -> None:
        fault = self._chance.choice((REFUSE, DROP_ANSWER, FORBID))
        self._storage.faults = [fault] * self._chance.randint(1, 20)
        self._pause(2)

    def duplicate(self) -> None:
        if rows := sorted(self._stack.rows()):
            with suppress(UnroutableError):  # the queue was lost just before
                self._stack.publish_copy(self._chance.choice(rows), times=self._chance.randint(1, 5))

    def _pause(self, most: float) -> None:
        time.sleep(self._chance.uniform(0, most))  # how long the outage lasts, not a wait for anything

    def calm(self) -> None:
        """All is up and answers."""
        self._storage.faults = []
        for n in range(2):
            if not self._gateways[n].alive:
                self._gateways[n] = self._gateway(n)
            self._gateways[n].thaw()
            self._gateways[n].wait_ready(120)
        for n in range(2):
            if not self._workers[n].alive:
                self._workers[n] = self._worker(n)
            self._workers[n].wait_ready(120)


class Users(threading.Thread):
    """Submit without end, each request again until it is accepted."""

    def __init__(self, urls: list[str], accepted: set[str], seed: int) -> None:
        super().__init__(daemon=True)
        self._urls, self._accepted = urls, accepted
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self.codes: set[int] = set()
        self.errors: list[BaseException] = []

    def run(self) -> None:
        try:
            with httpx.Client(trust_env=False, timeout=5) as http:
                while not self._over.wait(self._chance.uniform(0, 0.5)):
                    self._submit(http)
        except BaseException as error:
            self.errors.append(error)

    def _submit(self, http: httpx.Client) -> None:
        request_id = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        body = {
            "prompt": self._chance.choice(("a key", "slow key")),
            "num_inference_steps": self._chance.randint(1, 20),
            "num_images": self._chance.choice((1, 1, 2, 4)),
            "seed": self._chance.randrange(1000),
        }
        while True:  # also after the end: whether it was accepted is not known before it answers
            try:
                url = f"{self._chance.choice(self._urls)}/v1/generations/{request_id}"
                answer = http.put(url, json=body)
            except httpx.TransportError:
                self._over.wait(0.2)
                continue
            self.codes.add(answer.status_code)
            if answer.is_success:
                self._accepted.add(request_id)
                return
            self._over.wait(0.2)

    def end(self) -> None:
        self._over.set()
        self.join(120)
        assert not self.is_alive() and not self.errors, self.errors
