"""The gateway under generated requests: no 5xx on any route, and every answer is as the document says.

The requests come from the OpenAPI document: valid ones, and ones that break it on purpose. Half of the
request ids are real, in each state that a request can be in, so that the routes get past their first check.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rig import MemoryStore, Rig, listening, settings_for
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from size import SEED, count

from databases import database_url

__all__ = ["database_url"]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
HOW: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
EVENTS = "/v1/generations/{request_id}/events"


@dataclass
class Served:
    url: str
    schema: BaseSchema
    #: A request in each state, by the state's name.
    ids: dict[str, str]


async def _in_every_state(rig: Rig) -> dict[str, str]:
    ids = {state: (await rig.submit())["id"] for state in ("Processing", "Completed", "Failed", "Cancelled")}
    await rig.draw(ids["Completed"])
    await rig.claim(ids["Processing"])
    await rig.claim(ids["Failed"])
    await rig.report(ids["Failed"], status="Failed", error="it broke")
    await rig.http.post(f"/v1/generations/{ids['Cancelled']}/cancel")
    return {**ids, "Pending": (await rig.submit())["id"]}


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    """A gateway behind uvicorn, in a thread: schemathesis and hypothesis are synchronous."""
    ready: Future[tuple[str, dict[str, str]]] = Future()
    runner = asyncio.Runner()
    end = asyncio.Event()

    async def serve() -> None:
        store = MemoryStore(bucket="file:///objects")
        async with listening(settings_for(database_url, tmp_path), store=store) as rig:
            ready.set_result((str(rig.http.base_url), await _in_every_state(rig)))
            await end.wait()

    def target() -> None:
        try:
            with runner:
                runner.run(serve())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=target)
    thread.start()
    try:
        url, ids = ready.result(60)
        document = httpx.get(f"{url}/openapi.json").json()
        yield Served(url, schemathesis.openapi.from_dict(document), ids)
    finally:
        runner.get_loop().call_soon_threadsafe(end.set)
        thread.join(30)


def _operations(served: Served, mode: GenerationMode) -> Iterator[APIOperation]:
    for found in served.schema.get_all_operations():
        operation = found.ok()
        # What streams is tested below.
        if operation.path != EVENTS and (mode is GenerationMode.POSITIVE or _can_be_asked_wrongly(operation)):
            yield operation


def _can_be_asked_wrongly(operation: APIOperation) -> bool:
    """Where nothing is taken, or any text will do, no request breaks the document."""
    parameters = operation.definition.raw.get("parameters", [])
    checked = any(
        p["schema"].keys() - {"title", "type"} or p["schema"]["type"] != "string" for p in parameters
    )
    return checked or "requestBody" in operation.definition.raw


def _with_real_ids(case: Case, served: Served, number: int) -> None:
    """Every second case gets an id that exists; what deletes or ends them gets one of its own."""
    if "request_id" not in (case.path_parameters or {}) or number % 2:
        return
    states = list(served.ids.values())
    case.path_parameters["request_id"] = states[number // 2 % len(states)]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_route_answers_as_the_document_says(served: Served, mode: GenerationMode) -> None:
    statuses: dict[int, int] = {}
    session = requests.Session()
    for operation in _operations(served, mode):
        number = 0

        @seed(SEED)
        @settings(max_examples=count(5, 300), **HOW)
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case: Case) -> None:
            nonlocal number
            _with_real_ids(case, served, number)
            number += 1
            answer = case.call(base_url=served.url, session=session, timeout=30)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            case.validate_response(answer, checks=CHECKS)

        answers()
    session.close()
    print(statuses)
    assert 200 in statuses
    assert httpx.get(f"{served.url}/readyz").json()["ready"]


#: Whole headers of one line: a line break never reaches an application.
_header_text = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60
)
_event_ids = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["0", "01", "1e3", "٣", "9" * 5000]),
    _header_text,
)


def test_event_streams_begin_whatever_id_they_shall_go_on_after(served: Served) -> None:
    known = st.sampled_from(list(served.ids.values()))
    http = httpx.Client(base_url=served.url, timeout=30)

    @seed(SEED)
    @settings(max_examples=count(25, 500), **HOW)
    @given(request_id=st.one_of(known, known, st.uuids().map(str), st.text(max_size=40)), last=_event_ids)
    def answers(request_id: str, last: str | None) -> None:
        headers = (
            {}
            if last is None
            else {"Last-Event-ID": last.strip().encode("utf-8" if "٣" in last else "latin-1")}
        )
        path = EVENTS.format(request_id=quote(request_id, safe=""))
        with http.stream("GET", path, headers=headers) as answer:
            if answer.status_code == 200:
                assert answer.headers["content-type"].startswith("text/event-stream")
                return  # leaving is how a stream of an open request ends
            answer.read()
            assert answer.status_code in (204, 404, 422), answer.text
            if answer.status_code != 204:
                assert answer.json()["status"] == answer.status_code

    with http:
        answers()
        for state, request_id in served.ids.items():
            with http.stream("GET", EVENTS.format(request_id=request_id)) as answer:
                first = next(line for line in answer.iter_lines() if line.startswith("data:"))
                assert json.loads(first.removeprefix("data:"))["status"] == "Pending", state
