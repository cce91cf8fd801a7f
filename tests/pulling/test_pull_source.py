"""What SOURCE means, what names are allowed, and files of this machine."""

from pathlib import Path

import pytest
from model_files import BIG, checkpoint, lora, sd15, weights, write

from itemforge.errors import InvalidInput, ModelError
from itemforge.pulling.pull import pull
from itemforge.pulling.source import (
    ArtifactSource,
    HubSource,
    PackSource,
    WebSource,
    check_name,
    parse_model_source,
    parse_source,
)
from itemforge.styles.models import base_sha256, find_model, starter_dir


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hf:a/b", HubSource("a/b")),
        ("hf:a/b/c/d.safetensors", HubSource("a/b", None, "c/d.safetensors")),
        ("hf:a/b@v1.0/d.safetensors", HubSource("a/b", "v1.0", "d.safetensors")),
        ("hf:a/b@refs%2Fpr%2F1", HubSource("a/b", "refs/pr/1")),
        ("wandb:me/loras/tsuki:v3", ArtifactSource("me/loras/tsuki:v3")),
        ("wandb:me/loras/tsuki:v3/x/y.safetensors", ArtifactSource("me/loras/tsuki:v3", "x/y.safetensors")),
        ("https://h/x.safetensors?a=b", WebSource("https://h/x.safetensors?a=b")),
        ("http://localhost:1/x", WebSource("http://localhost:1/x")),
        ("tsuki", PackSource("tsuki")),
    ],
)
def test_each_form_is_read(text: str, meant: object) -> None:
    assert parse_source(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sd-15", "did you mean sd15"),
        ("tsuky", "did you mean tsuki"),
        ("", "say what to pull"),
        ("hf:alone", "hf:ORG/REPO"),
        ("wandb:me/loras/tsuki", "VERSION"),
        ("http://example.com/x.safetensors", "refused"),
        ("https://", "cannot be read"),
        ("s3://bucket/x", "no source"),
        ("./none", "no file or folder"),
        ("\0", "not known"),
        ("~nobody-here/x", "cannot be looked at"),
    ],
)
def test_each_mistake_says_what_to_do(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_source(text)


def test_a_revision_is_for_the_hub() -> None:
    assert parse_source("sd15", "abc") == HubSource(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "abc", alias="sd15"
    )
    for text, revision in (("https://h/x.safetensors", "a"), ("hf:a/b@c", "d"), ("tsuki", "a")):
        with pytest.raises(InvalidInput):
            parse_source(text, revision)
    with pytest.raises(InvalidInput, match="pack"):
        parse_model_source("tsuki")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "starter", "x.part", "x y", "x" * 200, "x.toml"])
def test_a_name_stays_in_its_folder(name: str) -> None:
    with pytest.raises(InvalidInput, match="--as"):
        check_name(name)


def test_a_folder_is_copied_without_what_is_not_needed(tmp_path: Path, home: Path, means) -> None:
    original = write(tmp_path / "mine", sd15())
    told: list[tuple[str, int, int | None]] = []
    pull(parse_source(str(original)), means(tell=lambda *heard: told.append(heard)))
    assert find_model("mine", home) == home / "models/mine"
    assert not (home / "models/mine/safety_checker").exists()
    name = "unet/diffusion_pytorch_model.fp16.safetensors"
    size = len(sd15()[name])
    assert size > BIG
    assert (name, size, size) in told
    assert not pull(parse_source(str(original)), means()).fresh
    (original / "unet/config.json").write_text('{"sample_size": 96}')
    with pytest.raises(InvalidInput, match="--replace"):
        pull(parse_source(str(original)), means())
    assert pull(parse_source(str(original)), means(), replace=True).fresh
    assert "96" in (home / "models/mine/unet/config.json").read_text()


def test_a_model_in_shards_is_the_same_base_model(home: Path, means) -> None:
    pulled = pull(parse_source(str(starter_dir())), means(), name="small")
    assert base_sha256(pulled.place.path) == base_sha256(starter_dir())
    assert not (pulled.place.path / "styles").exists()


def test_files_go_where_their_keys_say(tmp_path: Path, home: Path, means) -> None:
    write(
        tmp_path, {"l.safetensors": lora(), "c.safetensors": checkpoint(), "v.safetensors": weights("vae.x")}
    )
    assert pull(parse_source("l.safetensors"), means()).place.path == home / "loras/l.safetensors"
    assert pull(parse_source("./c.safetensors"), means()).place.path == home / "models/c.safetensors"
    with pytest.raises(ModelError, match="neither a LoRA nor"):
        pull(parse_source("v.safetensors"), means())
    assert not list(home.rglob("v.*"))


def test_pickles_of_this_machine_are_refused(tmp_path: Path, means) -> None:
    write(tmp_path, {"m.ckpt": b"", "folder/m.bin": b""})
    for source in ("m.ckpt", "folder"):
        with pytest.raises(InvalidInput, match="pickles"):
            pull(parse_source(f"{tmp_path}/{source}"), means())


def test_a_model_that_was_put_there_by_hand_is_left_alone(tmp_path: Path, home: Path, means) -> None:
    write(tmp_path, {"l.safetensors": lora()})
    write(home / "loras", {"l.safetensors": b"by hand"})
    with pytest.raises(InvalidInput, match="not put there by a pull"):
        pull(parse_source("l.safetensors"), means())
    assert (home / "loras/l.safetensors").read_bytes() == b"by hand"
