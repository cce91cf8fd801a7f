"""All pages in Chromium, full of strings that want to run: none does, and nothing is fetched that is not ours."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hostile import HOSTILE, MARK, World, filled
from pydantic import SecretStr
from rig import Rig, listening, settings_for
from selenium.webdriver import Chrome, Keys
from window import Window

from itemforge.jobs import keys
from itemforge.jobs.keys import Role

pytestmark = pytest.mark.timeout(240)

#: In every page before its own scripts: whatever should not happen is written down.
WATCH = """
window.caught = [];
for (const name of ["alert", "confirm", "prompt", "print", "open", "eval"])
  window[name] = (...said) => { window.caught.push(`${name} ${said}`); return true; };
addEventListener("securitypolicyviolation", (e) => window.caught.push(`policy ${e.violatedDirective} ${e.blockedURI}`));
addEventListener("error", (e) => { if (e.message) window.caught.push(`error ${e.message}`); });
addEventListener("unhandledrejection", (e) => window.caught.push(`rejection ${e.reason}`));
"""
#: What of the page as the browser read it could run or load, and is not from our files.
FOREIGN = """
[...document.querySelectorAll("*")].flatMap((each) => {
  const bad = [...each.attributes].filter((a) => /^(data-)?(on|hx-on|srcdoc)/.test(a.name) || a.name.includes("MARK")
    || /^\\s*(javascript|vbscript|data):/i.test(a.value) && ["href", "src", "action", "formaction"].includes(a.name));
  const ours = (address) => new URL(address, location.href).origin === location.origin;
  if (["IFRAME", "OBJECT", "EMBED", "BASE"].includes(each.tagName)) return [each.outerHTML];
  if (each.tagName === "SCRIPT" && !(each.src && new URL(each.src).pathname.startsWith("/studio/static/") && ours(each.src))) return [each.outerHTML];
  if (["A", "FORM", "IMG", "LINK"].includes(each.tagName)) {
    const address = each.getAttribute("href") ?? each.getAttribute("src") ?? each.getAttribute("action");
    if (address && !address.startsWith("blob:") && !ours(address)) return [each.outerHTML];
  }
  return bad.map((a) => `${each.tagName} ${a.name}=${a.value}`);
})
""".replace("MARK", MARK)


class Server:
    """A gateway in a thread of its own, which a person enters with `key`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._ready: Future[tuple[Rig, World, str]] = Future()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        address = f"sqlite+aiosqlite:///{self._home / 'x.db'}"
        values = settings_for(
            address, self._home, admin_key=SecretStr("an admin's key"), use_notice=HOSTILE[0]
        )
        try:
            async with listening(values) as rig:
                _, key = await keys.create(rig.gateway.db, HOSTILE[1], Role.ADMIN)
                rig.http.headers["X-API-Key"] = key
                self._ready.set_result((rig, await filled(rig, HOSTILE), key))
                await self._end.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    def __enter__(self) -> "Server":
        self._thread.start()
        self.rig, self.world, self.key = self._ready.result(120)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        yield running


class Watched(Window):
    """A page that is looked at for what should not be there."""

    def is_inert(self, text: str = MARK) -> None:
        self.says("body", text)
        self.settled()
        assert self.js("window.caught") == [], self.browser.current_url
        assert self.js(FOREIGN.strip()) == [], self.browser.current_url
        said = [each for each in self.browser.get_log("browser") if each["level"] == "SEVERE"]
        assert said == [], self.browser.current_url

    def at(self, path: str) -> None:
        self.open(path)
        self.is_inert()
        assert self.overflow() <= 0, f"{path} is wider than the window"


def test_nothing_that_somebody_wrote_runs_on_any_page(browser: Chrome, server: Server) -> None:
    watch = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    try:
        page = Watched(browser, str(server.rig.http.base_url).rstrip("/"))
        _come_in(page, server)
        _look_everywhere(page, server.world)
        _use_the_pages(page, server)
    finally:
        browser.execute_cdp_cmd(
            "Page.removeScriptToEvaluateOnNewDocument", {"identifier": watch["identifier"]}
        )


def _come_in(page: Watched, server: Server) -> None:
    page.open("/enter?next=javascript:alert(1)")
    page.is_inert("ItemForge")
    page.one("[name=key]").send_keys(server.key, Keys.ENTER)
    page.until(
        lambda: page.js("location.pathname") == "/" and page.js("!!document.querySelector('.me .who')")
    )
    page.is_inert(HOSTILE[1])  # the key's name
    page.says(".foot", HOSTILE[0])


def _look_everywhere(page: Watched, world: World) -> None:
    for item in (world.drawn[0], world.drawn[6], world.failed[1], world.open[0]):
        page.at(f"/items/{item}")
    pair = f"a={world.drawn[0]}&b={world.drawn[1]}"
    for path in (
        "/gallery?status=any",
        f"/gallery?collection={world.collections[0]}&status=any",
        f"/gallery/compare?{pair}",
        "/batches",
        *(f"/batches/{each}" for each in world.batches),
        "/styles",
        "/fleet",
        f"/?like={world.drawn[5]}",
    ):
        page.at(path)
    assert page.js("document.querySelector('[name=prompt]').value") == HOSTILE[5]


def _use_the_pages(page: Watched, server: Server) -> None:
    """What the pages' own scripts put in later: from answers, from the stream, from what is typed."""
    world = server.world
    page.open("/")
    page.one("[name=prompt]").send_keys(HOSTILE[1])
    page.says("body", HOSTILE[1])
    page.one("[name=prompt]").send_keys(Keys.CONTROL, Keys.ENTER)
    cards = "document.querySelectorAll('.item-card[data-status=Pending]').length"
    page.until(lambda: page.js(cards) >= 2, "a new card")
    page.is_inert(HOSTILE[1])
    waiting = world.open[1]
    server.run(server.rig.report(waiting, status="Failed", error=HOSTILE[0]))
    page.until(
        lambda: (
            page.js("document.getElementById(`card-${arguments[0]}`)?.dataset.status", waiting) == "Failed"
        ),
        "the stream tells of it",
    )
    page.is_inert(HOSTILE[0])

    page.open("/gallery?status=any")
    page.one("#q").send_keys(HOSTILE[0])
    page.until(lambda: "script" in page.js("location.search"), "the search stands in the address")
    page.is_inert(HOSTILE[0])
    page.open("/gallery")
    page.click("#sheets .pick, .sheet .pick")
    page.js("document.querySelector('[data-act=collect]').click()")
    page.until(lambda: page.js("document.querySelector('#collect').open"), "the collections")
    page.is_inert(HOSTILE[0])

    page.open(f"/batches/{world.batches[0]}")
    page.js("document.querySelector('.cell[data-status=Completed] .shot').focus()")
    page.press(Keys.ENTER)
    page.until(lambda: page.js("document.getElementById('viewer').open"), "the picture, large")
    page.is_inert(HOSTILE[0])

    page.open("/fleet")
    again = "document.querySelector('#dead form [type=submit]')"
    page.until(lambda: page.js(f"!!{again}"), "the dead letters")
    page.settled()
    page.js(f"{again}.click()")
    page.until(lambda: page.js("!!document.querySelector('#toasts .toast')"), "it was sent again")
    page.is_inert()
