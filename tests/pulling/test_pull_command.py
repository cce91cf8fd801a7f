"""The command as a process: killed in the middle and run again, what it prints, what its exit says."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repo
from model_files import BIG, COMMIT, UNNEEDED, lora, sd15

from itemforge.cli import run
from polling import wait_until

UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
NAME = UNET.rpartition("/")[2]


def start(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "itemforge", "models", "pull", *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: exit code, output, errors."""

    def run_it(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["itemforge", "models", "pull", *args])
        with pytest.raises(SystemExit) as end:
            run()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run_it


def test_a_killed_pull_goes_on_where_it_was(hub: FakeHub, home: Path) -> None:
    hub.stops[NAME] = BIG // 2
    process = start("sd15")
    part = home / "models/sd15.part" / f"{UNET}.part"
    wait_until(lambda: part.exists() and part.stat().st_size >= BIG // 2, within=30)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    hub.go_on.set()
    assert not (home / "models/sd15").exists()
    kept = part.stat().st_size
    hub.sent.clear()

    second = start("sd15")
    out, err = second.communicate(timeout=60)

    assert second.returncode == 0, err
    assert str(home / "models/sd15") in out
    assert hub.asked(UNET)[-1].headers["range"] == f"bytes={kept}-"
    assert hub.sent[NAME] == len(sd15()[UNET]) - kept + len(sd15()["vae/" + NAME])
    assert all((home / "models/sd15" / n).read_bytes() == d for n, d in sd15().items() if n not in UNNEEDED)
    assert f"{UNET}: goes on at 1." in err


def test_a_mistake_is_one_line_and_the_exit_says_whose(hub: FakeHub, said) -> None:
    code, out, err = said("sd16")
    assert (code, out) == (64, "")
    assert err.startswith("itemforge: ")
    assert "did you mean sd15?" in err
    assert said("sd15", "--sha256", "x")[0] == 64
    assert said("sd15", "--lora", "x")[0] == 64


def test_a_refused_token_is_not_printed(hub: FakeHub, said, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["me/private"] = Repo({"x.safetensors": lora()}, token="hf_right")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_secret")
    code, out, err = said("hf:me/private/x.safetensors")
    assert code == 64
    assert "HF_TOKEN" in err
    assert "hf_wrong_secret" not in out + err
    assert len(err.splitlines()) == 1


def test_no_network_is_said_and_may_be_tried_again(said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = said("sd15")
    assert code == 69
    assert "check the network" in err


def test_what_is_there_is_said_on_one_line(hub: FakeHub, home: Path, said) -> None:
    code, out, err = said("sd15")
    assert code == 0
    assert out == f"sd15: {home}/models/sd15 (12 files, 3.00 MB, {COMMIT})\n"
    assert f"{UNET}: 3.00 MB of 3.00 MB" in err
    code, out, err = said("sd15")
    assert code == 0
    assert out.startswith(f"sd15: was there already, and is whole: {home}/models/sd15 ")
    assert err == ""


def test_the_logic_needs_no_torch() -> None:
    asked = (
        "import sys, itemforge.pulling.recipe, itemforge.pulling.wandb_client; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
