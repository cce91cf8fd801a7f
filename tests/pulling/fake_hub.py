"""A server on loopback that speaks the hub's protocol, and has plain files too. It can cut, stop and refuse.

What it sent is counted in bytes of content, so a test sees what was downloaded twice.
"""

import hashlib
import json
import ssl
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from model_files import COMMIT

_PIECE = 64 * 1024


@dataclass
class Repo:
    files: dict[str, bytes]
    commit: str = COMMIT
    token: str | None = None
    gated: bool = False
    lists: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    host: str
    headers: dict[str, str]


class FakeHub:
    """`cuts`: after so many bytes of a path the connection breaks, once for each number. `stops`: it hangs there, until `go_on`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = "http" if tls is None else "https"
        self.repos: dict[str, Repo] = {}
        self.web: dict[str, bytes] = {}
        self.weak = False
        self.heeds_ranges = True
        self.cdn = False
        self.status: dict[str, int] = {}
        self.redirects: dict[str, str] = {}
        self.cuts: dict[str, list[int]] = {}
        self.stops: dict[str, int] = {}
        self.sent: Counter[str] = Counter()
        self.seen: list[Seen] = []
        self.go_on = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def total(self) -> int:
        return sum(self.sent.values())

    def asked(self, end: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "GET" and seen.path.endswith(end)]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that was killed, or believes us not
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.seen.append(Seen(self.command, path, headers.get("host", ""), headers))
        if path in self.hub.redirects:
            self._head(302, {"Location": self.hub.redirects[path], "Content-Length": "0"})
        elif path in self.hub.status:
            self._head(self.hub.status[path], {"Content-Length": "0"})
        elif path.startswith("/api/models/"):
            self._listing(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self._resolve(path)
        elif path in self.hub.web:
            weak = "W/" if self.hub.weak else ""
            data = self.hub.web[path]
            self._content(path, data, {"ETag": f'{weak}"{hashlib.md5(data).hexdigest()}"'})
        else:
            self._head(404, {"Content-Length": "0"})

    def _listing(self, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        repo = self._repo(name)
        if repo is None:
            return
        if revision not in ("", "main", repo.commit):
            self._head(404, {"X-Error-Code": "RevisionNotFound", "Content-Length": "0"})
            return
        siblings = [_sibling(path, data) | repo.lists.get(path, {}) for path, data in repo.files.items()]
        body = json.dumps({"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings}).encode()
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _resolve(self, path: str) -> None:
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        repo = self._repo(name)
        if repo is None:
            return
        _, _, file = rest.partition("/")
        if repo.gated:
            self._head(403, {"X-Error-Code": "GatedRepo", "Content-Length": "0"})
        elif file not in repo.files:
            self._head(404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"})
        elif self.hub.cdn and file.endswith(".safetensors"):
            self.hub.web[f"/cdn/{file}"] = repo.files[file]
            place = f"http://localhost:{self.hub.port}/cdn/{file}"
            self._head(302, {"Location": place, "X-Repo-Commit": repo.commit, "Content-Length": "0"})
        else:
            data = repo.files[file]
            etag = f'"{_sibling(file, data)["blobId"]}"'
            self._content(path, data, {"ETag": etag, "X-Repo-Commit": repo.commit})

    def _repo(self, name: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        allowed = repo is not None and repo.token in (None, self._token())
        if repo is not None and allowed:
            return repo
        # The hub does not tell strangers what is private.
        self._head(401, {"X-Error-Code": "RepoNotFound", "Content-Length": "0"})
        return None

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _content(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        start, asked = 0, self.headers.get("Range", "")
        same = self.headers.get("If-Range") in (None, headers["ETag"])
        if asked and same and self.hub.heeds_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self._head(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
                return
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self._head(206 if start else 200, headers | {"Content-Length": str(len(data) - start)})
        if self.command == "GET":
            self._body(path, data, start)

    def _body(self, path: str, data: bytes, start: int) -> None:
        file = path.rpartition("/")[2]
        cuts = self.hub.cuts.get(file, [])
        cut = min(start + cuts.pop(0), len(data)) if cuts else len(data)
        stop = self.hub.stops.pop(file, None)
        for at in range(start, cut, _PIECE):
            piece = data[at : min(at + _PIECE, cut)]
            if stop is not None and at >= stop:
                self.hub.go_on.wait(60)
                self.close_connection = True
                return
            try:
                self.wfile.write(piece)
            except OSError:  # the client is gone
                self.close_connection = True
                return
            self.hub.sent[file] += len(piece)
        if cut < len(data):
            self.wfile.flush()
            self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    sha1 = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    listed: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": sha1}
    if path.endswith((".safetensors", ".bin", ".ckpt")):
        sha256 = hashlib.sha256(data).hexdigest()
        listed["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
    return listed
