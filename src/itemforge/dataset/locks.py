"""One process at a time at a piece of work; the kernel lets go however the process ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from itemforge.errors import ConfigurationError


@contextmanager
def only_one(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file.

    Raises:
        ConfigurationError: another process has it, which is told by `busy`, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise ConfigurationError(f"{path.parent} cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(busy) from None
        yield
