"""Labels stay few, GPUs are read where there are any, and the guide tells what the code has."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client import CollectorRegistry

from itemforge.telemetry import gateway_metrics, gpu, worker_metrics
from itemforge.telemetry.gateway_metrics import GatewayMetrics
from itemforge.telemetry.metrics import FewValues, StyleLabel, exposition, new_registry
from itemforge.telemetry.worker_metrics import WorkerMetrics
from itemforge.worker.probes import Probes


def _value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_what_comes_from_outside_makes_few_series() -> None:
    metrics = WorkerMetrics()
    for n in range(1000):
        metrics.job_ended("completed", f"style-{n}@{n}", 1, 0.1)
    text = exposition(metrics.registry)[0].decode()
    series = [line for line in text.splitlines() if line.startswith("itemforge_worker_images_total{")]
    assert len(series) == 101
    assert _value(metrics.registry, "itemforge_worker_images_total", style="other") == 900
    assert _value(metrics.registry, "itemforge_worker_images_total", style="style-7") == 1


def test_a_styles_versions_are_one_series_and_no_style_has_a_name() -> None:
    label = StyleLabel()
    assert [label.of(name) for name in ("plain@1", "plain@2", None)] == ["plain", "plain", "none"]
    few = FewValues(most=1)
    assert [few("a"), few("b"), few("a")] == ["a", "other", "a"]


def test_unforeseen_outcomes_and_stages_are_other() -> None:
    metrics = WorkerMetrics()
    metrics.claim_answered("0f8c2b6e")
    metrics.engine_worked(3, 4, [("unet", 0.5), ("0f8c2b6e", 0.1)], out_of_memory=2)
    registry = metrics.registry
    assert _value(registry, "itemforge_worker_claims_total", outcome="other") == 1
    assert _value(registry, "itemforge_worker_stage_seconds_count", stage="other") == 1
    assert _value(registry, "itemforge_worker_step_seconds_sum") == 0.5
    assert _value(registry, "itemforge_worker_batch_fill_ratio_sum") == 0.75
    assert _value(registry, "itemforge_worker_steps_total") == 3
    assert _value(registry, "itemforge_worker_out_of_memory_total") == 2


def test_known_outcomes_and_stages_begin_at_0() -> None:
    worker, gateway = WorkerMetrics().registry, GatewayMetrics().registry
    for outcome in worker_metrics.JOB_OUTCOMES:
        assert _value(worker, "itemforge_worker_job_seconds_count", outcome=outcome) == 0
    for stage in worker_metrics.STAGES:
        assert _value(worker, "itemforge_worker_stage_seconds_count", stage=stage) == 0
    for outcome in gateway_metrics.OUTCOMES:
        assert _value(gateway, "itemforge_job_seconds_count", outcome=outcome) == 0


def test_a_stage_that_fails_is_measured_too() -> None:
    metrics = WorkerMetrics()
    with pytest.raises(RuntimeError), metrics.stage("upload"):
        raise RuntimeError("away")
    assert _value(metrics.registry, "itemforge_worker_stage_seconds_count", stage="upload") == 1


class Nvml:
    """NVIDIA's library as it answers for two cards, of which one does not tell its power and one is lost."""

    class NVMLError(Exception):
        pass

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, count: int = 3) -> None:
        self._count = count

    def nvmlDeviceGetCount(self) -> int:
        if self._count < 0:
            raise self.NVMLError("driver unloaded")
        return self._count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 2:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(used=(index + 1) * 2**30, total=12 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetTemperature(self, index: int, sensor: int) -> int:
        return 71

    def nvmlDeviceGetPowerUsage(self, index: int) -> int:
        if index == 1:
            raise self.NVMLError("not supported")
        return 165_000


def test_gpus_are_read_at_each_scrape_and_what_a_card_does_not_tell_is_left_out() -> None:
    registry = CollectorRegistry()
    gpu.GpuCollector(registry, Nvml())
    assert _value(registry, "itemforge_gpu_memory_used_bytes", gpu="1") == 2 * 2**30
    assert _value(registry, "itemforge_gpu_memory_total_bytes", gpu="0") == 12 * 2**30
    assert _value(registry, "itemforge_gpu_utilization_ratio", gpu="0") == 0.97
    assert _value(registry, "itemforge_gpu_temperature_celsius", gpu="0") == 71
    assert _value(registry, "itemforge_gpu_power_watts", gpu="0") == 165
    assert _value(registry, "itemforge_gpu_power_watts", gpu="1") is None
    assert _value(registry, "itemforge_gpu_memory_used_bytes", gpu="2") is None


def test_a_machine_without_gpus_or_whose_driver_went_tells_nothing_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "find_nvml", lambda: None)
    without, lost = CollectorRegistry(), CollectorRegistry()
    gpu.GpuCollector(without)
    gpu.GpuCollector(lost, Nvml(count=-1))
    for registry in (without, lost):
        assert exposition(registry)[0] == b""


def test_the_workers_port_shows_the_metrics_in_both_languages() -> None:
    registry = new_registry("worker")
    probes = Probes("127.0.0.1", 0, lambda: (True, {}), lambda accept: exposition(registry, accept))
    probes._thread.start()
    try:
        url = f"http://127.0.0.1:{probes.port}/metrics"
        plain = httpx.get(url)
        assert plain.headers["content-type"].startswith("text/plain; version=")
        assert 'itemforge_build_info{process="worker"' in plain.text
        accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
        spoken = httpx.get(url + "?x=1", headers=accept)
        assert spoken.headers["content-type"].startswith("application/openmetrics-text")
        assert spoken.text.endswith("# EOF\n")
        assert httpx.get(f"http://127.0.0.1:{probes.port}/metricsx").status_code == 404
    finally:
        probes._server.shutdown()
        probes._server.server_close()


def test_the_guide_has_every_metric() -> None:
    script = Path(__file__).parents[2] / "scripts/metrics_table.py"
    checked = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
