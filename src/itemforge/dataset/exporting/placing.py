"""Puts an export in its place, whole or not at all, and never over what it did not make.

An exported folder lists its files with their sha256 in `.itemforge-export`; an archive says in its comment what it is.
"""

import glob
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from itemforge.errors import ConfigurationError
from itemforge.styles.files import file_sha256

MARKER = ".itemforge-export"
_COMMENT = b"itemforge data export"
#: Every member of an archive has it, so that the same set gives the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def place_folder(out: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, then put it at `out` in place of an earlier export.

    Raises:
        ConfigurationError: `out` has something that no export made, or that was changed since.
        OSError: it cannot be written.
    """
    _check_folder(out)
    out = out.absolute()
    made, old = (out.with_name(f".{out.name}.{uuid4().hex}.{kind}") for kind in ("writing", "old"))
    try:
        made.mkdir(parents=True)
        write(made)
        files = {path.relative_to(made).as_posix(): file_sha256(path) for path in _files(made)}
        (made / MARKER).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
        if out.exists():
            out.rename(old)
        made.rename(out)
        _sweep(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(old, ignore_errors=True)


def place_archive(out: Path, write: Callable[[Path], None]) -> None:
    """The same as a zip archive."""
    if out.exists() and not _is_own_archive(out):
        raise ConfigurationError(f"{out} is no archive that an export made; name another file")
    out = out.absolute()
    made = out.with_name(f".{out.name}.{uuid4().hex}.writing")
    archive = made.with_suffix(".part")
    try:
        made.mkdir(parents=True)
        write(made)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
            for path in _files(made):
                member = zipfile.ZipInfo(path.relative_to(made).as_posix(), _TIME)
                member.external_attr = 0o100644 << 16
                opened.writestr(member, path.read_bytes())
            opened.comment = _COMMENT
        archive.replace(out)
        _sweep(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        archive.unlink(missing_ok=True)


def _sweep(out: Path) -> None:
    """What killed exports left beside it."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*"):
        if re.fullmatch(r"[0-9a-f]{32}\.(writing|old|part)", left.name.removeprefix(f".{out.name}.")):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _check_folder(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigurationError(f"{out} is no folder; name another one")
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        told: dict[str, str] = json.loads((out / MARKER).read_text(encoding="utf-8"))["files"]
        ours = dict(told)
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{out} is not empty, and no export made it; name another folder") from None
    for path in _files(out):
        name = path.relative_to(out).as_posix()
        if name != MARKER and (path.is_symlink() or ours.get(name) != file_sha256(path)):
            raise ConfigurationError(
                f"{name} in {out} is not as the export made it; move it away, or name another folder"
            )


def _is_own_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as opened:
            return opened.comment == _COMMENT
    except (OSError, zipfile.BadZipFile):
        return False
