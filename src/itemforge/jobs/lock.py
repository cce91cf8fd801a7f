"""A SQLite database serves one process: signals and the relay live inside it, so a second would be deaf."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from itemforge.errors import ConfigurationError
from itemforge.jobs.database import Database


@contextmanager
def only_process(db: Database) -> Iterator[None]:
    """Hold the database file's lock; the kernel releases it however the process ends.

    Raises:
        ConfigurationError: another process has it.
    """
    if db.postgresql:
        yield
        return
    path = Path(f"{db.engine.url.database}.lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"another ItemForge uses the database {db.engine.url.database}: stop it, "
                "set ITEMFORGE_HOME to another folder, or set DATABASE_URL to a PostgreSQL"
            ) from None
        yield
