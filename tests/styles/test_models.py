"""Models are found by name, identified by what they hold, and described without torch."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from itemforge.errors import ModelError
from itemforge.styles.models import base_sha256, describe, find_model, starter_dir, weight_files


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "home" / "models").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def copy(tmp_path) -> Path:
    return shutil.copytree(starter_dir(), tmp_path / "copy")


def header_only(path: Path, names: dict[str, list[int]]) -> Path:
    """A safetensors file that has a header and nothing else."""
    header = {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for name, shape in names.items()}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def test_the_starter_is_described_from_its_configuration(home):
    facts = describe("starter", home)
    assert (facts.name, facts.path) == ("starter", starter_dir())
    assert (facts.width, facts.height, facts.vae_scale_factor) == (64, 64, 4)
    assert (facts.size.width, facts.size.min, facts.size.max) == (64, 32, 128)


def test_describing_a_model_imports_no_torch(home):
    code = (
        "import sys; from pathlib import Path; from itemforge.styles.models import describe; "
        "from itemforge.styles.catalog import Catalog; describe('starter', Path(sys.argv[1])); "
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(home)], check=False).returncode == 0


def test_a_model_is_found_at_home_by_name_or_anywhere_by_path(home, copy):
    at_home = shutil.copytree(copy, home / "models" / "mine")
    file = header_only(home / "models" / "single.safetensors", {})
    assert find_model("mine", home) == at_home
    assert find_model("single", home) == file
    assert find_model(str(copy), home) == copy
    assert find_model("./copy", home) == copy  # the test runs in the folder above it


def test_a_missing_model_says_where_it_was_looked_for(home):
    with pytest.raises(ModelError, match=r"no model 'nowhere'.*models/nowhere"):
        find_model("nowhere", home)
    (home / "models" / "old.ckpt").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="no model"):
        find_model(str(home / "models" / "old.ckpt"), home)


def test_the_base_is_that_of_the_files_wherever_they_lie(home, copy):
    assert base_sha256(copy) == base_sha256(starter_dir(), home)


@pytest.mark.parametrize(
    ("file", "matters"),
    [
        ("unet/config.json", True),
        ("tokenizer/tokenizer.json", True),
        ("scheduler/scheduler_config.json", True),
        ("vae/diffusion_pytorch_model.safetensors", True),
        ("unet/diffusion_pytorch_model-00002-of-00003.safetensors", True),
        ("README.md", False),
        ("styles/plain.toml", False),
        ("unet/diffusion_pytorch_model.non_ema.safetensors", False),
    ],
)
def test_the_base_changes_with_what_decides_pixels_and_with_nothing_else(file, matters, copy):
    before = base_sha256(copy)
    with (copy / file).open("ab") as changed:
        changed.write(b" ")
    assert (base_sha256(copy) != before) is matters


def test_the_base_of_a_checkpoint_is_the_sha256_of_the_file(tmp_path):
    file = header_only(tmp_path / "a.safetensors", {})
    assert base_sha256(file) == base_sha256(file.rename(tmp_path / "b.safetensors"))


def test_hashes_are_remembered_until_a_file_changes(home, copy, monkeypatch):
    read = []
    from itemforge.styles import models

    hash_file = models.file_sha256
    monkeypatch.setattr(models, "file_sha256", lambda path: read.append(path) or hash_file(path))
    before = base_sha256(copy, home)
    count = len(read)
    assert base_sha256(copy, home) == before
    assert len(read) == count
    (copy / "unet" / "config.json").write_text("{}")
    assert base_sha256(copy, home) != before
    assert len(read) == count + 1


@pytest.mark.parametrize("content", ["", "[]", "nonsense", '{"/x": 3}'])
def test_a_broken_cache_of_hashes_is_made_anew(content, home, copy):
    before = base_sha256(copy)
    (home / "cache").mkdir()
    (home / "cache" / "hashes.json").write_text(content)
    assert base_sha256(copy, home) == before
    assert base_sha256(copy, home) == before


def test_hashes_that_cannot_be_kept_are_made_each_time(tmp_path, copy):
    (tmp_path / "a file").write_text("")
    assert base_sha256(copy, tmp_path / "a file") == base_sha256(copy)


def test_float16_weights_are_taken_where_there_are_no_others(copy):
    whole = copy / "vae" / "diffusion_pytorch_model.safetensors"
    half = whole.rename(copy / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    assert weight_files(copy / "vae") == [half]
    assert len(weight_files(copy / "unet")) == 4  # an index and its shards


def test_pickled_weights_are_never_taken(copy):
    (copy / "vae" / "diffusion_pytorch_model.safetensors").rename(
        copy / "vae" / "diffusion_pytorch_model.bin"
    )
    with pytest.raises(ModelError, match="pickled weights"):
        base_sha256(copy)


def test_an_index_cannot_lead_out_of_its_folder(copy):
    index = copy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(ModelError, match="outside its folder"):
        base_sha256(copy)


def test_a_lost_shard_is_named(copy):
    (copy / "unet" / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match=r"00002-of-00003\.safetensors is missing"):
        base_sha256(copy)


def test_a_gateway_without_weights_reads_a_card(home):
    (home / "models" / "sd15.toml").write_text(f'base = "{"ab" * 32}"\nwidth = 512\nheight = 512\n')
    facts = describe("sd15", home)
    assert (facts.path, facts.base, facts.vae_scale_factor) == (None, "ab" * 32, 8)
    assert (facts.size.min, facts.size.max) == (256, 1024)


def test_a_wrong_card_is_named(home):
    (home / "models" / "sd15.toml").write_text("width = 512")
    with pytest.raises(ModelError, match=r"sd15\.toml is not valid.*base"):
        describe("sd15", home)


def test_a_checkpoint_is_described_from_its_header(home):
    levels = {f"first_stage_model.decoder.up.{n}.block.0.conv1.weight": [8, 8, 3, 3] for n in range(4)}
    file = header_only(home / "models" / "sd.safetensors", levels)
    facts = describe("sd", home)
    assert (facts.name, facts.path, facts.vae_scale_factor) == ("sd", file, 8)
    assert (facts.width, facts.height) == (512, 512)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b"{"]
)
def test_a_file_that_is_no_checkpoint_is_named(content, home):
    (home / "models" / "bad.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.safetensors is no readable safetensors file"):
        describe("bad", home)


def test_a_directory_that_is_no_model_is_named(tmp_path, home):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no diffusers model"):
        describe(str(tmp_path / "empty"), home)
