"""A captioning model of a directory: a tiny random one, made here."""

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
)

from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.dataset.captioning.face import Captioned, Failed, Picture, Reason
from itemforge.dataset.captioning.local import LocalCaptioner, read_sentence
from itemforge.dataset.captioning.run import caption_all
from itemforge.errors import ModelError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "key", "sword", "iron", "golden", "of"]


def picture_bytes(colour: str = "red") -> bytes:
    data = io.BytesIO()
    Image.new("RGBA", (40, 24), colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-blip")


def write_model(made: Path) -> Path:
    """A tiny random BLIP."""
    from transformers.models.blip import BlipImageProcessor

    made.mkdir()
    (made / "vocab.txt").write_text("\n".join(WORDS))
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {
        **small,
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 16,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    torch.manual_seed(1)
    network = BlipForConditionalGeneration(
        BlipConfig(
            text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16}, projection_dim=16
        )
    )
    network.save_pretrained(made)
    tokenizer = BertTokenizer(vocab=str(made / "vocab.txt"))
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def captioner(folder: Path) -> LocalCaptioner:
    return LocalCaptioner(folder)


def test_a_model_of_a_directory_captions(captioner: LocalCaptioner, cache: CaptionCache) -> None:
    items = [Picture("a" * 64, picture_bytes, "x"), Picture("b" * 64, lambda: picture_bytes("blue"), "y")]
    summary = caption_all(items, captioner, cache, concurrency=2)
    for outcome in summary.outcomes:
        assert isinstance(outcome.answer, Captioned), outcome
        assert set(outcome.answer.fields.object.split()) <= set(WORDS)
    assert caption_all(items, captioner, cache).known == 2
    with CaptionCache() as other:
        again = caption_all(items, captioner, other)
    assert [each.answer for each in again.outcomes] == [each.answer for each in summary.outcomes]


def test_its_weights_are_part_of_its_name(captioner: LocalCaptioner) -> None:
    assert captioner.model.startswith("tiny-blip@")
    assert len(captioner.model) == len("tiny-blip@") + 12


def test_a_broken_picture_is_an_answer(captioner: LocalCaptioner) -> None:
    answer = captioner.caption(Picture("a" * 64, lambda: b"\x89PNG broken", "x"))
    assert isinstance(answer, Failed)
    assert answer.reason is Reason.UNREADABLE


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("a picture of a red key on a white background", "red key"),
        ("An image of the golden sword.", "golden sword"),
        ("there is a drawing of an iron shield", "iron shield"),
        ("key key key key", "key"),
        ("a red key with " + "very " * 5 + "long " * 30 + "tail", "red key with very long tail"),
    ],
)
def test_what_a_sentence_says(sentence: str, expected: str) -> None:
    answer = read_sentence(sentence)
    assert isinstance(answer, Captioned)
    assert answer.fields.object == expected


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("", Reason.EMPTY),
        ("[UNK] . .", Reason.EMPTY),
        ("I'm sorry, I can't", Reason.REFUSED),
        ("let me think", Reason.MALFORMED),
    ],
)
def test_sentences_that_say_nothing(sentence: str, reason: Reason) -> None:
    answer = read_sentence(sentence)
    assert isinstance(answer, Failed)
    assert answer.reason is reason


def test_directories_without_a_captioning_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match="safetensors"):
        LocalCaptioner(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        LocalCaptioner(tmp_path)
