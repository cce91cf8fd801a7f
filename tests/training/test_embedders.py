"""Embedders: the plain one, and CLIP from a folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from itemforge.errors import ModelError
from itemforge.training.embedders import ClipEmbedder, PlainEmbedder

CPU = torch.device("cpu")


def _noise(seed: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def test_the_plain_one_sees_how_and_not_where() -> None:
    flat = np.full((48, 48, 3), 255, dtype=np.uint8)
    flat[10:30, 10:30] = (200, 40, 40)
    moved = np.roll(flat, 6, axis=(0, 1))
    views = PlainEmbedder().pictures([flat, moved, _noise(1), np.full_like(flat, 255)])
    assert np.allclose((views**2).sum(1)[:3], 1, atol=1e-5)
    assert views[0] @ views[1] > 0.99 > 0.8 > views[0] @ views[2]
    assert np.isfinite(views).all()
    assert PlainEmbedder().texts(["a"]) is None


@pytest.fixture(scope="module")
def clip(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP model with weights of chance."""
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config=shape | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id},
            vision_config=shape | {"image_size": 32, "patch_size": 16},
            projection_dim=8,
        )
    )
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def test_clip_sees_pictures_and_reads_words(clip: Path) -> None:
    embedder = ClipEmbedder(clip, CPU)
    pictures = embedder.pictures([_noise(n) for n in range(40)])
    words = embedder.texts(["a red apple", "a key, " * 60])
    assert embedder.name == "tiny-clip" and pictures.shape == (40, 8)
    assert words is not None and words.shape == (2, 8)
    for found in (pictures, words):
        assert np.allclose((found**2).sum(1), 1, atol=1e-5)
    assert np.allclose(pictures[33], embedder.pictures([_noise(33)])[0], atol=1e-5)  # wherever it stands


def test_a_folder_without_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load a CLIP model"):
        ClipEmbedder(tmp_path, CPU)
