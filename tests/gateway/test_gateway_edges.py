"""Hostile and broken calls: always a problem document, never a 500."""

import json
from collections.abc import AsyncIterator

import pytest
from rig import Rig, listening
from structlog.testing import capture_logs

from itemforge.settings import GatewaySettings

JSON = {"Content-Type": "application/json"}

BROKEN = {
    "empty": b"",
    "not json": b"{prompt: 1}",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "not utf-8": b'{"prompt": "\xff\xfe"}',
    "NaN": b'{"prompt": "p", "guidance_scale": NaN}',
    "infinity": b'{"prompt": "p", "guidance_scale": 1e999}',
    "NaN seed": b'{"prompt": "p", "seed": NaN}',
    "NUL": b'{"prompt": "a\\u0000b"}',
    "lone surrogate": b'{"prompt": "a\\ud800b"}',
    "lone surrogate in a key": b'{"prompt": "p", "\\udfff": 1}',
    "huge integer": b'{"prompt": "p", "seed": ' + b"9" * 5000 + b"}",
    "deep list": b'{"prompt": ' + b"[" * 30000 + b"]" * 30000 + b"}",
    "deep object": b'{"prompt": "p", "x": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
}


@pytest.mark.parametrize("path", ["/v1/generations", "/generate", "/v1/worker/claims", "/v1/worker/reports"])
async def test_a_broken_body_is_the_senders_fault(rig: Rig, path: str) -> None:
    for name, body in BROKEN.items():
        answer = await rig.http.post(path, content=body, headers=JSON)
        allowed = {400, 422}
        if path == "/v1/worker/reports" and name == "a list":
            allowed = {200}
        elif path == "/generate" and name in ("deep object", "lone surrogate in a key"):
            allowed = {400, 422, 202}  # unknown keys are ignored here, whatever they hold
        assert answer.status_code in allowed, (name, answer.text)
        assert answer.headers["itemforge-contract"] == "1"
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/generations", "/generate"])
async def test_a_body_over_64_kib_is_413(rig: Rig, path: str) -> None:
    body = json.dumps({"prompt": "p", "negative_prompt": "x" * 65536}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    whole = await rig.http.post(path, content=body, headers=JSON)
    chunked = await rig.http.post(path, content=chunks(), headers=JSON)
    for answer in (whole, chunked):
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert "65536" in answer.json()["detail"]


async def test_an_announced_length_over_the_limit_is_refused_unread(rig: Rig) -> None:
    headers = {**JSON, "Content-Length": "9" * 30}
    answer = await rig.http.post("/v1/generations", content=b"{}", headers=headers)
    assert answer.status_code == 413


async def test_workers_may_send_more_but_not_anything(rig: Rig) -> None:
    row = {"request_id": "5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10", "attempt": 1, "step": 1, "steps": 2}
    beat = {"worker_id": "w", "state": "ready", "free": 0, "rows": [{**row, "preview": "A" * 7000}] * 100}
    assert (await rig.http.post("/v1/worker/heartbeat", json=beat)).status_code == 200
    answer = await rig.http.post("/v1/worker/heartbeat", content=b" " * (4 * 1024 * 1024 + 1), headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_another_content_type_is_415(rig: Rig, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    for method, path in (
        ("POST", "/v1/generations"),
        ("POST", "/generate"),
        ("PUT", "/update_db/5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10"),
        ("POST", "/v1/worker/claims"),
    ):
        answer = await rig.http.request(method, path, content=b'{"prompt": "p"}', headers=headers)
        assert answer.status_code == 415
        assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"]
)
async def test_json_goes_by_several_names(rig: Rig, kind: str) -> None:
    body = '{"prompt": "ein Bär"}'.encode()
    answer = await rig.http.post("/v1/generations", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 202 and answer.json()["prompt"] == "ein Bär"


ERRORS = [
    ("GET", "/nothing", 404),
    ("DELETE", "/v1/generations", 405),
    ("GET", "/generate", 405),
    ("GET", "/v1/generations/5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10", 404),
    ("GET", "/v1/generations/5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10/events", 404),
    ("GET", "/v1/generations/5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10/image", 404),
    ("GET", "/v1/generations/not-an-id", 422),
    ("GET", "/v1/styles/none/1.toml", 404),
    ("GET", "/v1/styles/plain/x.toml", 404),
    ("GET", f"/v1/styles/blobs/{'d' * 64}", 404),
]


async def test_every_error_is_a_problem_document(rig: Rig) -> None:
    for method, path, status in ERRORS:
        answer = await rig.http.request(method, path)
        assert answer.status_code == status, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["itemforge-contract"] == "1"
        assert answer.json()["status"] == status and answer.json()["detail"]


async def test_a_mistake_of_ours_is_a_problem_too_and_tells_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(rig.gateway.catalog, "list", broken)
    with capture_logs() as logs:
        answer = await rig.http.get("/v1/styles")
    assert "request_crashed" in [line["event"] for line in logs]
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


async def test_the_same_over_a_real_socket(settings: GatewaySettings) -> None:
    async with listening(settings) as rig:
        for name, body in BROKEN.items():
            answer = await rig.http.post("/v1/generations", content=body, headers=JSON)
            assert answer.status_code in (400, 422), name

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(70):
                yield b" " * 1000

        answer = await rig.http.post("/v1/generations", content=chunks(), headers=JSON)
        assert answer.status_code == 413
        assert (await rig.http.get("/healthz")).json() == {"status": "ok"}


async def test_the_documentation_has_examples_and_problems(rig: Rig) -> None:
    spec = (await rig.http.get("/openapi.json")).json()
    post = spec["paths"]["/v1/generations"]["post"]
    assert {"202", "409", "413", "415", "422", "503"} <= set(post["responses"])
    assert "application/problem+json" in post["responses"]["422"]["content"]
    assert spec["components"]["schemas"]["GenerationRequest"]["examples"]
    assert "HTTPValidationError" not in json.dumps(spec)
    page = await rig.http.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text, "it shows where no CDN is reached"
    operations = [operation["operationId"] for path in spec["paths"].values() for operation in path.values()]
    assert "create_generation" in operations
    assert len(set(operations)) == len(operations)
