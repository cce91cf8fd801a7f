"""Batches over HTTP: many requests at once, judged, drawn again, cancelled and taken home; and nobody else waits."""

import io
import json
import time
import zipfile
from typing import Any
from uuid import UUID, uuid4

from PIL import Image
from rig import Rig, headers_of, running
from sqlalchemy import delete

from itemforge.gateway import upkeep
from itemforge.jobs.keys import Role
from itemforge.jobs.tables import requests as table
from itemforge.settings import GatewaySettings
from polling import eventually

ROWS = ["a red apple", {"prompt": "an iron key", "name": "Key: iron", "variations": 1, "seed": "40"}]


async def _make(rig: Rig, items: list[Any] = ROWS, **fields: Any) -> dict[str, Any]:
    answer = await rig.http.post("/v1/batches", json={"items": items, "variations": 2, **fields})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/batches/{answer.json()['id']}"
    return dict(answer.json())


async def _look(rig: Rig, batch: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = await rig.http.get(f"/v1/batches/{batch['id']}", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def _cells(rig: Rig, batch: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for thing in (await _look(rig, batch))["items"] for cell in thing["cells"]]


async def _post(rig: Rig, batch: dict[str, Any], what: str, expected: int = 200, **body: Any) -> Any:
    answer = await rig.http.post(f"/v1/batches/{batch['id']}/{what}", json=body)
    assert answer.status_code == expected, answer.text
    return answer.json()


def _zip(data: bytes) -> tuple[set[str], dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return set(archive.namelist()), json.loads(archive.read("manifest.json"))


async def test_a_batch_from_its_list_to_the_zip(rig: Rig) -> None:
    batch = await _make(rig, style="tale", num_inference_steps=9, name="first things")
    assert (batch["name"], batch["style"], batch["things"], batch["size"]) == ("first things", "tale@3", 2, 3)
    assert batch["counts"]["status"]["Pending"] == 3 and not batch["done"]
    cells = await _cells(rig, batch)
    assert [cell["status"] for cell in cells] == ["Pending"] * 3
    assert cells[2]["seed"] == "40" and cells[0]["seed"] != cells[1]["seed"]
    one = (await rig.http.get(f"/v1/generations/{cells[2]['id']}")).json()
    assert one["composed_prompt"].startswith("trg") and "an iron key" in one["composed_prompt"]
    assert (one["num_images"], one["num_inference_steps"], one["negative_prompt"]) == (1, 9, "blurry")

    await eventually(lambda: len(rig.broker.ids) == 3, within=30)
    assert rig.broker.ids == [cell["id"] for cell in cells], "in the order of the list"
    for cell in cells:
        await rig.draw(cell["id"])
    assert (await _look(rig, batch))["done"]
    none = await rig.http.get(f"/v1/batches/{batch['id']}/export")
    assert none.status_code == 409 and "approve" in none.json()["detail"]

    said = await _post(rig, batch, "verdicts", verdict="approved", ids=[cells[0]["id"], cells[2]["id"]])
    assert said["changed"] == 2
    assert (await _post(rig, batch, "verdicts", verdict="rejected"))["changed"] == 1  # what had none
    assert [cell["verdict"] for cell in await _cells(rig, batch)] == ["approved", "rejected", "approved"]
    files, manifest = _zip((await rig.http.get(f"/v1/batches/{batch['id']}/export")).content)
    assert files == {"a-red-apple-1.png", "key-iron-1.png", "manifest.json"}
    assert [each["id"] for each in manifest["pictures"]] == [cells[0]["id"], cells[2]["id"]]
    output = {"background": "transparent", "size": 64, "format": "webp"}
    sent = await rig.http.post(f"/v1/batches/{batch['id']}/export", json={"which": "drawn", "output": output})
    with zipfile.ZipFile(io.BytesIO(sent.content)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".webp")]
        assert sorted(names) == ["a-red-apple-1.webp", "a-red-apple-2.webp", "key-iron-1.webp"]
        assert Image.open(io.BytesIO(archive.read(names[0]))).size == (64, 64)
    sheet = await rig.http.get(f"/v1/batches/{batch['id']}/export?form=atlas")
    assert any(name.endswith(".json") and name != "manifest.json" for name in _zip(sheet.content)[0])


async def test_rejected_and_failed_ones_are_drawn_again_and_leave_their_history(rig: Rig) -> None:
    batch = await _make(rig, ["a cup", "a hat"], variations=1)
    cup, hat = await _cells(rig, batch)
    await _post(rig, batch, "verdicts", 409, verdict="approved", ids=[cup["id"]])
    await _post(rig, batch, "reroll", 409, ids=[cup["id"]])
    await rig.draw(cup["id"])
    await rig.claim(hat["id"])
    await rig.report(hat["id"], status="Failed", error="it broke")
    said = await _post(rig, batch, "reroll", 409, ids=[cup["id"], hat["id"]])
    assert cup["id"] in said["detail"] and "reject it first" in said["detail"]
    await _post(rig, batch, "verdicts", verdict="rejected", ids=[cup["id"]])
    said = await _post(rig, batch, "reroll")
    assert said["changed"] == 2 and said["batch"]["counts"]["status"]["Pending"] == 2
    again = await _cells(rig, batch)
    assert [(cell["verdict"], cell["tries"]) for cell in again] == [("none", 2)] * 2
    for old, new in zip((cup, hat), again, strict=True):
        one = (await rig.http.get(f"/v1/generations/{new['id']}")).json()
        assert one["retry_of"] == old["id"] and one["seed"] != old["seed"]
        assert (await rig.http.get(f"/v1/generations/{old['id']}")).status_code == 200
    # Who has not seen the new picture yet cannot judge it by the old one's id, nor roll twice.
    for what, body in (("verdicts", {"verdict": "approved"}), ("reroll", {})):
        said = await _post(rig, batch, what, 404, ids=[cup["id"]], **body)
        assert "re-rolled" in said["detail"]
    assert (await _post(rig, batch, "reroll"))["changed"] == 0


async def test_cancel_ends_what_is_open(rig: Rig) -> None:
    batch = await _make(rig, ["a cup", "a hat", "a key"], variations=1)
    done, running_, _ = await _cells(rig, batch)
    await rig.draw(done["id"])
    await rig.claim(running_["id"])
    assert (await _post(rig, batch, "cancel"))["changed"] == 2
    assert [cell["status"] for cell in await _cells(rig, batch)] == ["Completed", "Cancelled", "Cancelled"]
    assert (await _post(rig, batch, "cancel"))["changed"] == 0
    assert await rig.report(running_["id"]) == 409
    assert (await _post(rig, batch, "reroll"))["changed"] == 0, "what was cancelled has to be named"
    assert (await _post(rig, batch, "reroll", ids=[running_["id"]]))["changed"] == 1


async def test_the_same_key_gives_the_same_batch(rig: Rig) -> None:
    key = {"Idempotency-Key": "mine"}
    body = {"items": ["a cup"], "variations": 3}
    first = await rig.http.post("/v1/batches", json=body, headers=key)
    second = await rig.http.post("/v1/batches", json={**body, "items": [{"prompt": "a cup"}]}, headers=key)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    other = await rig.http.post("/v1/batches", json={**body, "variations": 2}, headers=key)
    assert other.status_code == 409
    assert (await rig.http.get("/v1/stats")).json()["requests"]["Pending"] == 3


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"items": []}, "items"),
    ({"items": ["a cup", " "]}, "items.1.prompt"),
    ({"items": [{"prompt": "a cup", "sedd": 1}]}, "items.0.sedd"),
    ({"items": ["a cup"] * 501, "variations": 4}, "2000"),
    ({"items": ["a cup"], "style": "nothing"}, "style"),
    ({"items": ["a cup"], "style": "alien"}, "style"),
    ({"items": ["a cup", {"prompt": "a hat", "width": 512}], "style": "tale"}, "items.1.width"),
    ({"items": ["a cup"], "width": 512, "style": "tale"}, "width must"),
    ({"items": ["a cup"], "seed": str(2**63 - 1)}, "seed + variations"),
]


async def test_wrong_batches_are_refused_with_the_field(rig: Rig) -> None:
    for body, field in WRONG:
        answer = await rig.http.post("/v1/batches", json=body)
        assert answer.status_code == 422 and field in answer.json()["detail"], answer.text
    assert (await rig.http.get("/v1/batches")).json()["items"] == []


async def test_a_batch_is_one_submission_and_fits_the_quota_as_a_whole(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        user = await headers_of(rig, Role.USER, rate=3, quota=10)

        async def ask(things: int) -> tuple[int, str]:
            items = [f"thing {n}" for n in range(things)]
            answer = await rig.http.post("/v1/batches", json={"items": items, "variations": 1}, headers=user)
            return answer.status_code, answer.json().get("detail", "")

        assert (await ask(11))[0] == 422
        assert (await ask(6))[0] == 202
        status, said = await ask(5)
        assert status == 429 and "10 images a day" in said
        assert (await ask(4))[0] == 202
        assert (await rig.http.get("/v1/batches", headers=user)).json()["items"][0]["size"] == 4
        single = await rig.http.post("/v1/generations", json={"prompt": "a cup"}, headers=user)
        assert single.status_code == 429, "batches count for single requests too"
        # A re-roll counts as well, and so does each batch as one submission.
        (batch, _) = (await rig.http.get("/v1/batches", headers=user)).json()["items"]
        url = f"/v1/batches/{batch['id']}"
        cell = (await rig.http.get(url, headers=user)).json()["items"][0]["cells"][0]
        admin = await headers_of(rig, Role.ADMIN)
        rig.http.headers.update(admin)
        await rig.claim(cell["id"])
        await rig.report(cell["id"], status="Failed", error="it broke")
        answer = await rig.http.post(f"{url}/reroll", json={}, headers=user)
        assert answer.status_code == 429 and "images a day" in answer.json()["detail"]


async def test_a_batch_is_its_owners_and_an_admins(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        ann, bob = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)
        admin = await headers_of(rig, Role.ADMIN)
        made = await rig.http.post("/v1/batches", json={"items": ["a cup"]}, headers=ann)
        url = f"/v1/batches/{made.json()['id']}"
        calls = [("GET", ""), ("GET", "/export"), ("POST", "/cancel")]
        calls += [("POST", "/verdicts"), ("POST", "/reroll"), ("POST", "/export")]
        for method, what in calls:
            body = {"verdict": "approved"} if what == "/verdicts" else {}
            options = {"json": body} if method == "POST" else {}
            answer = await rig.http.request(method, url + what, headers=bob, **options)
            assert answer.status_code == 404, what
        assert (await rig.http.get("/v1/batches", headers=bob)).json()["items"] == []
        assert len((await rig.http.get("/v1/batches", headers=admin)).json()["items"]) == 1
        assert (await rig.http.get(url, headers=admin)).status_code == 200
        worker = await headers_of(rig, Role.WORKER)
        assert (await rig.http.get(url, headers=worker)).status_code == 403


async def test_two_thousand_pictures_come_in_at_once_and_in_pages(rig: Rig) -> None:
    began = time.monotonic()
    batch = await _make(rig, [f"thing {n}" for n in range(500)], variations=4)
    assert time.monotonic() - began < 20, "one transaction, few statements"
    assert batch["counts"]["status"]["Pending"] == 2000
    page = await _look(rig, batch, first=490, limit=100)
    assert [thing["thing"] for thing in page["items"]] == list(range(490, 500)) and page["next"] is None
    assert (await _look(rig, batch, limit=100))["next"] == 100
    assert (await _post(rig, batch, "cancel"))["changed"] == 2000
    for n in range(2):
        await _make(rig, [f"a cup {n}"])
    first = (await rig.http.get("/v1/batches?limit=2")).json()
    second = (await rig.http.get("/v1/batches", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [each["name"] for each in first["items"] + second["items"]] == ["a cup 1", "a cup 0", "thing 0"]
    assert second["next_cursor"] is None


async def test_a_large_batch_starves_nobody(settings: GatewaySettings) -> None:
    """One slow worker that does a picture at a time: another's single item does not wait for 500 things."""
    async with running(settings.model_copy(update={"relay_window": 8})) as rig:
        ann, bob = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)
        rig.http.headers.update(await headers_of(rig, Role.ADMIN))
        items = [f"thing {n}" for n in range(500)]
        made = await rig.http.post("/v1/batches", json={"items": items, "variations": 1}, headers=ann)
        batch = made.json()
        await eventually(lambda: len(rig.broker.ids) >= 8, within=30)
        single = await rig.http.post("/v1/generations", json={"prompt": "a hat"}, headers=bob)
        mine, drawn = single.json()["id"], list[str]()
        while True:
            request_id = (await eventually(lambda: rig.broker.ids[len(drawn) :], within=30))[0]
            await rig.draw(request_id)
            drawn.append(request_id)
            if request_id == mine:
                break
            assert len(drawn) < 20, "the single item waits behind the batch"
        assert (await rig.http.get(f"/v1/generations/{mine}")).json()["status"] == "Completed"
        counts = (await _look(rig, batch))["counts"]["status"]
        assert counts["Pending"] > 480


async def test_a_batch_whose_requests_are_gone_goes_too(rig: Rig) -> None:
    old, kept = await _make(rig), await _make(rig)
    (first, *_) = await _cells(rig, kept)
    assert (await rig.http.delete(f"/v1/generations/{first['id']}")).status_code == 204
    assert (await _look(rig, kept))["counts"]["gone"] == 1
    assert (await _cells(rig, kept))[0]["status"] is None
    ids = [cell["id"] for cell in await _cells(rig, old)]
    async with rig.gateway.db.write() as write:
        await write.conn.execute(delete(table).where(table.c.id.in_([UUID(each) for each in ids])))
    settings = rig.gateway.settings.model_copy(update={"retain_requests": 1e-9})
    await upkeep.clean(settings, rig.gateway.db, rig.store)
    assert (await rig.http.get(f"/v1/batches/{old['id']}")).status_code == 404
    assert (await rig.http.get(f"/v1/batches/{kept['id']}")).status_code == 200
    assert (await rig.http.get(f"/v1/batches/{uuid4()}")).status_code == 404
