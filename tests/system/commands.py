"""The `itemforge` command as its users run it: processes of their own, real signals, logs in files."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logged import with_keys
from polling import wait_until


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The test's clean environment and what the test sets."""
    return {**os.environ, "ITEMFORGE_LOG_FORMAT": "json", **extra}


class Command:
    """A running `itemforge …`; `log` is its standard error, `out` its standard output."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out = folder / f"{arguments[0]}.out"
        self.log = folder / f"{arguments[0]}.log"
        with self.out.open("w") as out, self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "itemforge", *arguments],
                stdout=out,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment(settings),
                cwd=folder,
            )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def address(self, within: float = 300.0) -> str:
        """What the command says that it answers at."""

        def said() -> str | None:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            found = re.search(r"https?://[^\s/]+", self.out.read_text())
            return found.group() if found else None

        return wait_until(said, within, why=f"{self.process.args!r} tells its address") or ""

    def end(self, number: signal.Signals = signal.SIGTERM, within: float = 60.0) -> int:
        """Send a signal and wait; gives the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)

    def events(self) -> list[dict[str, Any]]:
        """The log's lines; every one must be JSON."""
        return [with_keys(json.loads(line)) for line in self.log.read_text().splitlines()]


def run(folder: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "itemforge", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment(settings),
        cwd=folder,
        timeout=300,
    )
