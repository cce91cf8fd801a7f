"""The gallery in Chromium: ten thousand items, picking by mouse and keyboard, taking home, making more."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from live import Live, live
from PIL import Image
from selenium.webdriver import Chrome, Keys
from window import Window

from gallery_rows import fill
from itemforge.jobs import finding, requests

pytestmark = pytest.mark.timeout(300)
COUNT = 10_000


class Shop:
    """A gateway whose gallery is full; `ids` newest first."""

    def __init__(self, server: Live, ids: list[UUID]) -> None:
        self.server, self.ids = server, ids

    def row(self, request_id: UUID | str) -> object:
        return self.server.run(requests.get(self.server.gateway.db, UUID(str(request_id))))

    def newest(self, count: int) -> list[requests.Request]:
        found: list[requests.Request] = self.server.run(
            finding.find(self.server.gateway.db, finding.Filter(), count)
        )
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    home = tmp_path_factory.mktemp("shop")
    with live(f"sqlite+aiosqlite:///{home / 'itemforge.db'}", home) as server:
        ids = server.run(fill(server.gateway.db, server.gateway.store, COUNT))
        yield Shop(server, ids[::-1])


@pytest.fixture
def page(browser: Chrome, shop: Shop) -> Iterator[Window]:
    window = Window(browser, shop.server.address)
    window.sized(1280, 900)
    yield window
    said = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not [line for line in said if "Content Security Policy" in line["message"]], said
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})


@pytest.fixture
def downloads(browser: Chrome, tmp_path: Path) -> Path:
    there = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", there)
    return tmp_path


def _card(request_id: UUID) -> str:
    return f'.item[data-id="{request_id}"]'


def _whole(downloads: Path, pattern: str) -> bytes:
    """A file that has come to its end; empty until then: browsers begin with an empty one."""
    for file in downloads.glob(pattern):
        data = file.read_bytes()
        if b"PK\x05\x06" in data[-30:] or data[:4] == b"RIFF":
            return data
    return b""


def _shown(page: Window) -> list[str]:
    found: list[str] = page.js("[...document.querySelectorAll('.item')].map(card => card.dataset.id)")
    return found


def _chosen(page: Window) -> int:
    return int(page.js("chosen.size"))


def test_ten_thousand_items_are_scrolled_and_the_page_stays_small(shop: Shop, page: Window) -> None:
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/thumbnail*"]})
    page.open("/gallery")
    assert page.text("#results .found").strip().startswith("10,000 items")
    page.browser.execute_script(
        """
        const frame = () => new Promise(requestAnimationFrame);
        window.told = { most: 0, slowest: 0 };
        (async () => {
          while (sheets.cursor) {
            const began = performance.now();
            scrollTo(0, document.documentElement.scrollHeight);
            await frame();
            told.slowest = Math.max(told.slowest, performance.now() - began);
            told.most = Math.max(told.most, document.querySelectorAll('.item').length);
          }
          Object.assign(told, { cards: sheets.order.length, different: new Set(sheets.order.map(({id}) => id)).size });
        })();
        """
    )
    page.until(lambda: page.js("!sheets.cursor && told.cards > 0"), "the last card", within=200)
    told = page.js("told")
    print(told)
    assert told["cards"] == told["different"] == COUNT
    assert told["most"] < 1500
    # From the end to the middle and to the beginning: cards are there again, and nothing has moved.
    for index in (COUNT // 2, 0):
        top = page.js("document.documentElement.scrollHeight * arguments[0] / arguments[1]", index, COUNT)
        page.js("scrollTo(0, arguments[0])", top)
        page.until(
            lambda: page.js(
                "[...document.querySelectorAll('.item')].some(card => {"
                "const box = card.getBoundingClientRect(); return box.bottom > 0 && box.top < innerHeight })"
            ),
            "cards on the screen",
        )
    assert page.js("sheets.card(0).getBoundingClientRect().top") > 0
    page.until(lambda: page.js("document.querySelectorAll('.item').length") < 1500)


def test_searching_picking_collecting_and_taking_home(shop: Shop, page: Window, downloads: Path) -> None:
    page.open("/gallery")
    page.press("/", "golden crown")
    page.until(lambda: page.browser.current_url.endswith("/gallery?q=golden%20crown"), "the address follows")
    found = page.until(lambda: len(_shown(page)) == 83 and _shown(page))
    assert all("golden crown" in page.text(_card(UUID(each)) + " .line") for each in found[:3])

    # By keyboard: to the third card with the arrows, and a range with Shift.
    page.one(f"{_card(UUID(found[0]))} a").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, " ")
    assert _chosen(page) == 1
    page.held(Keys.SHIFT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert _chosen(page) == 3 and page.text("#chosen-count") == "3"
    page.press("f")
    page.until(lambda: page.js("document.querySelectorAll('.heart[aria-pressed=true]').length") == 1)
    page.press(Keys.ESCAPE)
    assert not page.one("#chosen").is_displayed()

    # By mouse: a range again, into a new collection.
    page.click(f"{_card(UUID(found[0]))} .pick")
    page.browser.execute_script(
        "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: true}))",
        page.one(f"{_card(UUID(found[3]))} .pick"),
    )
    assert _chosen(page) == 4
    page.click("#chosen [data-act=collect]")
    page.click("#collect [type=submit]")
    page.says("#collect .problem", "name")
    page.one("#collect-name").send_keys("crowns")
    page.click("#collect [type=submit]")
    page.says("#toasts", "4 items put into crowns")

    page.js("(document.querySelector('#q').value = '', 0)")
    page.click("#filters [name=collection] option:last-child")
    page.until(lambda: _shown(page) == found[:4], "the collection alone")
    assert "collection=" in page.browser.current_url
    page.one(f"{_card(UUID(found[0]))} a").send_keys(Keys.CONTROL, "a")
    page.until(lambda: _chosen(page) == 4)

    page.click("#chosen [data-act=export]")
    page.click("#export-size option[value='128']")
    page.click("#export [name=trim]")
    page.click("#export [type=submit]")
    archive = page.until(lambda: _whole(downloads, "*-zip.zip"), "the ZIP")
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        manifest = json.loads(opened.read("manifest.json"))
        assert sorted(each["id"] for each in manifest["pictures"]) == sorted(found[:4])
        for each in manifest["pictures"]:
            picture = Image.open(io.BytesIO(opened.read(each["file"])))
            assert (picture.size, picture.mode) == ((128, 128), "RGBA")
            assert picture.getpixel((0, 0))[3] == 0 and picture.getpixel((64, 90))[3] == 255
    page.until(lambda: not page.one("#export").is_displayed())
    page.click("#chosen [data-act=export]")
    page.one("#export [name=form][value=atlas]").find_element("xpath", "..").click()
    page.click("#export [type=submit]")
    archive = page.until(lambda: _whole(downloads, "*-atlas.zip"), "the atlas")
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert len(json.loads(opened.read("atlas.json"))["frames"]) == 4
    page.until(lambda: not page.one("#export").is_displayed())

    # Deleted, undone, deleted and restored.
    page.click("#chosen [data-act=clear]")
    page.click(f"{_card(UUID(found[1]))} .pick")
    page.press(Keys.DELETE)
    page.until(lambda: _shown(page) == [found[0], *found[2:4]], "it is hidden")
    page.click("#toasts button")
    page.until(lambda: _shown(page) == found[:4], "and back")
    page.click(f"{_card(UUID(found[0]))} .pick")
    page.click(f"{_card(UUID(found[2]))} .pick")
    page.click("#chosen [data-act=compare]")
    page.says("h1", "Compare")
    assert "differs" in page.text(".differences tbody tr.differs")
    page.click("#overlay")
    page.one("#slide").send_keys(Keys.HOME)
    assert page.js("document.querySelector('#pair').style.getPropertyValue('--cut')") == "0%"
    page.browser.back()
    page.until(lambda: len(_shown(page)) == 4, "the address brings the filters back")


def _jumps_after_a_search_that_is_taken_back(page: Window) -> list[int]:
    """Where the page scrolled by itself until as many sheets were there as before."""
    page.js("(window.jumps = [], window.scrollTo = (x, y) => jumps.push(y))")
    for words, query in (("frog", "q=frog"), ("", "")):
        page.js("(filters.elements.q.value = arguments[0], refresh())", words)
        page.until(lambda query=query: page.js("results().dataset.query") == query, f"the search {query!r}")
    found: list[int] = page.browser.execute_async_script(
        "const done = arguments[0];"
        "(async () => {"
        "  while (sheets.cursor && sheets.box.children.length < 8) await sheets.next();"
        "  requestAnimationFrame(() => requestAnimationFrame(() => done(jumps)));"
        "})();"
    )
    return found


def _times_of_a_long_toast(page: Window) -> list[int]:
    """After how many ms a line that offers an undo is taken away."""
    times: list[int] = page.browser.execute_async_script(
        "const done = arguments[0], plain = window.setTimeout, times = [];"
        "window.setTimeout = (then, ms) => (times.push(ms), plain(then, ms));"
        "toast('deleted', { stay: 60000 });"
        "plain(() => { window.setTimeout = plain; done(times); }, 0);"
    )
    return times


def test_an_item_is_looked_at_taken_home_and_made_again(shop: Shop, page: Window, downloads: Path) -> None:
    second, third = shop.ids[101:103]
    deep = shop.ids[300]
    page.open("/gallery")
    page.until(lambda: page.js("(scrollTo(0, 1e7), !!sheets.card(300))"), "the third sheet")
    page.one(f"{_card(deep)} a").send_keys(Keys.ENTER)
    page.until(lambda: str(deep) in page.browser.current_url)
    page.press(Keys.ESCAPE)
    page.until(lambda: page.browser.current_url.endswith("/gallery"))
    page.until(
        lambda: page.js(
            f"Math.abs(document.querySelector('{_card(deep)}')?.getBoundingClientRect().top) < 2000"
        ),
        "the gallery is where it was left",
    )
    assert _jumps_after_a_search_that_is_taken_back(page) == []
    assert _times_of_a_long_toast(page) == [60000]
    page.open(f"/items/{second}?style=tale")
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: str(third) in page.browser.current_url)
    page.press(Keys.ARROW_LEFT)
    page.until(lambda: str(second) in page.browser.current_url)
    assert page.browser.current_url.endswith("?style=tale")
    page.says("#weight", "256 × 256")
    page.press("+")
    page.says("#zoom", "%")
    page.press("0")
    page.says("#zoom", "fit")

    # The live preview is what is downloaded.
    page.click("#home-size option[value='64']")
    page.click("#home-format option[value='webp']")
    page.click("#home [name=trim]")
    page.says("#weight", "64 × 64")
    page.until(lambda: page.one("#download").get_attribute("download").endswith(".webp"))
    page.click("#download")
    picture = Image.open(io.BytesIO(page.until(lambda: _whole(downloads, "*.webp"), "the picture")))
    assert (picture.format, picture.size, picture.mode) == ("WEBP", (64, 64), "RGBA")
    assert picture.getpixel((0, 0))[3] == 0

    page.browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    page.click("[data-copy=Seed]")
    page.says("#toasts", "Seed copied")
    page.click("[data-act=like]")
    page.until(lambda: page.one("[data-act=like]").get_attribute("aria-pressed") == "true")

    page.click("[data-act=delete]")
    page.until(lambda: str(third) in page.browser.current_url, "on to the next one")
    assert shop.row(second) is None
    page.click("#toasts button")
    page.until(lambda: str(second) in page.browser.current_url, "and back")
    assert shop.row(second) is not None

    seed = page.text("[data-name=Seed]")
    field = page.one("#like-prompt")
    field.clear()
    field.send_keys("a jade frog")
    page.click("form[action$='/like'] [type=submit]")
    page.until(lambda: page.browser.current_url == f"{page.address}/", "to the cards")
    (made,) = shop.newest(1)
    assert (made.prompt, str(made.params.seed)) == ("a jade frog", seed)
    page.open(f"/items/{second}")
    page.click("form[action$='/variations'] [type=submit]")
    page.until(lambda: page.browser.current_url == f"{page.address}/")
    assert len({row.params.seed for row in shop.newest(4)} | {int(seed)}) == 5


def test_nothing_is_in_the_way_of_anybody(shop: Shop, page: Window, npm_packages: Path) -> None:
    a, b = shop.ids[200:202]
    for path in ("/gallery", f"/items/{a}", f"/gallery/compare?a={a}&b={b}"):
        for width in (360, 2560):
            page.sized(width, 900)
            page.open(path)
            assert page.overflow() <= 0, (path, width)
        page.sized(1280, 900)
        for theme in ("light", "dark"):
            page.js("(document.documentElement.dataset.theme = arguments[0], 0)", theme)
            assert page.faults(npm_packages) == [], (path, theme)
