"""The gallery's pages without a browser: what their addresses mean, what they make, what they weigh."""

import gzip
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from rig import LOCAL, Rig, headers_of, picture, running

from gallery_rows import fill
from itemforge.jobs.keys import Content, Role
from itemforge.settings import GatewaySettings
from itemforge.studio.filters import Look

HTMX = {"Origin": LOCAL, "HX-Request": "true"}
#: Bytes that the first view may weigh as it goes over the wire, without pictures.
FIRST_VIEW = 100_000


def _cards(html: str) -> list[str]:
    return re.findall(r'<li class="item" data-id="([0-9a-f-]{36})"', html)


async def _drawn(rig: Rig, prompt: str = "a red apple", **fields: Any) -> str:
    made = await rig.submit(prompt, style="tale", **fields)
    await rig.draw(made["id"])
    return str(made["id"])


async def _newest(rig: Rig, count: int) -> list[dict[str, Any]]:
    answer = await rig.http.get("/v1/generations", params={"limit": count})
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_the_address_says_what_is_shown(rig: Rig) -> None:
    apple, sword = await _drawn(rig), await _drawn(rig, "a sword <b>&")
    waiting = (await rig.submit("a slow sword"))["id"]

    async def shown(query: str) -> list[str]:
        answer = await rig.http.get(f"/gallery?{query}")
        assert answer.status_code == 200
        return _cards(answer.text)

    assert await shown("") == [sword, apple]
    assert await shown("q=SWORD") == [sword]
    assert await shown("q=sword&status=any") == [waiting, sword]
    assert await shown("status=Pending") == [waiting]
    assert await shown("since=2020-01-01&until=2020-01-02") == []
    assert await shown("since=2020-01-01") == [sword, apple]
    # What is no filter is none.
    assert await shown("status=x&style=%25&since=soon&collection=7&tz=9e9&n=%00") == [sword, apple]
    assert await shown(f"collection={uuid4()}") == []
    page = (await rig.http.get("/gallery?q=%3Cscript%3Ealert(1)%3C/script%3E")).text
    assert "<script>alert" not in page
    assert "a sword &lt;b&gt;&amp;" in (await rig.http.get("/gallery")).text
    await rig.http.delete(f"/v1/generations/{apple}")
    assert await shown("") == [sword]
    assert await shown("deleted=1") == [apple]


def test_days_are_those_of_the_browsers_place() -> None:
    from itemforge.gateway.keyring import LOCAL as CALLER

    look = Look.of({"since": "2026-03-01", "until": "2026-03-01", "tz": "-420"})
    wanted = look.filter(CALLER)
    assert wanted.since and wanted.until
    assert wanted.since.isoformat() == "2026-02-28T17:00:00+00:00"
    assert (wanted.until - wanted.since).total_seconds() == 86400
    assert look.query(cursor="x") == "since=2026-03-01&until=2026-03-01&tz=-420&cursor=x"


async def test_sheets_follow_each_other_and_neighbours_are_the_filters(rig: Rig) -> None:
    ids = [str(each) for each in await fill(rig.gateway.db, rig.store, 150)]
    page = (await rig.http.get("/gallery?q=sword")).text
    assert "13 items" in page
    html, seen = (await rig.http.get("/gallery")).text, []
    while True:
        seen += _cards(html)
        if not (more := re.search(r'data-next="([^"]+)"', html)):
            break
        html = (await rig.http.get(f"/studio/gallery/more?cursor={more[1]}")).text
    assert seen == ids[::-1]
    assert (await rig.http.get("/studio/gallery/more?cursor=x", headers=HTMX)).status_code == 422
    # Swords are every twelfth.
    one = (await rig.http.get(f"/items/{ids[13]}?q=sword")).text
    assert f'id="newer" rel="prev" href="/items/{ids[25]}?q=sword"' in one
    assert f'id="older" rel="next" href="/items/{ids[1]}?q=sword"' in one
    assert 'id="newer"' not in (await rig.http.get(f"/items/{ids[149]}")).text


async def test_more_of_an_item_is_made_once_a_press(rig: Rig) -> None:
    body = {"seed": 7, "num_inference_steps": 9, "guidance_scale": 3.5, "negative_prompt": "text"}
    old = await _drawn(rig, "a red cup", **body)

    async def post(act: str, status: int = 303, **form: Any) -> httpx.Response:
        answer = await rig.http.post(f"/studio/items/{old}/{act}", data=form, headers={"Origin": LOCAL})
        assert answer.status_code == status, answer.text
        return answer

    for _ in range(2):  # a double click
        answer = await post("variations", count=3, press="5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10")
        assert answer.headers["location"] == "/"
    made = await _newest(rig, 10)
    assert len(made) == 4
    assert len({each["seed"] for each in made}) == 4
    for each in made:
        assert (each["prompt"], each["style"], each["num_images"]) == ("a red cup", "tale@3", 1)
        assert (each["num_inference_steps"], each["guidance_scale"], each["negative_prompt"]) == (
            9,
            3.5,
            "text",
        )
    await post("like", prompt="a blue cup", count=2, keep=1)
    blue, first = await _newest(rig, 2)
    assert {blue["prompt"], first["prompt"]} == {"a blue cup"}
    assert first["composed_prompt"] == "trg, a blue cup, thick outlines"
    assert first["seed"] == "7" != blue["seed"]
    await post("again")
    (again,) = await _newest(rig, 1)
    assert (again["retry_of"], again["seed"]) == (old, "7")
    for form in ({"count": "0"}, {"count": "17"}, {"count": "x"}):
        await post("variations", 422, **form)
    await post("like", 422, prompt=" ", count=1)
    assert "Pending" in (await rig.http.get(f"/items/{again['id']}")).text
    answer = await rig.http.post(f"/studio/items/{again['id']}/again", headers={"Origin": LOCAL})
    assert answer.status_code == 409


async def test_what_the_original_made_is_not_composed_again(rig: Rig) -> None:
    answer = await rig.http.post("/generate", json={"prompt": "trg, an axe", "seed": 7})
    old = answer.json()["request_id"]
    await rig.draw(old)
    await rig.http.post(f"/studio/items/{old}/like", data={"prompt": "trg, a hoe", "count": 1, "keep": 1})
    (made,) = await _newest(rig, 1)
    assert (made["composed_prompt"], made["style"], made["seed"]) == ("trg, a hoe", None, "7")


async def test_two_recipes_side_by_side(rig: Rig) -> None:
    a, b = await _drawn(rig, num_inference_steps=5), await _drawn(rig, num_inference_steps=6)
    page = (await rig.http.get(f"/gallery/compare?a={a}&b={b}")).text
    differing = re.findall(r'<tr class="differs"><th scope="row">(\w+)', page)
    assert differing == ["Steps"]
    assert (await rig.http.get(f"/gallery/compare?a={a}&b={uuid4()}")).status_code == 404
    assert (await rig.http.get(f"/gallery/compare?a={a}")).status_code == 422


async def test_another_users_items_are_not_there(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        ann, bob = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)
        rig.http.headers.update(await headers_of(rig, Role.ADMIN))
        made = await rig.http.post("/v1/generations", json={"prompt": "a secret"}, headers=ann)
        secret = made.json()["id"]
        await rig.draw(secret)
        for path in (f"/items/{secret}", f"/gallery/compare?a={secret}&b={secret}"):
            assert (await rig.http.get(path, headers=ann)).status_code == 200
            assert (await rig.http.get(path, headers=bob)).status_code == 404
        for act in ("again", "variations", "like"):
            answer = await rig.http.post(
                f"/studio/items/{secret}/{act}", data={"prompt": "x", "count": 1}, headers=bob
            )
            assert answer.status_code == 404
        for act in ("favourite", "delete", "restore", "erase"):
            await rig.http.post(f"/studio/gallery/{act}", json={"ids": [secret]}, headers=bob)
        assert _cards((await rig.http.get("/gallery", headers=bob)).text) == []
        assert _cards((await rig.http.get("/gallery", headers=ann)).text) == [secret]
        assert (await rig.http.get(f"/v1/generations/{secret}/image", headers=ann)).status_code == 200


async def test_many_at_once(rig: Rig) -> None:
    ids = [await _drawn(rig) for _ in range(3)]

    async def act(name: str, ids: list[str]) -> Any:
        answer = await rig.http.post(f"/studio/gallery/{name}", json={"ids": ids})
        assert answer.status_code in (200, 204), answer.text
        return answer.json() if answer.content else None

    await act("favourite", ids)
    assert 'class="bare heart" aria-pressed="false"' not in (await rig.http.get("/gallery")).text
    await act("unfavourite", ids[:1])
    assert _cards((await rig.http.get("/gallery?favourite=1")).text) == ids[:0:-1]
    assert await act("delete", [*ids[:2], str(uuid4())]) == {"count": 2}
    assert await act("restore", ids) == {"count": 2}
    assert await act("erase", ids) == {"count": 0}, "only what is deleted already"
    await act("delete", ids[:1])
    assert await act("erase", ids) == {"count": 1}
    assert f"generated/{ids[0]}.png" not in rig.store.objects
    answer = await rig.http.post("/studio/gallery/delete", json={"ids": []})
    assert answer.status_code == 422 and "ids" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/gallery", "/"])
async def test_the_first_view_is_light(rig: Rig, path: str) -> None:
    """HTML, style and scripts as they come over the wire; the pictures load by themselves, as one looks at them."""
    await fill(rig.gateway.db, rig.store, 200)
    raw = {"Accept-Encoding": "gzip"}
    total = 0
    page = await rig.http.get(path, headers=raw)
    assert page.headers["content-encoding"] == "gzip"
    files = re.findall(r'(?:src|href)="(/studio/static/[^"]+)"', page.text)
    assert len(files) >= 5
    for address in (path, *files):
        async with rig.http.stream("GET", address, headers=raw) as answer:
            total += sum([len(chunk) async for chunk in answer.aiter_raw()])
    print(f"first view of {path}: {total:,} bytes")
    assert total < FIRST_VIEW
    images = re.findall(r"<img [^>]*>", page.text)
    assert images and all('loading="lazy"' in image for image in images)


async def test_pages_are_plain_for_who_cannot_unpack(rig: Rig) -> None:
    plain = await rig.http.get("/gallery", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    async with rig.http.stream("GET", "/gallery", headers={"Accept-Encoding": "gzip"}) as packed:
        body = b"".join([chunk async for chunk in packed.aiter_raw()])
    assert gzip.decompress(body).decode() == plain.text


@pytest.mark.parametrize("n", [0, 1])
async def test_each_picture_of_many_has_its_own_seed(rig: Rig, n: int) -> None:
    made = await rig.submit("two cups", num_images=2, seed=7)
    images = [picture(made["id"], rig.store, each) for each in range(2)]
    attempt = (await rig.claim(made["id"]))["attempt"]
    assert await rig.report(made["id"], attempt, images=images) == 200
    page = (await rig.http.get(f"/items/{made['id']}?n={n}")).text
    assert f'<dd data-name="Seed"><bdi>{7 + n}</bdi>' in page
    form = {"prompt": "two jugs", "count": 1, "keep": 1, "n": n}
    await rig.http.post(f"/studio/items/{made['id']}/like", data=form)
    assert (await _newest(rig, 1))[0]["seed"] == str(7 + n)


async def test_what_breaks_a_rule_is_marked(settings: GatewaySettings, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("nude\n")
    async with running(settings.model_copy(update={"block_list": words, "content": Content.FLAG})) as rig:
        marked, plain = await _drawn(rig, "a nude statue"), await _drawn(rig)
        assert (await rig.http.get("/gallery")).text.count('title="Marked: nude"') == 1
        assert "Marked: <bdi>nude</bdi>" in (await rig.http.get(f"/items/{marked}")).text
        assert "Marked:" not in (await rig.http.get(f"/items/{plain}")).text
