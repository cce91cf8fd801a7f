"""The original gateway's routes, as its clients and its worker use them."""

import json
from uuid import uuid4

import pytest
from rig import Rig

from itemforge.contract import QUEUE
from polling import eventually


async def _generate(rig: Rig, **fields: object) -> str:
    answer = await rig.http.post("/generate", json={"prompt": "trg, an axe", **fields})
    assert answer.status_code == 202
    assert list(answer.json()) == ["request_id"]
    return str(answer.json()["request_id"])


async def _update(rig: Rig, request_id: str, **body: object) -> int:
    answer = await rig.http.put(f"/update_db/{request_id}", json=body)
    if answer.status_code == 200:
        assert list(answer.json()) == ["message"]
    return answer.status_code


async def test_a_prompt_is_queued_as_it_is(rig: Rig) -> None:
    request_id = await _generate(rig, unknown_key=[1])
    await eventually(lambda: rig.broker.ids == [request_id])
    params = json.loads(rig.broker.queues[QUEUE][0])["params"]
    expected = {
        "prompt": "trg, an axe",
        "negative_prompt": "",
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "seed": 50,
    }
    assert {key: params[key] for key in expected} == expected
    assert "style" not in params


async def test_a_style_adds_its_words(rig: Rig) -> None:
    request_id = await _generate(rig, style="tale", seed=3)
    body = (await rig.http.get(f"/v1/generations/{request_id}")).json()
    assert body["composed_prompt"] == "trg, an axe, thick outlines"
    assert (body["style"], body["negative_prompt"], body["seed"]) == ("tale@3", "blurry", "3")
    assert (await rig.http.post("/generate", json={"prompt": "p", "style": "none"})).status_code == 422


async def test_the_original_workers_calls_in_lower_case(rig: Rig) -> None:
    request_id = await _generate(rig)
    path = f"/status/{request_id}"
    assert (await rig.http.get(path)).json() == {"request_id": request_id, "status": "Pending"}
    assert await _update(rig, request_id, status="processing") == 200
    assert (await rig.http.get(path)).json()["status"] == "Processing"
    url = "https://storage.example/generated/1.png"
    assert await _update(rig, request_id, status="Completed", image_url=url) == 200
    assert (await rig.http.get(path)).json() == {
        "request_id": request_id,
        "status": "Completed",
        "image_url": url,
    }
    assert await _update(rig, request_id, status="completed", image_url=url) == 200
    assert await _update(rig, request_id, status="failed") == 409
    assert await _update(rig, request_id, status="completed", image_url=url + "x") == 409


async def test_a_failure_is_told(rig: Rig) -> None:
    request_id = await _generate(rig)
    assert await _update(rig, request_id, status="failed") == 200
    assert (await rig.http.get(f"/status/{request_id}")).json()["status"] == "Failed"


async def test_a_live_lease_is_not_overruled(rig: Rig) -> None:
    request_id = await _generate(rig)
    await rig.claim(request_id)
    assert await _update(rig, request_id, status="failed") == 409
    assert await rig.report(request_id) == 200


async def test_what_was_cancelled_shows_as_failed(rig: Rig) -> None:
    request_id = await _generate(rig)
    await rig.http.post(f"/v1/generations/{request_id}/cancel")
    assert (await rig.http.get(f"/status/{request_id}")).json()["status"] == "Failed"
    assert await _update(rig, request_id, status="completed", image_url="https://x/y") == 409


@pytest.mark.parametrize("method, path", [("GET", "/status/{}"), ("PUT", "/update_db/{}")])
async def test_bad_and_unknown_ids(rig: Rig, method: str, path: str) -> None:
    body = {"json": {"status": "Failed"}} if method == "PUT" else {}
    bad = await rig.http.request(method, path.format("not-a-uuid"), **body)  # type: ignore[arg-type]
    assert bad.status_code == 400
    unknown = await rig.http.request(method, path.format(uuid4()), **body)  # type: ignore[arg-type]
    assert unknown.status_code == 404


@pytest.mark.parametrize("status", ["Sleeping", "Cancelled", "", None, 3])
async def test_other_statuses_are_refused(rig: Rig, status: object) -> None:
    request_id = await _generate(rig)
    answer = await rig.http.put(f"/update_db/{request_id}", json={"status": status})
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "status"


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"num_inference_steps": 0},
        {"guidance_scale": 31},
        {"seed": -1},
        {"prompt": "x" * 2001},
    ],
)
async def test_wrong_fields_are_named(rig: Rig, fields: dict[str, object]) -> None:
    answer = await rig.http.post("/generate", json={"prompt": "p", **fields})
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == next(iter(fields))
