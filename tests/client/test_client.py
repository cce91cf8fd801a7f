"""The client maps every answer to our errors, and takes up a broken event stream where it broke."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from itemforge.client import Client
from itemforge.errors import GatewayRefused, GatewayUnavailable

Answer = tuple[int, str, bytes]
GENERATION = {"id": "7", "status": "Pending", "prompt": "a key"}


class Server:
    """Answers with what the test says and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: Callable[[], Answer] = lambda: (200, "application/json", json.dumps(GENERATION).encode())
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.asked.append((self.command, self.path, dict(self.headers), body))
                code, kind, data = server.answer()
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _serve

            def log_message(self, format: str, *args: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def test_submit_sends_only_what_was_said_and_the_key(server: Server) -> None:
    with Client(server.url, "the-key") as client:
        assert client.submit("a key", seed="5", style=None).id == "7"
    method, path, headers, body = server.asked[0]
    assert (method, path) == ("POST", "/v1/generations")
    assert headers["Authorization"] == "Bearer the-key"
    assert json.loads(body) == {"prompt": "a key", "seed": "5"}


def test_a_refusal_carries_the_gateways_words_and_the_field(server: Server) -> None:
    problem = {"detail": "Not valid.", "errors": [{"field": "seed", "message": "must be a number"}]}
    server.answer = lambda: (422, "application/problem+json", json.dumps(problem).encode())
    with Client(server.url) as client, pytest.raises(GatewayRefused) as caught:
        client.submit("a key")
    assert caught.value.status == 422
    assert "Not valid." in str(caught.value)
    assert "seed: must be a number" in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"detail": "later"}'])
def test_a_server_error_is_retryable(server: Server, body: bytes) -> None:
    server.answer = lambda: (503, "application/json", body)
    with Client(server.url) as client, pytest.raises(GatewayUnavailable, match="503"):
        client.get("7")


def test_nobody_there_says_what_to_check() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(GatewayUnavailable, match="API_GATEWAY_URL"):
        client.get("7")


def test_events_are_taken_up_where_they_broke_off(server: Server) -> None:
    parts = iter(
        [
            b': a comment\nid: 1\nevent: state\ndata: {"status": "Pending"}\n\n'
            b'id: 2\nevent: progress\ndata: {"step":\ndata: 1}\n\nid: 3\nevent: progr',
            b'id: 3\nevent: progress\ndata: {"step": 2}\n\nid: 4\nevent: state\ndata: {"status": "Completed"}\n\n',
        ]
    )
    server.answer = lambda: (200, "text/event-stream", next(parts))
    with Client(server.url) as client:
        events = list(client.events("7"))
    assert [name for name, _ in events] == ["state", "progress", "progress", "state"]
    assert events[1][1] == {"step": 1}
    assert [headers.get("Last-Event-ID") for _, _, headers, _ in server.asked] == [None, "2"]


def test_events_that_are_no_longer_kept_are_no_error(server: Server) -> None:
    ended = json.dumps(GENERATION | {"status": "Completed"}).encode()
    answers = iter([(204, "text/event-stream", b""), (200, "application/json", ended)])
    server.answer = lambda: next(answers)
    with Client(server.url) as client:
        assert list(client.events("7")) == []


def test_events_that_break_off_again_and_again_are_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("itemforge.client.sync._PAUSES", (0.0, 0.0))
    server.answer = lambda: (502, "text/plain", b"")
    with Client(server.url) as client, pytest.raises(GatewayUnavailable, match="again and again"):
        list(client.events("7"))
    assert len(server.asked) == 2
