"""Server-sent events, as a client reads them (WHATWG HTML, "Server-sent events")."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

#: Name, id and data.
Event = tuple[str, str | None, dict[str, Any]]


async def events_of(answer: httpx.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield fields["event"], fields.get("id"), json.loads(fields["data"])
            fields = {}
