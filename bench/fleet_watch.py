"""Looks at a fleet once a second: processors, database, broker, engines."""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
from fleet_engine import Sums, read_sums
from fleet_hosts import Hosts

from services.rabbitmq import Management

_TICK = os.sysconf("SC_CLK_TCK")
_DATABASE = """
    SELECT count(*) FILTER (WHERE status = 'Pending') AS waiting,
           count(*) FILTER (WHERE status = 'Processing') AS processing,
           count(*) FILTER (WHERE status NOT IN ('Pending', 'Processing')) AS ended,
           (SELECT coalesce(max(id), 0) FROM events) AS events,
           (SELECT pg_current_wal_lsn() - '0/0'::pg_lsn)::float8 AS wal,
           pg_total_relation_size('requests') + pg_total_relation_size('events') AS size,
           d.xact_commit + d.xact_rollback AS transactions,
           d.tup_inserted + d.tup_updated + d.tup_deleted AS rows_written,
           d.tup_fetched AS rows_read, d.numbackends AS connections, d.deadlocks AS deadlocks
    FROM requests RIGHT JOIN pg_stat_database d ON true
    WHERE d.datname = current_database()
    GROUP BY d.xact_commit, d.xact_rollback, d.tup_inserted, d.tup_updated, d.tup_deleted, d.tup_fetched,
             d.numbackends, d.deadlocks
"""


@dataclass(frozen=True)
class Sample:
    """One look. Counts only ever grow, except `up`, `waiting`, `processing`, `connections` and `ready`."""

    at: float  # seconds since the day began
    accepted: int
    up: int  # workers
    cpu: dict[str, float]  # processor seconds by role; `machine`: of everything on it
    engines: dict[str, float]
    database: dict[str, float]
    broker: dict[str, float]


class Processors:
    """Processor seconds of process trees; of a process that has ended, what was seen last."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], tuple[str, float]] = {}

    def read(self, roots: Mapping[str, Sequence[int]]) -> dict[str, float]:
        """By role. What descends from a `workers` process is an engine."""
        found: dict[int, tuple[int, str, float]] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and (stat := _stat(Path(entry.path, "stat"))):
                found[int(entry.name)] = stat
        roles = {pid: role for role, pids in roots.items() for pid in pids}
        for pid, (_, started, seconds) in found.items():
            if role := _role(pid, found, roles):
                self._seen[pid, started] = role, seconds
        sums: dict[str, float] = defaultdict(float)
        for role, seconds in self._seen.values():
            sums[role] += seconds
        sums["machine"] = _busy()
        return dict(sums)


def _stat(path: Path) -> tuple[int, str, float] | None:
    """Parent, start (which tells a process from a later one of the same number), processor seconds."""
    try:
        fields = path.read_text().rpartition(")")[2].split()
    except OSError:
        return None  # it has just ended
    return int(fields[1]), fields[19], (int(fields[11]) + int(fields[12])) / _TICK


def _role(pid: int, found: Mapping[int, tuple[int, str, float]], roles: Mapping[int, str]) -> str | None:
    if pid in roles:
        return roles[pid]
    while pid in found:
        pid = found[pid][0]
        if pid in roles:
            return "engines" if roles[pid] == "workers" else roles[pid]
    return None


def _busy() -> float:
    """Seconds for which the processors of this machine were not idle, all programs together."""
    user, nice, system, _idle, _wait, interrupt, soft, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + interrupt + soft) / _TICK


@dataclass
class Watch:
    """`accepted` is filled by whoever submits."""

    database_url: str
    amqp_url: str
    management: Management
    hosts: Hosts
    roots: Mapping[str, Sequence[int]]
    folder: Path
    accepted: set[str]
    samples: list[Sample] = field(default_factory=list)
    began: float = 0.0

    def __post_init__(self) -> None:
        self._processors = Processors()
        self._connection: asyncpg.Connection | None = None

    async def begin(self) -> None:
        """The day begins now."""
        self._connection = await asyncpg.connect(self.database_url.replace("+asyncpg", ""))
        self.began = time.time()
        await self.look()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self.look()

    async def fetch(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        assert self._connection is not None, "begin comes first"
        return [dict(row) for row in await self._connection.fetch(statement, *values)]

    async def look(self) -> Sample:
        (database,) = await self.fetch(_DATABASE)
        broker = await asyncio.to_thread(self._broker)
        cpu = await asyncio.to_thread(self._cpu)
        sample = Sample(
            time.time() - self.began,
            len(self.accepted),
            self.hosts.up,
            cpu,
            _together(read_sums(self.folder)),
            {name: float(value) for name, value in database.items()},
            broker,
        )
        self.samples.append(sample)
        return sample

    def _cpu(self) -> dict[str, float]:
        return self._processors.read({**self.roots, "workers": self.hosts.pids()})

    def _broker(self) -> dict[str, float]:
        name = quote(self.amqp_url.rsplit("/", 1)[1], safe="")
        vhost = self.management.call("GET", f"vhosts/{name}")
        stats = vhost.get("message_stats", {})
        kinds = ("publish", "deliver", "ack", "redeliver")
        totals = self.management.call("GET", "overview?columns=object_totals")["object_totals"]
        return {
            **{kind: float(stats.get(kind, 0)) for kind in kinds},
            "ready": float(vhost.get("messages_ready", 0)),
            "connections": float(totals["connections"]),
        }


def _together(engines: Mapping[str, Sums]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for engine in engines.values():
        for name, value in asdict(engine).items():
            if name not in ("ready", "seen"):
                sums[name] += value
    return dict(sums)
