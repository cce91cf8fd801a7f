"""What the client sends, what it makes of the answers, and how it takes up what broke: the same for both clients."""

import asyncio
import inspect
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from itemforge import client as package
from itemforge.client import (
    AsyncClient,
    Client,
    GatewayRefused,
    GatewayUnavailable,
    GenerationFailed,
    NotAllowed,
    NotFound,
    Output,
    PreviewEvent,
    ProgressEvent,
    RateLimited,
    Retries,
    StateEvent,
    Status,
    WaitTimeout,
)

Answer = tuple[int, dict[str, str], bytes]
GENERATION = {"id": "7", "status": "Pending", "prompt": "a key", "seed": "9223372036854775807", "later": 1}
QUICK = Retries(attempts=3, first=0.01, longest=0.5, reconnect=0.3)
SSE = {"Content-Type": "text/event-stream"}


def answer(body: object = GENERATION, status: int = 200, **headers: str) -> Answer:
    sent = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return status, sent, body if isinstance(body, bytes) else json.dumps(body).encode()


class Server:
    """Answers with what the test says, the last answer again and again, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[Answer] = [answer()]
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.asked.append((self.command, self.path, dict(self.headers), body))
                several = len(server.answers) > 1
                code, headers, data = server.answers.pop(0) if several else server.answers[0]
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = _serve

            def log_message(self, format: str, *args: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def calls(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.asked]


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


class Blocked:
    """An AsyncClient that is called as a Client is: each call is run to its end on a loop of its own thread."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*args, **more)

    def __enter__(self) -> "Blocked":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **more: Any) -> Any:
            made = method(*args, **more)
            if isinstance(made, AsyncIterator):
                return iter(self._loop.run_until_complete(_all(made)))
            return self._loop.run_until_complete(made)

        return call


async def _all(several: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in several]


Make = Callable[..., Any]


@pytest.fixture(params=[Client, Blocked], ids=["sync", "async"])
def make(request: pytest.FixtureRequest, server: Server) -> Make:
    def client(key: str | None = None, *, url: str = server.url, retries: Retries = QUICK) -> Any:
        return request.param(url, key, retries=retries)

    return client


def test_both_clients_can_do_the_same_and_all_names_are_there() -> None:
    def public(kind: type) -> dict[str, object]:
        """Names, parameters and their order."""
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(kind).items()
            if callable(method) and not name.startswith("_")
        }

    assert public(Client) == public(AsyncClient)
    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)


# ── What is sent ────────────────────────────────────────────────────────────────────────────────


def test_a_request_has_an_id_of_its_own_and_only_what_was_said(server: Server, make: Make) -> None:
    with make("the-key") as client:
        made = client.submit("a key", seed=5, style=None, output=Output(background="transparent"))
        client.submit("a key", request_id="12345678-1234-5678-1234-567812345678")
    assert (made.id, made.status, made.seed) == ("7", Status.PENDING, 2**63 - 1)
    method, path, headers, body = server.asked[0]
    assert method == "PUT" and uuid.UUID(path.removeprefix("/v1/generations/")).version == 4
    assert headers["Authorization"] == "Bearer the-key"
    sent = json.loads(body)
    assert sent.pop("output")["background"] == "transparent"
    assert sent == {"prompt": "a key", "seed": 5}
    assert server.asked[1][1].endswith("/12345678-1234-5678-1234-567812345678")


def test_every_try_of_a_request_is_the_same_request(server: Server, make: Make) -> None:
    server.answers = [answer({"detail": "later"}, 503), answer(b"", 502), answer()]
    with make() as client:
        client.submit("a key")
        server.answers = [answer(b"<html>", 504), answer()]
        client.retry("7")
    assert len({(path, body) for _, path, _, body in server.asked[:3]}) == 1
    first, second = (headers["Idempotency-Key"] for _, _, headers, _ in server.asked[3:])
    assert first == second and uuid.UUID(first)


def test_names_cannot_lead_elsewhere(server: Server, make: Make) -> None:
    with make() as client:
        client.get("../styles?x=1")
    assert server.calls == ["GET /v1/generations/..%2Fstyles%3Fx%3D1"]


def test_a_list_goes_from_page_to_page_as_it_is_read(server: Server, make: Make) -> None:
    more = [GENERATION | {"id": str(n)} for n in range(3)]
    server.answers = [answer({"items": more[:2], "next_cursor": "c"}), answer({"items": more[2:]})]
    with make() as client:
        assert [each.id for each in client.list(page_size=2, status="Completed")] == ["0", "1", "2"]
    assert server.calls == [
        "GET /v1/generations?status=Completed&limit=2",
        "GET /v1/generations?status=Completed&limit=2&cursor=c",
    ]


def test_a_picture_is_asked_for_in_any_form(server: Server, make: Make, tmp_path: Path) -> None:
    server.answers = [answer(b"pixels")]
    form = Output(background="transparent", size=128, trim=True, format="webp")
    with make() as client:
        assert client.image("7", 2) == b"pixels"
        path = client.download("7", tmp_path / "new" / "key.webp", output=form)
        client.export(["7", "8"], tmp_path / "all.zip", form="atlas", atlas={"max_side": 512})
    assert path.read_bytes() == (tmp_path / "all.zip").read_bytes() == b"pixels"
    assert server.calls[0] == "GET /v1/generations/7/image?n=2"
    for part in ("background=transparent", "size=128", "trim=true", "format=webp"):
        assert part in server.calls[1]
    assert json.loads(server.asked[2][3]) == {"ids": ["7", "8"], "form": "atlas", "atlas": {"max_side": 512}}


# ── What comes back ─────────────────────────────────────────────────────────────────────────────


def test_a_refusal_carries_the_gateways_words_and_the_field(server: Server, make: Make) -> None:
    problem = {"detail": "Not valid.", "errors": [{"field": "seed", "message": "must be a number"}]}
    server.answers = [answer(problem, 422)]
    with make() as client, pytest.raises(GatewayRefused) as caught:
        client.submit("a key")
    assert caught.value.status == 422
    assert "Not valid." in str(caught.value)
    assert "seed: must be a number" in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(401, NotAllowed), (403, NotAllowed), (404, NotFound), (409, GatewayRefused)]
)
def test_refusals_are_told_apart(server: Server, make: Make, status: int, kind: type[Exception]) -> None:
    server.answers = [answer({"detail": "No."}, status)]
    with make() as client, pytest.raises(kind, match="No\\."):
        client.get("7")
    assert len(server.asked) == 1


def test_a_short_wait_is_waited_and_a_long_one_is_told(server: Server, make: Make) -> None:
    server.answers = [answer({"detail": "Wait."}, 429, Retry_After="0"), answer()]
    with make() as client:
        assert client.get("7").id == "7"
        server.answers = [answer({"detail": "Wait 3600 s."}, 429, Retry_After="3600")]
        with pytest.raises(RateLimited, match="3600 s") as caught:
            client.get("7")
        assert caught.value.retry_after == 3600
        assert len(server.asked) == 3
        server.answers = [answer({"detail": "Wait."}, 429, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT")]
        with pytest.raises(RateLimited) as caught:
            client.get("7")
    assert (caught.value.retry_after or 0) > 86400


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"detail": "later"}', b'{"errors": 1}'])
def test_a_server_error_is_retryable(server: Server, make: Make, body: bytes) -> None:
    server.answers = [answer(body, 503)]
    with make() as client, pytest.raises(GatewayUnavailable, match="503"):
        client.get("7")
    assert len(server.asked) == QUICK.attempts


def test_a_mistake_of_the_gateway_is_not_repeated(server: Server, make: Make) -> None:
    server.answers = [answer({"detail": "its log has the details"}, 500)]
    with make() as client, pytest.raises(GatewayUnavailable, match="its log"):
        client.get("7")
    assert len(server.asked) == 1


def test_nobody_there_says_what_to_check(make: Make) -> None:
    with (
        make(url="http://127.0.0.1:9") as client,
        pytest.raises(GatewayUnavailable, match="API_GATEWAY_URL"),
    ):
        client.get("7")


def test_what_was_deleted_by_the_first_try_is_deleted(server: Server, make: Make) -> None:
    server.answers = [answer(b"", 502), answer({"detail": "There is none."}, 404)]
    with make() as client:
        client.delete("7")
        with pytest.raises(NotFound):
            client.delete("7")


def test_half_a_download_is_taken_again_and_never_seen(server: Server, make: Make, tmp_path: Path) -> None:
    half, whole = answer(b"pix", Content_Length="6"), answer(b"pixels", Content_Length="6")
    server.answers = [half, whole]
    with make() as client:
        assert client.download("7", tmp_path / "key.png").read_bytes() == b"pixels"
        server.answers = [half]
        with pytest.raises(GatewayUnavailable):
            client.download("7", tmp_path / "other.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".home", "key.png"]


# ── Events ──────────────────────────────────────────────────────────────────────────────────────


def test_events_are_typed_and_taken_up_where_they_broke_off(server: Server, make: Make) -> None:
    server.answers = [
        (
            200,
            SSE,
            b': a comment\n\nid: 1\nevent: state\ndata: {"status": "Pending"}\n\n'
            b'event: preview\ndata: {"image": 1, "jpeg_base64": "anBlZw=="}\n\nevent: unheard\ndata: {}\n\n'
            b'id: 2\nevent: progress\ndata: {"step":\ndata: 1, "steps": 4}\n\nid: 3\nevent: progr',
        ),
        answer(b"", 503, Retry_After="0"),
        (
            200,
            SSE,
            b'id: 3\nevent: progress\ndata: {"step": 2}\n\nid: 4\nevent: state\ndata: {"status": "Completed"}\n\n',
        ),
    ]
    with make() as client:
        events = list(client.events("7"))
    kinds = [StateEvent, PreviewEvent, ProgressEvent, ProgressEvent, StateEvent]
    assert [type(event) for event in events] == kinds
    assert events[1].jpeg == b"jpeg"
    assert (events[2].step, events[2].steps, events[3].step) == (1, 4, 2)
    assert events[4].status is Status.COMPLETED
    assert [headers.get("Last-Event-ID") for _, _, headers, _ in server.asked] == [None, "2", "2"]


def test_events_that_are_no_longer_kept_are_the_end(server: Server, make: Make) -> None:
    server.answers = [(204, SSE, b""), answer(GENERATION | {"status": "Failed", "error": "it broke"})]
    with make() as client:
        (event,) = client.events("7")
    assert (event.status, event.error) == (Status.FAILED, "it broke")


def test_a_gateway_that_stays_away_ends_the_events(server: Server, make: Make) -> None:
    server.answers = [answer(b"", 502)]
    began = time.monotonic()
    with make() as client, pytest.raises(GatewayUnavailable, match="502"):
        list(client.events("7"))
    assert time.monotonic() - began >= QUICK.reconnect / 2
    assert len(server.asked) > 1


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (401, NotAllowed)])
def test_events_of_what_is_not_there_or_not_ours_end_at_once(
    server: Server, make: Make, status: int, kind: type[Exception]
) -> None:
    server.answers = [answer({"detail": "No."}, status)]
    with make() as client, pytest.raises(kind):
        list(client.events("7"))
    assert len(server.asked) == 1


def test_an_event_that_cannot_be_read_is_an_error(server: Server, make: Make) -> None:
    server.answers = [(200, SSE, b'event: state\ndata: {"status": "Odd"}\n\n')]
    with make() as client, pytest.raises(GatewayUnavailable, match="cannot be read"):
        list(client.events("7"))


# ── Waiting ─────────────────────────────────────────────────────────────────────────────────────


def test_waiting_tells_the_progress_of_all_images(server: Server, make: Make) -> None:
    told = (
        b'id: 1\nevent: state\ndata: {"status": "Processing"}\n\n'
        b'id: 2\nevent: progress\ndata: {"step": 3, "steps": 10, "image": 0}\n\n'
        b'id: 3\nevent: progress\ndata: {"step": 4, "steps": 10, "image": 1}\n\n'
        b'event: preview\ndata: {"image": 1, "jpeg_base64": "anBlZw=="}\n\n'
        b'id: 4\nevent: state\ndata: {"status": "Completed"}\n\n'
    )
    server.answers = [
        answer(GENERATION | {"num_images": 2}),
        (200, SSE, told),
        answer(GENERATION | {"status": "Completed", "num_images": 2}),
    ]
    seen: list[tuple[str, int, int]] = []
    with make() as client:
        done = client.wait(
            "7",
            timeout=30,
            on_progress=lambda now: seen.append(
                (now.status, now.progress.step, now.progress.steps) if now.progress else (now.status, 0, 0)
            ),
        )
    assert done.status is Status.COMPLETED
    assert seen == [("Processing", 0, 0), ("Processing", 3, 20), ("Processing", 7, 20), ("Completed", 20, 20)]


def test_waiting_for_what_fails_says_why(server: Server, make: Make) -> None:
    ended = answer(GENERATION | {"status": "Failed", "error": "the prompt broke it"})
    server.answers = [ended, (204, SSE, b""), ended]
    with make() as client, pytest.raises(GenerationFailed, match="the prompt broke it") as caught:
        client.wait("7")
    assert caught.value.generation.status is Status.FAILED


def test_waiting_ends_in_time_though_nothing_is_said(make: Make) -> None:
    """The stream is open and quiet, which no answer of a test server is: a socket that only listens."""
    import socket

    def serve(listener: socket.socket) -> None:
        first = True
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(65536)
            body = json.dumps(GENERATION).encode()
            if first:
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )
                connection.close()
            else:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                held.append(connection)
            first = False

    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, listener)
        began = time.monotonic()
        with make(url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            with pytest.raises(WaitTimeout, match="it goes on"):
                client.wait("7", timeout=0.3)
            assert issubclass(WaitTimeout, TimeoutError)
        assert 0.25 < time.monotonic() - began < 20
        listener.shutdown(socket.SHUT_RDWR)
    served.result()
    for each in held:
        each.close()
