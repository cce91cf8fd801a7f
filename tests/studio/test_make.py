"""The make page's calls: a press makes each variation once, what is wrong is said, cards are the caller's own."""

import re
from typing import Any
from uuid import uuid4

import httpx
from rig import LOCAL, Rig, headers_of, running

from itemforge.jobs.keys import Role
from itemforge.settings import GatewaySettings

HTMX = {"Origin": LOCAL, "HX-Request": "true"}


async def _press(rig: Rig, status: int = 200, headers: dict[str, str] | None = None, **form: Any) -> str:
    fields = {"prompt": "a red apple", "style": "tale@3", "count": 2, "press": str(uuid4()), **form}
    answer = await rig.http.post("/studio/make", data=fields, headers={**HTMX, **(headers or {})})
    assert answer.status_code == status, answer.text
    return answer.text


def _cards(html: str) -> list[str]:
    return re.findall(r'<li class="item-card" id="card-([0-9a-f-]{36})"', html)


async def _generations(rig: Rig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await rig.http.get("/v1/generations")).json()["items"]
    return found


async def test_a_press_makes_each_variation_once(rig: Rig) -> None:
    press = str(uuid4())
    form = {"press": press, "count": 3, "seed": "41", "steps": "7", "guidance": "2.5", "negative": "text"}
    first = await _press(rig, **form)
    assert len(_cards(first)) == 3
    assert _cards(await _press(rig, **form)) == _cards(first)  # a double click, or a form sent again
    made = await _generations(rig)
    assert [(each["seed"], each["num_images"]) for each in made] == [("43", 1), ("42", 1), ("41", 1)]
    assert {each["num_inference_steps"] for each in made} == {7}
    assert {(each["guidance_scale"], each["negative_prompt"]) for each in made} == {(2.5, "text")}
    shown = await rig.http.get("/")
    assert _cards(shown.text) == [each["id"] for each in made] == _cards(first)
    assert press not in first  # the next press is another


async def test_what_is_wrong_is_said_in_the_pages_words(rig: Rig) -> None:
    for form, said in (
        ({"prompt": "  "}, "Type what you want"),
        ({"steps": "900"}, "Steps must be less than or equal to 150"),
        ({"guidance": "much"}, "Guidance must be a valid number"),
        ({"width": "1024"}, "width must be between 32 and 128 for the style tale@3"),
        ({"style": "nobody"}, "style is unknown"),
        ({"style": "../../etc"}, "The style must be one of the styles shown"),
        ({"count": "17"}, "Choose 1 to 16 variations"),
        ({"seed": str(2**63 - 1)}, "The seed is too large"),
    ):
        answer = await rig.http.post(
            "/studio/make", data={"prompt": "a cup", "style": "tale@3", "count": 2, **form}, headers=HTMX
        )
        assert answer.status_code == 422, form
        assert answer.headers["hx-retarget"] == "#make-said"
        assert said in answer.text, answer.text
    assert await _generations(rig) == []


async def test_a_limit_is_told_with_what_is_made_already(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        user = await headers_of(rig, Role.USER, quota=3)
        html = await _press(rig, headers=user, count=5)
        assert len(_cards(html)) == 3
        assert "3 of 5 are made. Your key may make 3 images a day" in html
        html = await _press(rig, 429, headers=user)
        assert "come back in" in html
        slow = await headers_of(rig, Role.USER, rate=1)
        html = await _press(rig, headers=slow)
        assert "1 of 2 are made. Your key may make 1 submissions a minute" in html


async def test_the_prompt_can_be_seen_as_it_is_drawn(rig: Rig) -> None:
    async def composed(**form: str) -> str:
        answer: httpx.Response = await rig.http.post("/studio/make/composed", data=form, headers=HTMX)
        assert answer.status_code == 200
        return answer.text

    shown = await composed(prompt="a <b>cup</b>", style="tale@3")
    assert "trg, <mark>a &lt;b&gt;cup&lt;/b&gt;</mark>, thick outlines" in shown
    assert "Leaves out: blurry" in shown
    assert "trg, …, thick outlines" in (await composed(prompt="", style="tale@3")).replace("<mark>", "")
    assert "Leaves out: hats" in await composed(prompt="a cup", style="tale@3", negative="hats")


async def test_cards_are_cancelled_and_made_again(rig: Rig) -> None:
    one, two = _cards(await _press(rig))
    answer = await rig.http.post("/studio/make/cancel", data={"ids": one}, headers=HTMX)
    assert 'data-status="Cancelled"' in answer.text and _cards(answer.text) == [one]
    await rig.claim(two)
    await rig.report(two, status="Failed", error="the engine <i>stopped</i>")
    failed = (await rig.http.get(f"/studio/make/cards?ids={two}")).text
    assert "the engine &lt;i&gt;stopped&lt;/i&gt;" in failed and "Make again" in failed
    (new,) = _cards((await rig.http.post(f"/studio/make/again/{two}", headers=HTMX)).text)
    assert [new] == _cards((await rig.http.post(f"/studio/make/again/{two}", headers=HTMX)).text)
    assert _cards((await rig.http.get("/")).text) == [new, one]
    await rig.draw(new)
    done = (await rig.http.get(f"/studio/make/cards?ids={new}")).text
    assert f'href="/items/{new}"' in done and f'href="/v1/generations/{new}/image" download' in done


async def test_cards_are_the_callers_own(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        one, other = await headers_of(rig, Role.USER), await headers_of(rig, Role.ADMIN)
        (card, _) = _cards(await _press(rig, headers=one, prompt="a secret"))
        assert "a secret" not in (await rig.http.get("/", headers=other)).text
        cards = await rig.http.get(f"/studio/make/cards?ids={card}", headers=other)
        assert _cards(cards.text) == []
        await rig.http.post("/studio/make/cancel", data={"ids": card}, headers={**HTMX, **other})
        assert (await rig.http.get(f"/v1/generations/{card}", headers=one)).json()["status"] == "Pending"
        again = await rig.http.post(f"/studio/make/again/{card}", headers={**HTMX, **other})
        assert again.status_code == 404


async def test_the_form_can_be_filled_from_an_earlier_request(rig: Rig) -> None:
    made = await rig.submit('a "tall" cup', style="tale", num_inference_steps=9)
    shown = (await rig.http.get(f"/?like={made['id']}")).text
    assert "a &#34;tall&#34; cup</textarea>" in shown
    assert re.search(r'name="steps"[^>]*value="9"', shown)
    assert re.search(r'value="tale@3" checked', shown)
    assert "a bird</textarea>" in (await rig.http.get("/?prompt=a+bird")).text
    assert (await rig.http.get(f"/?like={uuid4()}")).status_code == 404
