"""What happens before an engine is ready: measuring, choosing, and the golden picture."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing import levels_apart, row
from PIL import Image

from itemforge.engine.loop import Engine
from itemforge.engine.model import Model
from itemforge.engine.warmup import LAYOUTS, pick_device
from itemforge.errors import ConfigurationError, ModelError
from itemforge.imaging.png import read_recipe
from itemforge.settings import EngineSettings
from itemforge.styles.models import starter_dir


def bare_starter(folder: Path) -> Path:
    """The starter without the golden picture that ships beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in starter_dir().iterdir():
        if part.name != "golden.png" and not (folder / part.name).exists():
            (folder / part.name).symlink_to(part)
    return folder


def settings(home: Path, **changes: object) -> EngineSettings:
    return EngineSettings(
        **{"home": home, "device": "cpu", "model": str(bare_starter(home / "bare"))} | changes
    )


def stages_of(settings: EngineSettings) -> tuple[Engine, list[str]]:
    stages: list[str] = []
    return Engine.load(settings, on_stage=lambda name, seconds: stages.append(name)), stages


def test_a_first_start_records_the_golden_picture_and_measures(tmp_path: Path) -> None:
    engine, stages = stages_of(settings(tmp_path))

    assert stages[0] == "load"
    assert stages.count("measure") == 4 * len(LAYOUTS)
    assert stages.count("decode") == 2, "the reference, and the proof"
    assert engine.model.dtype == torch.float32, "exact on the CPU"
    recorded = tmp_path / "cache" / "golden" / f"{engine.model.base}.png"
    assert read_recipe(recorded.read_bytes()).base == engine.model.base
    assert engine.batch_size == 8
    assert engine.draw(row(steps=2)).pixels.shape == (64, 64, 3)


def test_the_starter_draws_the_golden_picture_that_ships_with_it(tmp_path: Path) -> None:
    _, stages = stages_of(settings(tmp_path, model="starter"))

    assert stages.count("decode") == 1, "the proof only"
    assert not (tmp_path / "cache" / "golden").exists()


def test_a_second_start_remembers_its_choice_and_draws_the_same_pixels(tmp_path: Path) -> None:
    first, _ = stages_of(settings(tmp_path))
    (remembered,) = (tmp_path / "cache" / "warmup").iterdir()
    before = remembered.read_bytes()

    second, stages = stages_of(settings(tmp_path, batch_size=3))

    assert "measure" not in stages
    assert stages.count("decode") == 1
    assert remembered.read_bytes() == before
    assert second.batch_size == 3
    assert levels_apart(first.draw(row()).pixels, second.draw(row()).pixels) == 0


def test_another_torch_measures_anew_and_a_broken_memory_is_no_harm(tmp_path: Path) -> None:
    stages_of(settings(tmp_path))
    (remembered,) = (tmp_path / "cache" / "warmup").iterdir()
    stored = json.loads(remembered.read_bytes())
    stored["conditions"]["torch"] = "1.0"
    for content in (json.dumps(stored), "{", "[]", '{"chosen": {}}'):
        remembered.write_text(content)
        assert "measure" in stages_of(settings(tmp_path))[1]


def test_a_coarser_dtype_is_measured_only_where_quality_allows_and_passes_the_golden_row(
    tmp_path: Path,
) -> None:
    Engine.load(settings(tmp_path, quality="draft"))
    (memory,) = (tmp_path / "cache" / "warmup").iterdir()
    measured = json.loads(memory.read_text())["chosen"]["measured"]
    # How often depends on the processor: where bfloat16 takes seconds, once.
    pairs = {(each["dtype"], each["layout"]) for each in measured}
    assert pairs == {(dtype, layout) for dtype in ("float32", "bfloat16") for layout in LAYOUTS}

    engine, _ = stages_of(settings(tmp_path, dtype="bfloat16"))
    assert engine.model.dtype == torch.bfloat16
    assert engine.draw(row(steps=2)).recipe.dtype == "bfloat16"


def test_a_model_that_draws_something_else_than_its_golden_picture_is_refused(tmp_path: Path) -> None:
    engine, _ = stages_of(settings(tmp_path))
    path = tmp_path / "cache" / "golden" / f"{engine.model.base}.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)

    with pytest.raises(ModelError, match="draws its golden picture wrongly in float32"):
        Engine.load(settings(tmp_path))


def test_the_golden_picture_that_ships_is_the_starters(tmp_path: Path) -> None:
    engine, stages = stages_of(settings(tmp_path, model="starter"))

    assert stages.count("decode") == 1, "nothing is recorded where a reference ships"
    assert not (tmp_path / "cache" / "golden").exists()
    assert read_recipe((starter_dir() / "golden.png").read_bytes()).base == engine.model.base


@pytest.mark.parametrize(
    "file", ["unet/diffusion_pytorch_model-00002-of-00003.safetensors", "text_encoder/model.safetensors"]
)
def test_damage_that_hardly_shows_in_a_picture_is_found(tmp_path: Path, file: str) -> None:
    model = shutil.copytree(starter_dir(), tmp_path / "model")
    data = bytearray((model / file).read_bytes())
    middle = len(data) // 2
    assert any(data[middle : middle + 64])
    data[middle : middle + 64] = bytes(64)
    (model / file).write_bytes(data)

    with pytest.raises(ModelError, match=r"not those that .*golden\.png was drawn with"):
        Engine.load(settings(tmp_path, model=str(model)))


def test_a_vae_of_not_a_number_is_a_clear_error(own_starter: Model) -> None:
    own_starter.parts.vae.decoder.conv_in.weight.fill_(float("nan"))

    with pytest.raises(ModelError, match="VAE of starter gives not-a-number"):
        Engine(own_starter)


def test_a_damaged_recording_is_recorded_again(tmp_path: Path) -> None:
    engine, _ = stages_of(settings(tmp_path))
    path = tmp_path / "cache" / "golden" / f"{engine.model.base}.png"
    path.write_bytes(path.read_bytes()[:50])

    stages_of(settings(tmp_path))

    assert Image.open(path).convert("RGB").size == (64, 64)


def test_a_golden_picture_beside_the_model_wins(tmp_path: Path) -> None:
    model = bare_starter(tmp_path / "model")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(model / "golden.png")

    with pytest.raises(ModelError, match=str(model / "golden.png")):
        Engine.load(settings(tmp_path / "home", model=str(model)))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(model / "golden.png")
    with pytest.raises(ModelError, match="not a picture of 64x64"):
        Engine.load(settings(tmp_path / "home", model=str(model)))
    assert not (tmp_path / "home" / "cache" / "golden").exists()


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_model_that_draws_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    from diffusers import AutoencoderKL

    decode = AutoencoderKL.decode

    def nothing(self: AutoencoderKL, z: torch.Tensor, **options: object) -> tuple[torch.Tensor]:
        return (torch.full_like(decode(self, z, **options)[0], value),)

    monkeypatch.setattr(AutoencoderKL, "decode", nothing)
    monkeypatch.setattr("itemforge.engine.loop.fit_preview", lambda model: None)

    with pytest.raises(ModelError, match=r"empty picture|cannot draw its golden picture"):
        Engine.load(settings(tmp_path))


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_a_clear_error(device: str) -> None:
    with pytest.raises(ConfigurationError, match="ITEMFORGE_DEVICE"):
        pick_device(device)


def test_noise_of_a_gpu_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="NOISE_DEVICE"):
        Engine.load(settings(tmp_path, noise_device="cuda"))
