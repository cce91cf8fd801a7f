"""How soon a lone job begins while seven others run: from POST and from its claim to its first step.

    python bench/latency.py [--rounds 5] [--out FILE]

One worker with batch 8 on RabbitMQ, PostgreSQL and a GCS emulator draws seven long jobs; then one more is
posted. Its claim is the database's `Processing` event, its first step the engine's own; both clocks are
this machine's. Steps are those of the engine between the claim and the end of the first step.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
from pipeline import GUIDANCE
from report import Table, write
from stack import Services, Stack, read_stages

from itemforge.contract import Status
from worker import our_worker

OTHERS = 7
#: Long enough that the seven still run when the lone job has begun.
LONG, SHORT = 60, 2


def once(stack: Stack, written: Path) -> dict[str, float]:
    """Milliseconds and step times of one lone job."""
    with httpx.Client(base_url=stack.address, trust_env=False, timeout=30) as client:

        def post(seed: int, steps: int) -> str:
            body = {"prompt": "a key", "num_inference_steps": steps, "guidance_scale": GUIDANCE, "seed": seed}
            return str(client.post("/generate", json=body).raise_for_status().json()["request_id"])

        others = [post(n, LONG) for n in range(OTHERS)]
        while running(stack, others) < OTHERS:
            time.sleep(0.1)
        time.sleep(0.3)  # the last of them is a step or more into its way
        posted = time.time()
        lone = post(OTHERS, SHORT)
    stack.seconds([*others, lone])
    ((claimed,),) = stack.query(
        "SELECT extract(epoch FROM min(created_at)) FROM events WHERE request_id = %s::uuid"
        " AND type = 'state' AND data->>'status' = %s",
        lone,
        Status.PROCESSING.value,
    )
    return evaluated(read_stages(written), lone, posted, float(claimed))


def running(stack: Stack, ids: list[str]) -> int:
    ((count,),) = stack.query(
        "SELECT count(*) FROM requests WHERE id = ANY(%s::uuid[]) AND status = 'Processing'", ids
    )
    return int(count)


def evaluated(written: dict[str, Any], lone: str, posted: float, claimed: float) -> dict[str, float]:
    first = next(row["first_step"] for name, row in written["rows"].items() if name.startswith(lone))
    meanwhile = [end - begin for begin, end in written["steps"] if end > claimed and begin < first]
    step = statistics.median(meanwhile)
    return {
        "POST to first step, ms": 1000 * (first - posted),
        "POST to claim, ms": 1000 * (claimed - posted),
        "claim to first step, ms": 1000 * (first - claimed),
        "one step meanwhile, ms": 1000 * step,
        "claim to first step, in step times": (first - claimed) / step,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = Table("A lone job that arrives while seven others run, batch 8", ("what", "median", "largest"))
    with Services() as services, services.stack("latency") as stack:
        written = services.folder / "latency.json"
        program, ready = our_worker("exact", written)(stack)
        try:
            program.said(ready)
            stack.seconds(stack.submit(["a key"], num_inference_steps=SHORT))
            results = [once(stack, written) for _ in range(options.rounds)]
        finally:
            program.stop()
    for name in results[0]:
        values = [result[name] for result in results]
        table.add(name, f"{statistics.median(values):.1f}", f"{max(values):.1f}")
    write(table, options.out)


if __name__ == "__main__":
    main()
