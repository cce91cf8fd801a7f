"""One process of the system under test: started by `launch`, ended by real signals, its log in a file."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logged import with_keys
from polling import wait_until

_TESTS = Path(__file__).parents[1]
#: Whoever runs the tests on another tree (`make mutants`) has set a path to it already.
_PATHS = [str(_TESTS / name) for name in ("", "faults", "worker")] + [os.environ.get("PYTHONPATH", "")]
_PYTHONPATH = os.pathsep.join(filter(None, _PATHS))


class Process:
    """`launch gateway` or `launch worker`, running from the moment it is made."""

    def __init__(self, folder: Path, name: str, arguments: list[str], settings: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.out = folder / f"{name}.out"
        self.log = folder / f"{name}.log"
        with self.out.open("w") as out, self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launch", *arguments],
                stdout=out,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": _PYTHONPATH, "ITEMFORGE_LOG_FORMAT": "json", **settings},
                cwd=folder,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def address(self, within: float = 60.0) -> str:
        """Where it says that it answers (the gateway), or its probes (the worker)."""

        def said() -> str | None:
            assert self.alive, f"{self.name} ended: {self.tail()}"
            found = re.search(r"http://[^\s/]+", self.out.read_text())
            return found.group() if found else None

        return wait_until(said, within, why=f"{self.name} tells its address") or ""

    @property
    def ready(self) -> bool:
        """What /readyz says: a gateway with its database, a worker that is warm and consumes."""
        try:
            with urllib.request.urlopen(f"{self.address()}/readyz", timeout=5):  # far cheaper than httpx.get
                return True
        except OSError:  # also any answer of 400 and above
            return False

    def wait_ready(self, within: float = 60.0) -> "Process":
        wait_until(lambda: self.ready, within, every=0.05, why=f"{self.name} is ready: {self.tail()}")
        return self

    def kill(self) -> None:
        """SIGKILL, also to a frozen one."""
        self.process.kill()
        self.process.wait(30)

    def wait_killed(self, within: float = 60.0) -> None:
        """Until it has died at its crash point."""
        assert self.process.wait(within) == -signal.SIGKILL, self.tail()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM, within: float = 60.0) -> int:
        """Send a signal and wait; gives the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def events(self, message: str | None = None) -> list[dict[str, Any]]:
        """The log's lines so far, or those with one message, with the keys of the log calls beside the schema's fields."""
        lines = [json.loads(line) for line in self.log.read_text().split("\n")[:-1] if line.startswith("{")]
        return [with_keys(line) for line in lines if message in (None, line["message"])]

    def tail(self) -> str:
        return self.log.read_text()[-3000:]
