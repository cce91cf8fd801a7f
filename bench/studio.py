"""How heavy and how fast the studio's first views are, with many items in the database.

    .venv/bin/python bench/studio.py [--items 10000] [--rounds 7] [--only sqlite|postgresql]

A gateway as it is deployed, but for its queue, and Chromium with an empty cache each time. `HTML, CSS, JS` is what comes
over the wire (gzip) before the page can be used; `pictures` are the thumbnails that are in sight or near it, which
load by themselves, and were made before. `server` is the page's own call, `first paint` and `loaded` are the browser's
(`first-contentful-paint`, `loadEventEnd`). Then the gallery is scrolled from its first card to its last. Search is
the worst case: a word that no prompt has.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench_rig as rig
import httpx
import structlog
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from gallery_rows import fill

sys.path[:0] = [str(rig.ROOT / "tests" / each) for each in ("gateway", "studio")]

from live import Live, live  # noqa: E402

PAGES = ("/gallery", "/")
_SEEN = """
const [page] = performance.getEntriesByType('navigation');
const files = performance.getEntriesByType('resource');
const of = (kinds) => files.filter(({initiatorType}) => kinds.includes(initiatorType));
const sum = (list) => list.reduce((all, {encodedBodySize}) => all + encodedBodySize, 0);
return {
  code: page.encodedBodySize + sum(of(['script', 'link', 'css'])), pictures: sum(of(['img'])), count: of(['img']).length,
  paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0, loaded: page.loadEventEnd,
};
"""
_SCROLL = """
const frame = () => new Promise(requestAnimationFrame);
window.told = { frames: [], cards: 0 };
(async () => {
  let last = await frame();
  while (sheets.cursor || scrollY + innerHeight < document.documentElement.scrollHeight - 2) {
    scrollBy(0, 400);
    const now = await frame();
    told.frames.push(now - last);
    told.cards = Math.max(told.cards, document.querySelectorAll('.item').length);
    last = now;
  }
  told.done = true;
})();
"""


@contextmanager
def chromium(home: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,900"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={home / 'profile'}")
    browser = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        yield browser
    finally:
        browser.quit()


def first_view(browser: webdriver.Chrome, server: Live, path: str, rounds: int) -> dict[str, float]:
    """Medians of a page's first view."""
    found: list[dict[str, float]] = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        httpx.get(server.address + path, trust_env=False).raise_for_status()
        took = (time.perf_counter() - began) * 1000
        browser.execute_cdp_cmd("Network.clearBrowserCache", {})
        browser.get(server.address + path)
        time.sleep(1)  # lazy pictures are not part of the load event
        found.append({**browser.execute_script(_SEEN), "server": took})
    return {name: statistics.median(each[name] for each in found[1:]) for name in found[0]}


def scroll(browser: webdriver.Chrome, server: Live) -> dict[str, Any]:
    """From the first card to the last, 400 pixels a frame."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/thumbnail*"]})
    browser.get(f"{server.address}/gallery")
    browser.execute_script(_SCROLL)
    while not browser.execute_script("return told.done"):
        time.sleep(0.5)
    told: dict[str, Any] = browser.execute_script("return told")
    return told


def search(server: Live) -> float:
    """Milliseconds of a search that finds nothing, by the API; the best of five."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        httpx.get(f"{server.address}/v1/generations?q=nowhere", trust_env=False).raise_for_status()
        times.append((time.perf_counter() - began) * 1000)
    return min(times)


def measure(kind: str, url: str, items: int, rounds: int) -> str:
    """Prints a line for each page as it is measured; gives the line of the scrolling."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with (
            live(url or f"sqlite+aiosqlite:///{home / 'itemforge.db'}", home) as server,
            chromium(home) as browser,
        ):
            server.run(fill(server.gateway.db, server.gateway.store, items))
            for path in PAGES:
                seen = first_view(browser, server, path, rounds)
                print(
                    f"| {kind} | `{path}` | {seen['code'] / 1000:.1f} kB | {seen['pictures'] / 1000:.0f} kB ({seen['count']:.0f}) "
                    f"| {seen['server']:.0f} ms | {seen['paint']:.0f} ms | {seen['loaded']:.0f} ms |",
                    flush=True,
                )
            told, found = scroll(browser, server), search(server)
            frames = sorted(told["frames"])
            return (
                f"| {kind} | {len(frames)} | {told['cards']} | {statistics.median(frames):.0f} ms "
                f"| {frames[len(frames) * 99 // 100]:.0f} ms | {frames[-1]:.0f} ms | {found:.0f} ms |"
            )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(f"First view and scrolling of the studio, {options.items:,} items in the database\n")
    print("| database | view | HTML, CSS, JS | pictures | server | first paint | loaded |")
    print("|---|---|---|---|---|---|---|", flush=True)
    scrolled = []
    if options.only != "postgresql":
        scrolled.append(measure("SQLite", "", options.items, options.rounds))
    if options.only != "sqlite":
        with rig.durable_postgres() as server, server.database() as url:
            scrolled.append(measure("PostgreSQL", url, options.items, options.rounds))
    print(
        "\n| database | frames | most cards on the page | median frame | 99 of 100 within | longest | search |"
    )
    print("|---|---|---|---|---|---|---|", *scrolled, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
