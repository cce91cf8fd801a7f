"""Answers that are there already, in one SQLite file: by picture, prompt and model.

An answer is stored before its thread asks for another picture, so whatever kills the process, what was answered
and stored is never asked again. What a provider will never answer is stored too. Of a batch job the row is
written before the job is created, so a job that nobody remembers the name of can be found by its display name.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from itemforge.dataset.captioning.face import Answer, Captioned, Failed, Key, Reason, Usage
from itemforge.dataset.captioning.fields import CaptionFields
from itemforge.errors import ConfigurationError

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    picture TEXT, prompt TEXT, model TEXT, fields TEXT, reason TEXT, said TEXT,
    requests INTEGER, tokens_in INTEGER, tokens_out INTEGER, stored REAL, PRIMARY KEY (picture, prompt, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (model TEXT, day TEXT, requests INTEGER, PRIMARY KEY (model, day)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (display TEXT PRIMARY KEY, name TEXT, model TEXT, prompt TEXT, pictures TEXT, made REAL);
"""


@dataclass(frozen=True)
class Job:
    """A batch job; `name` is None until the service gave one."""

    display: str
    name: str | None
    pictures: tuple[str, ...]


class CaptionCache:
    """The file, or memory when no path is given. For all threads of one process.

    Raises:
        ConfigurationError: the file is no such cache, or cannot be opened.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path or ":memory:", timeout=30, check_same_thread=False, isolation_level=None
            )
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"the captions' cache {path} cannot be used ({error}); move it away, or name another file"
            ) from error

    def _open(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(
                f"it has the form {version}, this release writes {_VERSION}"
            )  # by another release
        # A killed process loses nothing by this; only a loss of power may take the last answers.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)
        self._db.execute(f"PRAGMA user_version={_VERSION}")

    def __enter__(self) -> "CaptionCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def get(self, key: Key) -> Answer | None:
        """What was answered, or None."""
        row = self._one(
            "SELECT fields, reason, said, requests, tokens_in, tokens_out FROM answers WHERE picture=? AND prompt=? AND model=?",
            key,
        )
        if row is None:
            return None
        fields, reason, said, *counts = row
        usage = Usage(*counts)
        try:
            if fields is not None:
                return Captioned(CaptionFields.model_validate_json(fields), usage)
            return Failed(Reason(reason), said, usage=usage)
        except (ValidationError, ValueError):  # written by a release with other rules: ask anew
            return None

    def put(self, key: Key, answer: Answer) -> None:
        """Store an answer, if it is one for good."""
        usage = (answer.usage.requests, answer.usage.tokens_in, answer.usage.tokens_out)
        if isinstance(answer, Captioned):
            what: tuple[str | None, ...] = (answer.fields.model_dump_json(), None, None)
        elif answer.retryable or answer.stops or answer.reason in (Reason.UNREADABLE, Reason.CRASHED):
            return
        else:
            what = (None, answer.reason, answer.text)
        values = (*key, *what, *usage, time.time())
        self._do("INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?,?,?,?)", values)

    def asked(self, model: str, day: str) -> int:
        """Requests of a day, over all runs with a daily limit."""
        row = self._one("SELECT requests FROM asked WHERE model=? AND day=?", (model, day))
        return int(row[0]) if row else 0

    def count(self, model: str, day: str) -> None:
        """One request more."""
        self._do(
            "INSERT INTO asked VALUES (?,?,1) ON CONFLICT (model, day) DO UPDATE SET requests=requests+1",
            (model, day),
        )

    def jobs(self, model: str, prompt: str) -> list[Job]:
        """Batch jobs whose answers have not been taken, oldest first."""
        with self._lock, closing(self._db.cursor()) as cursor:
            rows = cursor.execute(
                "SELECT display, name, pictures FROM jobs WHERE model=? AND prompt=? ORDER BY made, display",
                (model, prompt),
            ).fetchall()
        return [Job(display, name, tuple(json.loads(pictures))) for display, name, pictures in rows]

    def keep_job(self, job: Job, model: str, prompt: str) -> None:
        """Store a job, or its name once it has one."""
        values = (job.display, job.name, model, prompt, json.dumps(job.pictures), time.time())
        self._do(
            "INSERT INTO jobs VALUES (?,?,?,?,?,?) ON CONFLICT (display) DO UPDATE SET name=excluded.name",
            values,
        )

    def drop_job(self, job: Job) -> None:
        """Forget a job whose answers are stored, or which will never answer."""
        self._do("DELETE FROM jobs WHERE display=?", (job.display,))

    def _one(self, statement: str, values: Sequence[object]) -> tuple[Any, ...] | None:
        with self._lock, closing(self._db.cursor()) as cursor:
            row: tuple[Any, ...] | None = cursor.execute(statement, values).fetchone()
            return row

    def _do(self, statement: str, values: Sequence[object]) -> None:
        with self._lock, closing(self._db.cursor()) as cursor:
            cursor.execute(statement, values)
