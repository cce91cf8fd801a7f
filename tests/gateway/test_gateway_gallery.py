"""Finding, picking and deleting: lists with their filters, favourites, collections, and the day after a delete."""

from typing import Any
from uuid import UUID, uuid4

from rig import Rig, headers_of

from databases import age
from itemforge.gateway import upkeep
from itemforge.jobs.keys import Role

Headers = dict[str, str]
DAY = 86400.0


async def _ids(rig: Rig, headers: Headers | None = None, **params: Any) -> list[str]:
    answer = await rig.http.get("/v1/generations", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def _two(rig: Rig) -> tuple[Headers, Headers]:
    return await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)


async def _submit(rig: Rig, headers: Headers, prompt: str = "a red apple") -> str:
    answer = await rig.http.post("/v1/generations", json={"prompt": prompt}, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_prompts_are_searched_by_their_words(rig: Rig) -> None:
    prompts = ["a RED apple", "a red 100% cider_jar", "ein ÄPFEL Korb", "a blue apple"]
    red, cider, basket, blue = [(await rig.submit(prompt))["id"] for prompt in prompts]
    assert await _ids(rig, q="apple") == [blue, red]
    assert await _ids(rig, q="APPLE  re") == [red]
    assert await _ids(rig, q="red -apple") == []
    # What LIKE would take for a pattern is text, and other alphabets have capitals, too.
    assert await _ids(rig, q="0%") == await _ids(rig, q="r_j") == [cider]
    assert await _ids(rig, q="%") == [cider] and await _ids(rig, q="\\") == []
    assert await _ids(rig, q="' OR 1=1 --") == []
    assert await _ids(rig, q="äpfel") == [basket]
    assert len(await _ids(rig, q="  ")) == 4
    assert (await rig.http.get("/v1/generations?q=a%00b")).status_code == 422
    assert (await rig.http.get("/v1/generations", params={"q": "x" * 201})).status_code == 422


async def test_favourites_are_ones_own(rig: Rig) -> None:
    ann, bob = await _two(rig)
    boss = await headers_of(rig, Role.ADMIN)
    ids = [await _submit(rig, ann) for _ in range(3)]
    path = f"/v1/generations/{ids[1]}/favourite"
    for _ in range(2):
        assert (await rig.http.put(path, headers=ann)).status_code == 204
    assert await _ids(rig, ann, favourite=True) == [ids[1]]
    listed = (await rig.http.get("/v1/generations", headers=ann)).json()["items"]
    assert [item["favourite"] for item in listed] == [False, True, False]
    one = await rig.http.get(f"/v1/generations/{ids[1]}", headers=ann)
    assert one.json()["favourite"] is True
    # Another cannot mark what they cannot see; an admin can, for themselves.
    assert (await rig.http.put(path, headers=bob)).status_code == 404
    assert await _ids(rig, boss, favourite=True) == []
    await rig.http.put(f"/v1/generations/{ids[2]}/favourite", headers=boss)
    assert await _ids(rig, boss, favourite=True) == [ids[2]]
    assert await _ids(rig, boss, mine=True) == []
    for _ in range(2):
        assert (await rig.http.delete(path, headers=ann)).status_code == 204
    assert await _ids(rig, ann, favourite=True) == []


async def test_collections_are_made_filled_renamed_and_deleted(rig: Rig) -> None:
    ann, bob = await _two(rig)
    ids = [await _submit(rig, ann) for _ in range(3)]

    async def call(
        method: str, path: str = "", body: Any = None, who: Headers = ann, status: int = 200
    ) -> Any:
        answer = await rig.http.request(method, f"/v1/collections{path}", json=body, headers=who)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    made = await call("POST", body={"name": " potions "}, status=201)
    assert (made["name"], made["count"]) == ("potions", 0)
    one = f"/{made['id']}"
    assert "already" in (await call("POST", body={"name": "potions"}, status=422))["detail"]
    await call("POST", body={"name": "potions"}, who=bob, status=201)
    for name in ("", "  ", "a\nb", "x" * 101):
        await call("POST", body={"name": name}, status=422)
    assert (await call("POST", f"{one}/add", {"ids": ids[:2]}))["count"] == 2
    assert (await call("POST", f"{one}/add", {"ids": ids[1:]}))["count"] == 3
    assert (await call("POST", f"{one}/remove", {"ids": ids[:1]}))["count"] == 2
    assert await _ids(rig, ann, collection=made["id"]) == [ids[2], ids[1]]

    # What another may not see, they cannot put in; and a collection is nobody else's.
    theirs = (await call("POST", body={"name": "loot"}, who=bob, status=201))["id"]
    await call("POST", f"/{theirs}/add", {"ids": [ids[0]]}, who=bob, status=404)
    for method, path, body in (
        ("GET", one, None),
        ("PATCH", one, {"name": "mine"}),
        ("POST", f"{one}/add", {"ids": ids}),
        ("POST", f"{one}/remove", {"ids": ids}),
        ("DELETE", one, None),
    ):
        await call(method, path, body, who=bob, status=404)
    answer = await rig.http.get("/v1/generations", params={"collection": made["id"]}, headers=bob)
    assert answer.status_code == 404

    await call("POST", body={"name": "swords"}, status=201)
    await call("PATCH", one, {"name": "swords"}, status=422)
    assert (await call("PATCH", one, {"name": "elixirs"}))["count"] == 2
    assert [each["name"] for each in (await call("GET"))["items"]] == ["elixirs", "swords"]
    await rig.http.delete(f"/v1/generations/{ids[1]}", headers=ann)
    assert (await call("GET", one))["count"] == 1
    await call("DELETE", one, status=204)
    await call("DELETE", one, status=404)
    assert len(await _ids(rig, ann)) == 2, "what was in it stays"


async def test_what_is_deleted_is_hidden_and_can_be_restored(rig: Rig) -> None:
    ann, bob = await _two(rig)
    drawn, waiting = await _submit(rig, ann), await _submit(rig, ann)
    boss = await headers_of(rig, Role.ADMIN)
    rig.http.headers.update(boss)
    await rig.draw(drawn)
    paths = [f"/v1/generations/{each}" for each in (drawn, waiting)]
    await rig.http.put(f"{paths[0]}/favourite", headers=ann)
    for path in paths:
        assert (await rig.http.delete(path, headers=ann)).status_code == 204
    for call in ("", "/image", "/thumbnail"):
        assert (await rig.http.get(f"{paths[0]}{call}", headers=ann)).status_code == 404
    assert await _ids(rig, ann) == await _ids(rig, ann, favourite=True) == []
    assert await _ids(rig, ann, deleted=True) == [waiting, drawn]
    assert await _ids(rig, bob, deleted=True) == []
    # To see which one it was.
    small = await rig.http.get(f"{paths[0]}/thumbnail?deleted=true", headers=ann)
    assert small.headers["content-type"] == "image/jpeg"
    assert (await rig.http.get(f"{paths[0]}/thumbnail?deleted=true", headers=bob)).status_code == 404
    assert (await rig.http.post(f"{paths[0]}/restore", headers=bob)).status_code == 404
    restored = await rig.http.post(f"{paths[0]}/restore", headers=ann)
    assert (restored.status_code, restored.json()["deleted_at"]) == (200, None)
    assert (await rig.http.post(f"{paths[0]}/restore", headers=ann)).status_code == 200, "it is there"
    assert (await rig.http.get(f"{paths[0]}/image", headers=ann)).status_code == 200
    assert await _ids(rig, ann, favourite=True) == [drawn]
    cancelled = (await rig.http.post(f"{paths[1]}/restore", headers=ann)).json()
    assert cancelled["status"] == "Cancelled", "a delete cancels, and a restore starts nothing"


async def test_a_day_later_row_and_objects_are_gone(rig: Rig) -> None:
    ids = [(await rig.submit())["id"] for _ in range(3)]
    for each in ids:
        await rig.draw(each)
        await rig.http.get(f"/v1/generations/{each}/thumbnail")
    made = (await rig.http.post("/v1/collections", json={"name": "all"})).json()["id"]
    await rig.http.post(f"/v1/collections/{made}/add", json={"ids": ids})
    await rig.http.put(f"/v1/generations/{ids[0]}/favourite")
    for each in ids[:2]:
        await rig.http.delete(f"/v1/generations/{each}")
    gateway = rig.gateway
    await age(gateway.db, UUID(ids[0]), "deleted_at", DAY + 60)
    assert len(rig.store.objects) == 6, "until then nothing is lost"
    # Too late for a restore even before the cleaner has come, which may be at its objects already.
    assert (await rig.http.post(f"/v1/generations/{ids[0]}/restore")).status_code == 404
    await upkeep.clean(gateway.settings, gateway.db, gateway.store)
    assert len(rig.store.objects) == 4
    assert await _ids(rig, deleted=True) == [ids[1]]
    assert (await rig.http.post(f"/v1/generations/{ids[1]}/restore")).status_code == 200
    assert (await rig.http.get(f"/v1/collections/{made}")).json()["count"] == 2
    assert (await rig.http.post(f"/v1/generations/{uuid4()}/restore")).status_code == 404


async def test_pages_of_a_filtered_list_miss_and_repeat_nothing(rig: Rig) -> None:
    ids = [(await rig.submit(f"{'sword' if n % 2 else 'shield'} {n}"))["id"] for n in range(9)]
    await rig.http.delete(f"/v1/generations/{ids[5]}")
    seen: list[str] = []
    params: dict[str, Any] = {"q": "sword", "limit": 2}
    while True:
        page = (await rig.http.get("/v1/generations", params=params)).json()
        seen += [item["id"] for item in page["items"]]
        if not page["next_cursor"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == [ids[7], ids[3], ids[1]]
