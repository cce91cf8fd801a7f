"""A whole small run: it draws, it goes on exactly where it was stopped, and it refuses what is not its own."""

import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from itemforge.engine.golden import golden_row
from itemforge.engine.loop import Engine
from itemforge.engine.model import load_model
from itemforge.errors import InvalidInput, PermanentError
from itemforge.imaging.png import read_recipe
from itemforge.training import base
from itemforge.training.base import train_base
from itemforge.training.config import StarterConfig
from itemforge.training.stage import Run

CPU = torch.device("cpu")


class Stopping(Run):
    """A run that is over after so many steps in all."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder, self._told)
        self.left = steps

    def _told(self, *_: Any) -> None:
        pass

    @property
    def over(self) -> bool:
        self.left -= 1
        return self.left < 0


def _weights(model: Path) -> dict[str, bytes]:
    return {p.relative_to(model).as_posix(): p.read_bytes() for p in model.rglob("*.safetensors")}


def _quiet(*_: Any) -> None:
    return


def test_a_run_makes_a_model_that_the_engine_draws_with(tiny: StarterConfig) -> None:
    model = train_base(tiny, Run(tiny.run, _quiet), CPU)
    assert model is not None
    loaded = load_model(model, CPU, torch.float32)
    assert (loaded.width, loaded.height, loaded.vae_scale_factor) == (32, 32, 2)
    assert read_recipe((model / "golden.png").read_bytes()).base == loaded.base
    assert loaded.parts.vae.config.scaling_factor > 0
    for file in model.rglob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}, file
    texts = loaded.parts.tokenizer("a red apple", padding="max_length", return_tensors="pt").input_ids
    assert texts.shape == (1, 77)
    assert Engine(loaded).draw(golden_row(loaded)).pixels.shape == (32, 32, 3)
    assert not list(tiny.run.glob("*.part"))


@pytest.mark.parametrize("steps", [3, 8, 13, 18])
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    tiny: StarterConfig, tmp_path: Path, steps: int
) -> None:
    whole = train_base(tiny, Run(tiny.run, _quiet), CPU)
    stopped = tiny.model_copy(update={"run": tmp_path / "stopped"})
    shutil.copytree(tiny.run / "tokenizer", stopped.run / "tokenizer")  # each run numbers its characters anew
    assert train_base(stopped, Stopping(stopped.run, steps), CPU) is None
    resumed = train_base(stopped, Run(stopped.run, _quiet), CPU)
    assert whole is not None and resumed is not None
    assert _weights(whole) == _weights(resumed)


def test_every_setting_of_the_learning_changes_the_weights(tiny: StarterConfig, tmp_path: Path) -> None:
    changes = {
        "caption_dropout": 0.9,
        "min_snr_gamma": 1.0,
        "ema": 0.1,
        "flip": True,
        "original_weight": 9.0,
        "batch_size": 3,
        "set_weights": {"noto": 9.0},
    }
    plain = train_base(tiny, Run(tiny.run, _quiet), CPU)
    assert plain is not None
    for name, value in changes.items():
        diffusion = tiny.train_diffusion.model_copy(update={name: value})
        other = tiny.model_copy(update={"run": tmp_path / name, "train_diffusion": diffusion})
        shutil.copytree(tiny.run / "tokenizer", other.run / "tokenizer")
        made = train_base(other, Run(other.run, _quiet), CPU)
        assert made is not None
        before, after = _weights(plain), _weights(made)
        assert (
            before["unet/diffusion_pytorch_model.safetensors"]
            != after["unet/diffusion_pytorch_model.safetensors"]
        ), name


@pytest.mark.parametrize("flip", [False, True])
def test_mirrored_pictures_are_learnt_only_if_that_was_asked_for(
    tiny: StarterConfig, monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    latents = base._latents

    def spoilt(*args: Any) -> tuple[torch.Tensor, float]:
        made, scale = latents(*args)
        return torch.stack([made[0], torch.full_like(made[1], torch.nan)]), scale

    monkeypatch.setattr(base, "_latents", spoilt)
    losses: list[float] = []

    def told(name: str, done: int, of: int, seen: dict[str, float]) -> None:
        if name == "diffusion":
            losses.append(seen["loss"])

    diffusion = tiny.train_diffusion.model_copy(update={"flip": flip})
    config = tiny.model_copy(update={"train_diffusion": diffusion, "train_meaning": None})
    with suppress(PermanentError):  # what learnt from nothing draws nothing
        train_base(config, Run(tiny.run, told), CPU)
    assert [math.isnan(loss) for loss in losses] == [flip]


def test_bfloat16_learns_nearly_the_same(tiny: StarterConfig, tmp_path: Path) -> None:
    plain = train_base(tiny, Run(tiny.run, _quiet), CPU)
    other = tiny.model_copy(update={"run": tmp_path / "half", "precision": "bfloat16"})
    shutil.copytree(tiny.run / "tokenizer", other.run / "tokenizer")
    made = train_base(other, Run(other.run, _quiet), CPU)
    assert plain is not None and made is not None
    one, two = (load_model(path, CPU, torch.float32).parts for path in (plain, made))
    for a, b in ((one.unet, two.unet), (one.vae, two.vae)):
        pairs = [(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items()]
        assert any(not torch.equal(x, y) for x, y in pairs)
        assert all(torch.allclose(x, y, atol=0.03) for x, y in pairs)


def test_a_weight_of_a_set_that_is_not_there_is_refused(tiny: StarterConfig) -> None:
    diffusion = tiny.train_diffusion.model_copy(update={"set_weights": {"notto": 2.0}})
    with pytest.raises(InvalidInput, match="notto; the sets are fluent-3d, fluent-flat, noto"):
        train_base(tiny.model_copy(update={"train_diffusion": diffusion}), Run(tiny.run, _quiet), CPU)


def test_a_run_of_other_pictures_or_shapes_is_refused(tiny: StarterConfig) -> None:
    train_base(tiny, Stopping(tiny.run, 2), CPU)
    other = tiny.model_copy(update={"seed": tiny.seed + 1})
    with pytest.raises(InvalidInput, match="another shape or seed"):
        train_base(other, Run(tiny.run, _quiet), CPU)


def test_weights_to_begin_with_are_taken_where_they_fit(tiny: StarterConfig, tmp_path: Path) -> None:
    first = train_base(tiny, Run(tiny.run, _quiet), CPU)
    none = {"learning_rate": 1e-12}
    later = tiny.model_copy(
        update={
            "run": tmp_path / "later",
            "warm_start": first,
            "seed": 1,
            "train_vae": tiny.train_vae.model_copy(update=none),
            "train_diffusion": tiny.train_diffusion.model_copy(update=none),
            "train_meaning": None,
            "train_decoder": tiny.train_decoder.model_copy(update=none),
        }
    )
    second = train_base(later, Run(later.run, _quiet), CPU)
    assert first is not None and second is not None
    one, two = (load_model(path, CPU, torch.float32).parts for path in (first, second))
    for a, b in ((one.unet, two.unet), (one.vae, two.vae), (one.text_encoder, two.text_encoder)):
        for name, tensor in a.state_dict().items():
            assert np.allclose(tensor, b.state_dict()[name], atol=2e-3), name
