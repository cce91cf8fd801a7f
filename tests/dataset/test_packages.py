"""npm packages: fetched by the client once, read without unpacking."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from icon_packages import pack

from itemforge.dataset.packages import Archive, Package, fetch
from itemforge.errors import ConfigurationError, InvalidInput

THING = Package("@studio/things", "1.2.3")


def _npm(folder: Path, script: str) -> str:
    """A client of that name; returns the PATH with it in front."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_a_package_is_fetched_once_by_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.tgz"
    pack(source, {"a.json": b"{}"})
    script = f'echo "$@" >> {tmp_path}/calls; cp {source} "$4/studio-things-1.2.3.tgz"'
    monkeypatch.setenv("PATH", _npm(tmp_path / "bin", script))
    for _ in range(2):
        path = fetch(THING, tmp_path / "packages")
        assert path.read_bytes() == source.read_bytes()
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.split() == [
        "pack",
        "--silent",
        "--pack-destination",
        str(tmp_path / "packages"),
        "@studio/things@1.2.3",
    ]


def test_without_the_client_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"install Node\.js .* `npm pack @studio/things@1\.2\.3`"):
        fetch(THING, tmp_path)


def test_what_the_client_complains_of_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", _npm(tmp_path / "bin", "echo 'npm error 404 not found' >&2; exit 1"))
    with pytest.raises(ConfigurationError, match="404 not found"):
        fetch(THING, tmp_path)


def test_members_are_read_by_name_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "p.tgz"
    pack(path, {"a.json": b'{"a": 1}', "assets/1.webp": b"1", "assets/2.webp": b"2", "../../outside": b"x"})
    with Archive(path) as archive:
        assert archive.json("a.json") == {"a": 1}
        assert dict(archive.walk("assets/", ".webp")) == {"1": b"1", "2": b"2"}
        assert archive.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(InvalidInput, match=r"there is no b\.json"):
            archive.read("b.json")
    assert not list(tmp_path.parent.glob("**/outside"))


@pytest.mark.parametrize(
    "spoil", [lambda data: data[: len(data) // 2], lambda data: b"no archive", lambda data: b""]
)
def test_a_damaged_archive_is_an_error_that_says_what_to_do(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "p.tgz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("package/a.json")
        data = bytes(range(256)) * 4096
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    assert callable(spoil)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InvalidInput, match="delete it"), Archive(path) as archive:
        archive.read("a.json")
