"""The review as an app, and as the command with a browser in front of it."""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from review_page import Page, Server
from rig import Rig, running, settings_for
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from databases import database_url
from itemforge.settings import GatewaySettings
from services.process import unavailable

__all__ = ["database_url"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "items"


@pytest.fixture
def page(folder: Path) -> Callable[..., Page]:
    return lambda who="ann", token=None: Page(folder, who, token)


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(who: str = "ann") -> Server:
        server = Server(folder, who)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        if server.process and server.process.poll() is None:
            server.kill()


def _flags(profile: Path) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return options


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for a module's tests."""
    driver = shutil.which("chromedriver")
    if driver is None or not (shutil.which("chromium") or shutil.which("google-chrome")):
        unavailable("no browser: install chromium and chromium-driver")
    home = tmp_path_factory.mktemp("browser")
    service = Service(driver, env={**os.environ, "HOME": str(home)})
    browser = webdriver.Chrome(_flags(home / "profile"), service)
    browser.set_page_load_timeout(60)
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """With one window, and no word of an error when the test ends."""
    chromium.get_log("browser")
    yield chromium
    while len(chromium.window_handles) > 1:
        chromium.switch_to.window(chromium.window_handles[-1])
        chromium.close()
    chromium.switch_to.window(chromium.window_handles[0])
    chromium.execute_script("window.onbeforeunload = null")
    chromium.get("about:blank")


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> GatewaySettings:
    return settings_for(database_url, tmp_path)


@pytest.fixture
async def rig(settings: GatewaySettings) -> AsyncIterator[Rig]:
    async with running(settings) as made:
        yield made
