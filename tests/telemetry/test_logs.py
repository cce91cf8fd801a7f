"""Every line is one JSON object, carries what was bound, and shows no secret."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

import itemforge
from itemforge.settings import GatewaySettings, WorkerSettings
from itemforge.telemetry import traces
from itemforge.telemetry.logs import setup_logs
from itemforge.telemetry.tracer import use

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    hooks = sys.excepthook, threading.excepthook
    yield io.StringIO()
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks
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
    logging.getLogger("foreign").warning("elsewhere")
    line, foreign = lines()
    for each in (line, foreign):
        assert each["ecs"] == {"version": "8.11.0"} and "ecs.version" not in each
    assert line["message"] == "upload_failed"
    assert line["event"] == {"action": "upload_failed", "dataset": "itemforge.gateway"}
    assert line["itemforge"] == {"request": {"id": str(request_id), "attempt": 2}, "id": str(request_id)}
    assert line["error"] == {"message": "no such bucket"}
    assert line["log.level"] == "warning"
    assert line["log"] == {"logger": "itemforge.test"}
    assert line["ecs"] == {"version": "8.11.0"}
    assert line["service"] == {"name": "itemforge-gateway", "version": itemforge.__version__}
    assert line["process"] == {"name": "gateway", "pid": os.getpid()}
    assert str(line["@timestamp"]).endswith("Z")


def test_durations_are_nanoseconds_and_errors_tell_their_kind(lines: Lines) -> None:
    log = structlog.get_logger()
    log.info("served", ms=12.5, status_code=200, method="GET", path="/x")
    log.warning("slow", seconds=1.5, error=KeyError("k"), retry_in_s=2)
    served, slow = lines()
    assert served["event"] == {"action": "served", "dataset": "itemforge.gateway", "duration": 12_500_000}
    assert served["http"] == {"request": {"method": "GET"}, "response": {"status_code": 200}}
    assert served["url"] == {"path": "/x"}
    assert slow["event"] == {"action": "slow", "dataset": "itemforge.gateway", "duration": 1_500_000_000}
    assert slow["error"] == {"message": "'k'", "type": "KeyError"}
    assert slow["itemforge"] == {"pause": 2_000_000_000}


def test_what_libraries_add_are_labels(lines: Lines) -> None:
    logging.getLogger("aiormq.connection").error("gone", extra={"peer.name": ("h", 1), "request_id": object})
    (line,) = lines()
    assert line["labels"] == {"peer_name": "('h', 1)", "request_id": str(object)}
    assert "action" not in line["event"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [({}, False), ({"log_prompts": True}, True), ({"log_level": "debug"}, True)],
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_prompts_are_told_at_debug_only_unless_allowed(
    stream: io.StringIO, settings: dict[str, Any], shown: bool, log_format: str
) -> None:
    setup_logs(WorkerSettings(log_format=log_format, **settings), "worker", stream)
    structlog.get_logger().info("job_started", prompt="a golden key", negative_prompt="blur", images=1)
    assert "job_started" in stream.getvalue()
    assert ("a golden key" in stream.getvalue(), "blur" in stream.getvalue()) == (shown, shown)


def test_a_line_has_the_ids_of_its_span(lines: Lines) -> None:
    use(TracerProvider(shutdown_on_exit=False).get_tracer("test"))
    try:
        log = structlog.get_logger()
        log.info("outside")
        with traces.span("work"):
            log.info("inside")
            log.info("of_another", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
            log.info("of_none", traceparent=None)
            here = str(traces.here()).split("-")
    finally:
        use(None)
    outside, inside, another, none = lines()
    assert (inside["trace"], inside["span"]) == ({"id": here[1]}, {"id": here[2]})
    assert (another["trace"], another["span"]) == ({"id": "a" * 32}, {"id": "b" * 16})
    assert not {"trace", "span"} & (outside.keys() | none.keys())


def test_an_exception_stays_on_its_one_line(lines: Lines) -> None:
    try:
        raise ValueError("broken\nin two lines")
    except ValueError:
        structlog.get_logger().exception("it_broke")
    (line,) = lines()
    assert "broken" in line["error"]["stack_trace"]  # type: ignore[index]


def test_lines_of_libraries_take_the_same_way(lines: Lines) -> None:
    logging.getLogger("aiormq.connection").error("cannot connect to %s", "amqp://user:quiet-pässword@broker/")
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


@pytest.mark.parametrize("password", ["pass@w/ord", 'quo"ted\\pass', "pässwört-1", "with space"])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_password_is_hidden_however_it_is_written(
    stream: io.StringIO, password: str, log_format: str
) -> None:
    settings = WorkerSettings(rabbitmq_host="broker", rabbitmq_pass=password, log_format=log_format)
    setup_logs(settings, "worker", stream)
    log = structlog.get_logger()
    log.warning("raw", error=f"refused {password}")
    log.warning("quoted", error=f"refused {quote(password, safe='')} and {settings.amqp_url}")
    log.warning("by hand", url=f"amqp://user:{password}@broker/")
    if log_format == "json":
        log.warning("repr", error=repr(RuntimeError(password)))
    said = stream.getvalue()
    assert "refused" in said
    for form in (password, quote(password, safe=""), repr(password)[1:-1], password.split("@")[-1]):
        assert form not in said
        assert json.dumps(form, ensure_ascii=False)[1:-1] not in said


def test_on_a_terminal_errors_are_plain_and_tracebacks_show_no_values(stream: io.StringIO) -> None:
    setup_logs(WorkerSettings(log_format="console"), "worker", stream)

    def fail(value: str) -> None:
        raise ValueError("broken")

    try:
        fail("a-value-in-a-" + "local-variable")
    except ValueError:
        structlog.get_logger().exception("it_broke", error="no such bucket", key="generated/1.png")
    said = stream.getvalue()
    assert "ValueError: broken" in said
    assert "a-value-in-a-local-variable" not in said
    assert "error='no such bucket'" in said
    assert "key=generated/1.png" in said


def test_warnings_and_uncaught_exceptions_are_lines_too(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)  # catch_warnings put the old way back
        warnings.warn("this goes away soon", DeprecationWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: int("k3y-of-the-admin"))
    thread.start()
    thread.join()
    try:
        raise RuntimeError("the end")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    warning, in_thread, uncaught = lines()
    assert "goes away soon" in str(warning["message"])
    assert in_thread["message"] == uncaught["message"] == "uncaught_exception"
    assert "k3y-of-the-admin" not in str(in_thread)
    assert "the end" in str(uncaught["error"])


def test_libraries_with_handlers_of_their_own_take_the_same_way() -> None:
    # In a process of its own: other tests may have told these libraries to be silent.
    code = """
from itemforge.settings import EngineSettings
from itemforge.telemetry.logs import setup_logs
setup_logs(EngineSettings(log_format="json"), "engine")
import itemforge.engine.model
import transformers.utils.logging, diffusers.utils.logging
transformers.utils.logging.get_logger("transformers.some.part").warning("from %s", "transformers")
diffusers.utils.logging.get_logger("diffusers.some.part").warning("from diffusers")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = [json.loads(line)["message"] for line in ended.stderr.splitlines()]
    assert told == ["from transformers", "from diffusers"]
