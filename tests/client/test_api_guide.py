"""The examples of docs/api.md are run as they stand there, against a gateway with keys, over real sockets."""

import asyncio
import io
import json
import re
import shutil
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

from painter import painting
from PIL import Image
from rig import MemoryStore, headers_of, listening, settings_for

from itemforge.jobs.keys import Role
from services.process import unavailable

GUIDE = Path(__file__).parents[2] / "docs" / "api.md"
URL, KEY = "http://127.0.0.1:8000", "itf_…"
#: What follows is for the programs of the original services.
END = "## Seed-compatible routes"


def _blocks(language: str) -> list[str]:
    text = GUIDE.read_text().partition(END)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def _shell(script: str) -> str:
    """What a script prints; an answer that is an error ends it."""
    strict = 'curl() { command curl --fail-with-body --max-time 90 "$@"; }\nset -euo pipefail\n'
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        strict + script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


def _python(code: str) -> str:
    """What a program prints, between the lines of the gateway, which runs in this process as well."""
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(code, str(GUIDE), "exec"), {"__name__": "__main__"})  # our own documentation
    return said.getvalue()


async def test_the_guides_examples_do_what_they_say(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        unavailable("no curl: install curl")
    settings = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}", tmp_path)
    async with listening(settings, store=MemoryStore(f"file://{tmp_path}")) as rig:
        worker = await headers_of(rig, Role.WORKER)
        secret = (await headers_of(rig, Role.USER))["X-API-Key"]
        address = str(rig.http.base_url).rstrip("/")

        def here(text: str) -> str:
            return text.replace(URL, address).replace(KEY, secret)

        async with painting(rig, worker):
            told = await _shell(here("\n".join(_blocks("sh"))))
            assert '"status":"Pending"' in told
            assert "event: progress" in told and '"status": "Completed"' in told
            _is_cut_out(Path("apple.png"), 256)

            sync, later, errors, openai = _blocks("python")
            said = await asyncio.to_thread(_python, here(sync))
            assert "Processing step=" in said and "a red apple 7" in said
            assert _size("as-drawn.png") == (64, 64)
            assert _size("icon.webp") == (128, 128)
            _holds("apples.zip", 2)

            said = await asyncio.to_thread(_python, here(later))
            assert "a cup: 1 of 4" in said
            _holds("things.zip", 3)

            said = await asyncio.to_thread(_python, here(errors))
            assert "change the request: 422 width must be" in said

            said = await asyncio.to_thread(_python, here(openai))
            assert "['plain', 'tale']" in said
            for n in range(2):
                _is_cut_out(Path(f"apple-{n}.png"), 256)


def _size(name: str) -> tuple[int, int]:
    with Image.open(name) as picture:
        return picture.size


def _is_cut_out(path: Path, side: int) -> None:
    with Image.open(path) as picture:
        assert (picture.mode, picture.size) == ("RGBA", (side, side))
        assert picture.getpixel((0, 0))[3] == 0


def _holds(name: str, pictures: int) -> None:
    with zipfile.ZipFile(name) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
    assert (len(manifest["pictures"]), manifest["missing"]) == (pictures, [])
