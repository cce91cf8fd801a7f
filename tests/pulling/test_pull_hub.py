"""The hub's real client against a hub on loopback: what is taken, cut connections, refusals, tampering."""

import hashlib
import json
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from fake_hub import FakeHub, Repo
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory
from model_files import BIG, COMMIT, NEEDED_FILES, SD15, UNNEEDED, checkpoint, lora, sd15

from itemforge.errors import (
    ConfigurationError,
    InvalidInput,
    ModelError,
    ObjectMissing,
    SourceUnavailable,
)
from itemforge.pulling import workshop
from itemforge.pulling.pull import pull
from itemforge.pulling.source import parse_source
from itemforge.styles.models import base_sha256, describe, find_model

UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
BIG_NAME = "diffusion_pytorch_model.fp16.safetensors"


def test_sd15_has_the_files_that_the_engine_reads_and_no_others(hub: FakeHub, home: Path, means) -> None:
    pulled = pull(parse_source("sd15"), means())
    found = find_model("sd15", home)
    assert found == pulled.place.path == home / "models" / "sd15"
    names = {f.relative_to(found).as_posix() for f in found.rglob("*") if f.is_file()} - {"pulled.json"}
    assert names == set(sd15()) - set(UNNEEDED)
    assert len(names) == NEEDED_FILES
    assert all((found / name).read_bytes() == sd15()[name] for name in names)
    assert describe("sd15", home).width == 512
    assert not (home / "models" / "sd15.part").exists()


def test_the_record_says_where_it_is_from(hub: FakeHub, home: Path, means) -> None:
    pull(parse_source("sd15"), means())
    record = json.loads((home / "models/sd15/pulled.json").read_text())
    assert record["source"] == f"hf:{SD15}"
    assert record["revision"] == COMMIT
    assert record["pulled"].startswith("20")
    assert set(record["files"]) == set(sd15()) - set(UNNEEDED)
    assert record["files"][UNET]["size"] == len(sd15()[UNET])
    assert record["files"][UNET]["sha256"] == hub_sha256(UNET)


def hub_sha256(name: str) -> str:
    return hashlib.sha256(sd15()[name]).hexdigest()


def test_a_repeated_pull_checks_and_downloads_nothing(hub: FakeHub, means) -> None:
    assert pull(parse_source("sd15"), means()).fresh
    hub.seen.clear()
    assert not pull(parse_source("sd15"), means()).fresh
    assert hub.seen == []


def test_cut_connections_cost_no_byte_twice(hub: FakeHub, means) -> None:
    hub.cuts[BIG_NAME] = [1_000_000, 700_000, 1]
    pull(parse_source("sd15"), means())
    assert hub.sent[BIG_NAME] == len(sd15()[UNET]) + len(sd15()["vae/" + BIG_NAME])
    assert [seen.headers.get("range") is None for seen in hub.asked(UNET)] == [True, False, False, False]


def test_an_interrupted_pull_goes_on_in_the_next(hub: FakeHub, home: Path, means) -> None:
    hub.cuts[BIG_NAME] = [BIG // 2]

    def broken(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(parse_source("sd15"), means().__class__(means().settings, pause=broken))
    with pytest.raises(ModelError):
        find_model("sd15", home)
    before = hub.total()
    pull(parse_source("sd15"), means())
    needed = sum(len(data) for name, data in sd15().items() if name not in UNNEEDED)
    assert before >= BIG // 2
    assert hub.total() == needed


def test_a_file_of_another_commit_is_not_continued(hub: FakeHub, home: Path, means) -> None:
    hub.cuts[BIG_NAME] = [BIG // 2]

    def broken(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(parse_source("sd15"), means().__class__(means().settings, pause=broken))
    changed = sd15()
    changed[UNET] = changed[UNET][:-5] + b"other"
    changed["tokenizer/new.json"] = changed.pop("tokenizer/vocab.json")
    hub.repos[SD15] = Repo(changed, commit="b" * 40)
    pull(parse_source("sd15"), means())
    assert (home / "models/sd15" / UNET).read_bytes() == changed[UNET]
    assert not (home / "models/sd15/tokenizer/vocab.json").exists()


def test_a_file_that_is_not_as_listed_is_an_error_and_gone(hub: FakeHub, home: Path, means) -> None:
    data = hub.repos[SD15].files[UNET]
    hub.repos[SD15].lists[UNET] = {"lfs": {"size": len(data), "sha256": "0" * 64, "pointerSize": 134}}
    with pytest.raises(ModelError, match="sha256"):
        pull(parse_source("sd15"), means())
    assert not (home / "models/sd15").exists()
    assert not list(home.rglob(BIG_NAME + "*"))
    hub.repos[SD15].lists.clear()
    assert pull(parse_source("sd15"), means()).fresh


def test_a_file_with_another_length_than_listed_is_an_error(hub: FakeHub, home: Path, means) -> None:
    hub.repos[SD15].lists["unet/config.json"] = {"size": 3}
    with pytest.raises(ModelError, match="listed with 3"):
        pull(parse_source("sd15"), means())
    assert not (home / "models/sd15").exists()


def test_what_was_damaged_at_home_is_found_removed_and_alone_pulled_again(
    hub: FakeHub, home: Path, means
) -> None:
    pull(parse_source("sd15"), means())
    path = home / "models/sd15/vae" / BIG_NAME
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(ModelError, match="vae/"):
        pull(parse_source("sd15"), means())
    with pytest.raises(ModelError):
        find_model("sd15", home)
    before = hub.total()
    assert pull(parse_source("sd15"), means()).fresh
    assert hub.total() - before == len(sd15()["vae/" + BIG_NAME])
    assert path.read_bytes() == sd15()["vae/" + BIG_NAME]


def test_a_name_that_leads_out_is_refused_before_anything_is_written(hub: FakeHub, home: Path, means) -> None:
    for name in ("tokenizer/../../../evil.json", "/etc/evil.json", "..\\evil.json", "unet/../../evil.json"):
        hub.repos[SD15] = Repo(sd15() | {name: b"{}"})
        with pytest.raises(ModelError, match="unsafe name"):
            pull(parse_source("sd15"), means())
    assert not list(home.rglob("*evil*"))
    assert hub.total() == 0


def test_a_revision_is_asked_for_and_recorded(hub: FakeHub, home: Path, means) -> None:
    hub.repos["me/loras"] = Repo({"sub/pastel.safetensors": lora(), "README.md": b""})
    pulled = pull(parse_source(f"hf:me/loras@{COMMIT}/sub/pastel.safetensors"), means())
    assert pulled.place.path == home / "loras" / "pastel.safetensors"
    assert pulled.record.revision == COMMIT
    assert pulled.place.record_file == home / "loras" / "pastel.pulled.json"
    with pytest.raises(ObjectMissing, match="no revision old"):
        pull(parse_source("hf:me/loras/sub/pastel.safetensors", "old"), means(), name="other")


def test_a_repository_with_one_file_of_weights_is_that_file(hub: FakeHub, home: Path, means) -> None:
    hub.repos["me/full"] = Repo({"full.safetensors": checkpoint(), "config.json": b"{}"})
    assert pull(parse_source("hf:me/full"), means()).place.path == home / "models/full.safetensors"
    assert find_model("full", home) == home / "models/full.safetensors"
    hub.repos["me/two"] = Repo({"a.safetensors": lora(), "b.safetensors": lora()})
    with pytest.raises(InvalidInput, match=r"a\.safetensors"):
        pull(parse_source("hf:me/two"), means())


def test_a_repository_without_half_precision_is_taken_in_full(hub: FakeHub, home: Path, means) -> None:
    files = {name.replace(".fp16", ""): data for name, data in sd15().items() if name not in UNNEEDED}
    hub.repos["me/plain"] = Repo(files)
    pull(parse_source("hf:me/plain"), means())
    assert len(base_sha256(find_model("plain", home))) == 64


def test_pickles_are_refused_with_the_reason(hub: FakeHub, means) -> None:
    hub.repos["me/pickle"] = Repo({"model.bin": b"x"})
    for source in ("hf:me/pickle", "hf:me/pickle/model.bin"):
        with pytest.raises(InvalidInput, match="pickles"):
            pull(parse_source(source), means())


def test_a_missing_file_has_a_suggestion(hub: FakeHub, means) -> None:
    hub.repos["me/loras"] = Repo({"pastel.safetensors": lora()})
    with pytest.raises(ObjectMissing, match=r"did you mean pastel\.safetensors"):
        pull(parse_source("hf:me/loras/pastell.safetensors"), means())


def test_a_token_is_sent_to_the_hub_and_to_nobody_else(
    hub: FakeHub, means, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["me/private"] = Repo({"x.safetensors": lora()}, token="hf_right")
    with pytest.raises(ConfigurationError, match="HF_TOKEN"):
        pull(parse_source("hf:me/private"), means())
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_secret")
    with pytest.raises(ConfigurationError, match="HF_TOKEN") as refused:
        pull(parse_source("hf:me/private"), means())
    assert "hf_wrong_secret" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    hub.cdn = True
    hub.seen.clear()
    pull(parse_source("hf:me/private"), means())
    with_token = {seen.host.partition(":")[0] for seen in hub.seen if "authorization" in seen.headers}
    assert with_token == {"127.0.0.1"}
    assert any(seen.host.startswith("localhost") for seen in hub.seen)


def test_cut_connections_of_another_host_are_continued(hub: FakeHub, means) -> None:
    hub.cdn = True
    hub.cuts[BIG_NAME] = [1_000_000]
    pull(parse_source("sd15"), means())
    assert hub.sent[BIG_NAME] == len(sd15()[UNET]) + len(sd15()["vae/" + BIG_NAME])


def test_a_gated_repository_says_what_to_do(hub: FakeHub, means) -> None:
    hub.repos["me/gated"] = Repo({"x.safetensors": lora()}, gated=True)
    with pytest.raises(ConfigurationError, match=r"gated: accept its terms .* HF_TOKEN"):
        pull(parse_source("hf:me/gated"), means())


def test_a_hub_that_is_away_says_what_to_do(hub: FakeHub, means) -> None:
    made = means()
    hub.close()
    with pytest.raises(SourceUnavailable, match="network"):
        pull(parse_source("sd15"), made)


def test_a_server_that_fails_for_good_is_given_up(hub: FakeHub, means) -> None:
    hub.status[f"/{SD15}/resolve/{COMMIT}/model_index.json"] = 503
    with pytest.raises(SourceUnavailable, match="model_index"):
        pull(parse_source("sd15"), means())


def test_a_hub_with_a_certificate_of_its_own_is_believed_by_the_setting(
    home: Path, means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    hub = FakeHub(context)
    try:
        hub.repos["me/loras"] = Repo({"x.safetensors": lora()})
        hub.web["/y.safetensors"] = lora(seed=1)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for source in ("hf:me/loras", f"{hub.url}/y.safetensors"):
            with pytest.raises(SourceUnavailable, match="ITEMFORGE_CA_FILE"):
                pull(parse_source(source), means(), name="x")
        monkeypatch.setenv("ITEMFORGE_CA_FILE", str(tmp_path / "ca.pem"))
        assert pull(parse_source("hf:me/loras"), means(), name="x").fresh
        assert pull(parse_source(f"{hub.url}/y.safetensors"), means()).fresh
    finally:
        set_client_factory(default_client_factory)
        hub.close()


def test_space_is_looked_at_beforehand(hub: FakeHub, means, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(workshop.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConfigurationError, match=r"3\.00 MB are needed, 1\.00 MB are free"):
        pull(parse_source("sd15"), means())
    assert hub.total() == 0


def test_two_pulls_at_once_download_once(hub: FakeHub, means) -> None:
    results: list[bool] = []
    pulls = [
        threading.Thread(target=lambda: results.append(pull(parse_source("sd15"), means()).fresh))
        for _ in range(3)
    ]
    for each in pulls:
        each.start()
    for each in pulls:
        each.join(60)
    assert sorted(results) == [False, False, True]
    assert hub.total() == sum(len(data) for name, data in sd15().items() if name not in UNNEEDED)


def test_another_source_does_not_take_a_name_that_is_taken(hub: FakeHub, home: Path, means) -> None:
    hub.repos["me/loras"] = Repo({"a.safetensors": lora(), "b.safetensors": lora(seed=9)})
    pull(parse_source("hf:me/loras/a.safetensors"), means(), name="mine")
    with pytest.raises(InvalidInput, match="--replace"):
        pull(parse_source("hf:me/loras/b.safetensors"), means(), name="mine")
    pull(parse_source("hf:me/loras/b.safetensors"), means(), name="mine", replace=True)
    assert (home / "loras/mine.safetensors").read_bytes() == lora(seed=9)


def test_a_diffusers_model_is_replaced_whole(hub: FakeHub, home: Path, means) -> None:
    pull(parse_source("sd15"), means())
    changed = sd15() | {"tokenizer/more.json": b"{}"}
    del changed["tokenizer/merges.txt"]
    hub.repos[SD15] = Repo(changed, commit="c" * 40)
    assert pull(parse_source("sd15"), means(), replace=True).record.revision == "c" * 40
    assert (home / "models/sd15/tokenizer/more.json").is_file()
    assert not (home / "models/sd15/tokenizer/merges.txt").exists()
    assert sorted(p.name for p in (home / "models").iterdir()) == [".sd15.lock", "sd15"]
