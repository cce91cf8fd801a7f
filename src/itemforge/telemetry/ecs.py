"""Our log calls in the words of the Elastic Common Schema (ECS), release 8.11.

Business code writes short keys (`request_id`, `ms`); here they become the schema's fields in its units.
What the schema has no field for stands under `itemforge.`, as it asks of fields of one's own. Fields of
libraries' lines are nobody's promise and become texts under `labels.`.
"""

from collections.abc import Mapping
from typing import Any

ECS_VERSION = "8.11.0"
NAMESPACE = "itemforge"

#: Keys whose field is not `itemforge.<key>`.
FIELDS = {
    "address": "client.address",
    "error": "error.message",
    "exception": "error.stack_trace",
    "file": "file.path",
    "level": "log.level",
    "logger": "log.logger",
    "method": "http.request.method",
    "ms": "event.duration",
    "path": "url.path",
    "reason": "event.reason",
    "result": "event.outcome",
    "seconds": "event.duration",
    "span_id": "span.id",
    "status_code": "http.response.status_code",
    "trace_id": "trace.id",
    "url": "url.full",
    "attempt": "itemforge.request.attempt",
    "negative_prompt": "itemforge.request.negative_prompt",
    "prompt": "itemforge.request.prompt",
    "request_id": "itemforge.request.id",
    "status": "itemforge.request.status",
    "worker_id": "itemforge.worker.id",
    "retry_after": "itemforge.pause",
    "retry_in_s": "itemforge.pause",
}
#: Nanoseconds in one unit of the key: the schema's unit of every duration.
_NANOSECONDS = {"ms": 10**6, "seconds": 10**9, "retry_after": 10**9, "retry_in_s": 10**9}


def field_of(key: str) -> str:
    """The field that a key of a log call is written to."""
    return FIELDS.get(key, f"{NAMESPACE}.{key}")


def to_ecs(event: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a log call as fields with dots in their names; values are JSON's types."""
    fields: dict[str, Any] = {}
    for key, value in event.items():
        if key == "error" and isinstance(value, BaseException):
            fields["error.type"] = type(value).__name__
        if value is not None:
            fields[field_of(key)] = _value(key, value)
    return fields


def labels(extras: Mapping[str, Any]) -> dict[str, Any]:
    """What a library added to its line; `labels` are texts, and without dots in their names."""
    return {f"labels.{key.replace('.', '_')}": str(value) for key, value in extras.items()}


def _value(key: str, value: object) -> object:
    if key in _NANOSECONDS and isinstance(value, int | float):
        return round(value * _NANOSECONDS[key])
    if key == "error" or not isinstance(value, str | int | float | bool | dict | list | tuple):
        return str(value)
    return value
