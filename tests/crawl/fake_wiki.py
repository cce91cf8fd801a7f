"""A wiki on loopback that behaves as Fandom's do: its own host, a host of its pictures, and their moods.

`wiki.log` has every request as `Asked`. What goes wrong is set per path in `wiki.moods`.
"""

import hashlib
import html
import io
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from PIL import Image, ImageDraw

CHALLENGE = "<html><head><title>Just a moment...</title></head><body>Enable JavaScript and cookies to continue</body></html>"
_POINT = "data:image/gif;base64,R0lGODlhAQABAIABAAAAAP///yH5BAEAAAEALAAAAAABAAEAQAICTAEAOw%3D%3D"


def drawn(seed: int, size: int = 64, form: str = "PNG") -> bytes:
    """A picture like no other."""
    picture = Image.new("RGBA" if form == "PNG" else "RGB", (size, size))
    draw = ImageDraw.Draw(picture)
    for n in range(4):
        colour = tuple(hashlib.sha256(f"{seed}/{n}".encode()).digest()[:3])
        draw.ellipse((n, n, size - 1 - n, size - 1 - n), fill=colour)
    out = io.BytesIO()
    picture.save(out, form)
    return out.getvalue()


@dataclass(frozen=True)
class Asked:
    """A request as the server saw it."""

    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float


@dataclass
class FakeFile:
    """A file of the wiki. `facts` replace what the API says of it; `text` is the wikitext of its page."""

    data: bytes
    mime: str = "image/png"
    user: str = "Uploader"
    licence: str = "CC BY-SA 3.0"
    facts: dict[str, Any] = field(default_factory=dict)
    lost: bool = False
    text: str = ""


@dataclass
class Mood:
    """What happens to the next `times` requests of a path (-1: to all)."""

    act: Callable[["_Handler"], None]
    times: int = -1


class FakeWiki:
    """`challenge` is what all HTML is then. `pages` are HTML by title, `members` the titles in each category, `robots` the robots.txt of the wiki's host."""

    def __init__(self) -> None:
        self.files: dict[str, FakeFile] = {}
        self.pages: dict[str, str] = {}
        self.page_files: dict[str, list[str]] = {}
        self.members: dict[str, list[str]] = {}
        self.log: list[Asked] = []
        self.moods: dict[str, Mood] = {}
        self.robots = ""
        self.api_path = "/api.php"
        self.has_api = True
        self.has_parse = True
        self.challenge = False
        self.warning = ""
        self.per_answer = 3
        self._lock = threading.Lock()
        self._servers = [_server(self, name) for name in ("wiki", "static")]
        self.url, self.static = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(
        self, title: str, file: FakeFile | bytes, page: str | None = None, category: str | None = None
    ) -> FakeFile:
        added = file if isinstance(file, FakeFile) else FakeFile(file)
        self.files[title] = added
        if page is not None:
            self.page_files.setdefault(page, []).append(title)
        if category is not None:
            self.members.setdefault(category, []).append(f"File:{title}")
        return added

    def file_url(self, title: str) -> str:
        name = title.replace(" ", "_")
        digest = hashlib.md5(name.encode("utf-8", "replace")).hexdigest()
        return f"{self.static}/game/images/{digest[0]}/{digest[:2]}/{quote(name, errors='replace')}/revision/latest?cb=20200101000000"

    def thumb_url(self, title: str, width: int = 32) -> str:
        return self.file_url(title).replace("?", f"/scale-to-width-down/{width}?")

    def lazy(self, title: str, extra: str = "") -> str:
        """A picture as Fandom writes it: a point, the address for later, and a twin for those without scripts."""
        thumb = html.escape(self.thumb_url(title))
        name = html.escape(title.replace(" ", "_"))
        return (
            f'<a href="{html.escape(self.file_url(title))}" class="image"><img src="{_POINT}" class="lazyload" '
            f'data-image-name="{html.escape(title)}" data-image-key="{name}" data-src="{thumb}" {extra}>'
            f'<noscript><img src="{thumb}" data-image-name="{html.escape(title)}" {extra}></noscript></a>'
        )

    def pictures_asked(self) -> list[Asked]:
        return [each for each in self.log if each.host == "static" and each.path != "/robots.txt"]

    def fetched(self, title: str) -> int:
        return sum(
            unquote(each.path).partition("/revision/")[0].endswith("/" + title.replace(" ", "_"))
            for each in self.pictures_asked()
        )

    def note(self, asked: Asked) -> Mood | None:
        with self._lock:
            self.log.append(asked)
            mood = self.moods.get(unquote(asked.path)) or self.moods.get(f"{asked.host}:*")
            if mood is None or not mood.times:
                return None
            mood.times -= 1
            return mood

    def mood_of(self, title: str, act: Callable[["_Handler"], None], times: int = -1) -> None:
        self.moods[unquote(urlsplit(self.file_url(title)).path)] = Mood(act, times)


def _server(wiki: FakeWiki, name: str) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"wiki": wiki, "name": name})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed break their connections off; other errors are the test's own and show."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    wiki: FakeWiki
    name: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = (
        True  # a head and a body are two writes, and the second would wait for an answer
    )

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        mood = self.wiki.note(Asked(self.name, parts.path, query, headers, time.monotonic()))
        try:
            if mood is not None:
                mood.act(self)
            elif parts.path == "/robots.txt":
                self.answer(200 if self.wiki.robots else 404, self.wiki.robots.encode(), "text/plain")
            elif self.name == "static":
                self._picture(parts.path, query)
            elif parts.path == self.wiki.api_path and self.wiki.has_api:
                self.answer(200, json.dumps(self._api(query)).encode(), "application/json")
            else:
                self._page(unquote(parts.path))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(
        self, status: int, body: bytes, kind: str = "text/html; charset=utf-8", **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _page(self, path: str) -> None:
        if self.wiki.challenge:
            self.answer(403, CHALLENGE.encode(), cf_mitigated="challenge")
            return
        page = self.wiki.pages.get(path.removeprefix("/wiki/").replace("_", " "))
        body = f"<html><head><title>Wiki</title></head><body>{page}</body></html>"
        self.answer(404 if page is None else 200, body.encode())

    def _picture(self, path: str, query: dict[str, str]) -> None:
        name = unquote(path.partition("/revision/")[0].rpartition("/")[2]).replace("_", " ")
        file = self.wiki.files.get(name)
        if file is None or file.lost:
            self.answer(404, b"no such file", "text/plain")
        elif "/scale-to-width-down/" in path:
            self.answer(200, drawn(0, 16), "image/png")
        elif file.mime != "image/webp" and (
            query.get("format") != "original" or "image/webp" in self.headers.get("Accept", "")
        ):
            self.answer(200, drawn(0, 32, "WEBP"), "image/webp")
        else:
            self.answer(200, file.data, file.mime)

    def _api(self, query: dict[str, str]) -> dict[str, Any]:
        wiki = self.wiki
        if query.get("action") == "parse":
            page = wiki.pages.get(query["page"])
            if page is None or not wiki.has_parse:
                return {"error": {"code": "missingtitle", "info": "no such page"}}
            return {"parse": {"title": query["page"], "text": page}}
        if query.get("meta") == "siteinfo":
            return {"query": {"namespaces": {"14": {"id": 14, "name": "Category", "canonical": "Category"}}}}
        # Only whoever sends all of it back gets on.
        at = int(query["gimcontinue"]) if {"continue", "gimcontinue"} <= set(query) else 0
        if query.get("list") == "categorymembers":
            titles = [t for t in wiki.members.get(query["cmtitle"], []) if not t.startswith("File:")]
            part = titles[at : at + wiki.per_answer]
            return self._more(
                {"query": {"categorymembers": [{"ns": 0, "title": t} for t in part]}}, at, titles
            )
        if query.get("generator") == "allimages":
            titles = [f"File:{title}" for title in sorted(wiki.files)]
        elif query.get("generator") == "categorymembers":
            titles = [t for t in wiki.members.get(query["gcmtitle"], []) if t.startswith("File:")]
        elif query.get("generator") == "images":
            titles = [f"File:{t}" for t in wiki.page_files.get(query["titles"], [])]
        else:
            titles = [query.get("titles", "")]
        part = titles[at : at + wiki.per_answer]
        return self._more({"query": {"pages": [self._entry(t) for t in part]}} if part else {}, at, titles)

    def _more(self, answer: dict[str, Any], at: int, titles: list[str]) -> dict[str, Any]:
        after = at + self.wiki.per_answer
        if after < len(titles):
            answer["continue"] = {"continue": "gimcontinue||", "gimcontinue": str(after)}
        if self.wiki.warning:
            answer["warnings"] = {"main": {"warnings": self.wiki.warning}}
        return {"batchcomplete": True, **answer}

    def _entry(self, title: str) -> dict[str, Any]:
        name = title.removeprefix("File:")
        if name not in self.wiki.files:
            return {"ns": 6, "title": title, "missing": True}
        if self.wiki.files[name].facts.get("silent"):
            return {"ns": 6, "title": title}
        slots = {"main": {"contentmodel": "wikitext", "content": self.wiki.files[name].text}}
        return {
            "ns": 6,
            "title": title,
            "imageinfo": [self._facts(name)],
            "revisions": [{"slots": slots}],
        }

    def _facts(self, name: str) -> dict[str, Any]:
        file = self.wiki.files[name]
        if file.lost:
            return {"filemissing": True}
        return {
            "url": self.wiki.file_url(name),
            "size": len(file.data),
            "mime": file.mime,
            "sha1": hashlib.sha1(file.data).hexdigest(),
            "timestamp": "2020-01-01T00:00:00Z",
            "user": file.user,
            "extmetadata": {"LicenseShortName": {"value": f"<b>{file.licence}</b>"}},
        } | file.facts
