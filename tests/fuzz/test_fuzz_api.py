"""The gateway under generated requests: no 5xx on any route, and every answer is as the document says.

The requests come from the OpenAPI document: valid ones, and ones that break it on purpose. Half of the
request ids are real, in each state that a request can be in, so that the routes get past their first check.
Without keys, and with a key of each role.
"""

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
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
from pydantic import SecretStr
from rig import Rig, headers_of, listening, settings_for
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
from itemforge.gateway.auth import is_public, roles
from itemforge.jobs.keys import Role
from itemforge.storage.folder import FolderStore

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
#: All of a caller's on one connection, which never ends; tests/gateway/test_gateway_feed.py has it.
FEED = "/v1/events"
#: Waits for pictures, which nobody draws here; tests/gateway/test_openai.py has its wrong bodies.
IMAGES = "/v1/images/generations"
ADMIN = {"X-API-Key": "the bootstrap key of these tests"}
KEYED = {"admin_key": SecretStr(ADMIN["X-API-Key"]), "rate_limit": 0, "quota": 0, "wrong_keys": 10**6}


@dataclass
class Served:
    url: str
    schema: BaseSchema
    #: A request in each state, by the state's name.
    ids: dict[str, str]
    #: The caller's key.
    headers: dict[str, str]


async def _in_every_state(rig: Rig, owner: dict[str, str]) -> dict[str, str]:
    """Requests of `owner`, who is told by the headers of a key, drawn by whoever the rig is."""

    async def submit() -> str:
        answer = await rig.http.post("/v1/generations", json={"prompt": "a red apple"}, headers=owner)
        return str(answer.json()["id"])

    ids = {state: await submit() for state in ("Processing", "Completed", "Failed", "Cancelled", "Pending")}
    await rig.draw(ids["Completed"])
    await rig.claim(ids["Processing"])
    await rig.claim(ids["Failed"])
    await rig.report(ids["Failed"], status="Failed", error="it broke")
    await rig.http.post(f"/v1/generations/{ids['Cancelled']}/cancel")
    return ids


async def _unknown(host: str, port: int) -> list[str]:
    """No webhook leaves the test, whatever address was made up for it."""
    raise socket.gaierror(socket.EAI_AGAIN, "no names here")


@contextmanager
def _serving(database_url: str, home: Path, role: Role | None) -> Iterator[Served]:
    """A gateway behind uvicorn, in a thread: schemathesis and hypothesis are synchronous.

    Without a role it is keyless; with one it has keys, and the requests are those of a user or of nobody.
    """
    ready: Future[tuple[str, dict[str, str], dict[str, str]]] = Future()
    runner = asyncio.Runner()
    end = asyncio.Event()

    async def serve() -> None:
        store = FolderStore(home / "objects")  # the real one: it signs uploads, and takes them
        limits = {} if role is None else KEYED
        async with listening(settings_for(database_url, home, **limits), store=store) as rig:
            rig.gateway.guard.resolve = _unknown
            headers = {} if role is None else await headers_of(rig, role)
            rig.http.headers.update({} if role is None else ADMIN)
            ids = await _in_every_state(rig, headers if role is Role.USER else {})
            ready.set_result((str(rig.http.base_url), ids, headers))
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
        url, ids, headers = ready.result(60)
        document = httpx.get(f"{url}/openapi.json").json()
        yield Served(url, schemathesis.openapi.from_dict(document), ids, headers)
    finally:
        runner.get_loop().call_soon_threadsafe(end.set)
        thread.join(30)


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    with _serving(database_url, tmp_path, None) as made:
        yield made


def _operations(served: Served, mode: GenerationMode) -> Iterator[APIOperation]:
    for found in served.schema.get_all_operations():
        operation = found.ok()
        # What streams is tested below.
        if operation.path not in (EVENTS, FEED, IMAGES) and (
            mode is GenerationMode.POSITIVE or _can_be_asked_wrongly(operation)
        ):
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
    statuses = _ask_everything(served, mode, count(5, 300))
    assert 200 in statuses
    assert httpx.get(f"{served.url}/readyz").json()["ready"]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("role", list(Role))
def test_each_role_is_answered_as_the_document_says(
    database_url: str, tmp_path: Path, role: Role, mode: GenerationMode
) -> None:
    with _serving(database_url, tmp_path, role) as served:
        statuses = _ask_everything(served, mode, count(2, 60), role)
        # Some roles may ask for nothing that can be asked wrongly and be answered all the same.
        assert (200 if mode is GenerationMode.POSITIVE else 422) in statuses
        assert httpx.get(f"{served.url}/readyz").json()["ready"]


def _ask_everything(
    served: Served, mode: GenerationMode, examples: int, role: Role | None = None
) -> Counter[int]:
    """How often each status was answered. A caller with a role gets nothing that is not its own."""
    statuses: Counter[int] = Counter()
    with requests.Session() as session:
        for operation in _operations(served, mode):
            public = is_public(operation.method.upper(), operation.path)
            refused = role not in (None, *roles(operation.path)) and not public
            for answer in _ask(served, session, operation, mode, examples):
                statuses[answer.status_code] += 1
                assert not (refused and answer.status_code < 400), f"{role} was let in: {answer.request.url}"
    print(dict(statuses))
    return statuses


def _ask(
    served: Served, session: requests.Session, operation: APIOperation, mode: GenerationMode, examples: int
) -> list[requests.Response]:
    """The answers to one operation's cases, each checked against the document."""
    made: list[requests.Response] = []

    @seed(SEED)
    @settings(max_examples=examples, **HOW)
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case: Case) -> None:
        _with_real_ids(case, served, len(made))
        for key in ("Authorization", "X-API-Key") if served.headers else ():
            case.headers.pop(key, None)  # a made-up one beside the caller's own; they have their test below
        answer = case.call(base_url=served.url, session=session, headers=served.headers, timeout=30)
        made.append(answer)
        case.validate_response(answer, checks=CHECKS)

    answers()
    return made


#: Whole headers of one line: a line break never reaches an application.
_header_text = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60
)
_keys = st.one_of(_header_text, st.sampled_from(["itf_", "itf_" + "0" * 43, ADMIN["X-API-Key"].upper()]))


def test_no_made_up_key_opens_anything(database_url: str, tmp_path: Path) -> None:
    with (
        _serving(database_url, tmp_path, Role.USER) as served,
        httpx.Client(base_url=served.url, timeout=30) as http,
    ):

        @seed(SEED)
        @settings(max_examples=count(30, 2000), **HOW)
        @given(key=_keys, scheme=st.sampled_from(["Bearer ", "bearer\t", "Basic ", ""]), other=st.booleans())
        def refuses(key: str, scheme: str, other: bool) -> None:
            value = (key if other else scheme + key).strip().encode("latin-1")
            answer = http.get("/v1/generations", headers={"X-API-Key" if other else "Authorization": value})
            assert answer.status_code == 401 and answer.json()["status"] == 401, answer.text

        refuses()
        assert http.get("/v1/generations", headers=served.headers).status_code == 200


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
