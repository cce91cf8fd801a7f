"""The review as its page calls it, and the command in a process of its own."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from starlette.testclient import TestClient

from itemforge.studio.review.app import create_app
from polling import wait_until

ADDRESS = "http://127.0.0.1:8000"
#: What the page sends with each change.
OURS = {"Origin": ADDRESS, "ItemForge-Review": "1"}


class Page:
    """Calls as the page makes them, in somebody's name."""

    def __init__(self, folder: Path, who: str = "ann", token: str | None = None) -> None:
        self.client = TestClient(
            create_app(folder, who, token),
            base_url=ADDRESS,
            follow_redirects=False,
            raise_server_exceptions=False,
        )

    def get(self, path: str, status: int = 200, **headers: str) -> str:
        answer = self.client.get(path, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.text

    def post(self, path: str, form: Mapping[str, object] | None = None, status: int = 200) -> str:
        answer = self.client.post(path, data=dict(form or {}), headers={**OURS, "HX-Request": "true"})
        assert answer.status_code == status, answer.text
        return answer.text


class Server:
    """`itemforge data review` in a process of its own, on the same port whenever it is started."""

    def __init__(self, folder: Path, who: str) -> None:
        self.folder, self.who, self.port = folder, who, 0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        log = self.folder.parent / f"{self.who}.log"
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "itemforge", "data", "review", str(self.folder)),
                    *("--who", self.who, "--port", str(self.port)),
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )

        def said() -> str:
            assert self.process and self.process.poll() is None, log.read_text()
            line = log.read_text()
            return line.partition(" is at ")[2].partition(";")[0]

        address = wait_until(said, within=60, why="the command says where it answers")
        self.port = int(address.rpartition(":")[2])
        return address

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(30)
