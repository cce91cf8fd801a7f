"""`itemforge batch`: a list becomes files in a folder, once, however often a run breaks off."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rig import MemoryStore, Rig, listening, png, settings_for
from typer.testing import CliRunner

from itemforge.cli.app import app
from polling import wait_until


class Served:
    """A gateway in a thread with a worker that fails what is called `broken`, and stops after `most` pictures."""

    def __init__(self, rig: Rig, loop: asyncio.AbstractEventLoop) -> None:
        self.rig, self.loop = rig, loop
        self.url = str(rig.http.base_url)
        self.most = 10**6
        self.paths: list[str] = []

    async def work(self) -> None:
        at = 0
        while True:
            await asyncio.sleep(0.02)
            while at < min(len(self.rig.broker.ids), self.most):
                request_id, at = self.rig.broker.ids[at], at + 1
                claim = await self.rig.claim(request_id)
                if "broken" in claim["params"]["prompt"]:
                    await self.rig.report(request_id, status="Failed", error="it broke")
                else:
                    await self.rig.store.put(f"generated/{request_id}.png", png(64, 64), "image/png")
                    await self.rig.report(request_id)

    def look(self, path: str) -> Any:
        async def get() -> Any:
            return (await self.rig.http.get(path)).json()

        return asyncio.run_coroutine_threadsafe(get(), self.loop).result(60)


@contextmanager
def _serving(home: Path) -> Iterator[Served]:
    ready: list[Served] = []
    end = asyncio.Event()

    async def serve() -> None:
        settings = settings_for(f"sqlite+aiosqlite:///{home / 'itemforge.db'}", home)
        async with listening(settings, store=MemoryStore(bucket="file:///objects")) as rig:
            served = Served(rig, asyncio.get_running_loop())
            worker = asyncio.create_task(served.work())
            ready.append(served)
            await end.wait()
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        (served,) = wait_until(lambda: ready, within=60)
        yield served
        served.loop.call_soon_threadsafe(end.set)
    finally:
        thread.join(60)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    home = tmp_path / "gateway"
    home.mkdir()
    with _serving(home) as made:
        yield made


def _run(served: Served, *arguments: object) -> Any:
    return CliRunner().invoke(app, ["batch", *map(str, arguments), "--url", served.url])


def test_a_list_becomes_files_once(served: Served, tmp_path: Path) -> None:
    items, out = tmp_path / "first items.csv", tmp_path / "out"
    items.write_bytes(
        '\ufeffname;thing;variations\r\nApple, red;a red apple;\r\n;"an iron\nkey";1\r\n'.encode()
    )
    arguments = (items, "--style", "tale", "--variations", 2, "--out", out, "--size", 64, "--webp")
    done = _run(served, *arguments, "--approve-all")
    assert done.exit_code == 0, done.output
    assert "3 of 3 pictures are here" in done.stderr and done.stdout.strip() == str(out)
    files = {"apple-red-1.webp", "apple-red-2.webp", "an-iron-key-1.webp"}
    assert {each.name for each in out.iterdir()} == files | {"manifest.json", "batch.json"}
    with Image.open(out / "an-iron-key-1.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (64, 64))
    told = json.loads((out / "manifest.json").read_text())
    assert (told["style"], told["name"], told["missing"]) == ("tale@3", "first items", [])
    assert [each["file"] for each in told["pictures"]] == [
        "apple-red-1.webp",
        "apple-red-2.webp",
        "an-iron-key-1.webp",
    ]
    assert {each["verdict"] for each in told["pictures"]} == {"approved"}

    # Once more: nothing is asked for again, and only what is missing is fetched.
    (out / "apple-red-2.webp").unlink()
    kept = (out / "apple-red-1.webp").stat()
    again = _run(served, *arguments)
    assert again.exit_code == 0, again.output
    assert (out / "apple-red-2.webp").exists()
    now = (out / "apple-red-1.webp").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (now.st_ino, now.st_mtime_ns)
    assert len(served.look("/v1/batches")["items"]) == 1
    other = _run(served, items, "--style", "tale", "--variations", 3, "--out", out)
    assert other.exit_code != 0 and "another batch" in str(other.exception)


def test_failures_and_wrong_lists_are_told(served: Served, tmp_path: Path) -> None:
    items, out = tmp_path / "items.txt", tmp_path / "out"
    items.write_text("a red apple\na broken thing\n")
    done = _run(served, items, "--variations", 1, "--out", out)
    assert done.exit_code == 1
    assert "a broken thing, 1: Failed: it broke" in done.stderr
    assert [each["reason"] for each in json.loads((out / "manifest.json").read_text())["missing"]] == [
        "Failed: it broke"
    ]
    assert (out / "a-red-apple-1.png").exists()
    items.write_text("thing,seed\na cup,7\na hat,many\n")
    wrong = _run(served, items, "--out", tmp_path / "other")
    assert wrong.exit_code != 0 and "line 3: seed" in str(wrong.exception)
    assert not (tmp_path / "other").exists()
    nothing = _run(served, "--out", tmp_path / "other")
    assert "no batch to go on with" in str(nothing.exception)


def test_an_interrupted_run_goes_on(served: Served, tmp_path: Path) -> None:
    items, out = tmp_path / "items.txt", tmp_path / "out"
    items.write_text("\n".join(f"thing {n}" for n in range(4)))
    served.most = 2
    command = [sys.executable, "-m", "itemforge", "batch", str(items), "--variations", "1", "--out", str(out)]
    environment = {**os.environ, "API_GATEWAY_URL": served.url, "HOME": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list(out.glob("*.png"))) == 2, within=60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on drawing" in said and f"itemforge batch --out {out}" in said
    assert len(json.loads((out / "manifest.json").read_text())["pictures"]) == 2
    served.most = 3
    wait_until(lambda: served.look("/v1/stats")["requests"]["Completed"] == 3, within=60)
    ended = _run(served, "--out", out, "--cancel")
    assert ended.exit_code == 1 and "1 picture is missing" in ended.stderr
    assert len(list(out.glob("*.png"))) == 3
    assert len(served.look("/v1/batches")["items"]) == 1
