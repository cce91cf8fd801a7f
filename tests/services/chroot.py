"""Debian roots made by debootstrap, and programs run inside them: what a container or a fresh machine would see.

Mounts lie in a mount namespace of each command, so nothing is left behind whatever ends it. The network is this
machine's own. pip inside a root is configured by variables, as pip outside is; nothing of that is written.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from services.process import unavailable

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MIRROR = "http://deb.debian.org/debian"
#: The host's files that a root sees here and nowhere else.
_HOST = "run/host"


def need_debootstrap() -> None:
    """Skip, or fail in CI, where no root can be made.

    Raises:
        pytest.skip.Exception, pytest.fail.Exception: no root, or no debootstrap.
    """
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        unavailable("roots are made by root, on Linux")
    if shutil.which("debootstrap") is None:
        unavailable("no debootstrap: apt-get install debootstrap")


def debootstrap(target: Path, suite: str = "bookworm") -> None:
    """A minimal root, as Debian's slim image is."""
    command = ["debootstrap", "--variant=minbase", suite, str(target), _MIRROR]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(Path("/etc", name).resolve(), target / "etc" / name)
    # As Debian's images have it: no service is started when its package is installed.
    policy = target / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


@dataclass
class Root:
    """A root; `binds` are folders of the host at the same place inside, for reading."""

    path: Path
    binds: list[Path] = field(default_factory=list)

    def copy(self, to: Path) -> "Root":
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.path), str(to)], check=True)
        return Root(to, self.binds)

    def command(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, user: str = "0:0", cwd: str = "/"
    ) -> list[str]:
        """What to execute on the host; the program is PID 1 of its own namespace, as in a container."""
        mounts = ['mount -t proc proc "$1/proc"', 'mount --rbind /dev "$1/dev"']
        for each in self.binds:
            mounts.append(f'mkdir -p "$1{each}" && mount --bind {each} "$1{each}"')
        script = f'set -e; {"; ".join(mounts)}; root=$1; shift; exec chroot "$root" "$@"'
        uid, _, gid = user.partition(":")
        inside = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        inside += [
            "env",
            "-i",
            f"--chdir={cwd}",
            *(f"{k}={v}" for k, v in ({"PATH": PATH} | dict(env or {})).items()),
        ]
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return [*isolated, "sh", "-c", script, "sh", str(self.path), *inside, *argv]

    def run(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, user: str = "0:0", cwd: str = "/"
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(argv, env, user, cwd), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def give_pip(self) -> dict[str, str]:
        """The host's configuration of pip as variables; what it names lies inside afterwards."""
        listed = subprocess.run(
            ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        ).stdout
        variables: dict[str, str] = {}
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            option = name.rpartition(".")[2]
            variables[f"PIP_{option.upper().replace('-', '_')}"] = " ".join(
                self._inside(word) for word in value.strip("'\"").split()
            )
        return variables

    def _inside(self, word: str) -> str:
        """A word of a setting, with the file or folder that it names brought in."""
        parts = urlsplit(word)
        place = Path(parts.path if parts.scheme == "file" else word)
        if parts.scheme not in ("", "file") or not place.is_absolute() or not place.exists():
            return word
        if place.is_file():  # a certificate or constraints; never in the place of the root's own
            copied = self.path / _HOST / place.name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place, copied)
            return f"/{_HOST}/{place.name}"
        bound = place.parent if parts.scheme == "file" else place
        if bound not in self.binds:
            self.binds.append(bound)
        return word


def first_child(pid: int) -> int | None:
    """The program inside, as the host numbers it: the child of `unshare`."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None
