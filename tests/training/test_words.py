"""What words mean, from a teacher: a tiny random one says what it says, and the text encoder learns it."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from itemforge.dataset.concepts import Concept
from itemforge.errors import ModelError
from itemforge.training import neighbours
from itemforge.training.base import train_base
from itemforge.training.config import StarterConfig, Words
from itemforge.training.stage import Run
from itemforge.training.words import teacher_states, teacher_words

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the layout of sentence-transformers."""
    folder = tmp_path_factory.mktemp("teacher")
    names = ["[PAD]", "[UNK]", "apple", "key", "red", "old", "ab", "##ing", "naïve", "orchard", "lock", "7"]
    inner = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(names), **shape)).save_pretrained(folder)
    return folder


def test_the_teachers_words_are_whole_and_plain(teacher: Path) -> None:
    assert teacher_words(teacher) == ["apple", "key", "lock", "old", "orchard", "red"]
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        teacher_words(teacher / "nowhere")


def test_a_phrase_has_one_state_whatever_it_is_padded_with(teacher: Path) -> None:
    alone = teacher_states(teacher, ["apple"], CPU)
    among = teacher_states(teacher, ["apple", "old red key lock"], CPU)
    assert torch.allclose(alone[0], among[0], atol=1e-5)
    assert torch.allclose(among.norm(dim=1), torch.ones(2), atol=1e-5)


def test_words_of_teacher_and_dictionary_stand_for_the_nearest_thing(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = [Concept("a", "apple", "food", (), ()), Concept("k", "key", "objects", ("red key",), ())]
    plain = dict(neighbours.meant(teacher, {}, things, 0.0, CPU))
    assert plain.keys() <= {"lock", "old", "orchard", "red"}
    monkeypatch.setattr(neighbours, "_SENSE", 100.0)
    # Nobody knows these two words but by what is said of them, which counts for all here.
    entries = {"latchlifter": "key", "pomaceous": "apple", "key": "key", "apple": "apple", "a fob": "key"}
    said = dict(neighbours.meant(teacher, entries, things, 0.0, CPU))
    assert (said["latchlifter"], said["pomaceous"]) == (1, 0)
    assert not {"key", "apple", "a fob"} & said.keys()
    assert neighbours.meant(teacher, entries, things, 1.0, CPU) == []


def test_a_text_encoder_learns_what_the_teacher_says(tiny: StarterConfig, teacher: Path) -> None:
    told: list[tuple[str, dict[str, float]]] = []
    lesson = Words(steps=60, batch_size=8, learning_rate=5e-3, warmup=2, teacher=teacher)
    config = tiny.model_copy(update={"train_words": lesson})

    run = Run(config.run, lambda name, done, steps, losses: told.append((name, losses)))
    model = train_base(config, run, CPU)
    assert model is not None
    by_name = dict(told)
    assert 0 < by_name["words"]["distance"] < 0.8, "it began at about 1: unrelated"
    assert "words" in by_name["diffusion"], "and the lesson goes on beside the pictures"
