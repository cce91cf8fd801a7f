"""Jobs a minute: our worker beside the original service's loop and the bare diffusers pipeline.

    python bench/worker.py [--rounds 3] [--count 20] [--quick] [--out FILE]

Every contestant is a warm process of its own and draws the same prompts with the starter: 25 DDIM steps,
guidance 4, 64×64. Those with a queue have a gateway, a RabbitMQ vhost and a PostgreSQL database each, and
share one GCS emulator; `count` requests are posted at once, and the clock runs from the first one's row to
the last one's end. They take turns, so that a busy machine slows all alike; a round of one runs while the
others are idle. All have PyTorch's default number of threads and the same GOMP_SPINCOUNT. The ratio is
between medians of the rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pipeline import GUIDANCE, PROMPTS, STEPS, draw, load_pipeline, one_step
from report import Table, write
from stack import Program, Services, Stack, read_stages

from itemforge.engine.quality import LEVELS, Quality

#: As the engine sets it for itself: several processes share the cores.
SPIN = {"GOMP_SPINCOUNT": "10000"}
HERE = Path(__file__).parent


@dataclass
class Contestant:
    """`run` draws all pictures once and says how many seconds it took."""

    name: str
    dtype: str
    run: Callable[[int], float]
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def best_dtype() -> str:
    """The dtype in which the pipeline draws one picture fastest on this machine."""
    taken: dict[str, float] = {}
    for name in ("float32", "bfloat16"):
        pipeline = load_pipeline(getattr(torch, name))
        one_step(pipeline)
        taken[name] = min(draw(pipeline, 1, 1) for _ in range(3))
    return min(taken, key=taken.__getitem__)


@contextmanager
def queue_contestant(
    services: Services, name: str, dtype: str, start: Callable[[Stack], tuple[Program, str]]
) -> Iterator[Contestant]:
    with services.stack(name.replace(" ", "-").replace("'", "")) as stack:
        program, ready = start(stack)
        try:
            program.said(ready)

            def run(count: int) -> float:
                prompts = [PROMPTS[n % len(PROMPTS)] for n in range(count)]
                ids = stack.submit(prompts, num_inference_steps=STEPS, guidance_scale=GUIDANCE)
                return stack.seconds(ids)

            run(2)  # connections and code paths are warm, too
            yield Contestant(name, dtype, run)
        finally:
            program.stop()


def seed_loop(dtype: str) -> Callable[[Stack], tuple[Program, str]]:
    def start(stack: Stack) -> tuple[Program, str]:
        where = ("--amqp", stack.amqp, "--gateway", stack.address)
        store = ("--emulator", stack.emulator, "--bucket", stack.bucket)
        script = str(HERE / "seed_worker.py")
        return Program(stack.folder, "seed", script, *where, *store, "--dtype", dtype, **SPIN), "ready"

    return start


def our_worker(quality: str, stages: Path, dtype: str = "auto") -> Callable[[Stack], tuple[Program, str]]:
    def start(stack: Stack) -> tuple[Program, str]:
        ours = {"ITEMFORGE_QUALITY": quality, "ITEMFORGE_DTYPE": dtype}
        settings = stack.settings(stack.folder / "home") | ours | SPIN
        return Program(
            stack.folder, "worker", str(HERE / "staged.py"), str(stages), **settings
        ), "worker_ready"

    return start


@contextmanager
def pipeline_contestants(folder: Path, dtype: str, batches: tuple[int, ...]) -> Iterator[list[Contestant]]:
    program = Program(folder, f"pipeline-{dtype}", str(HERE / "pipeline.py"), "--dtype", dtype, **SPIN)
    try:
        program.said("ready")

        def run(batch: int, count: int) -> float:
            stdin = program.process.stdin
            if stdin is None:
                raise AssertionError("the pipeline is asked through its standard input")
            lines = len(program.log.read_text().splitlines())
            stdin.write(f"{batch} {count}\n".encode())
            stdin.flush()
            while len(answer := program.log.read_text().splitlines()) == lines:
                if program.process.poll() is not None:
                    raise RuntimeError(f"the pipeline ended; see {program.log}")
                time.sleep(0.02)
            return float(answer[-1])

        yield [
            Contestant(f"diffusers pipeline alone, batches of {b}", dtype, lambda count, b=b: run(b, count))
            for b in batches
        ]
    finally:
        program.stop()


def contestants(services: Services, exits: ExitStack, quick: bool) -> tuple[list[Contestant], Path]:
    stages = services.folder / "stages.json"
    found = [
        exits.enter_context(queue_contestant(services, "the seed's loop", "float32", seed_loop("float32")))
    ]
    exact = our_worker("exact", stages)
    found.append(exits.enter_context(queue_contestant(services, "ours, exact", "float32", exact)))
    if quick:
        return found, stages
    found += exits.enter_context(pipeline_contestants(services.folder, "float32", (1, 4, 8)))
    if (best := best_dtype()) != "float32":
        loop = queue_contestant(services, "the seed's loop, best dtype", best, seed_loop(best))
        found.append(exits.enter_context(loop))
        same = our_worker("exact", services.folder / "best.json", best)
        found.append(exits.enter_context(queue_contestant(services, "ours, best dtype", best, same)))
    levels: tuple[Quality, ...] = ("standard", "draft")
    for quality in levels:
        start = our_worker(quality, services.folder / f"{quality}.json")
        name = f"ours, {quality} ({LEVELS[quality].steps(STEPS)} steps)"
        found.append(exits.enter_context(queue_contestant(services, name, "best", start)))
    return found, stages


def results(found: list[Contestant], count: int, rounds: int) -> Table:
    table = Table(
        f"{count} queued prompts, {STEPS} DDIM steps, {rounds} rounds",
        ("who", "dtype", "seconds (each round)", "jobs a minute", "× the seed's loop"),
    )
    seed = found[0].median
    for one in found:
        each = ", ".join(f"{s:.1f}" for s in one.seconds)
        ratio = f"{seed / one.median:.2f}"
        table.add(one.name, one.dtype, each, f"{60 * count / one.median:.0f}", ratio)
    return table


def where_time_goes(stages: dict[str, float], total: float, count: int, rounds: int) -> Table:
    """Shares of a job of the exact worker; what the engine's process does not account for is idle."""
    table = Table(
        "Where the time of `ours, exact` goes, a job", ("stage of the engine's process", "ms a job", "share")
    )
    jobs = count * rounds + 2  # two to warm it
    engine = stages["total"]
    named = {name: stages.get(name, 0.0) for name in ("unet", "encode", "decode", "merge")}
    parts = named | {"between stages (queue, events, pipe)": engine - sum(named.values())}
    for name, seconds in parts.items():
        table.add(name, f"{1000 * seconds / jobs:.1f}", f"{seconds / engine:.1%}")
    table.note(
        f"The engine's process was busy for {1000 * engine / jobs:.0f} ms a job; from POST to the row's end "
        f"{1000 * total / count / rounds:.0f} ms a job passed. PNG, upload and report are the parent's, beside it."
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="the loop and the exact worker alone")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with Services() as services, ExitStack() as exits:
        found, stages = contestants(services, exits, options.quick)
        for _ in range(options.rounds):
            for one in found:
                one.seconds.append(one.run(options.count))
        write(results(found, options.count, options.rounds), options.out)
        exact = found[1]
        table = where_time_goes(
            read_stages(stages)["stages"], sum(exact.seconds), options.count, options.rounds
        )
        write(table, options.out)


if __name__ == "__main__":
    main()
