"""Two gateways for the worker's tests, as real HTTP servers: one that claims, one as the seed's is."""

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

Answer = tuple[int, Any]


@dataclass
class Row:
    """What a claims gateway knows of a request."""

    params: dict[str, Any] | None = None
    status: str = "Pending"
    attempt: int = 0
    charged: int = 0
    leased: bool = False
    images: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    history: list[str] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)
    previews: int = 0
    cancel: bool = False
    watch: bool = False


class HttpGateway:
    """A server on a free port; `broken` makes it answer 503 to everything."""

    headers: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.broken = False
        self.calls: list[str] = []
        self.lock = threading.Lock()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with gateway.lock:
                    gateway.calls.append(f"{self.command} {self.path}")
                    code, answer = (
                        (503, {})
                        if gateway.broken
                        else gateway.answer(self.command, self.path, json.loads(body) if body else None)
                    )
                data = json.dumps(answer).encode()
                self.send_response(code)
                for name, value in gateway.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = _serve

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, params: dict[str, Any] | None = None) -> str:
        request_id = str(uuid.uuid4())
        self.rows[request_id] = Row(params)
        return request_id

    def answer(self, method: str, path: str, body: Any) -> Answer:
        raise NotImplementedError


class SeedLikeGateway(HttpGateway):
    """Knows `PUT /update_db/{id}` and nothing else."""

    def answer(self, method: str, path: str, body: Any) -> Answer:
        if method != "PUT" or not path.startswith("/update_db/"):
            return 404, {"detail": "Not Found"}
        row = self.rows.get(path.rsplit("/", 1)[1])
        if row is None:
            return 404, {"detail": "Request not found"}
        row.status = body["status"]
        row.history.append(body["status"])
        if body.get("image_url"):
            row.images = [{"url": body["image_url"]}]
        return 200, {"message": "updated"}


class ClaimingGateway(HttpGateway):
    """Claims with fencing, in memory: the contract of `/v1/worker`."""

    headers: ClassVar[dict[str, str]] = {"ItemForge-Contract": "1"}
    held = 0  # what the last heartbeat told
    state = ""
    facts: dict[str, Any] | None = None

    def answer(self, method: str, path: str, body: Any) -> Answer:
        handlers: dict[str, Callable[[Any], Any]] = {
            "/v1/worker/claims": lambda b: [self._claim(job["request_id"]) for job in b["jobs"]],
            "/v1/worker/heartbeat": self._heartbeat,
            "/v1/worker/reports": lambda b: [self._report(report) for report in b],
        }
        if path not in handlers:
            return 404, {"detail": "not here"}
        return 200, handlers[path](body)

    def _claim(self, request_id: str) -> dict[str, Any]:
        row = self.rows.get(request_id)
        if row is None:
            return {"request_id": request_id, "outcome": "unknown"}
        if row.status in ("Completed", "Failed", "Cancelled"):
            return {"request_id": request_id, "outcome": "done"}
        if row.leased:
            return {"request_id": request_id, "outcome": "leased"}
        if row.charged >= 5:
            row.status, row.error = "Failed", "failed too often"
            return {"request_id": request_id, "outcome": "exhausted"}
        alone = row.charged > 0
        row.attempt += 1
        row.charged += 1
        row.leased = True
        row.status = "Processing"
        row.history.append("Processing")
        return {
            "request_id": request_id,
            "outcome": "claimed",
            "attempt": row.attempt,
            "lease_s": 30,
            "params": row.params,
            "alone": alone,
        }

    def _heartbeat(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        self.held, self.state, self.facts = body.get("held", 0), body["state"], body.get("facts")
        return [self._beat(row) for row in body["rows"]]

    def _beat(self, beat: dict[str, Any]) -> dict[str, Any]:
        row = self.rows[beat["request_id"]]
        row.progress.append((beat["step"], beat["steps"]))
        row.previews += "preview" in beat
        if row.cancel and row.status == "Processing":
            row.status = "Cancelled"
        return {
            "request_id": beat["request_id"],
            "cancel": row.cancel,
            "lost": beat["attempt"] != row.attempt,
            "watch": row.watch,
        }

    def _report(self, report: dict[str, Any]) -> dict[str, Any]:
        row = self.rows[report["request_id"]]
        live = report["attempt"] == row.attempt and row.status in ("Processing", "Pending")
        if live:
            row.leased = False
            row.history.append(report["status"])
            row.status = "Pending" if report["status"] in ("Retry", "Released") else report["status"]
            row.charged -= report["status"] == "Released"
            row.images = report["images"]
            row.error = report.get("error")
        return {"request_id": report["request_id"], "code": 200 if live else 409}
