import asyncio
from uuid import uuid4

import pytest
from rig import BASE, BLOB, MemoryStore, Rig, picture, running

from itemforge.contract import JobParams
from itemforge.settings import GatewaySettings
from itemforge.styles.pack import parse


async def test_first_contact_is_an_empty_list_of_claims(rig: Rig) -> None:
    answer = await rig.http.post("/v1/worker/claims", json={"worker_id": "w", "jobs": []})
    assert answer.status_code == 200 and answer.json() == []
    assert answer.headers["itemforge-contract"] == "1"


async def test_a_claim_carries_what_to_draw(rig: Rig) -> None:
    body = await rig.submit("a dog", style="tale", seed="9223372036854775807")
    claim = await rig.claim(body["id"])
    assert (claim["outcome"], claim["attempt"], claim["lease_s"], claim["alone"]) == (
        "claimed",
        1,
        30.0,
        False,
    )
    params = JobParams.model_validate(claim["params"])
    assert (params.prompt, params.style, params.seed) == ("trg, a dog, thick outlines", "tale@3", 2**63 - 1)
    assert (params.width, params.height) == (96, 64)
    assert (await rig.claim(body["id"]))["outcome"] == "leased"
    assert (await rig.claim(str(uuid4())))["outcome"] == "unknown"


async def test_one_call_serves_several_jobs(rig: Rig) -> None:
    ids = [(await rig.submit())["id"] for _ in range(3)]
    jobs = [{"request_id": i} for i in ids]
    answer = await rig.http.post("/v1/worker/claims", json={"worker_id": "w", "jobs": jobs})
    assert [c["request_id"] for c in answer.json()] == ids
    reports = [
        {"request_id": ids[0], "attempt": 1, "status": "Completed", "images": [picture(ids[0], rig.store)]},
        {"request_id": ids[1], "attempt": 1, "status": "Released"},
        {"request_id": ids[2], "attempt": 9, "status": "Failed", "error": "x"},
        {"request_id": str(uuid4()), "attempt": 1, "status": "Retry"},
    ]
    answer = await rig.http.post("/v1/worker/reports", json=reports)
    assert [a["code"] for a in answer.json()] == [200, 200, 409, 404]


async def test_of_twenty_workers_one_gets_the_job(rig: Rig) -> None:
    body = await rig.submit()
    claims = await asyncio.gather(*(rig.claim(body["id"], f"w{n}") for n in range(20)))
    assert sorted(c["outcome"] for c in claims) == ["claimed"] + ["leased"] * 19


async def test_a_cancelled_job_is_told_and_its_report_refused(rig: Rig) -> None:
    body = await rig.submit()
    await rig.claim(body["id"])
    await rig.http.post(f"/v1/generations/{body['id']}/cancel")
    row = {"request_id": body["id"], "attempt": 1, "step": 1, "steps": 2}
    beat = {"worker_id": "w1", "state": "ready", "free": 0, "rows": [row]}
    (answer,) = (await rig.http.post("/v1/worker/heartbeat", json=beat)).json()
    assert answer["cancel"]
    assert await rig.report(body["id"]) == 409


async def test_a_completed_report_without_pictures_is_a_mistake(rig: Rig) -> None:
    report = {"request_id": str(uuid4()), "attempt": 1, "status": "Completed"}
    answer = await rig.http.post("/v1/worker/reports", json=[report])
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "0.images"


@pytest.mark.parametrize("key", ["../itemforge.db", "", "styles/plain/1.toml", "generated/{other}.png"])
async def test_a_report_names_the_keys_of_its_own_request(rig: Rig, key: str) -> None:
    body = await rig.submit()
    await rig.claim(body["id"])
    image = picture(body["id"], rig.store) | {"key": key.format(other=uuid4())}
    report = {"request_id": body["id"], "attempt": 1, "status": "Completed", "images": [image]}
    answer = await rig.http.post("/v1/worker/reports", json=[report])
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "0.images.0.key"
    assert await rig.report(body["id"]) == 200


async def test_a_worker_that_boasts_does_not_open_the_window_for_everything(rig: Rig) -> None:
    beat = {"worker_id": "w", "state": "ready", "free": 10**12, "rows": []}
    assert (await rig.http.post("/v1/worker/heartbeat", json=beat)).status_code == 200
    assert (await rig.http.get("/v1/stats")).json()["window"] == 2048


async def test_wrong_calls_are_422(rig: Rig) -> None:
    row = {"request_id": str(uuid4()), "attempt": 1, "step": 1, "steps": 2}
    for path, body in (
        ("claims", {"jobs": []}),
        ("claims", {"worker_id": "", "jobs": []}),
        ("claims", {"worker_id": "w", "jobs": [{"request_id": "x"}]}),
        ("claims", {"worker_id": "w", "jobs": [{"request_id": str(uuid4())}] * 257}),
        ("heartbeat", {"worker_id": "w", "state": "asleep", "free": 1, "rows": []}),
        ("heartbeat", {"worker_id": "w", "state": "ready", "free": -1, "rows": []}),
        ("heartbeat", {"worker_id": "w", "state": "ready", "free": 1, "rows": [row | {"step": 10**30}]}),
        ("heartbeat", {"worker_id": "w", "state": "ready", "free": 1, "rows": [row | {"preview": "a\0b"}]}),
        (
            "heartbeat",
            {"worker_id": "w", "state": "ready", "free": 1, "rows": [row | {"preview": "é" * 7999}]},
        ),
        ("reports", {"request_id": str(uuid4())}),
    ):
        answer = await rig.http.post(f"/v1/worker/{path}", json=body)
        assert answer.status_code == 422, (path, body)


async def test_workers_and_stats_show_who_works_and_what_waits(rig: Rig) -> None:
    beat = {"worker_id": "w1", "state": "ready", "free": 20, "rows": []}
    await rig.http.post("/v1/worker/heartbeat", json=beat)
    body = await rig.submit()
    await rig.http.post(f"/v1/generations/{body['id']}/cancel")
    (worker,) = (await rig.http.get("/v1/workers")).json()
    expected = {"worker_id": "w1", "state": "ready", "live": True, "free": 20, "in_hand": 0}
    assert {k: worker[k] for k in expected} == expected
    stats = (await rig.http.get("/v1/stats")).json()
    assert stats["requests"] == {
        "Pending": 0, "Processing": 0, "Completed": 0, "Failed": 0, "Cancelled": 1
    }  # fmt: skip
    assert (stats["window"], stats["workers"], stats["capacity"]) == (40, 1, 20)


async def test_styles_are_listed_and_fetched(rig: Rig) -> None:
    styles = (await rig.http.get("/v1/styles")).json()
    assert [style["name"] for style in styles] == ["plain@1", "tale@3"], "the alien does not fit the model"
    assert styles[0]["size"] == {"width": 64, "height": 64, "min": 32, "max": 128}
    assert styles[1]["defaults"]["scheduler"] == "euler"
    for version in ("3", "current"):
        answer = await rig.http.get(f"/v1/styles/tale/{version}.toml")
        assert parse(answer.content).name == "tale@3" and parse(answer.content).base == BASE
    assert (await rig.http.get(f"/v1/styles/blobs/{BLOB}")).content == b"weights"


async def test_a_report_cannot_send_users_elsewhere(rig: Rig) -> None:
    body = await rig.submit()
    await rig.claim(body["id"])
    image = picture(body["id"], rig.store) | {"url": "https://elsewhere.example/1.png"}
    assert await rig.report(body["id"], images=[image]) == 200
    shown = (await rig.http.get(f"/v1/generations/{body['id']}")).json()
    assert shown["image_url"] == rig.store.public_url(image["key"])
    assert await rig.report(body["id"], images=[image]) == 200, "and the same report again is still the same"


async def test_a_picture_in_anothers_bucket_is_refused_where_the_gateway_has_its_own(
    settings: GatewaySettings,
) -> None:
    owned = settings.model_copy(update={"gcs_bucket_name": "ours"})
    async with running(owned, store=MemoryStore(bucket="ours")) as rig:
        body = await rig.submit()
        await rig.claim(body["id"])
        image = picture(body["id"], rig.store)
        for bucket in ("theirs", "file:///ours"):
            report = {"request_id": body["id"], "attempt": 1, "status": "Completed"}
            report["images"] = [image | {"bucket": bucket}]
            answer = await rig.http.post("/v1/worker/reports", json=[report])
            assert answer.status_code == 422
            (error,) = answer.json()["errors"]
            assert error["field"] == "0.images.0.bucket" and "GCS_BUCKET_NAME" in error["message"]
        assert await rig.report(body["id"], images=[image]) == 200


async def test_a_gateway_without_a_store_of_its_own_believes_its_worker(rig: Rig) -> None:
    body = await rig.submit()
    await rig.claim(body["id"])
    image = picture(body["id"], rig.store) | {"bucket": "the workers", "url": "https://cdn.example/1.png"}
    assert await rig.report(body["id"], images=[image]) == 200
    shown = (await rig.http.get(f"/v1/generations/{body['id']}")).json()
    assert shown["image_url"] == "https://cdn.example/1.png"
