"""A private PostgreSQL cluster; one database for each test.

PostgreSQL refuses to run as root, so then it runs as the package's user `postgres`. Durability is off,
because the cluster lives for one session; measurements ask for it.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from services.process import Service, free_port, listens, remove, service_directory

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")


def find_binaries() -> Path | None:
    """The directory of the newest installed server's programs."""
    found = [p.parent for place in _PLACES for p in Path("/").glob(f"{place[1:]}/initdb")]
    if found:
        return max(found, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def execute(url: str, *statements: str) -> None:
    """Run statements outside a transaction, on a thread: a test's event loop may exist already."""
    errors: list[BaseException] = []

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    def target() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class Eyes:
    """Looks into a database over one connection, from tests without an event loop; connects again when it
    was lost.
    """

    def __init__(self, url: str) -> None:
        self._url = url.replace("+asyncpg", "")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection: asyncpg.Connection | None = None

    def fetch(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """The rows that a statement gives."""
        return asyncio.run_coroutine_threadsafe(self._fetch(statement, *values), self._loop).result(30)

    async def _fetch(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._url)
        return [dict(row) for row in await self._connection.fetch(statement, *values)]

    def close(self) -> None:
        async def end() -> None:
            if self._connection is not None:
                await self._connection.close()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class PostgresServer:
    """A server that makes databases: `url` is a `postgresql://` address of its maintenance database."""

    def __init__(self, url: str) -> None:
        self.url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A new database's address for the async driver; it is dropped afterwards.

        `template` may name a database made before: copying a migrated one is faster than migrating.
        """
        name = f"test_{uuid.uuid4().hex[:12]}"
        execute(self.url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield urlsplit(self.url)._replace(scheme="postgresql+asyncpg", path=f"/{name}").geturl()
        finally:
            execute(self.url, f'DROP DATABASE "{name}" WITH (FORCE)')

    def remove(self) -> None:
        """A foreign server stays as it is."""


class PostgresCluster(PostgresServer):
    """Our own server: initdb and start take about a second."""

    def __init__(self, binaries: Path, durable: bool = False) -> None:
        self._binaries = binaries
        self._durable = durable
        self.directory = service_directory("postgres")
        self.port = free_port()
        self._service: Service | None = None
        super().__init__(f"postgresql://itemforge@127.0.0.1:{self.port}/postgres")
        if os.getuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        self._initialise()

    def start(self) -> None:
        durability = "on" if self._durable else "off"
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            **dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit"), durability),
            "shared_buffers": "128MB" if self._durable else "32MB",
            "dynamic_shared_memory_type": "mmap",
            "log_min_messages": "warning",
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        self._service = Service(
            [*self._as_user(), str(self._binaries / "postgres"), "-D", str(self.directory / "data"), *flags],
            self.directory / "output",
            cwd=self.directory,
            soft=signal.SIGQUIT,  # at once, but it takes its shared memory away
        )
        self._service.wait_until(self._accepts, within=60)

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._service is not None, "start comes first"
        return self._service.pid

    def stop(self) -> None:
        if self._service is not None:
            self._service.stop()
            self._service = None

    def remove(self) -> None:
        self.stop()
        remove(self.directory)

    def _accepts(self) -> bool:
        if not listens(self.port):
            return False
        try:
            execute(self.url, "SELECT 1")
        except (asyncpg.CannotConnectNowError, OSError):
            return False
        return True

    def _initialise(self) -> None:
        initdb = [*self._as_user(), str(self._binaries / "initdb"), "--no-sync"]
        flags = ["-D", str(self.directory / "data"), "-U", "itemforge", "-A", "trust"]
        locale = ["-E", "UTF8", "--locale=C"]
        subprocess.run([*initdb, *flags, *locale], cwd=self.directory, check=True, capture_output=True)

    def _as_user(self) -> list[str]:
        if os.getuid() != 0:
            return []
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        return [*user, "env", f"HOME={self.directory}"]
