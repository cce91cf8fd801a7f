import asyncio
from uuid import uuid4

from rig import Rig
from structlog.testing import capture_logs

from itemforge.contract import MAX_SEED


async def test_a_prompt_is_accepted_with_everything_the_style_says(rig: Rig) -> None:
    answer = await rig.http.post("/v1/generations", json={"prompt": "a dog", "style": "tale"})
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == f"/v1/generations/{body['id']}"
    assert answer.headers["itemforge-contract"] == "1"
    expected = {
        "status": "Pending",
        "prompt": "a dog",
        "composed_prompt": "trg, a dog, thick outlines",
        "style": "tale@3",
        "negative_prompt": "blurry",
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
        "scheduler": "euler",
        "width": 96,
        "height": 64,
        "num_images": 1,
        "queue_position": 1,
        "image_url": None,
        "images": [],
        "progress": None,
        "retry_of": None,
    }
    assert {key: body[key] for key in expected} == expected
    assert 0 <= int(body["seed"]) < 2**32 and isinstance(body["seed"], str)
    assert (await rig.http.get(answer.headers["location"])).json() == body


async def test_what_is_asked_wins_over_the_style(rig: Rig) -> None:
    asked = {
        "style": "tale@3",
        "negative_prompt": "",
        "num_inference_steps": 150,
        "guidance_scale": 0,
        "scheduler": "dpmpp_2m_karras",
        "seed": str(MAX_SEED - 15),
        "width": 128,
        "height": 32,
        "num_images": 16,
        "lora_weight": 0.5,
    }
    body = await rig.submit(**asked)
    assert {key: body[key] for key in asked} == asked


async def test_the_default_style_and_the_models_size_fill_the_gaps(rig: Rig) -> None:
    body = await rig.submit()
    assert (body["style"], body["width"], body["height"]) == ("plain@1", 64, 64)
    assert (body["num_inference_steps"], body["guidance_scale"], body["scheduler"]) == (50, 7.5, "ddim")


WRONG = [
    ("prompt", ""),
    ("prompt", "   "),
    ("prompt", "x" * 2001),
    ("prompt", 5),
    ("prompt", "nul\x00"),
    ("prompt", None),
    ("negative_prompt", "nul\x00"),
    ("num_inference_steps", 0),
    ("num_inference_steps", 151),
    ("num_inference_steps", True),
    ("num_inference_steps", 1.5),
    ("guidance_scale", -0.1),
    ("guidance_scale", 30.1),
    ("guidance_scale", "much"),
    ("seed", -1),
    ("seed", 2**63),
    ("seed", "12x"),
    ("seed", True),
    ("seed", 10**400),
    ("width", 60),
    ("width", 24),
    ("height", 136),
    ("height", 0),
    ("num_images", 0),
    ("num_images", 17),
    ("lora_weight", 9),
    ("scheduler", "magic"),
    ("style", "unknown"),
    ("style", "alien"),
    ("style", "Not A Style"),
    ("style", "plain@2"),
    ("colour", "red"),
]


async def test_a_wrong_field_is_named_with_what_to_do(rig: Rig) -> None:
    for field, value in WRONG:
        answer = await rig.http.post("/v1/generations", json={"prompt": "p", field: value})
        assert answer.status_code == 422, (field, value, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["status"] == 422 and body["title"] and body["detail"]
        (error,) = body["errors"]
        assert error["field"] == field and len(error["message"]) > 10
        assert field in body["detail"]


async def test_the_last_images_seed_must_fit(rig: Rig) -> None:
    answer = await rig.http.post(
        "/v1/generations", json={"prompt": "p", "seed": str(MAX_SEED), "num_images": 2}
    )
    assert answer.status_code == 422 and "smaller seed" in answer.json()["detail"]


async def test_limits_themselves_are_allowed(rig: Rig) -> None:
    body = await rig.submit("x" * 2000, num_inference_steps=1, guidance_scale=30, seed=MAX_SEED)
    assert body["seed"] == str(MAX_SEED)
    await rig.submit("🍎" * 2000)


async def test_an_idempotency_key_gives_the_same_generation(rig: Rig) -> None:
    headers = {"Idempotency-Key": "k1"}
    answers = await asyncio.gather(
        *(
            rig.http.post("/v1/generations", json={"prompt": "p", "seed": seed}, headers=headers)
            for seed in (5, "5", 5, "5")
        )
    )
    assert sorted(a.status_code for a in answers) == [200, 200, 200, 202]
    assert len({a.json()["id"] for a in answers}) == 1
    other = await rig.http.post("/v1/generations", json={"prompt": "q"}, headers=headers)
    assert other.status_code == 409 and "another body" in other.json()["detail"]
    assert len((await rig.http.get("/v1/generations")).json()["items"]) == 1


async def test_a_drawn_seed_stays_the_same_when_the_request_is_repeated(rig: Rig) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = await rig.http.post("/v1/generations", json={"prompt": "p"}, headers=headers)
    again = await rig.http.post("/v1/generations", json={"prompt": "p", "seed": None}, headers=headers)
    assert again.json()["seed"] == first.json()["seed"]


async def test_put_with_an_id_of_ones_own_is_idempotent(rig: Rig) -> None:
    await rig.submit("p")
    path = f"/v1/generations/{uuid4()}"
    first = await rig.http.put(path, json={"prompt": "p"})
    again = await rig.http.put(path, json={"prompt": "p"})
    other = await rig.http.put(path, json={"prompt": "q"})
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    assert first.json()["id"] == again.json()["id"] == path.rpartition("/")[2]
    await rig.http.delete(path)
    assert (await rig.http.put(path, json={"prompt": "p"})).status_code == 409
    assert (await rig.http.put("/v1/generations/42", json={"prompt": "p"})).status_code == 422


async def test_a_list_is_filtered_and_paged(rig: Rig) -> None:
    ids = [(await rig.submit(style="tale" if n % 2 else "plain"))["id"] for n in range(5)]
    await rig.http.post(f"/v1/generations/{ids[0]}/cancel")
    seen, params = [], {"limit": "2"}
    while True:
        page = (await rig.http.get("/v1/generations", params=params)).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == ids[::-1]

    async def find(**params: str) -> list[str]:
        answer = await rig.http.get("/v1/generations", params=params)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert await find(status="cancelled") == [ids[0]]
    assert await find(style="tale") == [ids[3], ids[1]]
    assert await find(style="tale@3", status="Pending") == [ids[3], ids[1]]
    created = (await rig.http.get(f"/v1/generations/{ids[2]}")).json()["created_at"]
    assert set(await find(since=created)) >= {ids[3], ids[4]}
    assert await find(until="2020-01-01T00:00:00") == []


WRONG_FILTERS = [
    {"status": "Sleeping"},
    {"limit": "0"},
    {"limit": "201"},
    {"cursor": "nonsense"},
    {"cursor": "bnVsbA"},
    {"cursor": "é"},
    {"since": "yesterday"},
    {"since": "0001-01-01T00:00:00+23:00"},
    {"style": "%"},
]


async def test_a_wrong_filter_is_named(rig: Rig) -> None:
    for params in WRONG_FILTERS:
        answer = await rig.http.get("/v1/generations", params=params)
        assert answer.status_code == 422, params
        assert answer.json()["errors"][0]["field"] == next(iter(params))


async def test_cancel_retry_and_delete(rig: Rig) -> None:
    body = await rig.submit(seed=9)
    path = f"/v1/generations/{body['id']}"
    early = await rig.http.post(f"{path}/retry")
    assert early.status_code == 409 and "cancel it first" in early.json()["detail"]
    cancelled = await rig.http.post(f"{path}/cancel")
    assert cancelled.status_code == 200 and cancelled.json()["status"] == "Cancelled"
    assert cancelled.json()["finished_at"] is not None
    assert (await rig.http.post(f"{path}/cancel")).status_code == 200
    retried = await rig.http.post(f"{path}/retry")
    assert retried.status_code == 202
    assert retried.json()["retry_of"] == body["id"] != retried.json()["id"]
    assert (retried.json()["seed"], retried.json()["status"]) == ("9", "Pending")
    assert (await rig.http.delete(path)).status_code == 204
    for call in (rig.http.get(path), rig.http.delete(path), rig.http.post(f"{path}/cancel")):
        assert (await call).status_code == 404


async def test_a_retry_is_idempotent_by_its_key(rig: Rig) -> None:
    ids = [(await rig.submit())["id"] for _ in range(2)]
    for request_id in ids:
        await rig.http.post(f"/v1/generations/{request_id}/cancel")
    headers = {"Idempotency-Key": "again"}
    first = await rig.http.post(f"/v1/generations/{ids[0]}/retry", headers=headers)
    again = await rig.http.post(f"/v1/generations/{ids[0]}/retry", headers=headers)
    other = await rig.http.post(f"/v1/generations/{ids[1]}/retry", headers=headers)
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    assert first.json()["id"] == again.json()["id"]


async def test_what_has_ended_cannot_be_cancelled(rig: Rig) -> None:
    body = await rig.submit()
    await rig.draw(body["id"])
    answer = await rig.http.post(f"/v1/generations/{body['id']}/cancel")
    assert answer.status_code == 409 and "Completed" in answer.json()["detail"]


async def test_a_generation_deleted_for_ever_takes_its_objects_along(rig: Rig) -> None:
    body = await rig.submit()
    await rig.draw(body["id"])
    path = f"/v1/generations/{body['id']}"
    await rig.http.get(f"{path}/thumbnail")
    assert len(rig.store.objects) == 2
    for _ in range(2):  # safe to repeat: the store may have been away
        assert (await rig.http.delete(f"{path}?forever=true")).status_code == 204
        assert rig.store.objects == {}
    assert (await rig.http.post(f"{path}/restore")).status_code == 404
    assert (await rig.http.get("/v1/generations?deleted=true")).json()["items"] == []


async def test_the_whole_way_is_told_by_one_generation(rig: Rig) -> None:
    body = await rig.submit()
    path = f"/v1/generations/{body['id']}"
    await rig.claim(body["id"])
    beat = {
        "worker_id": "w1",
        "state": "ready",
        "free": 3,
        "rows": [{"request_id": body["id"], "attempt": 1, "step": 4, "steps": 50}],
    }
    assert (await rig.http.post("/v1/worker/heartbeat", json=beat)).json() == [
        {"request_id": body["id"], "cancel": False, "lost": False, "watch": False}
    ]
    drawing = (await rig.http.get(path)).json()
    assert (drawing["status"], drawing["attempt"]) == ("Processing", 1)
    assert drawing["progress"] == {"step": 4, "steps": 50} and drawing["queue_position"] is None
    assert await rig.report(body["id"]) == 200
    done = (await rig.http.get(path)).json()
    url = f"https://store.example/generated/{body['id']}.png"
    assert (done["status"], done["image_url"]) == ("Completed", url)
    assert done["progress"] == {"step": 50, "steps": 50}
    assert done["images"] == [{"n": 0, "seed": "7", "url": url, "width": 64, "height": 64}]


async def test_the_log_tells_a_requests_life_by_its_id_and_keeps_secrets(rig: Rig) -> None:
    with capture_logs() as logs:
        body = await rig.submit("a secret sword")
        await rig.draw(body["id"])
        await rig.http.get(f"/v1/generations/{body['id']}?token=hush", headers={"X-API-Key": "hush"})
    life = [line for line in logs if line["event"] == "request_state_changed"]
    assert [(line["status"], line["attempt"]) for line in life] == [
        ("Pending", 0), ("Processing", 1), ("Completed", 1)
    ]  # fmt: skip
    assert {line["request_id"] for line in life} == {body["id"]}
    served = [line for line in logs if line["event"] == "request_served"][-1]
    assert (served["request_id"], served["status_code"]) == (body["id"], 200)
    assert "hush" not in str(logs)
    told = [line for line in logs if "secret sword" in str(line)]
    assert [(line["event"], line["log_level"]) for line in told] == [("request_taken", "debug")]
