"""Pages that build themselves: read by a browser, which goes out through the checking proxy alone."""

import os
import shutil
import socket
import sys
from pathlib import Path

import psutil
import pytest
from fake_wiki import CHALLENGE, FakeWiki, Mood, drawn

from itemforge.dataset.crawl import addresses
from itemforge.errors import ConfigurationError
from polling import wait_until
from services.process import unavailable

PAGE = """
<h1>Weapons</h1><div id="here"></div>
<script>
fetch("/wiki/Parts").then(answer => answer.text()).then(text => {
  document.getElementById("here").innerHTML = text;
});
</script>
"""


@pytest.fixture(autouse=True)
def browser() -> None:
    if not (shutil.which("chromium") or shutil.which("google-chrome")) or not shutil.which("chromedriver"):
        unavailable("no browser: install chromium and chromium-driver")


def test_a_page_that_builds_itself(wiki: FakeWiki, crawled, monkeypatch: pytest.MonkeyPatch) -> None:
    wiki.has_api = False
    wiki.add("Sword.png", drawn(1))
    wiki.pages["Weapons"] = PAGE
    wiki.pages["Parts"] = wiki.lazy("Sword.png")
    report = crawled("/wiki/Weapons")
    assert (report.way, report.found, report.pictures) == ("browser", 1, 1)
    agents = {each.headers["user-agent"] for each in wiki.log}
    assert len(agents) == 1
    assert "ItemForge/" in agents.pop()
    assert wiki.fetched("Sword.png") == 1


def test_a_challenge_that_a_browser_passes(wiki: FakeWiki, crawled) -> None:
    wiki.has_api = False
    wiki.add("Sword.png", drawn(1))
    wiki.pages["Weapons"] = wiki.lazy("Sword.png")
    wiki.moods["/wiki/Weapons"] = Mood(lambda h: h.answer(403, CHALLENGE.encode()), times=1)
    assert crawled("/wiki/Weapons").way == "browser"


def test_a_browser_reaches_no_private_address(wiki: FakeWiki, crawled) -> None:
    with pytest.raises(ConfigurationError, match="--allow-private"):
        crawled("/wiki/Weapons", way="browser", allow_private=False)
    assert not wiki.log


@pytest.fixture
def public(wiki: FakeWiki, monkeypatch: pytest.MonkeyPatch) -> FakeWiki:
    """The wiki under a name that is let through, as a public one would be; other names lead to loopback too."""
    real, lookup = addresses.permitted, socket.getaddrinfo

    def permitted(host: str, port: int, private: bool) -> list[str]:
        return ["127.0.0.1"] if host == "wiki.test" else real(host, port, private)

    def getaddrinfo(host: str, *args: object, **more: object) -> object:
        return lookup("127.0.0.1" if host == "evil.test" else host, *args, **more)

    monkeypatch.setattr("itemforge.dataset.crawl.transport.permitted", permitted)
    monkeypatch.setattr("itemforge.dataset.crawl.proxy.permitted", permitted)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    wiki.has_api = False
    wiki.url = wiki.url.replace("127.0.0.1", "wiki.test")
    return wiki


def test_the_scripts_of_a_page_reach_no_private_address(public: FakeWiki, crawled) -> None:
    """Written plainly, in IPv6, by a name of the wiki's owner, and by a redirect of the wiki itself."""
    port = public.static.rpartition(":")[2]
    public.moods["/away"] = Mood(lambda h: h.answer(302, b"", Location=f"{public.static}/redirected"))
    asked = [
        f"{public.static}/secret",
        f"http://[::ffff:127.0.0.1]:{port}/mapped",
        f"http://localhost:{port}/local",
        f"http://evil.test:{port}/named",
        f"{public.url}/away",
    ]
    scripts = "".join(f'fetch("{url}", {{mode: "no-cors"}}).catch(() => 0);' for url in asked)
    frames = "".join(f'<iframe src="{url}"></iframe><img src="{url}">' for url in asked)
    public.pages["Weapons"] = (
        f"{frames}<script>{scripts} new WebSocket('ws://127.0.0.1:{port}/socket');</script>"
    )
    crawled("/wiki/Weapons", way="browser", allow_private=False)
    assert {each.host for each in public.log} == {"wiki"}
    assert "/away" in [each.path for each in public.log], "the redirect was asked for, and not followed"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "evil.test"])
def test_a_page_that_leads_to_a_private_address_is_not_read(public: FakeWiki, crawled, host: str) -> None:
    port = public.static.rpartition(":")[2]
    public.moods["/wiki/Weapons"] = Mood(lambda h: h.answer(302, b"", Location=f"http://{host}:{port}/in"))
    with pytest.raises(ConfigurationError, match="--allow-private"):
        crawled("/wiki/Weapons", way="browser", allow_private=False)
    assert {each.host for each in public.log} == {"wiki"}


def test_a_page_puts_no_files_on_this_machine(wiki: FakeWiki, crawled, tmp_path: Path) -> None:
    """Neither what it offers as a download nor what it sends as one."""
    wiki.add("Sword.png", drawn(1))
    offered = [b"x" * 100_000, "attachment; filename=evil.sh"]
    wiki.moods["/evil.sh"] = Mood(
        lambda h: h.answer(200, offered[0], "application/octet-stream", Content_Disposition=offered[1])
    )
    wiki.pages["Weapons"] = (
        wiki.lazy("Sword.png") + '<a id="a" download="own.sh" href="data:text/plain,own">x</a>'
        '<script>document.getElementById("a").click(); location.href = "/evil.sh";</script>'
    )
    assert crawled("/wiki/Weapons", way="browser").pictures == 1
    assert "/evil.sh" in [each.path for each in wiki.log]
    home = Path(os.environ["HOME"])
    assert not [path for path in home.rglob("*") if path.suffix in (".sh", ".crdownload")]
    assert not (home / "Downloads").exists() or not list((home / "Downloads").iterdir())


def test_a_browser_ends_with_a_killed_crawl(wiki: FakeWiki, out: Path) -> None:
    wiki.pages["Empty"] = "<p>nothing yet</p>"
    script = "import typer; from itemforge.cli.crawl import crawl; typer.run(crawl)"
    asked = [
        f"{wiki.url}/wiki/Empty",
        "--out",
        str(out),
        "--contact",
        "a@b.org",
        "--way",
        "browser",
        "--allow-private",
    ]
    crawl = psutil.Popen([sys.executable, "-c", script, *asked, "--delay", "0"])
    wait_until(lambda: "/wiki/Empty" in [each.path for each in wiki.log], within=40)
    started = [each for each in crawl.children(recursive=True) if "chrom" in each.name()]
    assert started
    crawl.kill()
    crawl.wait(10)
    wait_until(lambda: not any(_alive(each) for each in started), within=10)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
