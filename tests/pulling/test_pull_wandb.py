"""Artifacts of W&B: the pull against a fake of the client's contract, and what the client's errors mean."""

import base64
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from model_files import lora, write

from itemforge.errors import (
    ConfigurationError,
    InvalidInput,
    ModelError,
    ObjectMissing,
    SourceUnavailable,
)
from itemforge.pulling.choice import Entry
from itemforge.pulling.pull import pull
from itemforge.pulling.source import parse_source
from itemforge.pulling.wandb_client import Chooser, refused, wandb_artifact

SOURCE = "wandb:me/loras/tsuki:v3"


class FakeArtifacts:
    """Keeps to the contract of `wandb_artifact`; `spoilt` bytes are written instead of those that are listed."""

    def __init__(self, files: dict[str, bytes], spoilt: bytes | None = None) -> None:
        self.files = files
        self.spoilt = spoilt
        self.calls: list[tuple[str, str | None]] = []
        self.written: list[str] = []

    def __call__(self, reference: str, into: Path, choose: Chooser, api_key: str | None) -> None:
        self.calls.append((reference, api_key))
        listed = [Entry(name, len(data), md5=md5(data)) for name, data in self.files.items()]
        chosen: Sequence[Entry] = choose("v3 digest", listed)
        for entry in chosen:
            self.written.append(entry.path)
            write(into, {entry.path: self.files[entry.path] if self.spoilt is None else self.spoilt})


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def test_the_one_file_of_weights_is_taken(home: Path, means, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    fake = FakeArtifacts({"lora_adapter.safetensors": lora(), "notes.txt": b"hello"})
    pulled = pull(parse_source(SOURCE), means(artifact=fake))
    assert pulled.place.path == home / "loras/tsuki.safetensors"
    assert pulled.record.revision == "v3 digest"
    assert fake.calls == [("me/loras/tsuki:v3", "k" * 40)]
    assert fake.written == ["lora_adapter.safetensors"]
    assert not pull(parse_source(SOURCE), means(artifact=fake)).fresh
    assert len(fake.calls) == 1
    assert sorted(p.name for p in (home / "models").iterdir()) == [".tsuki.lock"]


def test_one_of_several_files_is_named(home: Path, means) -> None:
    fake = FakeArtifacts({"a.safetensors": lora(), "b/c.safetensors": lora(seed=3)})
    with pytest.raises(InvalidInput, match="name one"):
        pull(parse_source(SOURCE), means(artifact=fake))
    assert pull(parse_source(f"{SOURCE}/b/c.safetensors"), means(artifact=fake)).name == "c"
    assert (home / "loras/c.safetensors").read_bytes() == lora(seed=3)
    with pytest.raises(ObjectMissing, match=r"b/c\.safetensors"):
        pull(parse_source(f"{SOURCE}/b/d.safetensors"), means(artifact=fake))


def test_the_digest_must_hold(home: Path, means) -> None:
    fake = FakeArtifacts({"a.safetensors": lora()}, spoilt=lora(seed=5))
    with pytest.raises(ModelError, match="MD5"):
        pull(parse_source(SOURCE), means(artifact=fake))
    assert not list(home.rglob("*.safetensors*"))


def test_unsafe_names_and_pickles_are_refused(home: Path, means) -> None:
    with pytest.raises(ModelError, match="unsafe"):
        pull(parse_source(SOURCE), means(artifact=FakeArtifacts({"../../a.safetensors": lora()})))
    with pytest.raises(InvalidInput, match="pickles"):
        pull(parse_source(SOURCE), means(artifact=FakeArtifacts({"a.pt": b""})))
    assert not list(home.parent.rglob("a.safetensors"))


def test_without_a_key_the_real_client_says_which_setting(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with pytest.raises(ConfigurationError, match="WANDB_API_KEY"):
        wandb_artifact("me/loras/tsuki:v3", tmp_path, lambda _, entries: entries, None)


def test_without_wandb_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'itemforge\[train\]'"):
        wandb_artifact("me/loras/tsuki:v3", tmp_path, lambda _, entries: entries, None)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("No API key configured. Use `wandb login` to log in.", ConfigurationError),
        ("HTTP 403: permission denied", ConfigurationError),
        ("API key verification failed for host x", ConfigurationError),
        ("HTTP 404: artifact 'me/loras/tsuki:v3' not found in 'me/loras'", ObjectMissing),
        ("Failed to verify credentials: the service process did not respond in time", SourceUnavailable),
        ("dial tcp: lookup api.wandb.ai: no such host", SourceUnavailable),
        ("HTTP 500", SourceUnavailable),
    ],
)
def test_what_the_client_says_has_a_meaning(said: str, meant: type[Exception]) -> None:
    assert type(refused(Exception(said), "me/loras/tsuki:v3")) is meant
