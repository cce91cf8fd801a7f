"""Packages of the npm registry, as the npm client packs them: read, never unpacked and never run.

A package is one `.tgz` file in a folder; what is there already is not fetched again, so a folder that was
filled elsewhere serves a machine without a network. Members are read by name out of the archive: nothing in
it can write to a path.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itemforge.errors import ConfigurationError, InvalidInput

#: Largest member that is read, in bytes.
MAX_MEMBER = 64 * 1024**2
#: Seconds that one package may take to arrive.
_PATIENCE = 300.0


@dataclass(frozen=True)
class Package:
    """A package of one exact version."""

    name: str
    version: str

    @property
    def file_name(self) -> str:
        """As `npm pack` names it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`.

    Raises:
        ConfigurationError: it is not there, and the npm client is missing or could not fetch it.
    """
    path = folder / package.file_name
    if path.is_file():
        return path
    npm = shutil.which("npm")
    wanted = f"{package.name}@{package.version}"
    if npm is None:
        raise ConfigurationError(
            f"{path} is not there, and there is no npm to fetch it; install Node.js (Debian, Ubuntu: apt-get "
            f"install npm), or put what `npm pack {wanted}` gives elsewhere into {folder}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", "--silent", "--pack-destination", str(folder), wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)  # noqa: S603 - no shell
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"npm could not fetch {wanted}: {error}") from error
    if done.returncode or not path.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ConfigurationError(
            f"npm could not fetch {wanted}: {said[-1] if said else 'no reason given'}; check the network and "
            f"npm's registry, or put {package.file_name} into {folder}"
        )
    return path


class Archive:
    """An open package.

    Raises:
        InvalidInput: the file is no such archive, or a member is missing, too large or unreadable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tar = tarfile.open(path, "r:gz")  # noqa: SIM115 - closed by `__exit__`
            # Read from its start to its end once: members out of order would inflate it again each time.
            self._members = {m.name.partition("/")[2]: m for m in self._tar if m.isfile()}
        except (OSError, tarfile.TarError, EOFError) as error:
            raise InvalidInput(f"{path} is not a package: {error}; delete it and try again") from error

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def json(self, name: str) -> Any:
        """A member that is JSON."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise InvalidInput(f"{name} in {self.path} is not JSON: {error}") from error

    def read(self, name: str) -> bytes:
        """A member by its name below the package's own folder."""
        member = self._members.get(name)
        if member is None or member.size > MAX_MEMBER:
            raise InvalidInput(f"there is no {name} of at most {MAX_MEMBER} bytes in {self.path}")
        return self._read(member)

    def walk(self, prefix: str, suffix: str) -> Iterator[tuple[str, bytes]]:
        """Names (without prefix and suffix) and bytes of the members between them, in the archive's order."""
        for name, member in self._members.items():
            if name.startswith(prefix) and name.endswith(suffix) and member.size <= MAX_MEMBER:
                yield name[len(prefix) : -len(suffix)], self._read(member)

    def _read(self, member: tarfile.TarInfo) -> bytes:
        try:
            file = self._tar.extractfile(member)
            return b"" if file is None else file.read()
        except (OSError, tarfile.TarError, EOFError) as error:
            raise InvalidInput(f"{self.path} is damaged: {error}; delete it and try again") from error
