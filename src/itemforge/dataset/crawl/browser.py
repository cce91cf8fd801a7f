"""Pages that build themselves, read by a browser without a window.

It goes out through our checking proxy only, loads no pictures (they are fetched afterwards, politely), and has a
profile of its own that goes when it ends.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from itemforge.dataset.crawl.failures import NotFetched, Refused
from itemforge.dataset.crawl.pages import is_challenge
from itemforge.dataset.crawl.proxy import CheckingProxy, proxy_running
from itemforge.dataset.crawl.visitor import Visitor

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    # What pages store stays in memory, within bounds, and goes with the browser.
    "--incognito",
    "--blink-settings=imagesEnabled=false",
    # Without these, loopback and WebRTC would go past the proxy.
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--window-size=1280,4000",
)
#: Seconds for a page to come, for it to build itself, and between two looks at it.
_LOAD, _BUILD, _LOOK = 45.0, 15.0, 0.25
#: Looks in a row without a new picture after which a page is taken to be complete.
_QUIET = 6
_COUNT = """
window.scrollTo(0, document.body ? document.body.scrollHeight : 0);
return [document.readyState, document.images.length];
"""


@contextmanager
def browser_running(visitor: Visitor) -> Iterator["Browser"]:
    """A browser.

    Raises:
        Refused: there is none on this machine.
    """
    try:
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        raise Refused("selenium is not installed; install itemforge[data]") from None
    binary = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    driver_binary = shutil.which("chromedriver")
    if binary is None or driver_binary is None:
        raise Refused("a browser is needed for this page: install chromium and chromium-driver")
    with proxy_running(visitor.manners.allow_private) as (port, proxy):
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (
            *_FLAGS,
            f"--proxy-server=http://127.0.0.1:{port}",
            f"--user-agent={visitor.manners.user_agent}",
        ):
            options.add_argument(flag)
        # Ctrl-C is for us; a browser that dies of it first would look like a failure.
        service = Service(driver_binary, popen_kw={"start_new_session": True})
        try:
            driver = webdriver.Chrome(options=options, service=service)
        except (WebDriverException, OSError) as error:
            raise Refused(f"the browser does not start ({str(error).splitlines()[0][:200]})") from None
        with _leash(service.process.pid):
            try:
                driver.set_page_load_timeout(_LOAD)
                # A page may offer a file at any moment, and the browser's own folder for them is not ours.
                driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "deny"})
                yield Browser(driver, visitor, proxy, WebDriverException)
            finally:
                driver.quit()


@contextmanager
def _leash(group: int) -> Iterator[None]:
    """End a group of processes with this one, however this one ends: then a pipe closes, and a shell that waits hears it."""
    command = ("/bin/sh", "-c", 'read -r _; kill -9 "-$1" 2>/dev/null', "leash", str(group))
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):  # noqa: S603 - a fixed command
        yield


class Browser:
    """Loads pages one after the other."""

    def __init__(
        self, driver: object, visitor: Visitor, proxy: CheckingProxy, failure: type[Exception]
    ) -> None:
        self._driver = driver
        self._visitor = visitor
        self._proxy = proxy
        self._failure = failure

    def load(self, url: str) -> tuple[str, str]:
        """A page as it is when it has built itself, and its address.

        Raises:
            NotFetched: it cannot be had.
            Refused: it asks for a person.
        """
        self._visitor.turn(url)
        self._proxy.refused.clear()
        try:
            self._driver.get(url)  # type: ignore[attr-defined]  # selenium's, which is an extra
            text, address = self._settled()
        except self._failure as error:
            raise NotFetched("the browser cannot load it", str(error).splitlines()[0][:200]) from None
        if _host(url) in self._proxy.refused:
            raise NotFetched("address not allowed", _host(url))
        if is_challenge(text):
            raise Refused("the wiki asks whether a person is there, also in a browser")
        self._visitor.check(address)
        return text, address

    def _settled(self) -> tuple[str, str]:
        driver = self._driver
        end, quiet, last = time.monotonic() + _BUILD, 0, -1
        while time.monotonic() < end and quiet < _QUIET:
            state, count = driver.execute_script(_COUNT)  # type: ignore[attr-defined]
            quiet = quiet + 1 if count == last and count and state == "complete" else 0
            last = count
            time.sleep(_LOOK)
        return str(driver.page_source), str(driver.current_url)  # type: ignore[attr-defined]


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
