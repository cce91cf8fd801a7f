"""The CUDA bench on a CPU with tiny shapes: it measures, remembers, and counts FLOPs rightly."""

import json
from pathlib import Path

import gpu
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def test_every_cell_is_measured_once_and_a_second_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    command = ["--results", str(results), "--tiny"]
    gpu.main([*command, "--minutes", "-1"])
    assert "run the same command again" in capsys.readouterr().out
    assert not results.exists()

    gpu.main(command)
    first = json.loads(results.read_text())
    assert list(first) == ["eager 1", "eager 2", "graphs 1", "graphs 2"]
    for cell in first.values():
        assert cell["denoise_seconds"] > 0
        assert cell["images_a_second"] > 0
        assert cell["tflops"] > 0

    del first["eager 2"]
    kept = first["eager 1"]
    results.write_text(json.dumps(first))
    gpu.main([*command, "--out", str(tmp_path / "table.md")])
    again = json.loads(results.read_text())
    assert again["eager 1"] == kept, "a finished cell is not measured again"
    assert "eager 2" in again
    assert (tmp_path / "table.md").read_text().count("| eager | ") == 2


def test_flops_are_counted_without_computing_and_are_those_of_a_real_call() -> None:
    model = gpu.unet(gpu.TINY)
    counter = FlopCounterMode(display=False)
    # The CPU's fused attention is not counted by PyTorch; the same attention in plain products is.
    with sdpa_kernel(SDPBackend.MATH), counter, torch.inference_mode():
        model(torch.zeros(2, 4, 8, 8), torch.zeros(2), torch.zeros(2, 77, 32))

    assert gpu.flops_of_a_place(gpu.TINY) * 2 == counter.get_total_flops()


def test_a_place_of_sd15_takes_about_0_8_tera_operations() -> None:
    """Published counts say 0.68 to 0.8 TFLOP for a 64×64 latent, by what they count as attention."""
    assert 0.6e12 < gpu.flops_of_a_place(gpu.SD15) < 0.9e12


def test_a_batch_that_does_not_fit_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu, "measure", full)
    results = tmp_path / "results.json"
    gpu.main(["--results", str(results), "--tiny"])

    assert {cell["error"] for cell in json.loads(results.read_text()).values()} == {"out of memory"}


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H200", 989), ("NVIDIA A10G", 70), ("NVIDIA A10", 125), ("NVIDIA L40S", 362), ("Another", None)],
)
def test_the_peak_is_looked_up_by_the_devices_name(name: str, peak: float | None) -> None:
    assert gpu.peak_of(name) == peak
