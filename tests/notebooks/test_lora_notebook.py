"""The notebook of LoRA fine-tuning: all of it runs on the starter, and a step that fails stops it and says why."""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from polling import wait_until

sys.path.append(str(Path(__file__).parents[1] / "training"))  # its small training set

from lora_set import TRIGGER, write_pictures

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks/lora_fine_tune.ipynb"
KEY = "0123456789" * 4

# Each starts five programs that load torch: 20 seconds, and minutes where others keep the cores busy.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Of a run of two steps that changes what is drawn."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    return {
        "SOURCE": "",
        "DATA": str(write_pictures(pictures)),
        "BASE": "starter",
        "PRESET": "tsuki-original",
        "NAME": "tsuki",
        "TRIGGER": TRIGGER,
        "WORK": str(tmp_path / "work"),
        "MINUTES": 5,
        "WANDB": "online",
        "SETTINGS": {
            "size": 64, "rank": 4, "alpha": 4.0, "epochs": 1, "warmup": 0, "restarts": 1, "learning_rate": 3e-2,
            "ema": 0.0, "validation": 0.0, "sample_every": 1, "sample_prompts": ["[trigger], a red apple"],
        },
    }  # fmt: skip


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, and no network."""
    monkeypatch.setenv("ITEMFORGE_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens: what asks the network fails


def _cell(notebook: Any, name: str) -> Any:
    (found,) = (cell for cell in notebook.cells if cell.id == name)
    return found


def _execute(notebook: Any, settings: dict[str, Any], folder: Path) -> None:
    """Run it in `folder` with these settings instead of its own."""
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    own: dict[str, Any] = {}
    exec(parameters.source, own)
    assert settings.keys() == own.keys() - {"__builtins__"}, "every setting is told, and no other"
    parameters.source = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    try:
        client.execute()
    finally:
        wait_until(lambda: not _left(folder), 20)


def _left(folder: Path) -> list[psutil.Process]:
    """Processes that were begun in the folder: the kernel, and whatever it and its commands began."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's
    return found


def _said(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def _shown(cell: Any) -> int:
    """How many pictures a cell displays."""
    return sum("image/png" in output.get("data", ()) for output in cell.outputs)


def test_the_committed_notebook_is_valid_and_has_no_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"


def test_the_whole_notebook_runs_on_the_starter(
    notebook: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    _execute(notebook, settings, tmp_path)
    run = tmp_path / "work/runs/tsuki"
    names = {path.name for path in (run / "lora").iterdir()}
    assert {"tsuki.safetensors", "pytorch_lora_weights.safetensors", "lora_adapter.safetensors"} <= names
    assert (run / "report.html").is_file() and (tmp_path / "work/tsuki-lora.zip").is_file()
    assert not any(
        output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "W&B: offline" in _said(_cell(notebook, "wandb")), "there is no key here"
    assert list(run.glob("wandb/offline-run-*")), "and the training knows it"
    assert "7 pictures to train on" in _said(_cell(notebook, "doctor"))
    assert _shown(_cell(notebook, "data")) == 1
    assert _shown(_cell(notebook, "report")) == 3, "losses, rates, and a sheet of samples"
    verified = _said(_cell(notebook, "verify"))
    assert f"trigger {TRIGGER}" in verified and "engine and diffusers differ by at most" in verified


def test_a_training_that_its_minutes_stop_is_no_error_and_is_not_taken_for_ready(
    notebook: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    many = settings["SETTINGS"] | {"epochs": 10_000, "sample_every": 0}
    _execute(notebook, settings | {"SETTINGS": many, "MINUTES": 0.1, "WANDB": "disabled"}, tmp_path)
    assert "the same command goes on" in _said(_cell(notebook, "train"))
    assert (tmp_path / "work/runs/tsuki/lora.state").is_file()
    for name in ("verify", "artifact"):
        assert "the training is not through" in _said(_cell(notebook, name))
    assert not (tmp_path / "work/tsuki-lora.zip").exists()


def test_a_step_that_fails_stops_the_notebook_with_what_it_said(
    notebook: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(CellExecutionError, match=r"7 × no trigger 'other' in the caption"):
        _execute(notebook, settings | {"TRIGGER": "other", "WANDB": "disabled"}, tmp_path)
    assert not (tmp_path / "work/runs/tsuki").exists(), "nothing was trained"


def _secrets(key: str | None) -> types.ModuleType:
    """Kaggle's module, with this secret or with none."""

    class UserSecretsClient:
        def get_secret(self, label: str) -> str:
            if key is None:
                raise ConnectionError(f"no secret {label}; the token was {KEY}")
            return key

    module = types.ModuleType("kaggle_secrets")
    module.UserSecretsClient = UserSecretsClient  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("kaggle", "mode", "said"),
    [
        (_secrets(KEY), "online", "W&B: online"),
        (_secrets(None), "offline", "Kaggle gave no secret WANDB_API_KEY: ConnectionError"),
        (None, "offline", "W&B: offline, for there is no secret WANDB_API_KEY"),
    ],
    ids=["secret", "no secret", "elsewhere"],
)
def test_the_key_of_wandb_comes_from_kaggle_and_is_never_printed(
    notebook: Any,
    kaggle: types.ModuleType | None,
    mode: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "kaggle_secrets", kaggle)
    monkeypatch.setenv("WANDB_API_KEY", "")  # so that it is taken back afterwards
    monkeypatch.delenv("WANDB_API_KEY")
    names: dict[str, Any] = {"os": os, "WANDB": "online"}
    exec(_cell(notebook, "wandb").source, names)
    printed = "".join(capsys.readouterr())
    assert names["wandb_mode"] == mode and said in printed
    assert KEY not in printed and KEY not in json.dumps(names, default=repr)
    assert os.environ.get("WANDB_API_KEY") == (KEY if mode == "online" else None)
