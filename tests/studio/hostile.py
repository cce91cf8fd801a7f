"""A gateway full of strings that want to be more than text, and the same with harmless ones: what comes out must have one shape."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from bs4 import BeautifulSoup
from fastapi import FastAPI
from PIL import Image, PngImagePlugin
from rig import BASE, Packs, Rig, picture
from sqlalchemy import update

from itemforge.contract import DEAD_QUEUE
from itemforge.gateway import pages
from itemforge.jobs.tables import requests as table
from itemforge.styles.pack import Size, StylePack

#: Stands in each string, so that it is found wherever it comes out.
MARK = "zqx"
HOSTILE = (
    f"<script>alert('{MARK}')</script>",
    f'"><img src=x onerror=alert("{MARK}")>',
    f"'><svg onload=alert('{MARK}')>",
    f"javascript:alert('{MARK}')",
    "{{7*7}}{% raw %}${7*7}#{7*7}" + MARK,
    f'</textarea></title></script><iframe srcdoc="<script>alert(1)</script>">{MARK}',
    f'x" autofocus onfocus=alert(1) hx-get="/{MARK}" hx-trigger="load" style="color:red" y="',
    f"x' data-hx-on:load='alert(1)' {MARK}='`&quot;&lt;b&gt;&#x27;",
    f"<base href=//{MARK}.example><meta http-equiv=refresh content=0;url=//{MARK}.example>",
    f"line\u2028para\u2029\u202eright-to-left\u2066\u200f<!--{MARK}",
)
TAME = tuple(f"harmless {n} {MARK}" for n in range(len(HOSTILE)))
#: Names must be printable; the API refuses the others.
NAMES = tuple(n for n, text in enumerate(HOSTILE) if text.isprintable())


class Styles(Packs):
    """One style whose every text is given."""

    def __init__(self, text: str) -> None:
        template = f"{text} {{prompt}}"
        size = Size(width=64, height=64, min=64, max=64)
        self.pack = StylePack(
            id="tale",
            version=3,
            base=BASE,
            size=size,
            licence=text,
            trigger=text[:100],
            template=template,
            negative=text,
        )

    async def list(self) -> list[StylePack]:
        return [self.pack]

    async def get(self, name: str) -> StylePack:
        return self.pack


def png(text: str) -> bytes:
    """A picture that says `text` in its chunks."""
    about = PngImagePlugin.PngInfo()
    for key in ("parameters", "prompt", "Comment", "XML:com.adobe.xmp"):
        about.add_itxt(key, text)
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "tomato").save(out, "PNG", pnginfo=about)
    return out.getvalue()


@dataclass
class World:
    """What there is, by what an address calls it."""

    drawn: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    collections: list[str] = field(default_factory=list)

    @property
    def items(self) -> list[str]:
        return [self.drawn[0], self.drawn[-1], self.failed[0], *self.open]


async def filled(rig: Rig, words: Sequence[str], items: int = len(HOSTILE)) -> World:
    """Put each of `words` (the first `items` of them) everywhere that takes a text. `rig` calls as an admin."""
    world = World()
    rig.gateway.catalog = Styles(words[1])
    rig.gateway.model = replace(rig.gateway.model, name=words[0])
    for word in words[:items]:
        made = await _asked(rig, word)
        await _drawn(rig, made, word)
        world.drawn.append(made)
        async with rig.gateway.db.write() as write:
            await write.conn.execute(update(table).where(table.c.id == UUID(made)).values(flagged=word))
        lost = await _asked(rig, word)
        await rig.claim(lost)
        assert await rig.report(lost, status="Failed", error=word) == 200
        world.failed.append(lost)
        await rig.broker.publish(DEAD_QUEUE, f"no JSON {word}".encode())
    world.open = [await _asked(rig, words[n]) for n in (0, 1)]
    await rig.claim(world.open[1])
    for n in NAMES:
        made = await _created(rig, "/v1/collections", {"name": words[n]}, "id")
        await rig.http.post(f"/v1/collections/{made}/add", json={"ids": world.drawn})
        world.collections.append(made)
    for n in NAMES[:2]:
        things: list[Any] = [*words[: items if n == NAMES[0] else 2], {"prompt": "a cup", "name": words[n]}]
        body = {"items": things, "name": words[n], "style": "tale", "negative_prompt": words[2]}
        world.batches.append(await _created(rig, "/v1/batches", body, "id"))
    await _work_on_batch(rig, world.batches[0], words)
    facts = {
        "model": words[0][:200],
        "device": words[1][:200],
        "version": words[2][:40],
        "styles": ["tale@3"],
    }
    beat = {"worker_id": "w1", "state": "ready", "free": 8, "rows": [], "facts": facts}
    assert (await rig.http.post("/v1/worker/heartbeat", json=beat)).status_code == 200
    return world


async def _created(rig: Rig, path: str, body: Any, name: str) -> str:
    answer = await rig.http.post(path, json=body)
    assert answer.status_code in (201, 202), answer.text
    return str(answer.json()[name])


async def _asked(rig: Rig, word: str) -> str:
    return str((await rig.submit(word, negative_prompt=word, style="tale"))["id"])


async def _drawn(rig: Rig, made: str, word: str) -> None:
    attempt = (await rig.claim(made))["attempt"]
    await rig.store.put(f"generated/{made}.png", png(word), "image/png")
    assert await rig.report(made, attempt, images=[picture(made, rig.store)]) == 200


async def _work_on_batch(rig: Rig, batch: str, words: Sequence[str]) -> None:
    """One cell drawn and approved, one failed, the others open."""
    things = (await rig.http.get(f"/v1/batches/{batch}")).json()["items"]
    drawn, failed = (thing["cells"][0]["id"] for thing in things[:2])
    await _drawn(rig, drawn, words[0])
    await rig.http.post(f"/v1/batches/{batch}/verdicts", json={"verdict": "approved", "ids": [drawn]})
    await rig.claim(failed)
    assert await rig.report(failed, status="Failed", error=words[1]) == 200


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of each route of the app; a new one is found by itself."""

    def walk(found: Sequence[Any]) -> Iterator[tuple[str, str]]:
        for route in found:
            if inner := getattr(route, "original_router", None):
                yield from walk(inner.routes)
            for method in getattr(route, "methods", None) or ():
                yield method, route.path

    yield from walk(app.routes)


def page_routes(app: FastAPI, *methods: str) -> list[str]:
    return sorted({path for method, path in routes(app) if method in methods and pages.is_page(path)})


_ADDRESSES = ("href", "src", "action", "formaction", "xlink:href", "hx-get", "hx-post", "poster")


def soup(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


def shape(html: str, *, counted: bool = True) -> list[Any]:
    """Each element with the names of its attributes, sorted, for lists come by name; not `counted`, each kind once.

    Some names are shortened and then have a title."""
    found = [(tag.name, *sorted(tag.attrs.keys() - {"title"})) for tag in soup(html).find_all(True)]
    return sorted(found if counted else set(found))


def faults(html: str) -> list[str]:
    """What in a page could run, load or lead somewhere that is not ours."""
    found = []
    for tag in soup(html).find_all(True):
        values: Mapping[str, Any] = tag.attrs
        if tag.name == "script" and (
            not str(values.get("src", "")).startswith("/studio/static/") or tag.get_text()
        ):
            found.append(f"script: {tag}")
        if tag.name in ("iframe", "object", "embed", "base", "style", "frame", "applet"):
            found.append(f"element: {tag}")
        if tag.name == "meta" and "http-equiv" in values:
            found.append(f"meta: {tag}")
        for name, value in values.items():
            bare = name.removeprefix("data-")
            if bare.startswith(("on", "hx-on", "hx-vals", "hx-vars", "srcdoc")) or bare == "style":
                found.append(f"attribute: {name}={value}")
            if MARK in name:
                found.append(f"attribute: {name}")
            if bare in _ADDRESSES and not _ours(str(value)):
                found.append(f"address: {name}={value}")
    return found


def _ours(address: str) -> bool:
    if address.startswith(("?", "#")):
        return True
    return address.startswith("/") and not address.startswith(("//", "/\\"))
