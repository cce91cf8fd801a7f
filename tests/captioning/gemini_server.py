"""A server that speaks Gemini's REST protocol, for the real client: answers, failures, files and batch jobs.

It keeps a log of every request. What it answers to a picture is scripted by the picture's bytes.
"""

import base64
import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "test-key-0123456789-abcdefghijk"
FIELDS = {
    "object": "curved iron sword",
    "parts": ["leather grip"],
    "colours": ["grey", "red"],
    "material": "iron",
    "view": "side view",
    "background": "white",
}
USAGE = {
    "promptTokenCount": 600,
    "candidatesTokenCount": 80,
    "thoughtsTokenCount": 20,
    "totalTokenCount": 700,
}


def spoken(*texts: str, finish: str = "STOP", thoughts: tuple[str, ...] = ()) -> dict[str, Any]:
    """A response whose candidate says these texts."""
    parts = [{"text": text, "thought": True} for text in thoughts] + [{"text": text} for text in texts]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": finish, "index": 0}
    return {"candidates": [candidate], "usageMetadata": USAGE, "modelVersion": "test"}


def described(**changed: Any) -> dict[str, Any]:
    """A response with fields as agreed."""
    return spoken(json.dumps({**FIELDS, **changed}))


def error(
    code: int, status: str, message: str = "it failed", details: list[Any] | None = None
) -> dict[str, Any]:
    return {"error": {"code": code, "status": status, "message": message, "details": details or []}}


def quota(quota_id: str, delay: str | None = None, value: str = "10") -> dict[str, Any]:
    """A 429 as Gemini sends it."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/requests",
        "quotaId": quota_id,
        "quotaValue": value,
    }
    details: list[Any] = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}]
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    text = "You exceeded your current quota, please check your plan and billing details."
    return error(429, "RESOURCE_EXHAUSTED", text, details)


@dataclass
class Reply:
    """What is sent back: a status and a body, or `cut` (the line breaks), after `before` was called."""

    status: int = 200
    body: Any = field(default_factory=described)
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    before: Callable[[], Any] | None = None


@dataclass
class Asked:
    """A request that came."""

    route: str
    sha256: str | None = None
    body: Any = None
    key: str | None = None


class GeminiServer:
    """The state behind the routes."""

    def __init__(self) -> None:
        self.url = ""
        self.reset()

    def reset(self) -> None:
        """Forget every request and every script."""
        self.log: list[Asked] = []
        self.answered: list[str] = []
        self.scripts: dict[str, list[Reply]] = defaultdict(list)
        self.always: Callable[[str], Reply] = lambda sha256: Reply()
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        #: What a job's lines become; by default answers in reverse order.
        self.job_lines: Callable[[list[dict[str, Any]]], list[Any]] = lambda lines: [
            {"key": line["key"], "response": described()} for line in reversed(lines)
        ]
        self.job_states: list[str] = ["BATCH_STATE_PENDING", "BATCH_STATE_RUNNING", "BATCH_STATE_SUCCEEDED"]
        self.route_replies: dict[str, list[Reply]] = defaultdict(list)
        self.lock = threading.Lock()

    def script(self, png: bytes, *replies: Reply) -> None:
        """For this picture these replies, one after the other, then the usual one."""
        self.scripts[hashlib.sha256(png).hexdigest()].extend(replies)

    def asked(self, route: str) -> list[Asked]:
        return [each for each in self.log if each.route == route]

    def pictures(self) -> list[str]:
        """Pictures that were asked about, in the order of the requests."""
        return [each.sha256 for each in self.log if each.route == "generate" and each.sha256]

    def generate(self, body: Any) -> tuple[str, Reply]:
        data = body["contents"][0]["parts"][0]["inlineData"]["data"]
        # Both alphabets, as the service takes them; the client writes the one for addresses.
        png = base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
        sha256 = hashlib.sha256(png).hexdigest()
        with self.lock:
            script = self.scripts.get(sha256)
            return sha256, script.pop(0) if script else self.always(sha256)

    def create_job(self, body: Any) -> dict[str, Any]:
        batch = body["batch"]
        lines = [json.loads(line) for line in self.files[batch["inputConfig"]["fileName"]].splitlines()]
        name = f"batches/{len(self.jobs) + 1}"
        self.jobs[name] = {"display": batch["displayName"], "lines": lines, "states": list(self.job_states)}
        return self.job(name, step=False)

    def job(self, name: str, step: bool = True) -> dict[str, Any]:
        job = self.jobs[name]
        state = job["states"][0]
        if step and len(job["states"]) > 1:
            job["states"].pop(0)
        metadata: dict[str, Any] = {"state": state, "displayName": job["display"], "model": "models/test"}
        if state == "BATCH_STATE_SUCCEEDED":
            file = f"files/results-{name.removeprefix('batches/')}"
            texts = [
                each if isinstance(each, str) else json.dumps(each) for each in self.job_lines(job["lines"])
            ]
            self.files[file] = "\n".join(texts).encode()
            metadata["output"] = {"responsesFile": file}
        return {"name": name, "metadata": metadata}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: GeminiServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/upload/v1beta/files"):
            return self._routed("upload", None, self._start_upload)
        if self.path.startswith("/uploading/"):
            return self._routed("uploading", None, lambda: self._take_file(data))
        body = json.loads(data)
        if self.path.endswith(":generateContent"):
            return self._generate(body)
        if self.path.endswith(":batchGenerateContent"):
            return self._routed("create", body, lambda: self._send(Reply(body=self.state.create_job(body))))
        return self._send(Reply(404, error(404, "NOT_FOUND", "no such route")))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/v1beta/batches":
            jobs = [self.state.job(name, step=False) for name in self.state.jobs]
            return self._routed("list", None, lambda: self._send(Reply(body={"operations": jobs})))
        if path.startswith("/v1beta/batches/"):
            name = path.removeprefix("/v1beta/")
            return self._routed("look", None, lambda: self._send(Reply(body=self.state.job(name))))
        if found := re.fullmatch(r"/v1beta/(files/[^:]+):download", path):
            return self._routed("download", None, lambda: self._raw(200, self.state.files[found[1]], {}))
        return self._send(Reply(404, error(404, "NOT_FOUND", "no such route")))

    def _routed(self, route: str, body: Any, usual: Callable[[], None]) -> None:
        self.state.log.append(Asked(route, None, body, self.headers.get("x-goog-api-key")))
        replies = self.state.route_replies[route]
        if not replies:
            return usual()
        reply = replies.pop(0)
        if reply.cut and route == "create":
            self.state.create_job(body)  # the job is there, only its creator does not learn it
        return self._send(reply)

    def _generate(self, body: Any) -> None:
        sha256, reply = self.state.generate(body)
        self.state.log.append(Asked("generate", sha256, body, self.headers.get("x-goog-api-key")))
        if self._send(reply) and reply.status == 200:
            self.state.answered.append(sha256)

    def _start_upload(self) -> None:
        number = len(self.state.files) + 1
        self._raw(
            200,
            b"{}",
            {"x-goog-upload-url": f"{self.state.url}/uploading/{number}", "x-goog-upload-status": "active"},
        )

    def _take_file(self, data: bytes) -> None:
        name = f"files/{self.path.removeprefix('/uploading/')}"
        self.state.files[name] = data
        body = json.dumps({"file": {"name": name, "uri": f"{self.state.url}/{name}", "state": "ACTIVE"}})
        self._raw(200, body.encode(), {"x-goog-upload-status": "final"})

    def _send(self, reply: Reply) -> bool:
        if reply.before:
            reply.before()
        if reply.cut:
            self.close_connection = True
            self.connection.close()
            return False
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        return self._raw(reply.status, body, reply.headers)

    def _raw(self, status: int, body: bytes, headers: dict[str, str]) -> bool:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            return False  # the client was killed, or has given up
        return True


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # lines that tests cut


@contextmanager
def serving() -> Iterator[GeminiServer]:
    state = GeminiServer()
    handler = type("Handler", (_Handler,), {"state": state})
    server = _Quiet(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
