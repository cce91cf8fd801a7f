"""Batches in Chromium: from a pasted list to the ZIP, by hand and by keys; and a large one."""

import asyncio
import io
import json
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rig import MemoryStore, Rig, listening
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select
from window import Window

from itemforge.settings import GatewaySettings
from services import npm

pytestmark = pytest.mark.timeout(240)

PACKAGES = npm.package_folder()


class Artist(Window):
    """Somebody at the browser; `draw` and the like are the worker, in the gateway's loop."""

    def __init__(self, browser: Chrome, rig: Rig, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(browser, str(rig.http.base_url))
        self.rig, self._loop = rig, loop

    def worker(self, work: Awaitable[Any]) -> Any:
        async def done() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(60)

    def cells(self, of: str) -> list[Any]:
        script = "[...document.querySelectorAll('.cell')].map(each => each.dataset[arguments[0]])"
        return list(self.js(script, of))

    def focused(self) -> str:
        return str(self.js("document.activeElement.id"))

    def check_access(self) -> None:
        assert self.faults(PACKAGES) == []

    def errors(self) -> list[str]:
        """But for refusals that the test asked for, and style samples."""
        return [each for each in super().errors() if not ("422" in each or "/sample" in each)]

    def check_width(self, width: int) -> None:
        """Nothing has to be scrolled sideways."""
        self.sized(width)
        assert self.overflow() <= 0
        self.unsized()


async def _at_browser(browser: Chrome, settings: GatewaySettings, story: Callable[[Artist], None]) -> None:
    async with listening(settings, store=MemoryStore(bucket="file:///objects")) as rig:
        await asyncio.to_thread(story, Artist(browser, rig, asyncio.get_running_loop()))


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """The pages know no database; both kinds are looked at over HTTP."""
    return f"sqlite+aiosqlite:///{tmp_path / 'itemforge.db'}"


async def test_from_a_pasted_list_to_the_zip(
    browser: Chrome, settings: GatewaySettings, tmp_path: Path
) -> None:
    def story(ann: Artist) -> None:
        browser.get(f"{ann.address}/batches")
        ann.says("#batch-list", "No batch yet")
        ann.check_access()
        field = browser.find_element(By.ID, "list")
        field.send_keys("thing,variations,seed\na red apple,,\nan iron key,3,\nits shield,99,")
        ann.says("#batch-preview", "line 4: variations")
        ann.click("#batch-button")
        ann.says("#batch-said", "line 4: variations")
        field.clear()
        field.send_keys("a red apple\n<b>an iron key</b>\na wooden shield")
        ann.js("document.getElementById('count').value = 2")
        ann.js("document.getElementById('count').dispatchEvent(new Event('input', {bubbles: true}))")
        ann.says("#batch-preview", "3 things × 2 = 6 pictures")
        ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
        ann.until(lambda: "/batches/" in browser.current_url, "the page of the new batch")
        ann.says("h1", "a red apple")
        ann.until(lambda: len(ann.cells("id")) == 6)
        assert ann.js("document.querySelector('.thing b')") is None, "what is written is no markup"
        assert set(ann.cells("status")) == {"Pending"}

        # The grid follows what is drawn, and the place of the keys stays.
        ids = ann.cells("id")
        ann.click("#shot-0-0")
        ann.press(Keys.ARROW_RIGHT)
        assert ann.focused() == "shot-0-1"
        for request_id in ids[:5]:
            ann.worker(ann.rig.draw(request_id))
        ann.until(lambda: ann.cells("status") == ["Completed"] * 5 + ["Pending"])
        assert ann.focused() == "shot-0-1"
        ann.until(lambda: ann.js("document.querySelector('#shot-0-1 img').naturalWidth > 0"))
        ann.press(Keys.HOME, "a")
        assert ann.focused() == "shot-0-1", "on to the next one"
        ann.press("r")
        ann.press("a")
        ann.says("#batch-state", "2 approved")
        ann.says("#batch-state", "1 rejected")
        ann.press("u")  # the next one has none: nothing to take back
        ann.press(Keys.ENTER)
        ann.until(lambda: ann.js("document.getElementById('viewer').open"))
        ann.until(lambda: ann.js("document.getElementById('viewer-image').naturalWidth") == 512)
        ann.press("a", Keys.ESCAPE)
        ann.until(lambda: not ann.js("document.getElementById('viewer').open"))
        ann.says("#batch-state", "3 approved")
        ann.check_access()
        for width in (360, 2560):
            ann.check_width(width)

        # Reject by hand, draw again, cancel.
        ann.click("#cell-2-0 .no")
        ann.says("#reroll", "(2)")
        assert ann.cells("verdict") == ["approved", "rejected", "approved", "approved", "rejected", "none"]
        ann.click("#reroll")
        ann.until(lambda: ann.cells("status").count("Pending") == 3)
        again = ann.cells("id")
        assert [old == new for old, new in zip(ids, again, strict=True)] == [
            True,
            False,
            True,
            True,
            False,
            True,
        ]
        ann.worker(ann.rig.draw(again[1]))
        ann.until(lambda: ann.cells("status")[1] == "Completed")
        ann.click("#cancel")
        ann.until(lambda: ann.cells("status").count("Cancelled") == 2)
        ann.says("#approve-rest", "(1)")
        ann.click("#approve-rest")
        ann.says("#batch-state", "4 approved")

        # Take the approved ones home.
        into = tmp_path / "downloads"
        into.mkdir()
        browser.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(into)}
        )
        ann.click(".batch-do summary")
        Select(browser.find_element(By.ID, "background")).select_by_value("transparent")
        Select(browser.find_element(By.ID, "size")).select_by_value("128")
        ann.click("#take-zip")
        (file,) = ann.until(lambda: list(into.glob("*.zip")), "the download")
        with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            kept = [again[0], again[1], again[2], again[3]]
            assert [each["id"] for each in manifest["pictures"]] == kept
            assert manifest["pictures"][0]["file"] == "a-red-apple-1.png"
            picture = Image.open(io.BytesIO(archive.read("a-red-apple-1.png")))
            assert picture.size == (128, 128) and picture.mode == "RGBA"
        browser.get(f"{ann.address}/batches")
        ann.says("#batch-list", "4 approved")
        assert ann.errors() == []

    await _at_browser(browser, settings, story)


async def test_five_hundred_things_stay_usable(browser: Chrome, settings: GatewaySettings) -> None:
    def story(ann: Artist) -> None:
        body = {"items": [f"thing {n}" for n in range(500)], "variations": 4}
        batch = ann.worker(ann.rig.http.post("/v1/batches", json=body)).json()["id"]
        browser.get(f"{ann.address}/batches/{batch}")
        assert ann.js("document.querySelectorAll('.thing').length") <= 48, (
            "the rest is loaded when it is seen"
        )
        shown = 0
        while shown < 100:
            ann.js("window.scrollTo(0, document.body.scrollHeight)")
            shown = ann.until(
                lambda least=shown: (
                    max(0, ann.js("document.querySelectorAll('.thing').length") - least) + least
                    if ann.js("document.querySelectorAll('.thing').length") > least
                    else 0
                )
            )
        ids = ann.cells("id")
        ann.worker(ann.rig.draw(ids[4 * 90]))
        ann.until(lambda: ann.cells("status")[4 * 90] == "Completed", "a change far down is seen")
        assert ann.js("document.querySelector('#cancel').hidden") is False
        ann.js("window.scrollTo(0, 0)")
        ann.click("#show .chip:nth-of-type(2)")
        ann.until(
            lambda: (
                ann.js("[...document.querySelectorAll('.thing')].filter(each => each.offsetParent).length")
                == 1
            )
        )
        assert ann.errors() == []

    await _at_browser(browser, settings, story)
