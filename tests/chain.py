"""From a wiki to captions by the commands themselves, each in a process of its own; and what is in a dataset then."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

_DYING = Path(__file__).with_name("dying_command.py")
#: When something happened, and numbers that only say in which order.
_TIMES = {"added_at", "first_seen", "at", "updated_at", "stored", "made", "id", "next_try"}
Rows = list[tuple[object, ...]]


def steps(url: str, out: Path) -> dict[str, list[str]]:
    """The commands in their order."""
    polite = ["--contact", "tests@example.org", "--delay", "0", "--backoff", "0", "--allow-private"]
    return {
        "crawl": ["data", "crawl", url, "--out", str(out), *polite],
        "process": ["data", "process", str(out), "--report"],
        "caption": ["data", "caption", str(out), "--provider", "name"],
    }


def environment() -> dict[str, str]:
    """The environment of a command: it imports what we import."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def lived(command: list[str], count_file: Path) -> int:
    """Run a command to its end; how much it did, by which `killed` takes its places."""
    program = [sys.executable, str(_DYING), "0", str(count_file), *command]
    done = subprocess.run(program, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return int(count_file.read_text())


def killed(command: list[str], place: int, count_file: Path) -> bool:
    """Run a command that SIGKILL ends at a place; whether it got as far as that."""
    program = [sys.executable, str(_DYING), str(place), str(count_file), *command]
    done = subprocess.run(program, env=environment(), capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.returncode != 0


def contents(out: Path) -> tuple[dict[str, str], dict[str, Rows]]:
    """All files by their sha256, and all rows of the databases but for their times."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    digests = {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if ".sqlite" not in path.name and path.name not in (".lock", "crawl.lock")
    }
    tables: dict[str, Rows] = {}
    for file in sorted(out.glob("*.sqlite")):
        with closing(sqlite3.connect(file)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            tables |= {f"{file.name} {name}": _rows(db, name) for name in names}
    return digests, tables


def _rows(db: sqlite3.Connection, table: str) -> Rows:
    kept = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] not in _TIMES]
    names = ", ".join(f'"{name}"' for name in kept)
    return sorted(db.execute(f"SELECT {names} FROM {table}").fetchall(), key=repr)
