"""The oracle of every fault scenario: after healing and draining, was anything lost, doubled or made up?

- every accepted id is in a terminal state, and none but the expected ones has failed;
- every object of a Completed row exists, is a PNG and shows its seed;
- one URL for each id, the same in every event that ever told one;
- main and retry queues are empty, also after the workers gave back what they held;
- the dead queue holds exactly the poison ids;
- `/v1/stats` agrees with the rows.
"""

import json
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from fake_engine import pixels_of
from PIL import Image
from processes import Process
from stack import TERMINAL, Row, Stack

from polling import wait_until

#: Looks at the queues in a row that must all find them empty.
_LOOKS = 3


def check(
    stack: Stack,
    *,
    failed: Iterable[str] = (),
    dead: Iterable[str | None] | None = None,
    within: float = 60.0,
) -> dict[str, Row]:
    """Wait until the system is at rest, stop its workers, and judge; gives the accepted rows.

    `failed` are the ids that may and must have Failed; `dead` what the dead queue must hold (`None` for a
    message without a readable id), by default the failed ones. A gateway must be up.
    """
    failed = set(failed)
    stack.wait_ended(within=within)
    wait_until(lambda: _empty(stack), within, every=0.1, why="queues empty and nothing unacknowledged")
    for worker in (p for p in stack.processes if p.alive and p.name.startswith("worker")):
        _stop(worker)
    left = stack.all_ready_messages()
    assert not any(left.values()), left
    rows = stack.rows(stack.accepted)
    states = stack.all_states()
    for row in rows.values():
        assert row.status == ("Failed" if row.id in failed else "Completed"), row
        _check_told(row, states[row.id])
        if row.status == "Completed":
            check_pictures(stack, row)
        else:
            assert row.error, row
    expected: list[str | None] = list(failed if dead is None else dead)
    assert Counter(_dead_ids(stack)) == Counter(expected)
    _check_stats(stack)
    return rows


def _empty(stack: Stack) -> bool:
    # Retry queues come first: a message on its way to the main queue is not missed.
    return all(
        not any(stack.all_ready_messages().values()) and not stack.unacked_messages() for _ in range(_LOOKS)
    )


def _stop(worker: Process) -> None:
    assert worker.end() == 0, worker.tail()
    # What a worker logs as an error is a bug of ours or a component lost; the former has a traceback.
    bugs = [e for e in worker.events() if e["message"] in ("job_broke", "job_not_ended")]
    assert not bugs, bugs


def _check_told(row: Row, states: list[dict[str, Any]]) -> None:
    """What the row's events said: one end, and one URL."""
    urls = {state["image_url"] for state in states if state.get("image_url")}
    assert urls == ({row.image_url} if row.image_url else set()), (row, urls)
    told = [state["status"] for state in states]
    assert [status for status in told if status in TERMINAL] == [row.status], told
    assert told[-1] == row.status


def check_pictures(stack: Stack, row: Row) -> None:
    """Every picture of a Completed row is there and is the right one."""
    assert len(row.images) == row.params["num_images"], row
    assert row.image_url == row.images[0]["url"]
    for n, image in enumerate(row.images):
        assert image["n"] == n
        seed = row.params["seed"] + n
        assert int(image["seed"]) == seed
        answer = stack.http.get(image["url"])
        answer.raise_for_status()
        picture = Image.open(BytesIO(answer.content))
        assert picture.format == "PNG"
        picture.load()
        colour = int(pixels_of(seed)[0, 0, 0])
        assert picture.convert("RGB").getextrema() == ((colour, colour),) * 3, (row, image)


def _dead_ids(stack: Stack) -> list[str | None]:
    ids: list[str | None] = []
    for message in stack.dead():
        try:
            ids.append(json.loads(message["body"])["request_id"])
        except (ValueError, KeyError, TypeError):
            ids.append(None)
    return ids


def _check_stats(stack: Stack) -> None:
    counted = Counter(row.status for row in stack.rows().values())
    stats = stack.stats()
    assert {s: n for s, n in stats["requests"].items() if n} == dict(counted)
    assert (stats["unpublished"], stats["waiting"]) == (0, 0), stats
