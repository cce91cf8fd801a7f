"""A small interpreter of Dockerfiles, as far as ours go, on roots made by debootstrap.

What it does not know is an error, so no instruction is passed over. A stage from `debian:bookworm…` begins as a
copy of the bookworm root: the image is made by the same debootstrap.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from services.chroot import PATH, Root

ROOT = Path(__file__).parents[2]
_IGNORED = ("EXPOSE", "LABEL")


@dataclass
class Stage:
    root: Root
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    stopsignal: str = "SIGTERM"

    def command(self, *arguments: str, env: dict[str, str] | None = None) -> list[str]:
        """`docker run IMAGE ARGUMENTS` as a command of the host."""
        argv = [*self.entrypoint, *(arguments or self.cmd)]
        return self.root.command(argv, self.env | (env or {}), self.user, self.workdir)

    def healthy(self, env: dict[str, str] | None = None) -> bool:
        """What HEALTHCHECK says now."""
        done = self.root.run(self.health, self.env | (env or {}), self.user, self.workdir)
        return done.returncode == 0


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction and what follows it, continued lines joined, comments gone."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [line.strip() for line in joined.splitlines() if line.strip()]
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in found]


def kept(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore lets a file into the context: the last pattern that fits it decides."""
    keep = True
    for pattern in patterns:
        wanted, plain = pattern.startswith("!"), pattern.lstrip("!")
        parents = ["/".join(path.split("/")[: n + 1]) for n in range(path.count("/") + 1)]
        anywhere = plain.startswith("**/")
        fits = any(
            fnmatch.fnmatchcase(p.rpartition("/")[2] if anywhere else p, plain.removeprefix("**/"))
            and (anywhere or p.count("/") == plain.count("/"))
            for p in parents
        )
        if fits:
            keep = wanted
    return keep


def context(source: Path, to: Path) -> None:
    """The build context: the files of `source` that .dockerignore lets through."""
    lines = (source / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    wanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    for folder, folders, names in os.walk(source):
        here = os.path.relpath(folder, source)
        folders[:] = [f for f in folders if _may_hold(os.path.normpath(os.path.join(here, f)), wanted)]
        for name in names:
            inside = os.path.relpath(os.path.join(folder, name), source)
            if kept(inside, patterns):
                (to / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / inside, to / inside)


def _may_hold(folder: str, wanted: list[str]) -> bool:
    """Whether something of a folder may be wanted; .venv and .git are large."""
    return any(f"{w}/".startswith(f"{folder}/") or f"{folder}/".startswith(f"{w}/") for w in wanted)


def build(
    dockerfile: Path,
    files: Path,
    base: Root,
    work: Path,
    pip: bool = True,
    args: dict[str, str] | None = None,
) -> Stage:
    """Build every stage; the last one. Only RUN sees the host's configuration of pip."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, rest in instructions(dockerfile.read_text()):
        if name == "FROM":
            image, *alias = rest.split()
            assert image.startswith("debian:bookworm-"), f"no root is like {image}"
            label = alias[1] if alias else f"last-{len(stages)}"
            stage = stages[label] = Stage(base.copy(work / label))
            continue
        assert stage is not None, "FROM comes first"
        if name == "RUN":
            outside = stage.root.give_pip() if pip else {}
            env = stage.env | stage.args | outside
            done = stage.root.run(["/bin/sh", "-c", rest], env, stage.user, stage.workdir)
            assert done.returncode == 0, f"RUN {rest}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        elif name == "COPY":
            _copy(stage, rest, files, stages)
        elif name == "ARG":
            key, _, default = rest.partition("=")
            stage.args[key] = (args or {}).get(key, default.strip('"'))
        elif name == "ENV":
            stage.env |= dict(word.split("=", 1) for word in shlex.split(rest))
        elif name == "WORKDIR":
            stage.workdir = rest
            (stage.root.path / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            stage.user = rest
        elif name == "HEALTHCHECK":
            stage.health = json.loads(rest[rest.index("CMD") + 3 :])
        elif name in ("ENTRYPOINT", "CMD"):
            setattr(stage, name.lower(), json.loads(rest))
        elif name == "STOPSIGNAL":
            stage.stopsignal = rest
        else:
            assert name in _IGNORED, f"unknown instruction {name}"
    assert stage is not None
    return stage


def _copy(stage: Stage, rest: str, files: Path, stages: dict[str, Stage]) -> None:
    words = rest.split()
    source_root = files
    if words[0].startswith("--from="):
        source_root = stages[words.pop(0).removeprefix("--from=")].root.path
    *sources, target = words
    place = stage.root.path / os.path.join(stage.workdir, target).lstrip("/")
    for source in sources:
        found = source_root / source.lstrip("/")
        if found.is_dir():
            shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True)
        else:
            assert found.is_file(), f"{source} is not in the context"
            into = place / found.name if len(sources) > 1 or target.endswith("/") or place.is_dir() else place
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, into)
