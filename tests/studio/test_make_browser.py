"""The make page in Chromium: from typing to the downloaded picture, and whatever breaks on the way."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gateway_process import GatewayProcess, Worker, png
from PIL import Image
from selenium.webdriver import Chrome, Keys
from window import Window

from itemforge.jobs.keys import Role

pytestmark = pytest.mark.timeout(600)


class Artist(Window):
    """Somebody at the browser."""

    patience = 120

    def ctrl_enter(self) -> None:
        self.held(Keys.CONTROL, Keys.ENTER)

    def click(self, selector: str) -> None:
        self.js("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        super().click(selector)

    def cards(self) -> list[tuple[str, str]]:
        """Id and status of each, as shown."""
        found = self.js(
            "[...document.querySelectorAll('.item-card')].map(c => [c.dataset.id, c.dataset.status])"
        )
        return [(card, status) for card, status in found]

    def shows(self, *statuses: str) -> list[str]:
        self.until(lambda: [status for _, status in self.cards()] == list(statuses), f"{statuses}")
        return [card for card, _ in self.cards()]

    def offline(self, is_offline: bool) -> None:
        self.browser.execute_cdp_cmd("Network.enable", {})
        self.browser.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
        )


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def artist(gateway: GatewayProcess, browser: Chrome) -> Iterator[Artist]:
    """Signed in."""
    artist = Artist(browser, gateway.address)
    artist.open()
    artist.write("#key", gateway.keys[Role.USER] + Keys.ENTER)
    ready = "document.readyState === 'complete' && !!document.getElementById('make-form')"
    artist.until(lambda: artist.js(ready), "the page and its scripts")
    yield artist
    artist.offline(False)
    browser.delete_all_cookies()


def _jpeg() -> str:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), "crimson").save(out, "JPEG")
    return base64.b64encode(out.getvalue()).decode()


def test_from_typing_to_the_picture_at_home(
    artist: Artist, gateway: GatewayProcess, npm_packages: Path, tmp_path: Path
) -> None:
    worker = Worker(gateway)
    assert artist.js("document.activeElement.id") == "prompt"
    artist.click("input[value='tale@3']")
    artist.click("#composed-more > summary")
    artist.write("#prompt", "a <i>cup</i>")
    artist.says("#composed", "trg, a <i>cup</i>, thick outlines")
    artist.says("#composed", "Leaves out: blurry")
    # The style says what an empty field means, and where its limits are.
    artist.click("#make-form > details > summary")
    assert artist.js("[steps.placeholder, width.placeholder, width.min, width.max].join()") == "20,96,32,128"
    assert artist.js("document.getElementById('weight-field').hidden")
    artist.write("#steps", "12")
    artist.click("#reset")
    assert artist.js("steps.value") == ""
    artist.js("(count.value = 3, count.dispatchEvent(new Event('input', {bubbles: true})))")
    artist.js("document.getElementById('prompt').focus()")
    # What a word of the list does, and then Ctrl+Enter.
    artist.write("#prompt", "a forbidden cup")
    artist.ctrl_enter()
    artist.says("#make-said", "has words that are not drawn here (forbidden)")
    artist.write("#prompt", "a tea cup")
    artist.ctrl_enter()
    three, two, one = artist.shows("Pending", "Pending", "Pending")
    assert artist.text("#make-said") == ""
    artist.says(f"#card-{one}", "Next in line")
    artist.says(f"#card-{two}", "Number 2 in line")
    artist.until(lambda: not artist.js("document.getElementById('no-worker').hidden"), "no worker")
    assert artist.faults(npm_packages) == []

    worker.beat()
    artist.until(lambda: artist.js("document.getElementById('no-worker').hidden"), "a worker")
    worker.claim(one)
    artist.shows("Pending", "Pending", "Processing")
    artist.until(lambda: worker.step(one, 5, _jpeg()), "the page watches")
    worker.step(one, 5, _jpeg())
    shown = f"document.querySelector('#card-{one} .preview')"
    artist.until(lambda: artist.js(f"{shown}.naturalWidth") == 16, "the preview")
    artist.until(lambda: artist.js(f"document.querySelector('#card-{one} progress').value") == 5, "progress")
    artist.says(f"#card-{one} .where", "Step 5 of 20")
    worker.draw(one)
    artist.shows("Pending", "Pending", "Completed")
    # Once one is drawn, there is a speed from which the others' times follow.
    artist.says(f"#card-{two}", "about")
    assert "seed" in artist.text(f"#card-{one}")
    artist.until(lambda: artist.js(f"document.querySelector('#card-{one} .picture img').naturalWidth"), "it")

    artist.click(f"#card-{two} [data-cancel]")
    artist.shows("Pending", "Cancelled", "Completed")
    worker.fail(three, "the engine <b>stopped</b>; look at the worker")
    artist.shows("Failed", "Cancelled", "Completed")
    artist.says(f"#card-{three}", "the engine <b>stopped</b>; look at the worker")
    artist.click(f"#card-{three} .do button")
    new, *_ = artist.shows("Pending", "Cancelled", "Completed")
    assert new != three
    artist.click("#cancel-all")
    artist.shows("Cancelled", "Cancelled", "Completed")
    assert artist.faults(npm_packages) == []

    down = {"behavior": "allow", "downloadPath": str(tmp_path)}
    artist.browser.execute_cdp_cmd("Browser.setDownloadBehavior", down)
    artist.click(f"#card-{one} .do a")
    file = tmp_path / f"{one}.png"
    artist.until(file.is_file, "the file")
    assert file.read_bytes() == png()
    link = f"#card-{one} .picture a"
    assert artist.js("document.querySelector(arguments[0]).pathname", link) == f"/items/{one}"


def test_no_card_is_lost_by_a_reload_a_lost_network_or_a_killed_gateway(
    artist: Artist, gateway: GatewayProcess
) -> None:
    worker = Worker(gateway)
    worker.beat()
    artist.js("document.getElementById('prompt').focus()")
    artist.write("#prompt", "a red apple")
    artist.ctrl_enter()
    ids = artist.shows(*["Pending"] * 4)
    artist.open()
    assert artist.shows(*["Pending"] * 4) == ids
    assert artist.js("document.getElementById('prompt').value") == "a red apple"
    worker.draw(ids[3])
    artist.shows("Pending", "Pending", "Pending", "Completed")

    artist.offline(True)
    artist.says("#line-state", "No connection")
    worker.draw(ids[2])
    artist.click(f"#card-{ids[0]} [data-cancel]")
    artist.says("#toasts", "does not answer")
    artist.offline(False)
    assert artist.shows("Pending", "Pending", "Completed", "Completed") == ids
    artist.says("#line-state", "")

    worker.claim(ids[1])
    artist.shows("Pending", "Processing", "Completed", "Completed")
    gateway.kill()
    artist.says("#line-state", "No connection")
    gateway.start()
    worker.draw(ids[1])
    assert artist.shows("Pending", "Completed", "Completed", "Completed") == ids
    artist.until(lambda: artist.text("#line-state") == "", "connected")
    worker.draw(ids[0])
    assert artist.shows(*["Completed"] * 4) == ids

    # What others ask for in the same name comes by itself, and a used-up quota is told.
    user = {"X-API-Key": gateway.keys[Role.USER]}
    other = httpx.post(
        f"{gateway.address}/v1/generations", json={"prompt": "a cup"}, headers=user, timeout=60
    ).json()
    artist.until(lambda: artist.cards()[0] == (other["id"], "Pending"), "the other's card")
    for _ in range(3):
        artist.js("(count.value = 16, count.dispatchEvent(new Event('input', {bubbles: true})))")
        artist.click("#make-button")
        artist.until(lambda: not artist.js("document.getElementById('make-button').disabled"), "answered")
    artist.says("#make-said", "images a day, and they are used up")
    assert len(artist.cards()) == 40


@pytest.mark.parametrize("width", [360, 2560])
def test_the_page_fits(artist: Artist, width: int) -> None:
    artist.sized(width)
    try:
        artist.open("/?prompt=" + "x" * 300)
        artist.ctrl_enter()
        artist.shows(*["Pending"] * 4)
        assert artist.overflow() <= 0
    finally:
        artist.unsized()
