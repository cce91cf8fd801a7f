"""One embedded system at a home: two would draw from one database without knowing of each other."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from itemforge.errors import ConfigurationError


@contextmanager
def home_lock(home: Path) -> Iterator[None]:
    """Hold `home` for this process; the lock goes with the process, however that ends.

    Raises:
        ConfigurationError: another process holds it, or it cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"the home {home} cannot be used ({error.strerror}); set --home or ITEMFORGE_HOME to a folder of yours"
        ) from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another itemforge runs with the home {home}; stop it, or give this one a home of its own "
                "(--home DIR or ITEMFORGE_HOME)"
            ) from None
        yield
    finally:
        os.close(file)
