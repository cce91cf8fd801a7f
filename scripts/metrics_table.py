"""Writes the table of metrics into docs/metrics.md, or with --check says whether it is up to date.

Usage: python scripts/metrics_table.py [--check]
"""

import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from itemforge.gateway.metrics import GAUGES, FiguresCollector
from itemforge.telemetry.gateway_metrics import GatewayMetrics
from itemforge.telemetry.worker_metrics import WorkerMetrics

GUIDE = Path(__file__).parents[1] / "docs/metrics.md"


def families(registry: CollectorRegistry) -> list[tuple[Metric, str]]:
    """Every metric that our code makes, with its labels."""
    collectors: list[Collector] = list(registry._collector_to_names)
    found = []
    for collector in collectors:
        for family in collector.describe():
            labels = getattr(collector, "_labelnames", None)
            if labels is None:
                labels = tuple(label for name, _, label in GAUGES if name == family.name and label)
                labels = labels or (("gpu",) if family.name.startswith("itemforge_gpu") else ())
            found.append((family, ", ".join(labels)))
    return sorted(found, key=lambda pair: pair[0].name)


def table(registry: CollectorRegistry) -> str:
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family, labels in families(registry):
        name = family.name + ("_total" if family.type == "counter" else "")
        lines.append(
            f"| `{name}` | {family.type} | {labels} | {family.documentation} |".replace("|  |", "| |")
        )
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """The tables by the name of their place in the guide."""
    gateway, worker = CollectorRegistry(), CollectorRegistry()
    GatewayMetrics(gateway)
    gateway.register(FiguresCollector())
    WorkerMetrics(worker)
    return {"gateway": table(gateway), "worker": table(worker)}


def main() -> int:
    guide = wanted = GUIDE.read_text()
    for name, text in tables().items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = wanted.split(start)
        wanted = f"{before}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    if "--check" in sys.argv:
        if guide != wanted:
            print("docs/metrics.md: the tables of metrics are out of date; run make fix", file=sys.stderr)
        return int(guide != wanted)
    GUIDE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
