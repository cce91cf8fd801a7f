"""Memory and use of this machine's GPUs, read from NVIDIA's driver at each scrape; nothing where there is none.

Source: NVIDIA's NVML API reference, through their Python bindings (nvidia-ml-py).
"""

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

#: Metric and meaning, in the order of `_read`.
GAUGES = (
    ("itemforge_gpu_memory_used_bytes", "Memory of the GPU in use, by whomever."),
    ("itemforge_gpu_memory_total_bytes", "Memory of the GPU."),
    ("itemforge_gpu_utilization_ratio", "Share of the last moment in which the GPU computed."),
    ("itemforge_gpu_temperature_celsius", "Temperature of the GPU."),
    ("itemforge_gpu_power_watts", "Electrical power that the GPU draws."),
)


def find_nvml() -> Any | None:
    """NVIDIA's library, ready for use; None where there is no driver or no binding."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, no library, no permission: a machine without a GPU to watch
        return None
    return pynvml


class GpuCollector(Collector):
    """Gauges by the GPU's index on this machine; what a card does not tell is left out."""

    def __init__(self, registry: CollectorRegistry, nvml: Any | None = None) -> None:
        self._nvml = nvml or find_nvml()
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(name, text, labels=["gpu"]) for name, text in GAUGES]

    def collect(self) -> Iterable[Metric]:
        if self._nvml is None:
            return []
        families = [GaugeMetricFamily(name, text, labels=["gpu"]) for name, text in GAUGES]
        count = self._ask(self._nvml.nvmlDeviceGetCount) or 0
        for index in range(int(count)):
            for family, value in zip(families, self._read(index), strict=True):
                if value is not None:
                    family.add_metric([str(index)], value)
        return [family for family in families if family.samples]

    def _read(self, index: int) -> list[float | None]:
        nvml = self._nvml
        assert nvml is not None  # noqa: S101  # for the type checker
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError:
            return [None] * len(GAUGES)  # lost, or not ours
        return [
            self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total),
            self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
            self._ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
        ]

    def _ask(self, question: Callable[[], Any]) -> float | None:
        assert self._nvml is not None  # noqa: S101  # for the type checker
        try:
            return float(question())
        except self._nvml.NVMLError:
            return None
