"""An HTTP proxy in front of an emulator that fails as it is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

#: Answer 503 and do not ask the service.
REFUSE = "refuse"
#: Let the service do it, then close the connection without an answer.
DROP_ANSWER = "drop answer"
#: Answer 403 and do not ask the service.
FORBID = "forbid"


class FlakyProxy:
    """Forwards to `target`; the next requests meet `faults` first, one each."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._http = httpx.Client(trust_env=False, timeout=10.0)
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.url = ""

    @contextmanager
    def running(self) -> Iterator["FlakyProxy"]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with suppress(ConnectionError):  # a client may hang up when it likes
                    super().handle()

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.requests.append(f"{self.command} {self.path}")
                fault = proxy.faults.pop(0) if proxy.faults else None
                if fault in (REFUSE, FORBID):
                    self.answer(503 if fault == REFUSE else 403, b"{}", "application/json")
                    return
                headers = {
                    k: v for k, v in self.headers.items() if k.lower() not in ("host", "accept-encoding")
                }
                far = proxy._http.request(
                    self.command, proxy._target + self.path, content=body, headers=headers
                )
                if fault == DROP_ANSWER:
                    self.close_connection = True
                    return
                self.answer(far.status_code, far.content, far.headers.get("Content-Type", ""))

            def answer(self, status: int, content: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

            def log_message(self, *_: object) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            self._http.close()
