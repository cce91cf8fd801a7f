"""The review by HTTP: what is saved, undone and refused, and that nothing hostile gets through."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest
from bs4 import BeautifulSoup
from review_page import ADDRESS, OURS, Page
from review_set import drawn, fields_of, many, put, states

from itemforge.dataset.store import open_store
from itemforge.dataset.store_captions import caption, history
from itemforge.errors import ConfigurationError
from itemforge.studio.review.guard import check_exposure

Open = Callable[..., Page]
SWORD = {"object": "sword", "colours": ["red"], "material": "iron"}


def typed(thing: str, version: int, **more: str) -> dict[str, object]:
    return {"object": thing, "version": version, **more}


def test_what_is_typed_is_saved_as_fields_with_its_history(folder: Path, page: Open) -> None:
    with open_store(folder) as store:
        sha = put(store, 1, "Sword", SWORD)
    ann = page("ann")
    form = typed("Long Sword", 1, parts="leather grip, ruby", colours="red", material="iron", view="side")
    shown = ann.post(f"/captions/{sha}", form)
    assert "tsuki_advtr, red long sword with leather grip and ruby, made of iron, side view, white" in shown
    assert re.search(r"(\d+) of 75 tokens", shown)
    with open_store(folder) as store:
        assert fields_of(store, sha)["parts"] == ["leather grip", "ruby"]
        now = caption(store, sha)
        assert now is not None and (now.state, now.version, now.provider) == ("edited", 2, "ann")
        assert [(line.who, line.what) for line in history(store, sha)] == [
            ("name", "caption"),
            ("ann", "edit"),
        ]
    ann.post(f"/captions/{sha}", {**form, "version": 2})
    with open_store(folder) as store:
        assert caption(store, sha).version == 2  # type: ignore[union-attr]  # saying the same again is no change


def test_a_whole_description_is_said_in_place_of_the_fields_until_it_is_emptied(
    folder: Path, page: Open
) -> None:
    whole = "a sword, seen from <above>, (very sharp)"
    with open_store(folder) as store:
        sha = put(store, 1, "Sword", SWORD | {"text": whole})
    ann = page("ann")
    form = BeautifulSoup(ann.get(f"/picture/{sha}"), "html.parser")
    assert form.find("textarea", {"name": "text"}).text == whole  # type: ignore[union-attr]
    assert len(form.find_all(attrs={"name": "text"})) == 1
    shown = ann.post(f"/captions/{sha}", typed("sword", 1, text=whole.replace("sharp", "blunt")))
    assert "a sword, seen from <above>, (very blunt), white background" in unescape(shown)
    shown = ann.post(f"/captions/{sha}", typed("sword", 2, colours="red", text=""))
    assert "tsuki_advtr, red sword, white background" in shown
    with open_store(folder) as store:
        assert fields_of(store, sha)["text"] == ""
    assert "at most 2000 letters" in ann.post(f"/captions/{sha}", typed("sword", 3, text="x" * 2001), 422)


def test_a_caption_too_long_says_what_was_left_out(folder: Path, page: Open) -> None:
    with open_store(folder) as store:
        sha = put(store, 1, "Sword", SWORD)
    parts = ", ".join(
        f"finely engraved ornamental bronze dragon head with emerald eyes {word}"
        for word in ("one", "two", "three", "four")
    )
    shown = page().post(
        f"/captions/{sha}", typed("sword", 1, parts=parts, background="a stormy sea", view="top")
    )
    tokens = re.search(r"(\d+) of 75 tokens", shown)
    assert tokens and int(tokens[1]) <= 75
    assert re.search(r"Left out to fit: <bdi>background, view, part ", shown)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"object": ""}, "object: names no thing"),
        ({"object": "word " * 17}, "object: at most 16 words"),
        ({"object": "x", "parts": "a,b,c,d,e,f,g"}, "parts: at most 6, and there are 7"),
        ({"object": "I'm sorry, I cannot describe this"}, "object: is a refusal"),
    ],
)
def test_what_is_no_caption_is_refused_and_nothing_changes(
    folder: Path, page: Open, form: dict[str, object], said: str
) -> None:
    with open_store(folder) as store:
        sha = put(store, 1, "Sword", SWORD)
    assert said in unescape(page().post(f"/captions/{sha}", {**form, "version": 1}, 422))
    with open_store(folder) as store:
        assert fields_of(store, sha) == SWORD


def test_a_stale_edit_shows_both_texts_and_saves_neither_over_the_other(folder: Path, page: Open) -> None:
    with open_store(folder) as store:
        sha = put(store, 1, "Sword", SWORD)
    ann, bob = page("ann"), page("bob")
    ann.post(f"/captions/{sha}", typed("ann's sword", 1))
    conflict = unescape(bob.post(f"/captions/{sha}", typed("bob's sword", 1), 409))
    assert "Changed meanwhile by <bdi>ann</bdi>" in conflict
    assert "ann's sword" in conflict and "bob's" in conflict
    unescape(bob.post(f"/captions/{sha}/state", {"state": "approved", "version": 1}, 409))
    with open_store(folder) as store:
        assert fields_of(store, sha)["object"] == "ann's sword"
        assert states(folder, [sha]) == ["edited"]
    bob.post(f"/captions/{sha}", typed("bob's sword", 2))
    with open_store(folder) as store:
        assert [line.after["fields"]["object"] for line in history(store, sha) if line.after] == [
            "sword",
            "ann's sword",
            "bob's sword",
        ]


def test_decisions_go_to_the_next_and_are_undone_one_by_one(folder: Path, page: Open) -> None:
    a, b, c = many(folder, 3, groups=False)
    ann = page("ann")
    assert f'data-sha="{b}"' in ann.post(
        f"/captions/{a}/state?state=auto", {"state": "approved", "version": 1}
    )
    assert f'data-sha="{c}"' in ann.post(
        f"/captions/{b}/state?state=auto", {"state": "rejected", "version": 1}
    )
    last = ann.post(f"/captions/{c}/state?state=auto", {"state": "approved", "version": 1})
    assert "That was the last one" in last and "3 of 3 decided" in last
    assert states(folder, [a, b, c]) == ["approved", "rejected", "approved"]
    for expected in (["approved", "rejected", "auto"], ["approved", "auto", "auto"], ["auto"] * 3):
        assert "Undone: " in ann.post("/undo")
        assert states(folder, [a, b, c]) == expected
    assert "nothing that ann could undo" in ann.post("/undo")


def test_undo_takes_back_ones_own_change_and_none_that_another_built_on(folder: Path, page: Open) -> None:
    a, b = many(folder, 2)
    ann, bob = page("ann"), page("bob")
    ann.post(f"/captions/{a}", typed("axe", 1))
    ann.post(f"/captions/{b}", typed("bow", 1))
    bob.post(f"/captions/{b}", typed("crossbow", 2))
    assert "Not undone: edit; 1 changed since" in ann.post("/undo")
    assert "Undone: edit" in ann.post("/undo")
    with open_store(folder) as store:
        assert (fields_of(store, a)["object"], fields_of(store, b)["object"]) == ("iron sword", "crossbow")
    assert "Undone: edit" in page("bob").post("/undo"), "after a restart too"
    with open_store(folder) as store:
        assert fields_of(store, b)["object"] == "bow"


def test_a_caption_written_where_there_was_none_is_undone_to_none(folder: Path, page: Open) -> None:
    with open_store(folder) as store:
        sha = put(store, 1, "Sword")
    ann = page()
    assert "no caption <b>1</b>" in ann.get("/")
    ann.post(f"/captions/{sha}/state", {"state": "approved", "version": 0}, 422)
    ann.post(f"/captions/{sha}", typed("sword", 0))
    ann.post("/undo")
    assert states(folder, [sha]) == ["none"]
    ann.post(f"/captions/{sha}", typed("old", 1), 409)
    ann.post(f"/captions/{sha}", typed("axe", 0))
    with open_store(folder) as store:
        assert caption(store, sha).version == 3  # type: ignore[union-attr]  # never one that a window may hold


def test_history_tells_all_and_reverts_to_a_line(folder: Path, page: Open) -> None:
    with open_store(folder) as store:
        sha = put(store, 1, "Sword", SWORD)
    ann = page()
    ann.post(f"/captions/{sha}", typed("axe", 1))
    ann.post(f"/captions/{sha}/state", {"state": "approved", "version": 2})
    past = ann.get(f"/picture/{sha}/history")
    assert "edited → approved" in past and "auto → edited" in past
    assert "<del>red sword, made of iron</del>" in past and "<ins>axe</ins>" in past
    line = re.findall(r"/revert/(\d+)", past)[-1]
    ann.post(f"/captions/{sha}/revert/{line}", {"version": 2}, 409)
    assert "Reverted" in ann.post(f"/captions/{sha}/revert/{line}", {"version": 3})
    with open_store(folder) as store:
        assert fields_of(store, sha) == SWORD
    assert states(folder, [sha]) == ["auto"]
    ann.post(f"/captions/{sha}/revert/99999", {"version": 4}, 422)


def test_filters_and_their_counts(folder: Path, page: Open) -> None:
    shas = many(folder, 30)
    ann = page()
    ann.post(f"/captions/{shas[5]}/state", {"state": "approved", "version": 1})

    def found(query: str) -> list[str]:
        return re.findall(r'id="card-([0-9a-f]{64})"', ann.get(f"/?{query}"))

    assert found("state=approved") == [shas[5]]
    assert len(found("state=open")) == 28  # one is a copy that is left out
    assert found("flag=*") == found("flag=a+background+that+is+not+plain") == [shas[9], shas[19], shas[29]]
    assert found("word=POTION") == [shas[2], shas[12], shas[22]]
    assert found("word=potion&flag=*") == []
    assert found("near=1") == shas[:4]
    assert found("part=copies") == [shas[1]]
    text = ann.get("/?word=sword")
    assert "all <b>3</b>" in text and "near-duplicates (1)" in text
    assert "a background that is not plain (3)" in ann.get("/")
    groups = re.findall(r'<section class="group">(.*?)</section>', ann.get("/?near=1"), re.S)
    assert [re.findall(r'id="card-(\w+)"', group) for group in groups] == [shas[:2], shas[2:4]]
    assert "copy, left out" in groups[0]


def test_replace_shows_every_change_first_and_makes_those_alone(folder: Path, page: Open) -> None:
    shas = many(folder, 30)
    ann, bob = page("ann"), page("bob")
    form = {"find": "IRON", "by": "steel", "whole": "1"}
    preview = ann.post("/many/replace/preview?word=sword", form)
    assert preview.count("<del>iron</del>") == 6, "in object and material of three swords"
    assert "3 captions would change" in preview
    with open_store(folder) as store:
        assert {fields_of(store, sha)["material"] for sha in shas} == {"iron"}
    seen = re.search(r'name="seen" value="([^"]*)"', preview)
    assert seen
    bob.post(f"/captions/{shas[10]}", typed("iron mace", 1))
    said = ann.post("/many/replace?word=sword", {**form, "seen": seen[1]})
    assert "Replaced in 2 captions; 1 were changed meanwhile, and stay" in said
    with open_store(folder) as store:
        objects = [fields_of(store, shas[n])["object"] for n in (0, 10, 20, 1)]
    assert objects == ["steel sword", "iron mace", "steel sword", "iron shield"]
    assert "Undone: replace &#39;IRON&#39; by &#39;steel&#39; in 2 captions" in ann.post("/undo")
    with open_store(folder) as store:
        assert fields_of(store, shas[0])["object"] == "iron sword"
    assert states(folder, [shas[0], shas[10]]) == ["auto", "edited"]


def test_replace_is_by_whole_words_unless_told_and_leaves_what_would_be_no_caption(
    folder: Path, page: Open
) -> None:
    with open_store(folder) as store:
        put(store, 1, "Sword", {"object": "sword"})
        put(store, 2, "Swordfish", {"object": "swordfish"})
    ann = page()
    assert "1 caption would change" in ann.post(
        "/many/replace/preview", {"find": "sword", "by": "axe", "whole": "1"}
    )
    assert "2 captions would change" in ann.post("/many/replace/preview", {"find": "sword", "by": "axe"})
    assert "stays: object: names no thing" in ann.post("/many/replace/preview", {"find": "sword", "by": ""})
    assert "write what to find" in ann.post("/many/replace/preview", {"find": " ", "by": "x"})
    assert "0 captions would change" in ann.post("/many/replace/preview", {"find": ".*", "by": "x"})


def test_bulk_decisions_tell_their_number_and_are_one_undo(folder: Path, page: Open) -> None:
    shas = many(folder, 30)
    ann = page()
    ann.post(f"/captions/{shas[9]}/state", {"state": "approved", "version": 1})
    asked = ann.get("/many/approved?flag=*")
    assert "Approve 2 captions?" in asked and "1 are approved already" in asked
    seen = re.search(r'name="seen" value="([^"]*)"', asked)
    assert seen
    assert "Approved: 2 captions" in ann.post("/many/approved?flag=*", {"seen": seen[1]})
    assert states(folder, [shas[9], shas[19], shas[29], shas[0]]) == ["approved"] * 3 + ["auto"]
    ann.post("/undo")
    assert states(folder, [shas[9], shas[19], shas[29]]) == ["approved", "auto", "auto"]
    ann.post("/many/approved", {"seen": "damaged"}, 422)


PAYLOADS = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</textarea><svg onload=alert(1)>",
    "' hx-get='/x' hx-trigger='load",
    "{{ 7*7 }}${7*7}",
    "\u202egnp.exe\x00\x1b[31m",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_stored_becomes_markup(folder: Path, page: Open, payload: str) -> None:
    fields = {name: payload for name in ("object", "material", "view", "background")}
    told = {key: payload for key in ("page", "section", "title", "uploader", "licence")}
    with open_store(folder) as store:
        said = {**fields, "parts": [payload], "colours": [payload], "extra": payload}
        sha = put(store, 1, payload, said, url="javascript:alert(1)", reason=payload, group="g", others=told)
        put(store, 2, payload, {"object": 7, "parts": {"a": 1}, "colours": None}, url=payload, group="g")
    bob = page("<b>bob</b>")
    bob.post(f"/captions/{sha}/state", {"state": "rejected", "version": 1})
    shown = [bob.get(path) for path in ("/", "/?near=1", f"/picture/{sha}", f"/picture/{sha}/history")]
    shown.append(bob.post("/many/replace/preview", {"find": "a", "by": payload}))
    shown.append(bob.post("/preview", {"object": payload}))
    stale = bob.client.post(f"/captions/{sha}", data={"object": payload, "version": 0}, headers=OURS)
    assert stale.status_code in (409, 422)
    for text in (*shown, stale.text):
        assert_harmless(text)
    visible = payload.replace("\0", "").replace("\x1b", "").strip()
    assert visible[:12] in BeautifulSoup(shown[2].replace("\0", "").replace("\x1b", ""), "html.parser").text


def assert_harmless(text: str) -> None:
    """No tag, attribute or address but those of the templates."""
    for tag in BeautifulSoup(text, "html.parser").find_all(True):
        assert tag.name not in ("svg", "b") or tag.parent.name == "label", tag
        assert tag.name != "script" or (tag["src"].startswith("/static/") and not tag.text), tag
        assert not [name for name in tag.attrs if name.startswith("on") or name == "style"], tag
        for name in ("href", "src", "action", "hx-get", "hx-post"):
            assert tag.get(name, "/").startswith(("/", "#", "https://wiki.test/")), tag


def test_a_reflected_word_is_text(folder: Path, page: Open) -> None:
    many(folder, 1)
    evil = quote('"><script>alert(1)</script><b onclick=alert(1)>')
    text = page().get(f"/?word={evil}&flag={evil}&state={evil}&part={evil}&near={evil}&view={evil}")
    assert_harmless(text)
    assert "alert(1)" in text


def test_every_answer_forbids_scripts_of_others(folder: Path, page: Open) -> None:
    (sha,) = many(folder, 1)
    client = page().client
    for path in ("/", f"/picture/{sha}", f"/files/picture/{sha}", "/nothing", "/static/review.css"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy and headers["x-content-type-options"] == "nosniff"
    text = page().get(f"/picture/{sha}")
    assert not re.search(r"<style|\sstyle=|<script(?! src=\"/static/)|https?://(?!wiki\.test|127)", text)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test", "ItemForge-Review": "1"},
        {"Origin": "null", "ItemForge-Review": "1"},
        {"Origin": "http://127.0.0.1:9999", "ItemForge-Review": "1"},
        {"ItemForge-Review": "1"},
        {"Origin": ADDRESS},
        {"Host": "evil.test", "Origin": "http://evil.test", "ItemForge-Review": "1"},
        {"Host": "127.0.0.1.evil.test", "Origin": "http://127.0.0.1.evil.test", "ItemForge-Review": "1"},
    ],
)
def test_a_change_from_elsewhere_is_refused(folder: Path, page: Open, headers: dict[str, str]) -> None:
    (sha,) = many(folder, 1)
    client = page().client
    answer = client.post(f"/captions/{sha}", data=typed("evil", 1), headers=headers)
    assert answer.status_code == 403
    assert client.post("/undo", headers={"Origin": ADDRESS}).status_code == 403
    with open_store(folder) as store:
        assert fields_of(store, sha)["object"] == "iron sword"


def test_a_foreign_host_reads_nothing(folder: Path, page: Open) -> None:
    (sha,) = many(folder, 1)
    for path in ("/", f"/files/picture/{sha}", "/changes", "/static/review.js"):
        assert page().client.get(path, headers={"Host": "rebound.test"}).status_code == 403
    for host in ("localhost:1", "[::1]:7", "127.0.0.1"):
        assert page().client.get("/", headers={"Host": host}).status_code == 200


def test_an_address_of_the_network_needs_a_token(folder: Path, page: Open) -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::"):
        with pytest.raises(ConfigurationError, match="--token"):
            check_exposure(host, None)
    with pytest.raises(ConfigurationError, match="16"):
        check_exposure("127.0.0.1", "short")
    check_exposure("0.0.0.0", "t" * 16)
    (sha,) = many(folder, 1)
    token = "correct horse battery"
    client = page(token=token).client
    host = {"Host": "studio.lan:80", "Origin": "http://studio.lan:80"}
    assert client.get("/", headers=host).status_code == 401
    assert client.get(f"/files/picture/{sha}?token=wrong", headers=host).status_code == 401
    assert client.post("/enter", data={"token": "wrong"}, headers=host).status_code == 401
    assert client.get("/", headers={**host, "Authorization": f"Bearer {token}"}).status_code == 200
    answer = client.post("/enter", data={"token": token}, headers=host)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and token not in cookie
    link = client.get(f"/picture/{sha}?state=auto&token=correct+horse+battery", headers=host)
    assert (link.status_code, link.headers["location"]) == (303, f"/picture/{sha}?state=auto")
    entered = {**host, "Cookie": cookie.partition(";")[0]}
    assert client.get("/", headers=entered).status_code == 200
    assert client.post("/undo", headers=entered).status_code == 403


def test_files_are_the_datasets_pictures_and_nothing_else(folder: Path, page: Open) -> None:
    (sha,) = many(folder, 1)
    (folder / "secret.png").write_bytes(b"secret")
    (folder.parent / "outside.png").write_bytes(b"secret")
    ann = page()
    answer = ann.client.get(f"/files/picture/{sha}")
    assert (answer.content, answer.headers["content-type"]) == (drawn(0), "image/png")
    small = ann.client.get(f"/files/thumbnail/{sha}")
    assert small.content[8:12] == b"WEBP"
    assert list((folder / "review/thumbnails").rglob("*.webp"))
    assert ann.client.get(f"/files/before/{sha}").content == drawn(0)
    for path in ("x" * 64, "secret.png", "..%2Fsecret.png", "0" * 64):
        ann.get(f"/files/picture/{path}", 404)
    ann.get(f"/files/database/{sha}", 422)
    for evil in ("../outside.png", str(folder.parent / "outside.png"), "dataset.sqlite", "a\0b.png"):
        with open_store(folder) as store, store.change() as db:
            db.execute("UPDATE results SET output = json_set(output, '$.picture', ?)", (evil,))
        assert b"secret" not in (found := ann.client.get(f"/files/picture/{sha}")).content
        assert found.content == drawn(0), "the original, instead"
        assert b"secret" not in ann.client.get(f"/files/thumbnail/{sha}").content


def test_pictures_that_were_not_processed_are_shown_as_they_came(folder: Path, page: Open) -> None:
    with open_store(folder) as store:
        sha = put(store, 1, "Sword", SWORD, processed=False)
    ann = page()
    assert "No picture has been processed" in ann.get("/")
    assert ann.client.get(f"/files/thumbnail/{sha}").content == drawn(1)


def test_a_folder_that_is_no_dataset_is_refused_and_not_made(folder: Path, page: Open) -> None:
    with pytest.raises(ConfigurationError, match="is no dataset"):
        page()
    assert not folder.exists()


def test_another_trigger_shows_at_once(folder: Path, page: Open) -> None:
    (sha,) = many(folder, 1)
    ann = page()
    text = (folder / "dataset.toml").read_text()
    (folder / "dataset.toml").write_text(text.replace("tsuki_advtr", "moon_style"))
    assert "moon_style, red iron sword" in ann.get(f"/picture/{sha}")
    (folder / "dataset.toml").write_text("triger = 1")
    assert "triger is no setting; did you mean trigger?" in unescape(ann.get("/", 500))


def test_what_another_process_changes_is_seen_at_the_next_look(folder: Path, page: Open) -> None:
    (sha,) = many(folder, 1)
    ann, bob = page("ann"), page("bob")
    since = re.search(r'data-seen="(\d+)"', ann.get("/"))
    assert since
    bob.post(f"/captions/{sha}", typed("axe", 1))
    assert ann.client.get(f"/changes?since={since[1]}").json() == {sha: 2}
    assert "axe" in ann.get("/")


def test_a_thousand_pictures_come_page_by_page(folder: Path, page: Open) -> None:
    shas = many(folder, 1000)
    ann = page()
    text = ann.get("/")
    assert "999 pictures" in text and "1 of 999" in ann.get(f"/picture/{shas[0]}")
    found = re.findall(r'id="card-(\w{64})"', text)
    assert len(found) == 60 and len(text) < 100_000
    while more := re.search(r'<p class="more" hx-get="([^"]*)"', text):
        text = ann.get(unescape(more[1]))
        found += re.findall(r'id="card-(\w{64})"', text)
    assert found == [sha for sha in shas if sha != shas[1]]


def test_too_long_a_change_is_refused(folder: Path, page: Open) -> None:
    many(folder, 1)
    answer = page().client.post("/preview", content=b"x" * (5 * 1024 * 1024), headers=OURS)
    assert answer.status_code == 413


def test_a_dataset_that_cannot_be_written_is_no_mistake_of_the_server(
    folder: Path, page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("itemforge.dataset.store._BUSY", 0.05)
    with open_store(folder) as store:
        sha = put(store, 1, "Sword", SWORD)
        ann = page("ann")
        with store.change():
            assert "cannot be written" in ann.post(f"/captions/{sha}", typed("bell", 1), status=500)
    assert "bell" in ann.post(f"/captions/{sha}", typed("bell", 1))
