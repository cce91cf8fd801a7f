"""Every line is one JSON object, carries what was bound, and shows no secret."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import structlog

from itemforge.settings import GatewaySettings
from itemforge.telemetry.logs import setup_logs

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield io.StringIO()
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    settings = GatewaySettings(
        admin_key="k3y-of-the-admin",
        amqp_url_setting="amqp://user:quiet-pässword@broker/",
        log_format="json",
    )
    setup_logs(settings, "gateway", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_ecs_json_with_what_was_bound(lines: Lines) -> None:
    request_id = uuid4()
    with structlog.contextvars.bound_contextvars(request_id=str(request_id), attempt=2):
        structlog.get_logger("itemforge.test").warning("upload_failed", error="no such bucket", id=request_id)
    (line,) = lines()
    assert line["message"] == "upload_failed"
    assert line["request_id"] == str(request_id)
    assert line["attempt"] == 2
    assert line["id"] == str(request_id)
    assert line["error"] == {"message": "no such bucket"}
    assert line["log.level"] == "warning" or line["log"]["level"] == "warning"  # type: ignore[index]
    assert "@timestamp" in line


def test_an_exception_stays_on_its_one_line(lines: Lines) -> None:
    try:
        raise ValueError("broken\nin two lines")
    except ValueError:
        structlog.get_logger().exception("it_broke")
    (line,) = lines()
    assert "broken" in line["error"]["stack_trace"]  # type: ignore[index]


def test_lines_of_libraries_take_the_same_way(lines: Lines) -> None:
    logging.getLogger("some.library").error("cannot connect to %s", "amqp://user:quiet-pässword@broker/")
    (line,) = lines()
    assert line["message"] == "cannot connect to amqp://user:***@broker/"


def test_no_secret_is_shown(lines: Lines, stream: io.StringIO) -> None:
    log = structlog.get_logger()
    log.info("a", header="Authorization: Bearer abcdef123456", key="k3y-of-the-admin")
    log.info("b", url="https://x/y?X-Goog-Signature=deadbeef01&a=1", nested={"deep": ["k3y-of-the-admin"]})
    log.info("c", error=RuntimeError("login with quiet-pässword refused"))
    log.info("d", pem="-----BEGIN PRIVATE KEY-----\nMIIabc\n-----END PRIVATE KEY-----")
    assert len(lines()) == 4
    for secret in ("k3y-of-the-admin", "quiet-p", "deadbeef01", "abcdef123456", "MIIabc"):
        assert secret not in stream.getvalue()
    assert "a=1" in stream.getvalue()
