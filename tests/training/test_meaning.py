"""Phrasings of one thing come to say the same to the UNet: what is compared, what is asked, and that it is learnt."""

import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from itemforge.dataset.concepts import Concept
from itemforge.dataset.phrases import GROUND, HELD_OUT, sentence
from itemforge.engine.model import load_model
from itemforge.training.base import train_base
from itemforge.training.config import Meaning, StarterConfig
from itemforge.training.meaning import MeaningStage, Wordings, layers_of
from itemforge.training.stage import Run

CPU = torch.device("cpu")
DOG = Concept("d", "dog", "animals", ("pup",), ("canine",))
KEY = Concept("k", "key", "objects", (), ("lock",))


@pytest.fixture
def parts(base: Path) -> Any:
    return load_model(base, CPU, torch.float32).parts


def _states(parts: Any, texts: list[str]) -> Tensor:
    tokens = parts.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        states: Tensor = parts.text_encoder(tokens).last_hidden_state
    return states


def test_what_a_layer_takes_is_what_the_unets_own_attention_gives_on(parts: Any) -> None:
    states = _states(parts, ["a red apple", "a key"])
    latents = torch.randn(2, 4, parts.unet.config.sample_size, parts.unet.config.sample_size)
    layers = layers_of(parts.unet, latents, states, 1)
    attentions = [m for name, m in parts.unet.named_modules() if name.endswith("attn2")]
    assert len(layers) == len(attentions) > 0
    for layer, attention in zip(layers, attentions, strict=True):
        given: list[Tensor] = []
        hook = attention.to_out[0].register_forward_pre_hook(lambda _, args, to=given: to.append(args[0]))
        asking = torch.randn(2, 5, attention.to_q.in_features)
        with torch.no_grad():
            attention(asking, encoder_hidden_states=states)
            queries = attention.to_q(asking[:1]).view(5, attention.heads, -1).transpose(0, 1)
            taken = replace(layer, queries=queries).taken(states, torch.arange(5) / 5)
        hook.remove()
        assert torch.allclose(taken[0].transpose(0, 1).flatten(1), given[0][0], atol=1e-5)


def test_a_caption_and_its_plain_twin_differ_in_the_wording_alone() -> None:
    wordings = Wordings([DOG, KEY], [("hound", 0), ("latch", 1)], ["sun", "run"])
    said, plain = wordings.choose(400, random.Random(1))
    assert (said, plain) == wordings.choose(400, random.Random(1))
    things = {"dog": ("dog", "pup", "hound"), "key": ("key", "latch")}
    colours = 0
    for one, two in zip(said, plain, strict=True):
        thing = next(name for name in things if re.search(rf"\b{name}\b", two))
        assert any(word in one for word in things[thing])
        assert one.endswith(GROUND) == two.endswith(GROUND)
        assert one.partition(", ")[0] == two.partition(", ")[0] or "emoji," not in two
        for colour in ("red", "blue", "green"):
            assert (colour in one) == (colour in two)
            colours += colour in two
    assert colours > 10
    assert sum("hound" in one or "latch" in one for one in said) >= 150
    assert not any("hound" in two or "latch" in two for two in plain)


def test_without_a_teacher_only_names_are_worded() -> None:
    said, _ = Wordings([DOG], [], []).choose(50, random.Random(1))
    assert all("dog" in one or "pup" in one for one in said)


def test_names_are_also_misspelt_now_and_then_but_never_in_the_twin() -> None:
    said, plain = Wordings([Concept("e", "elephant", "nature", (), ())], [], []).choose(500, random.Random(2))
    assert 10 < sum("elephant" not in one for one in said) < 100
    assert all("elephant" in two for two in plain)


def test_no_chance_sentence_is_one_that_evaluation_asks() -> None:
    telling = {"please", "hero", "pick", "chest", "loot", "inventory", "sprite", "centered", "single", "like"}
    assert telling < set(re.findall("[a-z]+", " ".join(HELD_OUT)))
    dice = random.Random(3)
    spoken = [sentence("axe", ["boat"], ["blue"], dice) for _ in range(3000)]
    assert len(set(spoken)) > 500
    assert all("axe" in each for each in spoken)
    words = {word for each in spoken for word in re.findall("[a-z]+", each)}
    assert words & telling <= {"like"}


def test_other_wordings_come_to_say_the_same(parts: Any) -> None:
    torch.manual_seed(0)
    latents = torch.randn(8, 4, parts.unet.config.sample_size, parts.unet.config.sample_size)
    plain = _states(parts, ["a dog", "a key"])
    layers = layers_of(parts.unet, latents, plain.repeat(4, 1, 1), 1)
    wordings = Wordings([DOG, KEY], [("hound", 0)], [])
    config = Meaning(steps=80, batch_size=16, learning_rate=3e-3, warmup=5)
    stage = MeaningStage(parts.text_encoder, parts.tokenizer, layers, wordings, config, 1, CPU, torch.float32)

    def apart(word: str) -> float:
        """What the UNet is told by the word, from what it was told by `a dog`."""
        asked = torch.arange(16) / 16
        pairs = [
            (layer.taken(_states(parts, [word]), asked), layer.taken(plain[:1], asked)) for layer in layers
        ]
        return sum(float((one - two).detach().square().mean()) for one, two in pairs)

    before, first = apart("a hound"), stage.step()["missed"]
    missed = [stage.step()["missed"] for _ in range(stage.steps - 1)]
    stage.finish()
    assert sum(missed[-10:]) / 10 < 0.6 * first, "one step alone has harder or easier sentences"
    assert apart("a hound") < 0.5 * before


def test_the_stage_changes_the_text_encoder_alone(tiny: StarterConfig, tmp_path: Path) -> None:
    assert tiny.train_meaning is not None
    models = []
    for n, meaning in enumerate((None, tiny.train_meaning)):
        config = tiny.model_copy(update={"run": tmp_path / f"run{n}", "train_meaning": meaning})
        if models:  # each run numbers its characters anew
            shutil.copytree(tmp_path / "run0/tokenizer", config.run / "tokenizer")
        models.append(train_base(config, Run(config.run, lambda *_: None), CPU))
    without, with_it = models
    assert without is not None and with_it is not None
    for part, same in (("unet", True), ("text_encoder", False)):
        (file,) = (without / part).glob("*.safetensors")
        assert (file.read_bytes() == (with_it / part / file.name).read_bytes()) == same, part
