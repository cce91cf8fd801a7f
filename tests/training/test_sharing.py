"""What is given to a hub."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError

from itemforge.errors import ConfigurationError
from itemforge.styles.local import LocalPack
from itemforge.styles.pack import PackLora, StylePack, parse
from itemforge.training.sharing import to_hub, write_pack, write_shared

PACK = StylePack(
    id="tsuki", version=3, trigger="trg", template="{prompt}, icon", licence="CC-BY-4.0",
    lora=(PackLora(sha256="a" * 64),),
)  # fmt: skip


class FakeHub:
    """Remembers; the same calls as HfApi's."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._error = error

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        if self._error:
            raise self._error
        self.calls.append((repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        files = sorted(path.name for path in Path(folder_path).iterdir())
        self.calls.append((repo_id, files, commit_message))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x.safetensors").write_bytes(b"lora")
    return write_shared(PACK, tmp_path / "x.safetensors", tmp_path / "shared")


def test_a_repository_is_private_and_has_lora_pack_and_card(folder: Path) -> None:
    hub = FakeHub()
    assert to_hub(PACK, folder, "studio/tsuki", hub) == "studio/tsuki"
    assert hub.calls == [
        ("studio/tsuki", True, True),
        ("studio/tsuki", ["README.md", "tsuki.safetensors", "tsuki.toml"], "tsuki@3"),
    ]
    card = (folder / "README.md").read_text()
    assert "instance_prompt: trg" in card and "license_name: CC-BY-4.0" in card


def test_a_missing_token_is_told(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="HF_TOKEN"):
        to_hub(PACK, folder, "studio/tsuki", FakeHub(LocalTokenNotFoundError("no token")))


def test_a_pack_in_a_folder_has_its_lora_beside_it(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"lora")
    made = write_pack(PACK, tmp_path / "x.safetensors", 0.7, tmp_path / "styles")
    toml = (tmp_path / "styles/tsuki.toml").read_bytes()
    assert parse(toml) == made and made.loras[0].weight == 0.7
    file = LocalPack(made, toml, tmp_path / "styles").lora_file(made.loras[0])
    assert file is not None and file.read_bytes() == b"lora"
