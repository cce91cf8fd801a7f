"""A LoRA from captioned pictures: it learns, goes on exactly where it was, and its files draw the same everywhere."""

import contextlib
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from lora_set import PICTURES, TRIGGER, tiny_lora, write_toml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.model import load_model
from itemforge.engine.rows import LoraRef, Row
from itemforge.errors import ConfigurationError, InvalidInput
from itemforge.styles.files import file_sha256
from itemforge.training import lora_stage
from itemforge.training.lora import train_lora
from itemforge.training.lora_config import LoraConfig
from itemforge.training.lora_stage import rate_at
from itemforge.training.stage import Run
from polling import wait_until
from services.process import free_port

CPU = torch.device("cpu")


def _quiet(*_: Any) -> None:
    return


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Accelerate keeps its precision for a whole process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def config(base: Path, pictures: Path, tmp_path: Path) -> LoraConfig:
    return tiny_lora(base, pictures, tmp_path)


@pytest.fixture(scope="session")
def plain(
    base: Path, pictures: Path, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    """The weights of a run that nothing was changed in."""
    return _weights(_train(tiny_lora(base, pictures, tmp_path_factory.mktemp("plain")), home))


def _train(config: LoraConfig, home: Path, run: Run | None = None) -> Path | None:
    return train_lora(config, run or Run(config.run, _quiet), home, True, _quiet)


def _draw(base: Path, lora: Path | None, weight: float = 1.0) -> Any:
    engine = Engine(load_model(base, CPU, torch.float32))
    loras = () if lora is None else (LoraRef(lora, file_sha256(lora), weight),)
    return engine.draw(
        Row("r", f"{TRIGGER}, a red apple", "", 4, 4.0, 1, Scheduler.DDIM, 32, 32, loras)
    ).pixels


def test_a_lora_is_learnt_and_all_its_files_draw_the_same(
    config: LoraConfig, base: Path, tmp_path: Path
) -> None:
    config = config.model_copy(update={"learning_rate": 3e-2})  # to be seen after six steps
    out = _train(config, tmp_path / "home")
    assert out is not None
    plain = _draw(base, None).astype(int)
    drawn = [_draw(base, path).astype(int) for path in sorted(out.glob("*.safetensors"))]
    assert len(drawn) == 3
    assert all(abs(picture - drawn[0]).max() <= 1 for picture in drawn), "alpha is in each of them"
    assert abs(drawn[0] - plain).max() > 3, "and it does something"
    with safe_open(out / "tsuki.safetensors", "pt") as file:
        header = file.metadata()
        keys = list(file.keys())
    assert all(key.startswith("lora_unet_") for key in keys)
    assert {key.rpartition(".")[2] for key in keys} == {"weight", "alpha"}
    assert (header["ss_network_dim"], header["modelspec.trigger_phrase"]) == ("4", TRIGGER)
    assert header["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert header["ss_num_train_images"] == "7" and header["ss_steps"] == "6"
    assert (config.run / "report.html").is_file() and (config.run / "loss.png").is_file()
    rows = _metrics(config)
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6] and all(
        float(row["loss"]) > 0 for row in rows
    )


def test_alpha_that_is_not_the_rank_is_right_in_each_layout(
    config: LoraConfig, base: Path, tmp_path: Path
) -> None:
    out = _train(config.model_copy(update={"alpha": 1.0}), tmp_path / "home")
    assert out is not None
    drawn = [_draw(base, path).astype(int) for path in sorted(out.glob("*.safetensors"))]
    assert all(abs(picture - drawn[0]).max() <= 1 for picture in drawn)


class Stopping(Run):
    """Over after so many steps."""

    left = 0

    @property
    def over(self) -> bool:
        self.left -= 1
        return self.left < 0


def _metrics(config: LoraConfig) -> list[dict[str, str]]:
    return list(csv.DictReader((config.run / "metrics.csv").read_text().splitlines()))


def _weights(out: Path | None) -> dict[str, torch.Tensor]:
    assert out is not None
    return load_file(out / "tsuki.safetensors")


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    config: LoraConfig, home: Path, tmp_path: Path, steps: int
) -> None:
    whole = _weights(_train(config, home))
    stopped = config.model_copy(update={"run": tmp_path / "stopped"})
    run = Stopping(stopped.run, _quiet)
    run.left = steps
    assert _train(stopped, home, run) is None
    resumed = _weights(_train(stopped, home))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    for path in ("checkpoints/002-raw/tsuki-002.safetensors", "checkpoints/002-ema/tsuki-002.safetensors"):
        first, second = load_file(config.run / path), load_file(stopped.run / path)
        assert all(torch.equal(first[name], second[name]) for name in first), path


def test_batches_and_accumulation_do_not_change_what_is_learnt(
    config: LoraConfig, plain: dict[str, torch.Tensor], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_stage, "_AT_ONCE", 0)  # few pictures are joined on a CPU, as in `plain`
    for batch, accumulation in ((1, 3), (3, 1)):
        changed = config.model_copy(update={"batch_size": batch, "accumulation": accumulation})
        again = _weights(_train(changed.model_copy(update={"run": config.run / str(batch)}), home))
        assert all(torch.allclose(plain[name], again[name], atol=2e-3) for name in plain)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-3}, {"restarts": 1}, {"warmup": 0}, {"min_snr_gamma": 1.0}, {"min_snr_gamma": 0.0},
        {"noise_offset": 0.0}, {"ema": 0.2}, {"clip": 0.01}, {"accumulation": 2}, {"epochs": 3}, {"seed": 4},
        {"validation": 0.5}, {"flip": False}, {"rank": 2}, {"alpha": 2.0}, {"weight_decay": 0.5},
        {"caption_dropout": 0.9}, {"keep_above": 500}, {"targets": ("to_q",)}, {"precision": "bfloat16"},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_of_the_learning_changes_the_weights(
    config: LoraConfig, plain: dict[str, torch.Tensor], home: Path, change: dict[str, Any]
) -> None:
    other = _weights(_train(config.model_copy(update=change), home))
    same = plain.keys() == other.keys() and all(
        plain[n].shape == other[n].shape and torch.equal(plain[n], other[n]) for n in plain
    )
    assert not same


def test_where_the_bases_word_is_kept_nothing_is_learnt(
    config: LoraConfig, plain: dict[str, torch.Tensor], home: Path
) -> None:
    kept = _weights(_train(config.model_copy(update={"keep_above": 0, "weight_decay": 0.0}), home))
    ups = [name for name in kept if "lora_up" in name]
    assert len(ups) > 10 and not any(kept[name].any() for name in ups)
    assert all(plain[name].any() for name in ups)


def test_a_lora_that_says_something_else_is_led_back_to_what_the_base_says(
    config: LoraConfig, base: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = lora_stage.add_lora

    def elsewhere(unet: Any, config: LoraConfig) -> list[torch.nn.Parameter]:
        parameters = began(unet, config)
        for parameter in parameters:
            parameter.data += 0.05 * torch.randn_like(parameter)
        return parameters

    monkeypatch.setattr(lora_stage, "add_lora", elsewhere)
    changed = config.model_copy(
        update={"keep_above": 0, "epochs": 20, "warmup": 0, "restarts": 1, "clip": 0.0}
    )
    assert _train(changed, home) is not None
    losses = [float(row["loss"]) for row in _metrics(changed)]
    assert sum(losses[-6:]) < 0.5 * sum(losses[:6])


@pytest.mark.parametrize(
    "change", [{"licence": "CC0-1.0"}, {"sample_every": 1, "sample_prompts": ("[trigger], a key",)}, {"wandb": "offline"}, {"precision": "float32"}, {"template": "{prompt}, icon", "negative": "x", "num_inference_steps": 3, "guidance_scale": 2.0}],
    ids=["licence", "samples", "wandb", "precision of a GPU", "pack"],
)  # fmt: skip
def test_settings_that_only_tell_leave_the_weights_as_they_are(
    config: LoraConfig,
    plain: dict[str, torch.Tensor],
    home: Path,
    change: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    other = _weights(_train(config.model_copy(update=change), home))
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_a_mask_says_what_counts_and_the_background_weight_how_much_the_rest_does(
    config: LoraConfig, plain: dict[str, torch.Tensor], pictures: Path, home: Path, tmp_path: Path
) -> None:
    masked = tmp_path / "masked"
    shutil.copytree(pictures, masked)
    for path in sorted(masked.glob("*.png")):
        with Image.open(path) as picture:
            mask = Image.new("L", picture.size, 0)
        mask.paste(255, (0, 0, mask.width // 2, mask.height))
        mask.save(masked / f"{path.stem}-masklabel.png")

    def learnt(data: Path, weight: float) -> dict[str, torch.Tensor]:
        changed = {"data": data, "background_weight": weight, "run": tmp_path / f"{data.name}-{weight}"}
        return _weights(_train(config.model_copy(update=changed), home))

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    assert same(learnt(pictures, 0.9), plain), "without masks there is no background"
    little, much = learnt(masked, 0.1), learnt(masked, 0.9)
    assert not same(little, plain) and not same(little, much)


def test_what_was_encoded_once_is_not_encoded_again(config: LoraConfig, tmp_path: Path) -> None:
    home = tmp_path / "home"
    _train(config, home)
    before = {path: path.stat().st_mtime_ns for path in (home / "cache/training").rglob("*.safetensors")}
    _train(config.model_copy(update={"run": tmp_path / "again"}), home)
    after = {path: path.stat().st_mtime_ns for path in (home / "cache/training").rglob("*.safetensors")}
    assert before == after and len(before) == 3 * PICTURES + 1


def test_the_rate_has_its_restarts_in_optimizer_steps(config: LoraConfig) -> None:
    steps = 102
    rates = [rate_at(config.model_copy(update={"restarts": 2}), step, steps) for step in range(steps)]
    assert rates[0] == 0.5 and rates[2] == 1.0
    assert rates[51] < 0.01 < 0.99 < rates[52], "the second cosine begins in the middle"
    assert rates[-1] < 0.01


def test_an_unknown_target_is_an_error(config: LoraConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no layer to_x"):
        _train(config.model_copy(update={"targets": ("to_q", "to_x")}), tmp_path / "home")


def test_a_set_that_is_not_ready_is_refused_before_anything_is_done(
    config: LoraConfig, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="7 × no trigger 'other'"):
        _train(config.model_copy(update={"trigger": "other"}), tmp_path / "home")
    assert not (config.run / "lora.state").exists()


def _command(config: LoraConfig, folder: Path) -> list[str]:
    toml = write_toml(config, folder / f"{config.run.name}.toml")
    return [
        sys.executable,
        "-m",
        "itemforge",
        "train",
        "lora",
        "--cpu",
        "--save-every",
        "0",
        "--config",
        str(toml),
    ]


def test_a_run_that_is_killed_anywhere_ends_with_the_same_weights(
    config: LoraConfig, home: Path, tmp_path: Path
) -> None:
    """SIGKILL, again and again, at moments that nobody chose; each start gets a little further."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    env = {**os.environ, "ITEMFORGE_HOME": str(home)}
    config = config.model_copy(
        update={"size": 64}
    )  # so large that a step's pictures are not all taken at once
    whole = config.model_copy(update={"run": tmp_path / "whole"})
    # Processes both: other tests may have left this one another number of threads, and so other last bits.
    subprocess.run(_command(whole, tmp_path), env=env, check=True, capture_output=True, timeout=60)
    command = _command(config, tmp_path)
    state = config.run / "lora.state"
    for _ in range(2):
        before = state.stat().st_mtime_ns if state.is_file() else 0
        with subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            # Until a state of this start is written, or it is through; then some steps' time more.
            wait_until(
                lambda b=before: (
                    process.poll() is not None or (state.is_file() and state.stat().st_mtime_ns > b)
                ),
                60,
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0.0, 0.4))
            process.send_signal(signal.SIGKILL)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    once, killed = (load_file(run / "lora/tsuki.safetensors") for run in (whole.run, config.run))
    assert all(torch.equal(once[name], killed[name]) for name in once)
    assert not list(config.run.rglob("*.part"))


def test_two_processes_learn_what_one_learns(
    config: LoraConfig, plain: dict[str, torch.Tensor], home: Path, tmp_path: Path
) -> None:
    toml = write_toml(config.model_copy(update={"batch_size": 2}), tmp_path / "config.toml")
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
    command = [*launch, "-m", "itemforge", "train", "lora", "--cpu", "--config", str(toml)]
    env = {**os.environ, "ITEMFORGE_HOME": str(home)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = _weights(_train(config.model_copy(update={"batch_size": 2, "run": tmp_path / "alone"}), home))
    together = load_file(config.run / "lora/tsuki.safetensors")
    assert all(torch.allclose(alone[name], together[name], atol=2e-3) for name in alone)
    assert any(not torch.equal(plain[name], together[name]) for name in plain), "another batch, other steps"
