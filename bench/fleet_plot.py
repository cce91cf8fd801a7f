"""One picture of a day of `bench/fleet.py`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from fleet_watch import Sample

matplotlib.use("Agg")
from matplotlib import pyplot  # the backend is chosen before

_BINS = 48


def draw(
    path: Path,
    samples: Sequence[Sample],
    rows: Sequence[Mapping[str, Any]],
    began: float,
    length: float,
    factor: float,
    losses: Sequence[tuple[float, str]],
) -> None:
    """Arrivals, backlog, live workers and waits over the day's hours; after 24 what was left is worked off.

    `began` and the losses' times are seconds of the wall clock, `length` is the day's in seconds.
    """

    def hours(at: Any) -> Any:
        return np.asarray(at) / length * 24

    figure, (rates, backlog, live, wait) = pyplot.subplots(4, 1, figsize=(9, 10), sharex=True)
    created = np.array([row["created"] - began for row in rows])
    finished = np.array([row["finished"] - began for row in rows if row["finished"]])
    at = hours([s.at for s in samples])
    bins = np.linspace(0, max(24.0, float(at[-1])), _BINS + 1)
    width = (bins[1] - bins[0]) / 24 * length
    for times, name in ((created, "accepted"), (finished, "ended")):
        counts, _ = np.histogram(hours(times), bins)
        rates.stairs(counts / width / factor, bins, label=name)
    rates.set_ylabel("requests/s\n(at factor 1)")
    rates.legend()
    backlog.plot(at, [s.database["waiting"] for s in samples], label="waiting")
    backlog.plot(at, [s.database["processing"] for s in samples], label="in workers' hands")
    backlog.set_ylabel("requests")
    backlog.legend()
    live.plot(at, [s.up for s in samples], drawstyle="steps-post")
    live.set_ylim(bottom=0)
    live.set_ylabel("workers up")
    for when, kind in losses:
        live.axvline(float(hours(when - began)), color="grey", linewidth=0.5)
        live.text(float(hours(when - began)), 0, kind, rotation=90, fontsize=7, va="bottom")
    claimed = [row for row in rows if row["claimed"]]
    waits = np.array([(row["claimed"] - row["created"]) * factor for row in claimed])
    wait.plot(hours([row["created"] - began for row in claimed]), waits, ".", markersize=2)
    wait.set_yscale("symlog", linthresh=1)
    wait.set_ylim(bottom=0)
    wait.set_ylabel("queue wait, s\n(at factor 1)")
    wait.set_xlabel("hour of the day")
    figure.align_ylabels()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
