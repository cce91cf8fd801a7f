"""The worker's own small HTTP server: `/healthz` (the loop turns), `/readyz` (it takes jobs), `/metrics`.

It runs in a thread, so that it answers, with 503, when the event loop hangs.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from itemforge.errors import ConfigurationError

#: Seconds without a turn of the event loop after which the worker counts as hung.
HUNG_AFTER = 30.0
_TURN = 1.0


class Probes:
    """`state` gives readiness and a short description, `figures` the metrics and their content type for an
    Accept header; both are called from the server's threads.
    """

    def __init__(
        self,
        host: str,
        port: int,
        state: Callable[[], tuple[bool, dict[str, str]]],
        figures: Callable[[str], tuple[bytes, str]] | None = None,
    ) -> None:
        self._state = state
        self._turned = time.monotonic()
        probes = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if figures is not None and self.path.partition("?")[0] == "/metrics":
                    code, (data, content_type) = 200, figures(self.headers.get("Accept", ""))
                else:
                    code, body = probes.answer(self.path)
                    data, content_type = json.dumps(body).encode(), "application/json"
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                return  # a probe every few seconds is no news

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise ConfigurationError(
                f"the worker's probes cannot listen on {host}:{port} ({error.strerror}); set "
                "ITEMFORGE_WORKER_PORT to another port, or to 0 for a free one"
            ) from None
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def answer(self, path: str) -> tuple[int, dict[str, str]]:
        """Status and body for a path."""
        alive = time.monotonic() - self._turned < HUNG_AFTER
        ready, about = self._state()
        if path == "/healthz":
            return (200 if alive else 503), {"status": "ok" if alive else "hung"}
        if path == "/readyz":
            return (200 if ready and alive else 503), about
        return 404, {"detail": "this server knows /healthz, /readyz and /metrics"}

    async def run(self) -> None:
        """Serve until cancelled."""
        self._thread.start()
        try:
            while True:
                self._turned = time.monotonic()
                await asyncio.sleep(_TURN)
        finally:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()
