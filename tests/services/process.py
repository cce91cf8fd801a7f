"""A service as a child process that cannot outlive the test session, whatever ends it.

Each service has a process group of its own and a "leash": a tiny shell that waits on a pipe from us. When
we die, even by SIGKILL, the pipe closes and the leash kills the group.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

_LEASH = 'read -r _ || true; kill -"$1" "-$2"'


def unavailable(reason: str) -> NoReturn:
    """Skip the test on a laptop, fail it in CI.

    Raises:
        pytest.skip.Exception, pytest.fail.Exception: always.
    """
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"CI must not skip: {reason}", pytrace=False)
    pytest.skip(reason)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on, below the range from which the kernel lends its own."""
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            candidate = socket.socket()
            try:
                candidate.bind(("127.0.0.1", random.randrange(15000, 32000)))
                held.append(candidate)
            except OSError:
                candidate.close()
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def free_port() -> int:
    return free_ports(1)[0]


def service_directory(name: str) -> Path:
    """A new directory that every user may enter: PostgreSQL does not run as root, nor under /root."""
    base = next(p for p in (tempfile.gettempdir(), "/var/tmp", "/tmp") if _everybody_may_enter(Path(p)))
    directory = Path(tempfile.mkdtemp(prefix=f"itemforge-test-{name}-", dir=base))
    directory.chmod(0o755)
    return directory


def _everybody_may_enter(path: Path) -> bool:
    return path.is_dir() and all(p.stat().st_mode & 0o001 for p in (path, *path.parents))


class Service:
    """One running program. `soft` asks it to end and is also what the leash sends."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        soft: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.log = log
        self._soft = soft
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
            )
        self._leash = subprocess.Popen(
            ["sh", "-c", _LEASH, "leash", soft.name.removeprefix("SIG"), str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """To the program and all of its group, as far as it is still there."""
        self._signal(number)

    def wait_until(self, ready: Callable[[], bool], within: float) -> None:
        """Poll `ready`; the log's end is in the error.

        Raises:
            RuntimeError: the program ended, or is not ready in time.
        """
        deadline = time.monotonic() + within
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self._process.args!r} is not ready: {tail}")
            time.sleep(0.05)

    def stop(self, within: float = 10.0) -> None:
        """Softly, then by force. Idempotent."""
        self._signal(self._soft)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within)
        self._signal(signal.SIGKILL)
        self._process.wait(within)
        self._leash.kill()
        self._leash.wait()
        if self._leash.stdin is not None:
            self._leash.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
