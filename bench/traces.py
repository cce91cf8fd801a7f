"""What traces cost the worker for each job: off, with a collector, without one, and with one that hangs.

python bench/traces.py [jobs]

A job is all that gateway, relay and worker say of one with 50 steps: 11 spans, 50 events. Times are processor time of the thread
that does the work, which is the event loop's, and wall time; memory is what Python holds at the end.
"""

import gc
import socket
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from itemforge.settings import LogSettings
from itemforge.telemetry import traces
from itemforge.telemetry.attempts import Attempt, Picture
from itemforge.telemetry.export import tracing
from otlp_sink import Sink

STEPS = 50


def job() -> None:
    with traces.serving("POST", "/v1/generations", None) as served:
        row = traces.here()
        served.status, served.route = 202, "/v1/generations"
    with traces.publishing("0af76519-16cd-43dd-8448-eb211c80319c", row) as headers:
        pass
    attempt = Attempt(headers, "0af76519-16cd-43dd-8448-eb211c80319c")
    attempt.claiming()
    attempt.claimed(None, None, {"attempt": 1, "style": "plain@1", "worker_id": "w"})
    with attempt.active():
        picture = Picture(attempt, 0)
        picture.submitted()
        now = time.monotonic()
        picture.stage("merge", now, now)
        picture.stage("encode", now, now)
        for step in range(STEPS):
            picture.step(step + 1)
        picture.stage("decode", now, now)
        picture.ended()
        with traces.span("upload", image=0, bytes=300_000):
            pass
        with traces.span("report", status="Completed"):
            pass
        attempt.ended("completed")


@contextmanager
def hanging() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def measure(url: str | None, jobs: int) -> tuple[float, float, float]:
    """Milliseconds of processor and of wall time for each job, and MiB held after all of them."""
    with tracing(LogSettings(otel_endpoint=url), "worker"):
        job()
        gc.collect()
        wall, cpu = time.perf_counter(), time.thread_time()
        for _ in range(jobs):
            job()
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        tracemalloc.start()
        for _ in range(jobs):
            job()
        held = tracemalloc.get_traced_memory()[0] / 2**20
        tracemalloc.stop()
    return 1000 * cpu / jobs, 1000 * wall / jobs, held


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        cases = {
            "off": None,
            "a collector": sink.url,
            "none at the address": "http://127.0.0.1:9",
            "one that hangs": stack.enter_context(hanging()),
        }
        print(f"{'collector':22} {'cpu ms/job':>11} {'wall ms/job':>12} {'MiB held':>9}")
        for name, url in cases.items():
            cpu, wall, held = measure(url, jobs)
            print(f"{name:22} {cpu:11.3f} {wall:12.3f} {held:9.1f}")


if __name__ == "__main__":
    main()
