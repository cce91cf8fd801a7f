"""The commands, from a folder of pictures to a style that a gateway finds."""

import asyncio
from pathlib import Path

import pytest
from lora_set import PICTURES, TRIGGER, tiny_lora, write_toml
from typer.testing import CliRunner

from itemforge.cli.app import app
from itemforge.errors import InvalidInput
from itemforge.storage.folder import FolderStore
from itemforge.styles.catalog import Catalog


@pytest.fixture
def environment(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the registry is."""
    monkeypatch.setenv("ITEMFORGE_HOME", str(home))
    monkeypatch.setenv("ITEMFORGE_STORAGE_URL", (tmp_path / "objects").as_uri())
    return tmp_path / "objects"


def _said(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


async def _current(objects: Path, home: Path) -> str:
    return (await Catalog(FolderStore(objects), home).get("tsuki")).name


def test_from_pictures_to_a_style_that_a_gateway_finds(
    base: Path, pictures: Path, home: Path, tmp_path: Path, environment: Path
) -> None:
    told = tiny_lora(base, pictures, tmp_path).model_copy(update={"learning_rate": 3e-2})
    config = write_toml(told, tmp_path / "c.toml")
    assert f"{PICTURES} pictures to train on" in _said("data", "doctor", "--config", str(config))
    assert "the LoRA is in" in _said("train", "lora", "--cpu", "--config", str(config))
    file = tmp_path / "run/lora/tsuki.safetensors"
    assert f"trigger {TRIGGER}" in _said("train", "verify", str(file), "--base", str(base))
    for version in (1, 2):
        assert f"tsuki@{version} is published" in _said("train", "publish", "--config", str(config))
    assert asyncio.run(_current(environment, home)) == "tsuki@2"
    assert "tsuki means tsuki@1 now; it was tsuki@2" in _said("styles", "rollback", "tsuki")
    assert asyncio.run(_current(environment, home)) == "tsuki@1"
    assert _said("styles", "versions", "tsuki").strip() == "tsuki@1, tsuki@2"


def test_the_doctor_refuses_a_set_that_is_not_ready(
    base: Path, pictures: Path, tmp_path: Path, environment: Path
) -> None:
    told = tiny_lora(base, pictures, tmp_path).model_copy(update={"trigger": "other"})
    config = write_toml(told, tmp_path / "c.toml")
    result = CliRunner().invoke(app, ["data", "doctor", "--config", str(config)])
    assert isinstance(result.exception, InvalidInput)
    assert f"{PICTURES} × no trigger 'other' in the caption" in str(result.exception)


def test_what_goes_into_a_folder_is_not_shared(
    base: Path, pictures: Path, tmp_path: Path, environment: Path
) -> None:
    config = write_toml(tiny_lora(base, pictures, tmp_path), tmp_path / "c.toml")
    arguments = ["train", "publish", "--config", str(config), "--folder", str(tmp_path / "styles")]
    result = CliRunner().invoke(app, [*arguments, "--hub", "studio/tsuki"])
    assert isinstance(result.exception, InvalidInput) and "leave --folder out" in str(result.exception)


def test_what_was_not_trained_cannot_be_published(
    base: Path, pictures: Path, tmp_path: Path, environment: Path
) -> None:
    config = write_toml(tiny_lora(base, pictures, tmp_path), tmp_path / "c.toml")
    result = CliRunner().invoke(app, ["train", "publish", "--config", str(config)])
    assert isinstance(result.exception, InvalidInput) and "train the LoRA first" in str(result.exception)
