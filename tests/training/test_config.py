"""A run's settings: every key counts, and a wrong one says so."""

from pathlib import Path

import pytest

from itemforge.errors import ConfigurationError
from itemforge.training.config import StarterConfig, read_config

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
