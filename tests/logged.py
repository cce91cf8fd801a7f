"""Log lines as tests read them: the schema's fields, and beside them the keys of the log calls."""

from typing import Any

from itemforge.telemetry import ecs

#: The keys of the log calls by the fields that they are written to; durations have changed their unit.
_KEYS = {
    field: key for key, field in ecs.FIELDS.items() if field not in ("event.duration", "itemforge.pause")
}


def with_keys(line: dict[str, Any]) -> dict[str, Any]:
    """The line, with its fields by their short names as well."""
    return line | _keys(line)


def _keys(line: dict[str, Any], within: str = "") -> dict[str, Any]:
    """`{"itemforge": {"rows": 3}, "event": {"reason": "…"}}` as `{"rows": 3, "reason": "…"}`."""
    told: dict[str, Any] = {}
    for name, value in line.items():
        field = f"{within}{name}"
        if isinstance(value, dict):
            told |= _keys(value, f"{field}.")
        elif key := _KEYS.get(field, field.removeprefix(f"{ecs.NAMESPACE}.") if "." in field else None):
            told[key] = value
    return told
