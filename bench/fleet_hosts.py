"""The hosts of a fleet: a process with a few workers each, which vanish and are replaced as rented machines are."""

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench_rig import ROOT
from fleet_day import Loss

from services.process import Service

#: Simulated seconds until a machine that was lost is replaced, and those that a freeze lasts (least, longest):
#: around the lease of 30 s, so that some come back in time and some too late.
REPLACED_AFTER = 120.0
FROZEN = (5.0, 120.0)


@dataclass
class Host:
    name: str
    workers: int
    service: Service
    up: bool = True  # not frozen, not draining, not gone


class Hosts:
    """`env` is what a host's process gets; `factor` divides every pause."""

    def __init__(self, folder: Path, env: Mapping[str, str], factor: float) -> None:
        self._folder = folder
        self._env = env
        self._factor = factor
        self._begun: list[Host] = []
        self._current: list[Host] = []
        self.went: Counter[str] = Counter()
        self.log: list[tuple[float, str]] = []

    def start(self, workers: int, of_each: int) -> None:
        """Start enough hosts of `of_each` workers; the last one may have fewer."""
        for first in range(0, workers, of_each):
            self._current.append(self._new(min(of_each, workers - first)))

    def _new(self, workers: int) -> Host:
        name = f"host-{len(self._begun)}"
        command = [sys.executable, str(ROOT / "bench/fleet_host.py"), name, str(workers)]
        log = self._folder / f"{name}.log"
        host = Host(name, workers, Service(command, log, self._env, self._folder))
        self._begun.append(host)
        return host

    @property
    def up(self) -> int:
        """Workers whose host runs as it should (it may still be starting)."""
        return sum(host.workers for host in self._current if host.up)

    @property
    def size(self) -> int:
        return len(self._current)

    def pids(self) -> list[int]:
        """Of all hosts that ever were."""
        return [host.service.pid for host in self._begun]

    def broken(self) -> list[str]:
        """Hosts that ended without being told to."""
        return [host.name for host in self._current if host.up and not host.service.running]

    async def lose(self, loss: Loss) -> None:
        """Let a host go in its way, and bring it or another one back."""
        place = loss.place % len(self._current)
        host = self._current[place]
        if not host.up:  # it is just going: a neighbour goes instead, if there is one
            free = [n for n, other in enumerate(self._current) if other.up]
            if not free:
                return
            place = free[0]
            host = self._current[place]
        host.up = False
        self.went[loss.kind] += 1
        self.log.append((time.time(), loss.kind))
        if loss.kind == "freeze":
            host.service.send(signal.SIGSTOP)
            await self._pause(FROZEN[0] + loss.length * (FROZEN[1] - FROZEN[0]))
            host.service.send(signal.SIGCONT)
            host.up = True
            return
        if loss.kind == "kill":
            host.service.send(signal.SIGKILL)
        else:
            host.service.send(signal.SIGTERM)
            while host.service.running:  # noqa: ASYNC110  # a process tells nobody that it ended
                await asyncio.sleep(0.1)
        await self._pause(REPLACED_AFTER)
        self._current[place] = self._new(host.workers)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._factor)

    def stop(self) -> None:
        """Kill all that is left."""
        for host in self._begun:
            host.service.send(signal.SIGKILL)
        for host in self._begun:
            host.service.stop()
