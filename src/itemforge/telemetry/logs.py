"""JSON logs: one event a line in the Elastic Common Schema, set up once by each process.

Business code calls `structlog.get_logger(__name__)`. What is bound with `structlog.contextvars`
(request id, attempt) stands on every line below it. Lines of libraries take the same way out, and at
its end every line is stripped of secrets: the values of all secret settings, passwords in addresses,
bearer keys, and the signatures of signed addresses. Warnings and uncaught exceptions are lines as well.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TextIO
from urllib.parse import quote, unquote, urlsplit

import ecs_logging
import structlog
from pydantic import BaseModel, SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

from itemforge.settings import LogSettings

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
    """The values of all secret fields that are set, and the passwords inside those that are addresses."""
    values = (getattr(settings, name) for name in type(settings).model_fields)
    secrets = [v.get_secret_value() for v in values if isinstance(v, SecretStr)]
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


def setup_logs(settings: LogSettings, process: str, stream: TextIO | None = None) -> None:
    """Send this process's log to `stream` (default standard error)."""
    stream = stream or sys.stderr
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not stream.isatty())
    redact = Redactor(secrets_of(settings))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
    ]
    if as_json:
        last: Processor = ecs_logging.StructlogFormatter(ensure_ascii=False)
        shared += [_error_field, _ecs_fields(process), structlog.processors.format_exc_info]
    else:
        # The pretty tracebacks would show local variables, among them keys and passwords.
        last = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        shared += [structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)]

    def render(logger: WrappedLogger, name: str, event: EventDict) -> str:
        return redact(str(last(logger, name, event)))

    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
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
            *shared,
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


def _error_field(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # In the Elastic schema `error` is an object, in our calls it is a text.
    if "error" in event and not isinstance(event["error"], dict):
        event["error"] = {"message": str(event["error"])}
    return event


def _ecs_fields(process: str) -> Processor:
    def add(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
        event["log.level"] = event.pop("level", level)
        if name := event.pop("logger", None):
            event["log.logger"] = name
        event["process.name"] = process
        for key, value in event.items():
            if not isinstance(value, str | int | float | bool | dict | list | tuple | type(None)):
                event[key] = str(value)
        return event

    return add
