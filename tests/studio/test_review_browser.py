"""The review in Chromium: keys, what is saved while one types, a kill, two windows, and payloads that must not run."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from review_page import Server
from review_set import fields_of, many, put, states
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from window import Window

from itemforge.dataset.store import open_store
from itemforge.dataset.store_captions import Edit, caption, save_captions, told

pytestmark = pytest.mark.timeout(240)
Serve = Callable[..., Server]


class Reviewer(Window):
    """Somebody who looks at captions."""

    patience = 30

    def shows(self, sha: str) -> None:
        self.until(lambda: self.js("document.getElementById('one')?.dataset.sha") == sha, f"shows {sha}")

    def fill(self, field: str, text: str) -> None:
        """In place of what stands in a field of the caption."""
        self.write(f"#field-{field}", text)


@pytest.fixture
def window(browser: Chrome) -> Reviewer:
    return Reviewer(browser)


def test_the_keyboard_alone(folder: Path, serve: Serve, browser: Chrome, window: Reviewer) -> None:
    a, b, c, d = many(folder, 4, groups=False)
    browser.get(f"http://127.0.0.1:{serve().port}/")
    window.press("j", "j", "a")
    window.says(f"#card-{b} .badge", "approved")
    window.says("#progress", "1 of 4 decided")
    assert window.js("document.activeElement.closest('.card').id") == f"card-{c}", "on to the next card"
    window.press("e")
    window.shows(c)
    window.press("k")
    window.shows(b)
    window.press(Keys.ARROW_RIGHT)
    window.shows(c)
    window.press("r")
    window.shows(d)
    window.press("u")
    window.shows(c)
    window.says("#toast", "Undone: reject")
    window.press("b")
    assert window.js("document.getElementById('figure').classList.contains('original')")
    window.press("?")
    assert window.js("document.getElementById('help').open")
    window.press("a", Keys.ESCAPE)
    assert states(folder, [c]) == ["auto"], "no key does anything below the help"
    window.press("h")
    window.says("#lines", "undo of reject")
    window.until(
        lambda: window.js("document.getElementById('lines').getBoundingClientRect().top < innerHeight - 20")
    )
    window.press("e")
    window.press("arj?")
    assert window.js("document.activeElement.id") == "field-object"
    assert str(window.js("document.getElementById('field-object').value")).endswith("arj?")
    window.press(Keys.ESCAPE)
    window.press("a")
    window.shows(d)
    assert states(folder, [a, b, c, d]) == ["auto", "approved", "approved", "auto"]
    with open_store(folder) as store:
        assert fields_of(store, c)["object"].endswith("arj"), "what was typed was saved before the approval"
    window.press("e")
    window.fill("object", "crown")
    ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    window.says("#progress", "3 of 4 decided")
    with open_store(folder) as store:
        assert fields_of(store, d)["object"] == "crown"
    window.press("g")
    window.until(lambda: window.js("document.activeElement?.closest('.card')?.id") == f"card-{d}")
    window.press("f")
    assert window.js("document.activeElement.id") == "word"


def test_fast_keys_lose_nothing(folder: Path, serve: Serve, browser: Chrome, window: Reviewer) -> None:
    shas = many(folder, 5, groups=False)
    browser.get(f"http://127.0.0.1:{serve().port}/picture/{shas[0]}")
    window.press("a", "r", "a", "r")
    window.shows(shas[4])
    assert states(folder, shas) == ["approved", "rejected", "approved", "rejected", "auto"]


def test_tokens_follow_the_typing_and_every_edit_survives_a_kill(
    folder: Path, serve: Serve, browser: Chrome, window: Reviewer
) -> None:
    sha, _ = many(folder, 2, groups=False)
    server = serve()
    browser.get(f"http://127.0.0.1:{server.port}/picture/{sha}")
    before = int(window.text("#tokens").split()[0])
    window.fill("object", "iron sword of the north")
    window.until(lambda: int(window.text("#tokens").split()[0]) == before + 3, "three words are three tokens")
    window.says("#rendered", "iron sword of the north")
    parts = [f"engraved ornamental bronze dragon head {word}" for word in ("one", "two", "three", "four")]
    window.fill("parts", ", ".join(parts))
    window.fill("background", "a stormy sea at night with many ships")
    window.says("#dropped", "Left out to fit: background")
    window.until(lambda: "75 tokens" in window.text("#announce"), "a screen reader is told")
    window.fill("material", "cold steel")
    window.until(lambda: window.text("#saved") == "Saved")
    assert server.kill() == -signal.SIGKILL
    with open_store(folder) as store:
        fields = fields_of(store, sha)
    assert (fields["object"], fields["material"]) == ("iron sword of the north", "cold steel")
    window.fill("view", "side")
    window.says("#saved", "the server does not answer")
    server.start()
    window.until(lambda: window.text("#saved") == "Saved", "what was typed meanwhile is saved too")
    with open_store(folder) as store:
        assert fields_of(store, sha)["view"] == "side"
    window.fill("object", "")
    window.press(Keys.BACKSPACE)
    window.says("#shown", "object: names no thing")
    window.says("#saved", "Not saved")
    window.press(Keys.ESCAPE, "j")
    window.says("#toast", "Not saved: object: names no thing")
    window.click("[data-do=discard]")
    window.until(
        lambda: window.js("document.getElementById('field-object')?.value") == "iron sword of the north"
    )


def test_two_windows_never_overwrite_each_other_unseen(
    folder: Path, serve: Serve, browser: Chrome, window: Reviewer
) -> None:
    (sha, other) = many(folder, 2, groups=False)
    ann, bob = serve("ann"), serve("bob")
    browser.get(f"http://127.0.0.1:{ann.port}/picture/{sha}")
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(f"http://127.0.0.1:{bob.port}/picture/{sha}")
    second = browser.current_window_handle
    # It shall not hear that it is looked at again: somebody types before it has asked for changes.
    browser.execute_script(
        "for (const kind of ['focus', 'visibilitychange'])"
        "window.addEventListener(kind, (event) => window.deaf && event.stopImmediatePropagation(), true);"
        "window.deaf = true"
    )
    browser.switch_to.window(first)
    window.fill("object", "ann's axe")
    window.until(lambda: window.text("#saved") == "Saved")
    browser.switch_to.window(second)
    window.fill("object", "bob's bow")
    window.says("#conflict", "Changed meanwhile by ann")
    window.says("#theirs", "ann's axe")
    window.says("#mine", "bob's bow")
    assert window.js("document.getElementById('field-object').value") == "bob's bow"
    with open_store(folder) as store:
        assert fields_of(store, sha)["object"] == "ann's axe"
    window.click("[data-do=mine]")
    window.until(lambda: window.text("#saved") == "Saved")
    browser.switch_to.window(first)
    window.js("window.dispatchEvent(new Event('focus'))")
    window.until(
        lambda: window.js("document.getElementById('field-object')?.value") == "bob's bow",
        "seen at the look back",
    )
    window.press("g")
    window.until(lambda: window.js("document.getElementById('grid')"))
    with open_store(folder) as store:
        found = caption(store, other)
        assert found is not None
        edit = Edit(other, told(found) | {"state": "rejected"}, found.version)
        save_captions(store, [edit], who="carl", what="reject", deed="d")
    window.js("window.dispatchEvent(new Event('focus'))")
    window.says(f"#card-{other} .badge", "rejected")
    window.says("#progress", "1 of 2 decided")


def test_replace_in_a_thousand_pictures_with_preview_and_one_undo(
    folder: Path, serve: Serve, browser: Chrome, window: Reviewer
) -> None:
    shas = many(folder, 1000)
    browser.get(f"http://127.0.0.1:{serve().port}/")
    assert window.js("document.querySelectorAll('.card').length") == 60
    window.js("document.querySelector('.more').scrollIntoView()")
    window.until(lambda: window.js("document.querySelectorAll('.card').length") >= 120, "the next page comes")
    window.until(
        lambda: window.js("document.querySelector('.card img').naturalWidth"), "thumbnails are there"
    )
    window.press("f")
    window.press("potion")
    window.says("h1", "100 pictures")
    window.press(Keys.ESCAPE)
    window.press("s")
    window.until(lambda: window.js("document.activeElement.id") == "find")
    window.press("iron", Keys.TAB, "glass")
    window.says("#planned", "glass potion")  # of the whole word; each letter brings a preview
    window.settled()
    window.says("#planned-count", "100 captions would change")
    assert window.js("document.querySelectorAll('.planned del').length") == 200
    with open_store(folder) as store:
        assert fields_of(store, shas[2])["material"] == "iron"
    window.click("#apply button")
    window.says("#toast", "Replaced in 100 captions")
    assert not window.js("document.getElementById('dialog').open")
    with open_store(folder) as store:
        assert fields_of(store, shas[2])["object"] == "glass potion"
        assert fields_of(store, shas[3])["object"] == "iron ring"
    window.press("u")
    window.says("#toast", "Undone: replace 'iron' by 'glass' in 100 captions")
    assert set(states(folder, shas)) == {"auto"}
    window.click("label[for=state-auto]")
    window.until(lambda: "state=auto" in window.js("document.getElementById('grid').dataset.query"))
    assert "word=potion" in window.js("location.search")
    window.click("[hx-get^='/many/approved']")
    window.says("#dialog-body", "Approve 100 captions?")
    window.click("#apply button.approve")
    window.says("#progress", "100 of 999 decided")
    assert states(folder, shas).count("approved") == 100


def test_filters_by_mouse_and_near_duplicates_side_by_side(
    folder: Path, serve: Serve, browser: Chrome, window: Reviewer
) -> None:
    shas = many(folder, 30)
    browser.get(f"http://127.0.0.1:{serve().port}/")
    window.click("#near")
    window.until(lambda: window.js("document.querySelectorAll('.group').length") == 2)
    tops = {
        card.location["y"] for card in browser.find_elements(By.CSS_SELECTOR, ".group:first-of-type .card")
    }
    assert len(tops) == 1
    assert window.js("document.activeElement.id") == "near", "the focus stays where it was"
    browser.find_element(By.CSS_SELECTOR, f"#card-{shas[0]} a").click()
    window.shows(shas[0])
    assert len(browser.find_elements(By.CSS_SELECTOR, ".near .card")) == 2
    browser.back()
    window.until(lambda: window.js("document.querySelectorAll('.group').length") == 2, "the way back")
    window.click("#near")
    window.until(lambda: not window.js("document.querySelector('.group')"))
    browser.find_element(By.CSS_SELECTOR, "#flag option:last-child").click()
    window.says("h1", "3 pictures")
    browser.set_window_size(500, 800)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False},
    )
    for path in ("/", "/?near=1", f"/picture/{shas[0]}"):
        browser.get(window.js("location.origin") + path)
        assert window.js("document.documentElement.scrollWidth") <= 360, path
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1280, 900)


HOSTILE = (
    "<script>window.bad = 1</script>",
    "\"'><img src=x onerror='window.bad = 1'>",
    "</textarea><svg onload='window.bad = 1'>",
    "' hx-get=/ hx-on:load='window.bad = 1'",
)


def test_payloads_do_not_run(folder: Path, serve: Serve, browser: Chrome, window: Reviewer) -> None:
    with open_store(folder) as store:
        shas = []
        for number, evil in enumerate(HOSTILE):
            fields = {"object": evil, "parts": [evil], "colours": [evil], "material": evil, "view": evil}
            told_so = {key: evil for key in ("page", "section", "title", "uploader", "licence")}
            shas.append(
                put(
                    store,
                    number,
                    evil,
                    fields,
                    url="javascript:window.bad=1",
                    reason=evil,
                    group="g",
                    others=told_so,
                )
            )
    root = f"http://127.0.0.1:{serve().port}"
    for path in (
        "/",
        "/?near=1",
        *(f"/picture/{sha}" for sha in shas),
        "/?word=%3Cimg+src%3Dx+onerror%3Dwindow.bad%3D1%3E",
    ):
        browser.get(root + path)
        window.until(lambda: window.js("document.readyState") == "complete")
        window.js("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert not window.js("window.bad"), path
    browser.get(f"{root}/picture/{shas[2]}")
    assert window.js("document.getElementById('field-object').value") == HOSTILE[2]
    assert not browser.find_elements(By.CSS_SELECTOR, "a[href^=javascript]")
    for evil in HOSTILE:
        window.fill("object", evil)
        window.until(lambda: window.text("#saved") in ("Saved", "Not saved Discard my change"))
    window.press(Keys.ESCAPE, "h")
    window.until(lambda: window.text("#lines"))
    assert not window.js("window.bad")
    said = [line["message"] for line in browser.get_log("browser")]
    assert not [line for line in said if "Content Security Policy" in line or "Uncaught" in line], said
