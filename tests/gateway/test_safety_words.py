"""The block list: how prompts are read, what a key's rule makes of them, and every way in."""

import os
from pathlib import Path
from uuid import uuid4

import pytest
from rig import Rig, headers_of, running

from itemforge.errors import ConfigurationError
from itemforge.gateway.block_list import BlockList, Rules
from itemforge.jobs.keys import Content, Role
from itemforge.settings import GatewaySettings

RULES = Rules("# an operator's list\nnude\nass\nkill*\nred apple  # a phrase\n裸\nголый\n\n*\n")


@pytest.mark.parametrize(
    ("prompt", "rule"),
    [
        ("a nude statue", "nude"),
        ("NUDE", "nude"),
        ("núdè", "nude"),
        ("ｎｕｄｅ", "nude"),
        ("nud3, n1ce", "nude"),
        ("nudе in Cyrillic letters", "nude"),
        ("n u d e", "nude"),
        ("n.u.d.e", "nude"),
        ("(nu)de", "nude"),
        ("(nude:1.3) statue", "nude"),
        ("nu\u200bde", "nude"),
        ("nude_art", "nude"),
        ("@ss", "ass"),
        ("a K1LLER bee", "kill*"),
        ("Red,  APPLE!", "red apple"),
        ("裸体像", "裸"),
        ("голый король", "голый"),
        # What only looks like it.
        ("a glass of class", None),
        ("a skill", None),
        ("455 kg, 1 2 3", None),
        ("apple, red", None),
        ("a denuded tree", None),
        ("!!! + | *", None),
    ],
)
def test_a_prompt_is_read_as_people_read_it(prompt: str, rule: str | None) -> None:
    assert RULES.match(prompt) == rule


async def test_a_changed_file_is_read_without_a_restart(tmp_path: Path) -> None:
    now = [0.0]
    file = tmp_path / "words.txt"
    with pytest.raises(ConfigurationError, match=r"words.txt cannot be read"):
        BlockList(file)
    file.write_text("nude\n")
    words = BlockList(file, lambda: now[0])

    async def found() -> str | None:
        await words.refresh()
        return words.match("a sword")

    assert await found() is None
    file.write_text("sword\n")
    os.utime(file, ns=(1, 1))  # whatever the clock's grain
    assert await found() is None
    now[0] = 3.0
    assert await found() == "sword"
    for broken in (b"\xff\xfe\xff", b"x" * (1024 * 1024 + 1)):
        file.write_bytes(broken)
        now[0] += 3.0
        assert await found() == "sword"  # the last good one holds
    file.unlink()
    now[0] += 3.0
    assert await found() == "sword"


async def _ask(
    rig: Rig, headers: dict[str, str], prompt: str = "a nude statue"
) -> dict[str, tuple[int, str]]:
    """Every way in, with the status and text of its answer."""
    body = {"prompt": prompt}
    found = {}
    for name, method, path in (
        ("post", "POST", "/v1/generations"),
        ("put", "PUT", f"/v1/generations/{uuid4()}"),
        ("seed", "POST", "/generate"),
    ):
        answer = await rig.http.request(method, path, json=body, headers=headers)
        found[name] = (answer.status_code, answer.text)
    batch = {"items": [{"prompt": "a cup"}, body], "style": "plain", "variations": 1}
    answer = await rig.http.post("/v1/batches", json=batch, headers=headers)
    found["batch"] = (answer.status_code, answer.text)
    htmx = {"HX-Request": "true", **headers}
    page = await rig.http.post("/studio/make", data={**body, "style": "plain@1", "count": 2}, headers=htmx)
    found["page"] = (page.status_code, page.text)
    return found


@pytest.fixture
def listed(settings: GatewaySettings, tmp_path: Path) -> GatewaySettings:
    file = tmp_path / "words.txt"
    file.write_text("nude\n")
    return settings.model_copy(update={"block_list": file})


async def test_words_are_refused_at_every_way_in(listed: GatewaySettings) -> None:
    async with running(listed) as rig:
        user = await headers_of(rig, Role.USER)
        for way, (status, text) in (await _ask(rig, user)).items():
            assert status == 422, way
            assert "has words that are not drawn here (nude)" in text and "without them" in text, way
        assert (await rig.http.get("/v1/generations", headers=user)).json()["items"] == []
        # What shall be left out may be named.
        answer = await rig.http.post(
            "/v1/generations", json={"prompt": "a statue", "negative_prompt": "nude"}, headers=user
        )
        assert answer.status_code == 202


async def test_an_old_request_is_not_sent_again_past_the_list(
    settings: GatewaySettings, tmp_path: Path
) -> None:
    file = tmp_path / "words.txt"
    file.write_text("sword\n")
    async with running(settings.model_copy(update={"block_list": file})) as rig:
        user = await headers_of(rig, Role.USER)
        made = (await rig.http.post("/v1/generations", json={"prompt": "a nude statue"}, headers=user)).json()
        await rig.http.post(f"/v1/generations/{made['id']}/cancel", headers=user)
        file.write_text("nude\n# and a comment\n")
        rig.gateway.block_list = BlockList(file)
        for path in (f"/v1/generations/{made['id']}/retry", f"/studio/make/again/{made['id']}"):
            answer = await rig.http.post(path, headers={"HX-Request": "true", **user})
            assert (answer.status_code, "not drawn here" in answer.text) == (422, True), path


async def test_a_key_may_have_a_rule_of_its_own(listed: GatewaySettings) -> None:
    async with running(listed) as rig:
        flagged = await headers_of(rig, Role.USER, content=Content.FLAG)
        allowed = await headers_of(rig, Role.USER, content=Content.ALLOW)
        for status, text in (await _ask(rig, flagged)).values():
            assert status in (200, 202)
            assert status == 202 or "Marked: <bdi>nude</bdi>" in text
        await rig.http.post("/v1/generations", json={"prompt": "a cup"}, headers=flagged)

        async def listing(headers: dict[str, str], **query: str) -> list[str | None]:
            answer = await rig.http.get("/v1/generations", headers=headers, params=query)
            return [each["flagged"] for each in answer.json()["items"]]

        assert sorted(await listing(flagged), key=str) == [None, None, *["nude"] * 6]
        assert await listing(flagged, flagged="true") == ["nude"] * 6
        assert await listing(flagged, flagged="false") == [None, None]
        assert {status for status, _ in (await _ask(rig, allowed)).values()} <= {200, 202}
        assert set(await listing(allowed)) == {None}


async def test_the_settings_rule_holds_for_keys_without_one(listed: GatewaySettings) -> None:
    async with running(listed.model_copy(update={"content": "flag"})) as rig:
        user, strict = [
            await headers_of(rig, role, content=content)
            for role, content in ((Role.USER, None), (Role.ADMIN, Content.REFUSE))
        ]
        made = await rig.http.post("/v1/generations", json={"prompt": "a nude statue"}, headers=user)
        assert made.json()["flagged"] == "nude"
        assert {status for status, _ in (await _ask(rig, strict)).values()} == {422}
