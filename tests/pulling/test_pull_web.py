"""Files at addresses: ranges that hold for one version only, what is refused, and what an address may not tell."""

import hashlib
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub
from model_files import lora

from itemforge.errors import (
    ConfigurationError,
    InvalidInput,
    ModelError,
    ObjectMissing,
    SourceUnavailable,
)
from itemforge.pulling import workshop
from itemforge.pulling.means import Means
from itemforge.pulling.pull import pull
from itemforge.pulling.source import parse_source

LORA = lora(size=500_000)
HALF = 400_000


def stopped(means: Means) -> Means:
    def broken(_: float) -> None:
        raise KeyboardInterrupt

    return Means(means.settings, pause=broken)


def interrupted(hub: FakeHub, means: Means, source: str, **more: str) -> None:
    hub.cuts[source.rpartition("/")[2].partition("?")[0]] = [HALF]
    with pytest.raises(KeyboardInterrupt):
        pull(parse_source(source), stopped(means), **more)


def test_a_lora_lies_under_its_name(hub: FakeHub, home: Path, means) -> None:
    hub.web["/a/pastel.safetensors"] = LORA
    pulled = pull(parse_source(f"{hub.url}/a/pastel.safetensors"), means())
    assert pulled.place.path == home / "loras/pastel.safetensors"
    assert pulled.place.path.read_bytes() == LORA
    assert pulled.record.revision == f'"{hashlib.md5(LORA).hexdigest()}"'
    assert not pull(parse_source(f"{hub.url}/a/pastel.safetensors"), means()).fresh
    assert hub.total() == len(LORA)
    assert not list((home / "models").glob("pastel*"))


def test_an_interrupted_file_goes_on_by_range_and_etag(hub: FakeHub, means) -> None:
    hub.web["/pastel.safetensors"] = LORA
    interrupted(hub, means(), f"{hub.url}/pastel.safetensors")
    pull(parse_source(f"{hub.url}/pastel.safetensors"), means())
    last = hub.asked("pastel.safetensors")[-1].headers
    assert last["range"] == f"bytes={HALF}-"
    assert last["if-range"] == f'"{hashlib.md5(LORA).hexdigest()}"'
    assert hub.total() == len(LORA)


def test_a_file_whose_last_byte_was_here_already_is_not_downloaded_again(
    hub: FakeHub, means, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.web["/pastel.safetensors"] = LORA
    with monkeypatch.context() as killed:
        killed.setattr(workshop.Workshop, "finish", lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            pull(parse_source(f"{hub.url}/pastel.safetensors"), means())
    assert pull(parse_source(f"{hub.url}/pastel.safetensors"), means()).fresh
    assert hub.total() == len(LORA)


def test_a_file_that_changed_meanwhile_begins_anew(hub: FakeHub, home: Path, means) -> None:
    hub.web["/pastel.safetensors"] = LORA
    interrupted(hub, means(), f"{hub.url}/pastel.safetensors")
    hub.web["/pastel.safetensors"] = lora(size=500_000, seed=7)
    pull(parse_source(f"{hub.url}/pastel.safetensors"), means())
    assert (home / "loras/pastel.safetensors").read_bytes() == lora(size=500_000, seed=7)


@pytest.mark.parametrize("spoilt", ["weak", "no ranges"])
def test_a_server_that_cannot_go_on_is_asked_for_all_of_it(
    hub: FakeHub, home: Path, means, spoilt: str
) -> None:
    hub.weak, hub.heeds_ranges = spoilt == "weak", spoilt != "no ranges"
    hub.web["/pastel.safetensors"] = LORA
    interrupted(hub, means(), f"{hub.url}/pastel.safetensors")
    pull(parse_source(f"{hub.url}/pastel.safetensors"), means())
    assert (home / "loras/pastel.safetensors").read_bytes() == LORA
    assert hub.total() == len(LORA) + HALF


def test_the_sha256_that_was_given_must_hold(hub: FakeHub, home: Path, means) -> None:
    hub.web["/pastel.safetensors"] = LORA
    source = parse_source(f"{hub.url}/pastel.safetensors")
    with pytest.raises(ModelError, match="sha256"):
        pull(source, means(), sha256="0" * 64)
    assert not list(home.rglob("*.safetensors*"))
    right = hashlib.sha256(LORA).hexdigest()
    assert pull(source, means(), sha256=right).fresh
    assert not pull(source, means(), sha256=right).fresh
    with pytest.raises(InvalidInput, match="--replace"):
        pull(source, means(), sha256="0" * 64)


def test_what_was_damaged_at_home_is_removed(hub: FakeHub, home: Path, means) -> None:
    hub.web["/pastel.safetensors"] = LORA
    source = parse_source(f"{hub.url}/pastel.safetensors")
    path = pull(source, means()).place.path
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(ModelError, match="changed since it was pulled"):
        pull(source, means())
    assert not path.exists()
    assert pull(source, means()).fresh


@pytest.mark.parametrize("page", [b"<html>log in</html>", LORA[:-1], b"", b"\xff" * 100])
def test_what_is_no_model_is_not_left(hub: FakeHub, home: Path, means, page: bytes) -> None:
    hub.web["/pastel.safetensors"] = page
    with pytest.raises(ModelError):
        pull(parse_source(f"{hub.url}/pastel.safetensors"), means())
    assert not list(home.rglob("*.safetensors*"))


def test_pickles_and_other_files_are_refused_unseen(hub: FakeHub, means) -> None:
    for name, why in {
        "m.ckpt": "pickles",
        "m.bin": "pickles",
        "m.pt": "pickles",
        "m.zip": "safetensors",
    }.items():
        with pytest.raises(InvalidInput, match=why):
            pull(parse_source(f"{hub.url}/{name}"), means())
    assert hub.seen == []


def test_an_address_without_a_file_name_needs_a_name(hub: FakeHub, home: Path, means) -> None:
    hub.web["/api/download/123"] = LORA
    pull(parse_source(f"{hub.url}/api/download/123"), means(), name="pastel")
    assert (home / "loras/pastel.safetensors").is_file()
    with pytest.raises(InvalidInput, match="--as NAME"):
        pull(parse_source(f"{hub.url}/"), means())


def test_a_secret_in_an_address_is_neither_told_nor_kept(hub: FakeHub, home: Path, means) -> None:
    hub.web["/pastel.safetensors"] = LORA
    secret = f"http://user:pa55word@127.0.0.1:{hub.port}/pastel.safetensors?token=s3cret"
    pull(parse_source(secret), means())
    kept = b"".join(file.read_bytes() for file in home.rglob("*.json"))
    assert b"pa55word" not in kept
    assert b"s3cret" not in kept
    hub.status["/pastel.safetensors"] = 403
    with pytest.raises(ConfigurationError, match="403") as refused:
        pull(parse_source(secret), means(), name="other")
    assert "pa55word" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_missing_and_away(hub: FakeHub, home: Path, means) -> None:
    with pytest.raises(ObjectMissing, match="404"):
        pull(parse_source(f"{hub.url}/none.safetensors"), means())
    assert not (home / "models/none.part").exists()
    made, url = means(), hub.url
    hub.close()
    with pytest.raises(SourceUnavailable, match="check the network"):
        pull(parse_source(f"{url}/none.safetensors"), made)


def test_a_redirect_to_a_place_without_tls_is_not_followed(hub: FakeHub, means) -> None:
    hub.redirects["/pastel.safetensors"] = "http://files.example/pastel.safetensors"
    with pytest.raises(SourceUnavailable, match=r"http://files\.example"):
        pull(parse_source(f"{hub.url}/pastel.safetensors"), means())


def test_space_is_looked_at_when_the_size_is_known(
    hub: FakeHub, means, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.web["/pastel.safetensors"] = LORA
    monkeypatch.setattr(workshop.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(ConfigurationError, match=r"1\.00 MB are needed, 5 bytes are free"):
        pull(parse_source(f"{hub.url}/pastel.safetensors"), means())
