"""Every line that a running system writes is in the schema, says whose it is, and shows no prompt."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from processes import Process
from stack import Stack

from ecs_schema import wrong
from otlp_sink import Sink
from polling import wait_until

SECRET_WORDS = "a velvet samovar"


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


def _lines(*processes: Process) -> list[dict[str, Any]]:
    """Whole lines of whole logs; every one must be JSON."""
    return [
        json.loads(line) for process in processes for line in process.log.read_text().split("\n")[:-1] if line
    ]


def _said(lines: list[dict[str, Any]], action: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"].get("action") == action]


def test_the_lines_of_a_system_with_troubles_are_ecs_and_tell_no_prompt(stack: Stack, sink: Sink) -> None:
    settings = {"ITEMFORGE_LOG_LEVEL": "info", "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}
    gateway = stack.gateway(**settings)
    worker = stack.worker(**settings)
    good = stack.submit(f"a key {SECRET_WORDS}", style="plain")
    stack.wait_status(good, "Completed")  # before a broken message of its id can fail it
    bad = stack.submit(f"bad {SECRET_WORDS}")
    flaky = stack.submit(f"flaky {SECRET_WORDS}")
    killing = stack.submit(f"kill {SECRET_WORDS}")
    stack.publish(json.dumps({"request_id": good, "params": {"prompt": [SECRET_WORDS]}}).encode())
    stack.publish(f"not json {SECRET_WORDS}".encode())
    stack.http.post("/v1/generations", json={"prompt": SECRET_WORDS, "num_inference_steps": 0})
    stack.http.put("/update_db/none", json={"status": SECRET_WORDS})
    stack.wait_ended([good, bad, flaky, killing], within=100)
    wait_until(lambda: len(stack.dead()) >= 3, 30)
    for process in (worker, gateway):
        assert process.end() == 0
    lines = _lines(gateway, worker)
    problems = {f"{problem} in {line['message']}" for line in lines for problem in wrong(line)}
    assert not problems
    assert {line["service"]["name"] for line in lines} == {
        "itemforge-gateway",
        "itemforge-worker",
    }  # the engine of these tests has nothing to say
    assert SECRET_WORDS not in json.dumps(lines)
    (done,) = [line for line in _said(lines, "job_completed") if line["itemforge"]["request"]["id"] == good]
    assert done["itemforge"]["request"] == {"id": good, "attempt": 1}
    assert done["itemforge"]["worker"] == {"id": worker.name}
    assert done["itemforge"]["style"].startswith("plain@")
    assert done["event"]["duration"] > 10**6 and done["event"]["outcome"] == "success"
    (attempt,) = sink.about(good, "process image_generation_queue")
    assert (done["trace"]["id"], done["span"]["id"]) == (attempt.trace, attempt.id)
    states = [
        line for line in _said(lines, "request_state_changed") if line["itemforge"]["request"]["id"] == good
    ]
    assert [line["itemforge"]["request"]["status"] for line in states] == [
        "Pending",
        "Processing",
        "Completed",
    ]
    assert {line["trace"]["id"] for line in states} == {attempt.trace}
    assert states[2]["event"]["duration"] >= done["event"]["duration"]
    assert {line["event"]["outcome"] for line in _said(lines, "job_failed")} == {"failure"}
    assert _said(lines, "job_to_retry") and _said(lines, "engine_lost")


def test_prompts_are_told_where_the_setting_allows_it(stack: Stack) -> None:
    gateway = stack.gateway(ITEMFORGE_LOG_LEVEL="info")
    worker = stack.worker(ITEMFORGE_LOG_LEVEL="info", ITEMFORGE_LOG_PROMPTS="true")
    request_id = stack.submit(f"a key {SECRET_WORDS}")
    stack.wait_status(request_id, "Completed")
    wait_until(lambda: worker.events("job_completed"), 20)
    (started,) = worker.events("job_started")
    assert SECRET_WORDS in started["itemforge"]["request"]["prompt"]
    assert SECRET_WORDS not in gateway.log.read_text()
