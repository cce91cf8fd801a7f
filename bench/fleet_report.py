"""What a day of `bench/fleet.py` was: figures from the database's rows, the engines' files and the samples."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from fleet_watch import Sample
from load import percentile
from report import Table

#: Samples (seconds) of the busiest stretch that is told besides the mean.
PEAK = 15
#: Above this share of the machine the figures are those of a machine that cannot follow.
FULL = 0.9

#: One row for each request: when it was first claimed, from its history.
ROWS = """
    SELECT r.id::text AS id, r.status, r.error, r.attempt,
           extract(epoch FROM r.created_at)::float8 AS created,
           extract(epoch FROM r.finished_at)::float8 AS finished,
           (SELECT extract(epoch FROM min(e.created_at))::float8 FROM events e
            WHERE e.request_id = r.id AND e.data ->> 'status' = 'Processing') AS claimed
    FROM requests r
"""


@dataclass(frozen=True)
class Jobs:
    """Every accepted request is in exactly one of `completed`, `failed` and `lost`.

    `drawn` counts pictures that engines finished, `again` those of them that had been finished before, `useless`
    those of requests that did not end Completed. Waits and turnarounds are simulated seconds.
    """

    accepted: int
    rows: int
    completed: int
    failed: int
    lost: int
    drawn: int
    again: int
    useless: int
    attempts: dict[int, int]
    reasons: dict[str, int]
    waits: list[float]
    turnarounds: list[float]


def jobs_of(
    rows: Sequence[Mapping[str, Any]], accepted: set[str], draws: Sequence[str], factor: float
) -> Jobs:
    """Judge the rows. A request is lost unless it ended Completed, or Failed with a reason."""
    by_id = {row["id"]: row for row in rows}
    completed = {i for i in accepted if i in by_id and by_id[i]["status"] == "Completed"}
    failed = {i for i in accepted if i in by_id and by_id[i]["status"] == "Failed" and by_id[i]["error"]}
    # A worker's row id has a number of the worker's between the request and the image.
    times = Counter((row_id.split("/")[0], row_id.split("/")[-1]) for row_id in draws)
    ended = [by_id[i] for i in completed]
    return Jobs(
        accepted=len(accepted),
        rows=len(rows),
        completed=len(completed),
        failed=len(failed),
        lost=len(accepted - completed - failed),
        drawn=len(draws),
        again=sum(times.values()) - len(times),
        useless=sum(count for (request, _), count in times.items() if request not in completed),
        attempts=dict(sorted(Counter(int(by_id[i]["attempt"]) for i in completed).items())),
        reasons=dict(Counter(str(by_id[i]["error"]) for i in failed)),
        waits=[(row["claimed"] - row["created"]) * factor for row in ended if row["claimed"]],
        turnarounds=[(row["finished"] - row["created"]) * factor for row in ended],
    )


@dataclass(frozen=True)
class Share:
    """How much of a resource was used: 1 is all of it. `real` is what it would be at factor 1."""

    name: str
    of: str
    mean: float
    peak: float
    real: float
    images_a_day: float  # at which the resource would be full at factor 1


def rate(samples: Sequence[Sample], read: Callable[[Sample], float]) -> float:
    """Growth a second of a count, from the first sample to the last."""
    return (read(samples[-1]) - read(samples[0])) / (samples[-1].at - samples[0].at)


def peak(samples: Sequence[Sample], read: Callable[[Sample], float]) -> float:
    """The highest growth a second over `PEAK` samples, or over all where there are fewer."""
    width = min(PEAK, len(samples) - 1)
    return max(rate(samples[n : n + width + 1], read) for n in range(len(samples) - width))


def workers_used(samples: Sequence[Sample]) -> float:
    """Busy seconds of the engines to the seconds for which their hosts were up; 0 while none was."""
    there = sum((after.at - before.at) * (after.up + before.up) / 2 for before, after in pairwise(samples))
    busy = samples[-1].engines.get("busy", 0.0) - samples[0].engines.get("busy", 0.0)
    return busy / there if there else 0.0


def shares(samples: Sequence[Sample], factor: float, cores: int) -> list[Share]:
    """Of the workers, and of what all workers share. Processor time at factor 1 is the run's divided by it."""
    drawn = rate(samples, lambda s: s.engines.get("pictures", 0.0)) / factor * 86400
    width = min(PEAK, len(samples) - 1)
    busiest = max(workers_used(samples[n : n + width + 1]) for n in range(len(samples) - width))
    used = workers_used(samples)
    found = [Share("workers", "seconds of a card", used, busiest, used, drawn / used if used else 0.0)]
    for name, role, whole, of in (
        ("gateway", "gateway", 1, "one core (it is one process with one event loop)"),
        ("PostgreSQL", "postgres", cores, f"{cores} cores"),
        ("RabbitMQ", "rabbit", 1, "one core (it was started with one scheduler)"),
    ):

        def seconds(sample: Sample, role: str = role) -> float:
            return sample.cpu.get(role, 0.0)

        mean = rate(samples, seconds) / whole
        real = mean / factor
        found.append(
            Share(name, of, mean, peak(samples, seconds) / whole, real, drawn / real if real else 0.0)
        )
    return found


def verdict(
    found: Sequence[Share], samples: Sequence[Sample], factor: float, cores: int, workers: int
) -> list[str]:
    """What limits first, with the reasoning."""
    machine = peak(samples, lambda s: s.cpu["machine"]) / cores
    ours = peak(samples, lambda s: sum(v for k, v in s.cpu.items() if k != "machine")) / cores
    lines = []
    if machine > FULL:
        lines.append(
            f"This machine was full: {machine:.0%} of its {cores} cores in the busiest {PEAK} s ({ours:.0%} by this run). "
            f"The waits contain that. A lower --factor than {factor:g} gives the fleet's own."
        )
    workers_share, *central = found
    first = max(central, key=lambda share: share.real)
    at_real = max(
        [workers_share, first], key=lambda share: share.peak if share is workers_share else share.real
    )
    lines.append(
        f"In this run the workers were used {workers_share.mean:.0%} (peak {workers_share.peak:.0%}); of what they share, "
        + ", ".join(f"{s.name} {s.mean:.0%} (peak {s.peak:.0%})" for s in central)
        + "."
    )
    lines.append(
        f"At factor 1 the workers' share stays, and processor time is divided by {factor:g}: "
        + ", ".join(f"{s.name} {s.real:.1%}" for s in central)
        + f". So **what limits first: {at_real.name}**, of all the nearest to its whole."
    )
    lines.append(
        f"Of what the workers share, {first.name} comes first: full with about {workers / first.real:,.0f} such workers or "
        f"{first.images_a_day:,.0f} images a day (its processor time scaled up; a mean, without room for peaks)."
    )
    return lines


def table(
    jobs: Jobs, samples: Sequence[Sample], last: Sample, found: Sequence[Share], options: Mapping[str, Any]
) -> Table:
    """All figures; what is a rate has its value in the run and at factor 1.

    Rates are those of `samples`, the day; what is told for one request is counted until all have ended, `last`.
    """
    factor = float(options["factor"])
    seconds = samples[-1].at - samples[0].at
    result = Table(
        f"{options['workers']} workers ({options['gpu']}) on {options['cores']} cores, factor {factor:g}",
        ("what", "in this run", "at factor 1"),
    )

    def both(what: str, a_second: float, unit: str) -> None:
        result.add(what, f"{a_second:,.1f} {unit}/s", f"{a_second / factor:,.2f} {unit}/s")

    def waits(what: str, values: Sequence[float]) -> None:
        cut = [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)]
        text = " / ".join(f"{value / factor:,.2f}" for value in cut)
        result.add(what, f"{text} s", " / ".join(f"{value:,.1f}" for value in cut) + " s")

    days = seconds * factor / 86400
    result.add(
        "length of the day", f"{seconds:,.0f} s", f"{seconds * factor / 60:,.0f} min ({days:.1%} of a day)"
    )
    result.add("requests accepted", f"{jobs.accepted:,}", f"{jobs.accepted / days:,.0f} a day")
    result.add("ended Completed / Failed with a reason", f"{jobs.completed:,} / {jobs.failed:,}", "")
    result.add("**lost**", f"**{jobs.lost:,}**", "")
    result.add(
        "pictures drawn / again / for nothing", f"{jobs.drawn:,} / {jobs.again:,} / {jobs.useless:,}", ""
    )
    waits("queue wait p50 / p95 / p99 / longest", jobs.waits)
    waits("accepted to completed p50 / p95 / p99 / longest", jobs.turnarounds)
    result.add("hosts that went", options["went"], "")
    engines = samples[-1].engines
    if engines.get("steps"):
        result.add("rows in a step (batch fill)", f"{engines['places'] / engines['steps']:.1f} of 8", "")
    both("messages published", rate(samples, lambda s: s.broker["publish"]), "messages")
    both("messages delivered", rate(samples, lambda s: s.broker["deliver"]), "messages")
    result.add("messages delivered again", f"{samples[-1].broker['redeliver']:,.0f}", "")
    both("database transactions", rate(samples, lambda s: s.database["transactions"]), "")
    both("rows written", rate(samples, lambda s: s.database["rows_written"]), "rows")
    both("write-ahead log", rate(samples, lambda s: s.database["wal"]) / 1024, "kB")
    result.add("events stored for one request", f"{last.database['events'] / max(1, jobs.rows):.1f}", "")
    connections = (
        max(s.database["connections"] for s in samples),
        max(s.broker["connections"] for s in samples),
    )
    result.add("most connections: database / broker", f"{connections[0]:.0f} / {connections[1]:.0f}", "")
    for share in found:
        result.add(
            f"{share.name} used, of {share.of}: mean (peak)",
            f"{share.mean:.0%} ({share.peak:.0%})",
            f"{share.real:.1%}; full at {share.images_a_day:,.0f} images a day",
        )
    grown = (last.database["size"] - samples[0].database["size"]) / 1024
    result.add("database size of a request", f"{grown / max(1, jobs.rows):.1f} kB", "")
    ended = max(1, jobs.completed)
    for name, role in (
        ("gateway", "gateway"),
        ("PostgreSQL", "postgres"),
        ("RabbitMQ", "rabbit"),
        ("workers", "workers"),
    ):
        cpu = last.cpu.get(role, 0.0) - samples[0].cpu.get(role, 0.0)
        result.add(
            f"processor time of {name} a completed request", f"{cpu / ended * 1000:.1f} ms", "the same"
        )
    return result


def as_json(
    jobs: Jobs, samples: Sequence[Sample], found: Sequence[Share], told: Sequence[str]
) -> dict[str, Any]:
    return {
        "jobs": asdict(jobs),
        "shares": [asdict(share) for share in found],
        "verdict": list(told),
        "samples": [asdict(sample) for sample in samples],
    }
