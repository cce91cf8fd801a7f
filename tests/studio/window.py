"""A page in a browser: what a person does there with keyboard and mouse, and sees."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from selenium.common.exceptions import (
    ElementNotInteractableException,
    NoAlertPresentException,
    StaleElementReferenceException,
)
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from itemforge.dataset.packages import Package
from polling import wait_until
from services import npm

AXE = Package("axe-core", "4.14.1")
T = TypeVar("T")


class Window:
    """`address` is where the pages are; without one, the browser is led by the test."""

    #: Seconds that something may take to be seen.
    patience: ClassVar[float] = 60

    def __init__(self, browser: Chrome, address: str = "") -> None:
        self.browser, self.address = browser, address

    def open(self, path: str = "/") -> None:
        self.browser.get(self.address + path)

    def press(self, *keys: str) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def held(self, key: str, *keys: str) -> None:
        """`keys` while `key` is down."""
        ActionChains(self.browser).key_down(key).send_keys(*keys).key_up(key).perform()

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """As soon as it can be clicked: what the page opens or replaces may take a moment."""

        def clicked() -> bool:
            self.one(selector).click()
            return True

        self.until(clicked, f"{selector} can be clicked")

    def write(self, selector: str, text: str) -> None:
        """In place of what stands there."""
        self.js("document.querySelector(arguments[0]).select()", selector)
        self.press(text)

    def js(self, script: str, *values: Any) -> Any:
        return self.browser.execute_script(f"return {script}", *values)

    def text(self, selector: str) -> str:
        """As it reads: runs of white space are one space."""
        found = self.js("document.querySelector(arguments[0])?.textContent ?? ''", selector)
        return " ".join(str(found).split())

    def until(self, check: Callable[[], T], why: str = "", within: float | None = None) -> T:
        def tried() -> Any:
            try:
                return check()
            except (
                StaleElementReferenceException,
                ElementNotInteractableException,
                NoAlertPresentException,
            ):  # in a moment
                return None

        return wait_until(tried, within=within or self.patience, every=0.05, why=why)

    def says(self, selector: str, text: str) -> None:
        self.until(lambda: text in self.text(selector), f"{text!r} in {selector}: {self.text(selector)!r}")

    def settled(self) -> None:
        """Until what the page asked for has come, stands in it, and answers to clicks."""
        busy = ".htmx-request, .htmx-swapping, .htmx-settling, .htmx-added"
        self.until(lambda: not self.js("document.querySelector(arguments[0])", busy), "nothing is on its way")

    def sized(self, width: int, height: int = 900) -> None:
        """The page's inner size, however wide a window must be here."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.until(lambda: self.js("innerWidth") == width, f"{width} pixels")

    def unsized(self) -> None:
        """The window as it was."""
        self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.js("document.documentElement.scrollWidth - innerWidth"))

    def faults(self, packages: Path) -> list[str]:
        """What axe-core finds that is serious; `packages` is where npm's are."""
        self.browser.execute_script(npm.member(AXE, packages, "axe.min.js").decode())
        found = self.browser.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(r => done(r.violations))"
        )
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in serious]

    def errors(self) -> list[str]:
        """What the console holds for an error since the last look."""
        return [line["message"] for line in self.browser.get_log("browser") if line["level"] == "SEVERE"]
