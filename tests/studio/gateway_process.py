"""A gateway with its pages in a process of its own, which can be killed; and the worker that a test plays.

As a program: `gateway_process.py HOME PORT`, on a SQLite file and a folder of pictures in HOME.
"""

import asyncio
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw
from rig import MemoryBroker, app_for, settings_for

from itemforge.gateway.listening import bind
from itemforge.gateway.server import serving
from itemforge.jobs import keys
from itemforge.jobs.database import Database
from itemforge.jobs.keys import Role
from itemforge.jobs.migrate import upgrade
from itemforge.storage.folder import FolderStore
from polling import wait_until

TESTS = Path(__file__).parents[1]


def _database(home: Path) -> str:
    return f"sqlite+aiosqlite:///{home / 'x.db'}"


async def _serve(home: Path, port: int) -> None:
    settings = settings_for(_database(home), home, block_list=home / "words.txt", quota=40)
    app = app_for(settings, MemoryBroker(), FolderStore(home / "objects"))  # type: ignore[arg-type]
    async with serving(app, bind("127.0.0.1", port)) as address:
        print(f"at {address};", flush=True)
        await asyncio.Event().wait()


class GatewayProcess:
    """On the same port whenever it is started."""

    def __init__(self, home: Path) -> None:
        self.home, self.port, self.address = home, 0, ""
        self.process: subprocess.Popen[bytes] | None = None
        (home / "words.txt").write_text("forbidden\n")
        self.keys = asyncio.run(self._make_keys())

    async def _make_keys(self) -> dict[Role, str]:
        db = Database(_database(self.home))
        await upgrade(db)
        made = {role: (await keys.create(db, f"a {role}", role))[1] for role in (Role.USER, Role.WORKER)}
        await db.close()
        return made

    def start(self) -> None:
        log = self.home / "log"
        path = ":".join(map(str, (TESTS, TESTS / "gateway", *filter(None, sys.path))))
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(self.home), str(self.port)],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={"PYTHONPATH": path, "HOME": str(self.home), "PATH": "/usr/bin:/bin"},
            )

        def said() -> str:
            assert self.process and self.process.poll() is None, log.read_text()
            return log.read_text().partition("at ")[2].partition(";")[0]

        self.address = wait_until(said, within=90, why="the gateway says where it answers")
        self.port = int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


class Worker:
    """Claims, tells steps with previews, and brings pictures, as it is told."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._attempts: dict[str, int] = {}

    def _call(self, path: str, body: Any) -> Any:
        answer = httpx.post(
            f"{self._gateway.address}/v1/worker/{path}",
            json=body,
            headers={"X-API-Key": self._gateway.keys[Role.WORKER]},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def beat(self, rows: list[dict[str, Any]] | None = None) -> Any:
        beat = {"worker_id": "w1", "state": "ready", "free": 4, "rows": rows or []}
        return self._call("heartbeat", beat)

    def claim(self, request_id: str) -> None:
        (claim,) = self._call("claims", {"worker_id": "w1", "jobs": [{"request_id": request_id}]})
        self._attempts[request_id] = claim["attempt"]

    def step(self, request_id: str, step: int, preview: str | None = None) -> bool:
        """Whether the gateway says that somebody watches."""
        row = {"request_id": request_id, "attempt": self._attempts[request_id], "step": step, "steps": 20}
        return bool(self.beat([{**row, "preview": preview}])[0]["watch"])

    def draw(self, request_id: str) -> None:
        if request_id not in self._attempts:
            self.claim(request_id)
        key = f"generated/{request_id}.png"
        store = FolderStore(self._gateway.home / "objects")
        asyncio.run(store.put(key, png(), "image/png"))
        image = {
            "n": 0,
            "seed": "7",
            "bucket": store.bucket,
            "key": key,
            "url": store.public_url(key),
            "width": 96,
            "height": 64,
        }
        self._report(request_id, status="Completed", images=[image])

    def fail(self, request_id: str, error: str) -> None:
        self.claim(request_id)
        self._report(request_id, status="Failed", error=error)

    def _report(self, request_id: str, **fields: Any) -> None:
        (answer,) = self._call(
            "reports", [{"request_id": request_id, "attempt": self._attempts[request_id], **fields}]
        )
        assert answer["code"] == 200


def png() -> bytes:
    """A red thing on white."""
    picture = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(picture).ellipse((28, 12, 68, 52), fill="crimson")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
