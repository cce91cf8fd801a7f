"""A run's settings: every key counts, and a wrong one says so."""

from pathlib import Path

import pytest

from itemforge.errors import ConfigurationError
from itemforge.training.config import StarterConfig, read_config
from itemforge.training.lora_config import read_lora_config

LEAST = """
data = "icons"
run = "run"
train_vae = { steps = 1, batch_size = 1, learning_rate = 1e-4 }
train_decoder = { steps = 1, batch_size = 1, learning_rate = 1e-4 }

[train_diffusion]
steps = 1
batch_size = 1
learning_rate = 1e-4
"""
CONFIGS = Path(__file__).parents[2] / "configs"


def _read(folder: Path, text: str) -> StarterConfig:
    (folder / "c.toml").write_text(text)
    return read_config(folder / "c.toml", StarterConfig)


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    assert _read(tmp_path, LEAST).train_diffusion.min_snr_gamma == 5.0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("min_snr_gama = 3", "train_diffusion.min_snr_gama is no setting; did you mean min_snr_gamma?"),
        ("[unet]\nchannel = [1]", "unet.channel is no setting; did you mean channels?"),
        ("[vea]\nchannels = [1]", "vea is no setting; did you mean vae?"),
        ("qqq = 1", "train_diffusion.qqq is no setting"),
        ("ema = 1.5", "train_diffusion.ema: input should be less than 1"),
    ],
)
def test_a_wrong_key_is_an_error_that_names_it(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _read(tmp_path, LEAST + line)
    assert str(caught.value).endswith(said)


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_config(tmp_path / "absent.toml", StarterConfig)
    with pytest.raises(ConfigurationError, match="cannot read"):
        _read(tmp_path, "a = = 1")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("starter*.toml")), ids=lambda path: path.name)
def test_the_configurations_that_ship_are_right(path: Path) -> None:
    assert read_config(path, StarterConfig).data


def test_a_lora_configuration_stands_on_its_preset(tmp_path: Path) -> None:
    original = read_lora_config(CONFIGS / "tsuki.toml")
    assert (original.rank, original.alpha, original.learning_rate, original.restarts) == (32, 32.0, 1e-5, 3)
    assert (original.min_snr_gamma, original.ema, original.clip, original.accumulation) == (
        3.0,
        0.999,
        0.5,
        4,
    )
    assert (original.epochs, original.seed, original.size, original.validation) == (20, 42, 512, 0.1)
    text = (CONFIGS / "tsuki.toml").read_text().replace("tsuki-original", "tsuki")
    (tmp_path / "c.toml").write_text(text + "\nepochs = 7\n")
    ours = read_lora_config(tmp_path / "c.toml")
    assert (ours.learning_rate, ours.min_snr_gamma, ours.epochs) == (1e-4, 5.0, 7)
    assert ours.noise_offset > 0


def test_a_wrong_preset_or_key_of_a_lora_says_so(tmp_path: Path) -> None:
    text = (CONFIGS / "tsuki.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace("tsuki-original", "tsuki-orginal"))
    with pytest.raises(ConfigurationError, match="preset"):
        read_lora_config(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text(text + "\nlearning_rat = 1e-4\n")
    with pytest.raises(ConfigurationError, match="did you mean learning_rate"):
        read_lora_config(tmp_path / "c.toml")
