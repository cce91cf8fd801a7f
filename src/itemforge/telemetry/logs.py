"""JSON logs: one event a line in the Elastic Common Schema, set up once by each process.

Business code calls `structlog.get_logger(__name__)`. What is bound with `structlog.contextvars`
(request id, attempt) stands on every line below it, and so do the ids of the span that it is written in.
Lines of libraries take the same way out, and at its end every line is stripped of secrets: the values of
all secret settings, passwords in addresses, bearer keys, and the signatures of signed addresses. Prompts
are left out above the level `debug`, unless the settings allow them. Warnings and uncaught exceptions are
lines as well.
"""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TextIO
from urllib.parse import quote, unquote, urlsplit

import ecs_logging
import structlog
from pydantic import BaseModel, SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

import itemforge
from itemforge.settings import LogSettings
from itemforge.telemetry import ecs

MASK = "***"
#: Shorter values are too common in honest text to be replaced everywhere.
_SHORTEST_SECRET = 6
#: Libraries that tell their every step at `info`.
_NOISY = [
    "aio_pika",
    "aiormq",
    "alembic",
    "asyncio",
    "google",
    "httpcore",
    "httpx",
    "PIL",
    "urllib3",
    "uvicorn",
]
_PATTERNS = (
    # Up to the last @: whoever writes an address by hand may leave one in the password.
    (re.compile(r"(://[^\s:/@\"']*:)[^\s\"']+(?=@)"), rf"\1{MASK}"),
    (
        re.compile(r"(?i)((?:X-Goog-Signature|X-Goog-Credential|signature|access_token|[?&]key)=)[^&\s\"']+"),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)(bearer\s+)[a-z0-9._~+/=-]{6,}"), rf"\1{MASK}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.S), MASK),
)


def secrets_of(settings: BaseModel) -> list[str]:
    """The values of all secret fields that are set, and what is secret inside addresses and headers."""
    values = (getattr(settings, name) for name in type(settings).model_fields)
    secrets = [v.get_secret_value() for v in values if isinstance(v, SecretStr)]
    if isinstance(settings, LogSettings):
        secrets += [form for v in settings.otlp_headers().values() if v for form in (v, v.split()[-1])]
    passwords = [urlsplit(s).password for s in secrets if "://" in s]
    return secrets + [form for p in passwords if p for form in (p, unquote(p))]


class Redactor:
    """Takes secrets out of a finished line, so no path into the log can go round it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        long = {s for s in secrets if len(s) >= _SHORTEST_SECRET}
        # As it stands in an address, in the repr of an exception, and in a JSON line.
        written = {form for s in long for form in (s, quote(s, safe=""), repr(s)[1:-1])}
        forms = written | {
            json.dumps(s, ensure_ascii=ascii)[1:-1] for s in written for ascii in (True, False)
        }
        self._secrets = sorted(forms, key=len, reverse=True)

    def __call__(self, line: str) -> str:
        for pattern, replacement in _PATTERNS:
            line = pattern.sub(replacement, line)
        for secret in self._secrets:
            line = line.replace(secret, MASK)
        return line


#: What a prompt is called in our log calls.
_PROMPTS = ("prompt", "negative_prompt")
Ids = tuple[str, str]


class _Around:
    """Where the ids of the trace and the span come from that a line is written in; `traces` says."""

    ids: Callable[[], Ids | None] | None = None


def ids_from(source: Callable[[], Ids | None] | None) -> None:
    """Put these ids on every line from now on; None: none."""
    _Around.ids = source


class _EcsLines(ecs_logging.StructlogFormatter):  # type: ignore[misc]  # the library has no types
    """The library adds its own `ecs.version` beside ours, which stands in the object `ecs` by then."""

    def format_to_ecs(self, event_dict: EventDict) -> EventDict:
        made = dict(super().format_to_ecs(dict(event_dict)))
        del made["ecs.version"]
        return made


def setup_logs(settings: LogSettings, process: str, stream: TextIO | None = None) -> None:
    """Send this process's log to `stream` (default standard error)."""
    stream = stream or sys.stderr
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not stream.isatty())
    redact = Redactor(secrets_of(settings))
    ours: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level]
    if not (settings.log_prompts or settings.log_level == "debug"):
        ours.append(_without_prompts)
    ours.append(_trace_ids)
    foreign = list(ours)
    if as_json:
        last: Processor = _EcsLines(ensure_ascii=False)
        about = _about(settings, process)
        ours += [structlog.processors.format_exc_info, _ours_as_ecs(about)]
        foreign += [structlog.processors.format_exc_info, _foreign_as_ecs(about)]
    else:
        # The pretty tracebacks would show local variables, among them keys and passwords.
        last = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        clock = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        ours += [_without_trace_ids, clock]
        foreign += [structlog.stdlib.ExtraAdder(), _without_trace_ids, clock]

    def render(logger: WrappedLogger, name: str, event: EventDict) -> str:
        return redact(str(last(logger, name, event)))

    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *foreign],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            *ours,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def adopt(*libraries: str) -> None:
    """Send a library's lines our way, if it brings a handler of its own; to call after its import."""
    for library in libraries:
        logger = logging.getLogger(library)
        logger.handlers.clear()
        logger.propagate = True


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What ends the process in an unforeseen way is a line too, and without its secrets."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger(__name__).critical("uncaught_exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:  # it is None when the interpreter ends
        _log_uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _without_prompts(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name in _PROMPTS:
        event.pop(name, None)
    return event


def _trace_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Ids of the span around the call; `traceparent` names another, or None for a line of no trace."""
    if "traceparent" in event:
        parts = (event.pop("traceparent") or "").split("-")
        ids = (parts[1], parts[2]) if len(parts) == 4 else None
    else:
        ids = _Around.ids() if _Around.ids else None
    if ids:
        event["trace_id"], event["span_id"] = ids
    return event


def _without_trace_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.pop("trace_id", None)
    event.pop("span_id", None)
    return event


def _about(settings: LogSettings, process: str) -> dict[str, object]:
    """What stands on every line of this process."""
    return {
        "ecs.version": ecs.ECS_VERSION,
        "event.dataset": f"itemforge.{process}",
        "process.name": process,
        "process.pid": os.getpid(),
        "service.name": settings.service_name(process),
        "service.version": itemforge.__version__,
    }


def _ours_as_ecs(about: dict[str, object]) -> Processor:
    def convert(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        said = str(event.pop("event"))
        return {"event": said, **about, "event.action": said, **ecs.to_ecs(event)}

    return convert


def _foreign_as_ecs(about: dict[str, object]) -> Processor:
    adder = structlog.stdlib.ExtraAdder()

    def convert(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        said, record = event.pop("event"), event["_record"]
        extras = {k: v for k, v in adder(logger, name, {"_record": record}).items() if k != "_record"}
        kept = {key: event.pop(key) for key in ("_record", "_from_structlog") if key in event}
        return {"event": said, **about, **kept, **ecs.to_ecs(event), **ecs.labels(extras)}

    return convert
