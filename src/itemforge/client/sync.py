"""A blocking client: submit, follow, fetch. It maps the gateway's answers to our errors."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from itemforge.contract import Status
from itemforge.errors import GatewayRefused, GatewayUnavailable
from itemforge.tls import client_context, refusal

#: Seconds between tries of an event stream that gives nothing.
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)


class Progress(BaseModel):
    step: int = 0
    steps: int = 0


class Generation(BaseModel):
    """A request as the gateway shows it."""

    model_config = ConfigDict(extra="ignore")

    id: str
    status: Status
    prompt: str
    style: str | None = None
    seed: str | None = None
    image_url: str | None = None
    images: list[dict[str, Any]] = []
    error: str | None = None
    progress: Progress | None = None
    created_at: str | None = None


class Page(BaseModel):
    """One page of a list; `next_cursor` is None on the last."""

    model_config = ConfigDict(extra="ignore")

    items: list[Generation]
    next_cursor: str | None = None


class Client:
    """One connection pool to a gateway; use it as a context manager.

    Every call raises GatewayUnavailable (no answer, 5xx) or GatewayRefused (4xx, with the gateway's words).
    """

    def __init__(
        self, url: str, key: str | None = None, *, timeout: float = 30.0, ca_file: Path | None = None
    ) -> None:
        """`ca_file` holds certificates (PEM) to be trusted besides the system's.

        Raises:
            ConfigurationError: it cannot be read.
        """
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        trust = client_context(ca_file)
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, verify=trust)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, prompt: str, **params: Any) -> Generation:
        """Ask for a picture; parameters that are None are left to the style."""
        body = {"prompt": prompt} | {k: v for k, v in params.items() if v is not None}
        return Generation.model_validate(self._call("POST", "/v1/generations", json=body).json())

    def get(self, request_id: str) -> Generation:
        """The request as it stands now."""
        return Generation.model_validate(self._call("GET", f"/v1/generations/{request_id}").json())

    def page(self, **filters: Any) -> Page:
        """Requests, newest first; filters are `status`, `style`, `since`, `until`, `limit`, `cursor`."""
        query = {k: v for k, v in filters.items() if v is not None}
        return Page.model_validate(self._call("GET", "/v1/generations", params=query).json())

    def cancel(self, request_id: str) -> Generation:
        """Cancel a request, waiting or running."""
        return Generation.model_validate(self._call("POST", f"/v1/generations/{request_id}/cancel").json())

    def image(self, request_id: str, n: int = 0) -> bytes:
        """The PNG of a completed request."""
        return self._call("GET", f"/v1/generations/{request_id}/image", params={"n": n}).content

    def events(self, request_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Names and data of a request's events until it ends; a broken stream is taken up where it broke."""
        last: str | None = None
        tries = 0
        while tries < len(_PAUSES):
            told = False
            try:
                for event_id, name, data in self._stream(request_id, last):
                    last, tries, told = event_id or last, 0, True
                    yield name, data
                    if name == "state" and Status(data["status"]).terminal:
                        return
            except GatewayUnavailable:
                time.sleep(_PAUSES[tries])
            else:
                if not told and self.get(request_id).status.terminal:
                    return  # it ended, and its events are no longer kept
            tries += 1
        raise GatewayUnavailable(f"the events of {request_id} broke off again and again")

    def _stream(self, request_id: str, last: str | None) -> Iterator[tuple[str | None, str, dict[str, Any]]]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        path = f"/v1/generations/{request_id}/events"
        try:
            with self._http.stream("GET", path, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                _check(response)
                yield from _events(response.iter_lines())
        except httpx.HTTPError as error:
            raise GatewayUnavailable(f"no answer from the gateway: {refusal(error) or error}") from error

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            url = self._http.base_url
            if why := refusal(error):
                raise GatewayUnavailable(f"no answer from the gateway at {url}: {why}") from error
            raise GatewayUnavailable(
                f"no answer from the gateway at {url}: {error}; is it running (itemforge up), and is "
                "API_GATEWAY_URL right?"
            ) from error
        _check(response)
        return response


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        body = response.json()
        detail = str(body.get("detail") or body.get("title") or body)
        for wrong in body.get("errors", []):
            detail += f"\n  {wrong.get('field', '')}: {wrong.get('message', '')}"
    except (ValueError, AttributeError):
        detail = response.text[:500]
    if response.status_code >= 500:
        raise GatewayUnavailable(f"the gateway answered {response.status_code}: {detail}")
    raise GatewayRefused(response.status_code, detail)


def _events(lines: Iterator[str]) -> Iterator[tuple[str | None, str, dict[str, Any]]]:
    """Server-sent events (WHATWG HTML, section 9.2), as far as our gateway sends them."""
    event_id: str | None = None
    name, data = "message", ""
    for line in lines:
        if not line:
            if data:
                yield event_id, name, json.loads(data)
            event_id, name, data = None, "message", ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            event_id = value
        elif field == "event":
            name = value
        elif field == "data":
            data += value
