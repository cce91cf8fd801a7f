"""A private RabbitMQ node with its management and Prometheus plugins; one vhost for each test.

Node name, epmd, cookie, ports and directories are all our own, so the system's node is never touched and
several sessions may run at once. A node starts in about six seconds.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import pika

from services.process import Service, free_ports, listens, remove, service_directory
from services.tls import Authority

QUORUM = "quorum"
CLASSIC = "classic"

_PLACES = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/opt/homebrew/sbin", "/usr/local/sbin")


def find_server() -> Path | None:
    """The server's own start script; Debian's /usr/sbin wrapper would change the user and directory."""
    for place in _PLACES:
        if (script := Path(place, "rabbitmq-server")).is_file() and shutil.which("erl"):
            return script
    return None


class Management:
    """The few calls of RabbitMQ's management API that tests need."""

    def __init__(self, url: str, user: str = "guest", password: str = "guest") -> None:
        self._http = httpx.Client(base_url=url, auth=(user, password), timeout=10.0, trust_env=False)

    def call(self, method: str, path: str, json: object = None) -> Any:
        answer = self._http.request(method, f"/api/{path}", json=json)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def alive(self) -> bool:
        try:
            self.call("GET", "overview")
        except (httpx.HTTPError, ValueError):
            return False
        return True

    def close(self) -> None:
        self._http.close()


@dataclass(frozen=True)
class Vhost:
    """A test's own part of a node. `management` is None on a foreign node that gave us none."""

    url: str
    name: str
    management: Management | None
    queue_type: str = CLASSIC

    @property
    def is_quorum(self) -> bool:
        return self.queue_type == QUORUM

    @property
    def api(self) -> Management:
        assert self.management is not None, "needs_management comes first"
        return self.management

    @property
    def _quoted(self) -> str:
        return quote(self.name, safe="")

    def connections(self) -> list[str]:
        """Names of the connections that are open now."""
        return [c["name"] for c in self.api.call("GET", f"vhosts/{self._quoted}/connections")]

    def close_connections(self) -> int:
        """Have the broker close every connection of the vhost; how many there were."""
        names = self.connections()
        for name in names:
            self.api.call("DELETE", f"connections/{quote(name, safe='')}")
        return len(names)

    def queue(self, name: str) -> dict[str, Any]:
        """What the broker says of a queue (its `type`, `arguments`, …); counts may lag by seconds."""
        found: dict[str, Any] = self.api.call("GET", f"queues/{self._quoted}/{quote(name, safe='')}")
        return found

    def unacked(self, name: str) -> int:
        """Messages of a queue in somebody's hands, at most a fifth of a second old; 0 if it is unknown."""
        known = self.management is not None and self.has_queue(name)
        return int(self.queue(name).get("messages_unacknowledged", 0)) if known else 0

    def has_queue(self, name: str) -> bool:
        try:
            self.queue(name)
        except httpx.HTTPStatusError:
            return False
        return True

    def delete_queue(self, name: str) -> None:
        self.api.call("DELETE", f"queues/{self._quoted}/{quote(name, safe='')}")


class RabbitNode:
    """One node; `stop` and `start` again keep its durable queues and persistent messages."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self.directory = service_directory("rabbit")
        self.port, self.tls_port, self._http_port, self._dist_port, self._epmd_port, metrics = free_ports(6)
        #: Where its plugin answers Prometheus.
        self.metrics_port = metrics
        self._services: list[Service] = []
        self.management = Management(f"http://127.0.0.1:{self._http_port}")
        for name in ("mnesia", "log", "schema", "home", "conf"):
            (self.directory / name).mkdir()
        #: Its certificate names `localhost` and no address.
        self.authority = Authority(self.directory / "tls")
        self._write_configuration()

    def tls_url(self, vhost: str, host: str = "localhost", user: str = "guest:guest") -> str:
        return f"amqps://{user}@{host}:{self.tls_port}/{quote(vhost, safe='')}"

    def url(self, vhost: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    @property
    def pid(self) -> int:
        """Of the running node."""
        return self._services[-1].pid

    def start(self) -> None:
        # epmd would be started by the node as a daemon and stay behind; ours is a child like the node.
        epmd = shutil.which("epmd")
        assert epmd is not None
        log = self.directory / "log" / "output"
        self._services.append(
            Service([epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"], log, self.environment())
        )
        self._services[0].wait_until(lambda: listens(self._epmd_port), within=10)
        node = Service([str(self._server)], log, self.environment(), cwd=self.directory)
        self._services.append(node)
        node.wait_until(lambda: listens(self.port) and self.management.alive(), within=240)

    def stop(self) -> None:
        """Kill the node at once: what was confirmed is on disk already."""
        for service in reversed(self._services):
            service.stop()
        self._services.clear()

    def ctl(self, *arguments: str) -> None:
        """Run rabbitmqctl on this node; about two seconds a call."""
        subprocess.run(
            [str(self._server.with_name("rabbitmqctl")), "-q", *arguments],
            env=self.environment(),
            check=True,
            capture_output=True,
        )

    def remove(self) -> None:
        self.stop()
        self.management.close()
        remove(self.directory)

    @property
    def rabbitmqctl(self) -> Path:
        return self._server.with_name("rabbitmqctl")

    def environment(self) -> dict[str, str]:
        """What a program needs to speak to this node and to no other."""
        at = self.directory
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "HOME": str(at / "home"),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"itemforge{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONF_ENV_FILE": str(at / "conf/none"),
            "RABBITMQ_CONFIG_FILE": str(at / "conf/rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(at / "conf/advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "conf/enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(at / "conf"),
            "RABBITMQ_MNESIA_BASE": str(at / "mnesia"),
            "RABBITMQ_LOG_BASE": str(at / "log"),
            "RABBITMQ_SCHEMA_DIR": str(at / "schema"),
            "RABBITMQ_PID_FILE": str(at / "pid"),
            # A small machine: one scheduler that does not busy-wait; distribution on loopback only.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none "
            "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _write_configuration(self) -> None:
        conf = self.directory / "conf"
        files = self.authority.issue("localhost")
        (conf / "enabled_plugins").write_text("[rabbitmq_management,rabbitmq_prometheus].\n")
        (conf / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.cacertfile = {self.authority.ca_file}\n"
            f"ssl_options.certfile = {files.certificate}\n"
            f"ssl_options.keyfile = {files.key}\n"
            "management.tcp.ip = 127.0.0.1\n"
            f"management.tcp.port = {self._http_port}\n"
            "prometheus.tcp.ip = 127.0.0.1\n"
            f"prometheus.tcp.port = {self.metrics_port}\n"
            "collect_statistics_interval = 200\n"
            "default_user = guest\n"
            "default_pass = guest\n"
            "disk_free_limit.absolute = 50MB\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "log.file.level = warning\n"
        )


class ForeignNode:
    """A running RabbitMQ that the environment named; without management its own vhost is all we have."""

    def __init__(self, url: str, management_url: str | None) -> None:
        parts = urlsplit(url)
        self._parts = parts
        self._vhost = unquote(parts.path[1:]) or "/"
        user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        self.management = Management(management_url, user, password) if management_url else None

    @property
    def vhost(self) -> str:
        return self._vhost

    def url(self, vhost: str) -> str:
        return self._parts._replace(path=f"/{quote(vhost, safe='')}").geturl()

    def remove(self) -> None:
        if self.management is not None:
            self.management.close()


@contextmanager
def fresh_vhost(node: RabbitNode | ForeignNode, queue_type: str = CLASSIC) -> Iterator[Vhost]:
    """A new vhost, deleted afterwards; on a foreign node without management its vhost, emptied."""
    if isinstance(node, ForeignNode) and node.management is None:
        vhost = Vhost(node.url(node.vhost), node.vhost, None)
        _delete_our_queues(vhost.url)
        yield vhost
        _delete_our_queues(vhost.url)
        return
    assert node.management is not None
    name = f"test-{uuid.uuid4().hex[:12]}"
    # 3.10 spells the key without underscores.
    wanted = {"default_queue_type": queue_type, "defaultqueuetype": queue_type}
    node.management.call("PUT", f"vhosts/{name}", wanted)
    try:
        user = "guest" if isinstance(node, RabbitNode) else _user(node)
        node.management.call(
            "PUT", f"permissions/{name}/{user}", {"configure": ".*", "write": ".*", "read": ".*"}
        )
        yield Vhost(node.url(name), name, node.management, queue_type)
    finally:
        node.management.call("DELETE", f"vhosts/{name}")


def _user(node: ForeignNode) -> str:
    return quote(unquote(urlsplit(node.url("x")).username or "guest"), safe="")


def _delete_our_queues(url: str) -> None:
    from itemforge.contract import DEAD_QUEUE, QUEUE, RETRY_DELAYS, retry_queue

    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    for queue in (QUEUE, DEAD_QUEUE, *(retry_queue(delay) for delay in RETRY_DELAYS)):
        channel.queue_delete(queue)
    connection.close()
