"""The pages of fleet and styles in Chromium: what an operator sees and does, by mouse, by keyboard, on any screen."""

import asyncio
import hashlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest
from rig import BASE, Rig, listening, settings_for
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from window import Window

from itemforge.contract import DEAD_QUEUE
from itemforge.styles.catalog import Catalog
from itemforge.styles.models import starter_dir

pytestmark = pytest.mark.timeout(240)
T = TypeVar("T")

LORA = starter_dir() / "styles" / "cel.safetensors"
FACTS = {"model": "sd15", "device": "NVIDIA H100", "styles": ["tale@3"], "steps_per_second": 41.5, "done": 12}


class Server:
    """A gateway in a thread of its own, so that a browser can be driven meanwhile."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._ready: Future[Rig] = Future()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        async with listening(settings_for(f"sqlite+aiosqlite:///{self._home / 'x.db'}", self._home)) as rig:
            rig.gateway.catalog = Catalog(rig.store, self._home)
            self._ready.set_result(rig)
            await self._end.wait()

    def __enter__(self) -> "Server":
        self._thread.start()
        self.rig = self._ready.result(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    @property
    def address(self) -> str:
        return str(self.rig.http.base_url).rstrip("/")

    def beat(self, worker: str, **more: Any) -> None:
        body = {"worker_id": worker, "state": "ready", "free": 8, "rows": [], "facts": FACTS, **more}
        answer = self.run(self.rig.http.post("/v1/worker/heartbeat", json=body))
        assert answer.status_code == 200, answer.text

    def failed(self, prompt: str) -> str:
        async def fail() -> str:
            request_id: str = (await self.rig.submit(prompt))["id"]
            await self.rig.claim(request_id)
            await self.rig.report(request_id, status="Failed", error=f"no {prompt}")
            return request_id

        return self.run(fail())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("gateway")) as running:
        yield running


class Operator(Window):
    """Somebody who keeps the fleet."""

    def agree(self) -> str:
        """Say yes to the question that is asked; what it was."""

        def answered() -> str:
            alert = self.browser.switch_to.alert
            text = alert.text
            alert.accept()
            return text or "?"

        return self.until(answered, "a question")

    def is_sound(self, packages: Path) -> None:
        """Nothing serious for a screen reader, in both themes; no way sideways on any screen."""
        for theme in ("light", "dark"):
            self.js("(document.documentElement.dataset.theme = arguments[0])", theme)
            assert self.faults(packages) == []
        for width in (360, 1280, 2560):
            self.sized(width)
            assert self.overflow() <= 0
        self.unsized()


@pytest.fixture
def window(browser: Chrome, server: Server) -> Operator:
    return Operator(browser, server.address)


def test_an_operator_watches_the_fleet_and_settles_what_failed(
    server: Server, window: Operator, npm_packages: Path
) -> None:
    payload = "<img src=x onerror=document.title='run'>"
    again, gone = server.failed("a cup"), server.failed(payload)
    server.run(server.rig.broker.publish(DEAD_QUEUE, b"no JSON at all"))
    drawn = server.run(server.rig.submit("a jug"))["id"]
    server.run(server.rig.draw(drawn))
    server.beat("gpu-one")

    window.open("/fleet")
    for text in ("gpu-one", "NVIDIA H100", "41.5", "tale@3"):
        window.says(".workers", text)
    label = window.one(".plot svg").get_attribute("aria-label")
    assert label is not None and "1 completed, 2 failed" in label
    window.says("#dead", f"no {payload}")
    window.says("#dead", "no JSON at all")
    assert window.js("document.title") == "Fleet · ItemForge" and window.js("document.images.length") == 0
    window.is_sound(npm_packages)

    # It refreshes itself, and does not close what somebody reads.
    window.one("#done-table").find_element(By.XPATH, "..").find_element(By.TAG_NAME, "summary").click()
    server.beat("gpu-two")
    window.says(".workers", "gpu-two")
    window.click("#span-day")
    window.until(
        lambda: "last day" in (window.one(".plot svg").get_attribute("aria-label") or ""), "the day's plot"
    )
    assert window.js("document.activeElement.id") == "span-day"
    assert window.js("document.querySelector('details:has(#done-table)').open")
    assert [cell.text for cell in window.browser.find_elements(By.CSS_SELECTOR, "#done-table td")][1:] == [
        "1",
        "2",
        "1",
    ]

    # By keyboard alone: the focus goes on to what comes next.
    window.js("document.querySelector(arguments[0]).focus()", '[aria-label="Send again: a cup"]')
    ActionChains(window.browser).send_keys(Keys.ENTER).perform()
    window.says("#toasts", "Sent again.")
    window.until(lambda: "a cup" not in window.one("#dead").text, "the cup is settled")
    assert window.js("document.activeElement.closest('#dead') !== null")
    sent = server.run(server.rig.http.get("/v1/generations")).json()["items"]
    assert [each["retry_of"] for each in sent if each["prompt"] == "a cup"] == [again, None]

    window.one(f'[aria-label="Drop: {payload}"]'.replace("'", "\\'")).click()
    assert "Take this off the list?" in window.agree()
    window.until(lambda: "onerror" not in window.one("#dead").text, "the payload is settled")
    window.click('[aria-label="Drop: the message"]')
    assert "Throw this message away for good?" in window.agree()
    window.says("#dead", "all that failed is settled")
    assert server.run(server.rig.broker.depth(DEAD_QUEUE)) == 0
    assert server.run(server.rig.http.get(f"/v1/generations/{gone}")).json()["status"] == "Failed"
    assert window.errors() == []


def _pack(folder: Path, licence: str, sha256: str) -> str:
    file = folder / f"myth-{len(licence)}.toml"
    lines = [
        'id = "myth"',
        "version = 1",
        f'base = "{BASE}"',
        f'licence = "{licence}"',
        'trigger = "myth_art"',
    ]
    lines += ["[lora]", 'source = "myth.safetensors"', f'sha256 = "{sha256}"', "weight = 0.7"]
    file.write_text("\n".join(lines))
    return str(file)


def test_an_admin_publishes_a_style_and_goes_back(
    server: Server, window: Operator, tmp_path: Path, npm_packages: Path
) -> None:
    sha256 = hashlib.sha256(LORA.read_bytes()).hexdigest()

    def publish(pack: str, lora: Path | None, answer: str = "yes") -> None:
        window.one("#pack").send_keys(pack)
        if lora:
            window.one("#loras").send_keys(str(lora))
        window.click("#publish button")
        window.until(lambda: window.one("#publish-sure").is_displayed(), "the question")
        window.says("#publish-sure", "Publish myth?")
        window.click(f'#publish-sure button[value="{answer}"]')

    window.open("/styles")
    window.says("#styles", "plain")
    # Not now: nothing is sent.
    publish(_pack(tmp_path, "MIT", sha256), LORA, "no")
    assert [key for key in server.rig.store.objects if key.startswith("styles/")] == []
    # Another file than the pack's, and one that is no LoRA.
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(LORA.read_bytes()[:-9])
    publish(_pack(tmp_path, "MIT", sha256), broken)
    window.says("#publish-said", "cut off")
    window.open("/styles")
    publish(_pack(tmp_path, "no", "d" * 64), LORA)
    window.says("#publish-said", "which is not in the pack")

    for version, licence in ((1, "CC0-1.0"), (2, "CC-BY-4.0")):
        window.open("/styles")
        publish(_pack(tmp_path, licence, sha256), LORA if version == 1 else None)
        window.says("#toasts", f"myth means version {version} now.")
        window.says("#style-myth", f"version {version}")
        window.says("#style-myth", licence)
    drawn = server.run(server.rig.submit("a cup", style="myth"))["id"]
    server.run(server.rig.draw(drawn))
    window.open("/styles")
    window.until(
        lambda: window.js("[...document.images].every((i) => i.complete && i.naturalWidth)"), "pictures"
    )
    assert window.one("#style-myth .style-items img").get_attribute("alt") == "a cup"
    window.click("#back-myth")
    assert "Let myth mean the chosen version?" in window.agree()
    window.says("#style-myth", "CC0-1.0")
    assert server.run(server.rig.http.get("/v1/styles/myth/current.toml")).text.count("version = 1") == 1
    assert server.run(server.rig.submit("a jug", style="myth"))["style"] == "myth@1"
    window.click("#style-myth details summary")
    window.is_sound(npm_packages)
    # The browser itself logs what was refused above; nothing else.
    assert all("422" in line for line in window.errors())
