"""Every call of the API as a value: what is sent, and how the answer is read. Nothing here touches the network.

Each of them may be sent again when its answer got lost: what makes something new carries a name of the client's
own, by which the gateway knows a repetition.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
from pydantic import TypeAdapter

from itemforge.client.answers import Generation, Named, Page, Style, id_of
from itemforge.contract import Output, Status

T = TypeVar("T")

#: Seconds that a ZIP's next piece may take: each picture in it may have to be cut out first.
EXPORT_TIME = 120.0
_styles = TypeAdapter(tuple[Style, ...])


class Options(TypedDict, total=False):
    """What may be said of a picture; what is absent or None is the style's to say."""

    style: str | None
    negative_prompt: str | None
    num_inference_steps: int | None
    guidance_scale: float | None
    scheduler: str | None
    seed: int | str | None
    width: int | None
    height: int | None
    num_images: int | None
    lora_weight: float | None
    output: Output | None
    webhook: str | None


class Filters(TypedDict, total=False):
    """What a list shows; `style` is `id` (any version) or `id@version`, `q` words of the prompt."""

    q: str | None
    status: Status | str | None
    style: str | None
    since: datetime | str | None
    until: datetime | str | None
    mine: bool
    favourite: bool
    collection: UUID | str | None
    flagged: bool | None
    deleted: bool


class AtlasOptions(TypedDict, total=False):
    """How pictures lie on a sheet, in pixels."""

    max_side: Literal[256, 512, 1024, 2048, 4096]
    padding: int
    extrude: int
    power_of_two: bool
    trim: bool


@dataclass(frozen=True)
class Call(Generic[T]):
    """`gone`: an answer of 404 to a repetition says that the first time it came through."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None
    follow: bool = False
    gone: bool = False

    @property
    def request(self) -> dict[str, Any]:
        """What httpx is asked."""
        sent: dict[str, Any] = {"method": self.method, "url": self.path, "headers": self.headers}
        if self.params:
            sent["params"] = self.params
        if self.body is not None:
            sent["json"] = self.body
        if self.timeout is not None:
            sent["timeout"] = self.timeout
        return sent


def submit(prompt: str, request_id: UUID | str | None, options: Options) -> Call[Generation]:
    """Under an id of the client's own, so that two deliveries make one generation."""
    body = {"prompt": prompt, **given(options)}
    return Call("PUT", _path(request_id or uuid4()), _generation, body=body)


def get(named: Named) -> Call[Generation]:
    return Call("GET", _path(named), _generation)


def page(filters: Filters, limit: int | None = None, cursor: str | None = None) -> Call[Page]:
    asked = {**given(filters), **given({"limit": limit, "cursor": cursor})}
    params = {k: str(v) if isinstance(v, datetime | UUID) else v for k, v in asked.items()}
    return Call("GET", "/v1/generations", lambda answer: Page.model_validate_json(answer.content), params)


def next_page(call: Call[Page], last: Page) -> Call[Page] | None:
    """The call for what comes after `last`, which was the answer to `call`; None at the end."""
    if last.next_cursor is None:
        return None
    return replace(call, params={**call.params, "cursor": last.next_cursor})


def cancel(named: Named) -> Call[Generation]:
    return Call("POST", _path(named, "cancel"), _generation)


def retry(named: Named) -> Call[Generation]:
    headers = {"Idempotency-Key": str(uuid4())}
    return Call("POST", _path(named, "retry"), _generation, headers=headers)


def delete(named: Named, forever: bool) -> Call[None]:
    return Call("DELETE", _path(named), lambda _: None, {"forever": True} if forever else {}, gone=True)


def restore(named: Named) -> Call[Generation]:
    return Call("POST", _path(named, "restore"), _generation)


def image(named: Named, n: int, output: Output | None) -> Call[bytes]:
    """The picture as drawn, or in the form that `output` says; it may lie elsewhere than at the gateway."""
    params: dict[str, Any] = {"n": n}
    if output is not None:
        params |= output.model_dump(mode="json", exclude_none=True)
    return Call("GET", _path(named, "image"), _content, params, follow=True)


def thumbnail(named: Named, n: int, size: int) -> Call[bytes]:
    return Call("GET", _path(named, "thumbnail"), _content, {"n": n, "size": size})


def export(
    these: Iterable[Named],
    form: Literal["zip", "atlas"],
    output: Output | None,
    atlas: AtlasOptions | None,
) -> Call[bytes]:
    body = {"ids": [id_of(each) for each in these], "form": form, **given({"output": output, "atlas": atlas})}
    return Call("POST", "/v1/exports", _content, body=body, timeout=EXPORT_TIME)


def styles() -> Call[tuple[Style, ...]]:
    return Call("GET", "/v1/styles", lambda answer: _styles.validate_json(answer.content))


def events_path(named: Named) -> str:
    """Where a generation's events are."""
    return _path(named, "events")


def _path(named: Named, *parts: str) -> str:
    # Quoted, so that a wrong id is an unknown one, and never another address.
    return "/".join(("/v1/generations", quote(id_of(named), safe=""), *parts))


def given(options: Any) -> dict[str, Any]:
    """What was said of them, as JSON has it."""
    return {
        key: value.model_dump(mode="json", exclude_none=True) if isinstance(value, Output) else value
        for key, value in options.items()
        if value is not None
    }


def _generation(answer: httpx.Response) -> Generation:
    return Generation.model_validate_json(answer.content)


def _content(answer: httpx.Response) -> bytes:
    return answer.content
