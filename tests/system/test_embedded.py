"""`itemforge up` and `itemforge demo`: the whole system in one command, with the starter model."""

import signal
import socket
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from commands import Command, environment, run
from PIL import Image

from itemforge.client import Client
from itemforge.contract import Status
from itemforge.imaging.png import read_recipe
from polling import wait_until


def _ended(client: Client, request_id: str, within: float = 100.0) -> Status:
    def status() -> Status | None:
        now = client.get(request_id).status
        return now if now.terminal else None

    ended = wait_until(status, within, every=0.1, why=f"{request_id} ends")
    assert ended
    return ended


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_prompt_becomes_a_picture_and_a_signal_ends_the_system(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Command(tmp_path, "up", "--port", "0", "--home", str(tmp_path / "home")) as system:
        with Client(system.address()) as client:
            request = client.submit("a red apple", num_inference_steps=20, guidance_scale=4, seed="7")
            assert _ended(client, request.id) is Status.COMPLETED
            png = client.image(request.id)
            shown = client.get(request.id)
        assert system.end(number) == 0
    picture = Image.open(BytesIO(png)).convert("RGB")
    assert picture.size == (64, 64)
    red, green, blue = picture.getpixel((32, 36))
    assert red > 150 > max(green, blue)
    recipe = read_recipe(png)
    assert (recipe.seed, recipe.steps, recipe.guidance) == (7, 20, 4.0)
    assert recipe.prompt == "a red apple, glossy 3d icon, white background"
    assert (tmp_path / "home" / "objects" / "generated" / f"{request.id}.png").read_bytes() == png
    assert shown.image_url
    assert shown.image_url.endswith(f"/objects/generated/{request.id}.png")
    completed = [e for e in system.events() if e["message"] == "job_completed"]
    assert [e["request_id"] for e in completed] == [request.id]
    assert completed[0]["attempt"] == 1


def test_killed_in_the_middle_of_a_job_and_started_again_the_job_completes(tmp_path: Path) -> None:
    arguments = ("up", "--port", "0", "--home", str(tmp_path / "home"))
    with Command(tmp_path, *arguments) as system, Client(system.address()) as client:
        request = client.submit("a key", num_inference_steps=100, num_images=2, guidance_scale=4)

        def drawing() -> bool:
            progress = client.get(request.id).progress
            return progress is not None and 0 < progress.step < progress.steps

        wait_until(drawing, 100, every=0.05, why="the job is being drawn")
        system.process.kill()
        system.process.wait(30)
    with Command(tmp_path, *arguments) as system, Client(system.address()) as client:
        assert _ended(client, request.id) is Status.COMPLETED
        assert len(client.get(request.id).images) == 2
        assert system.end() == 0


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(tmp_path, "up", "--port", str(port), "--home", str(tmp_path / "home"))
    assert ended.returncode == 64
    (line,) = ended.stderr.splitlines()
    assert str(port) in line
    assert "--port" in line


def test_a_second_system_at_the_same_home_is_refused(tmp_path: Path) -> None:
    arguments = ("up", "--port", "0", "--home", str(tmp_path / "home"))
    with Command(tmp_path, *arguments) as first:
        first.address()
        ended = run(tmp_path, *arguments)
        assert first.end() == 0
    assert ended.returncode == 64
    assert "--home" in ended.stderr


def test_it_refuses_to_listen_beyond_loopback_without_a_key(tmp_path: Path) -> None:
    ended = run(tmp_path, "up", "--host", "0.0.0.0", "--port", "0", "--home", str(tmp_path / "home"))
    assert ended.returncode == 64
    assert "ITEMFORGE_ADMIN_KEY" in ended.stderr


def test_with_a_key_it_lets_its_own_worker_in_and_nobody_else(tmp_path: Path) -> None:
    key = "0123456789abcdef0123456789abcdef"
    arguments = ("up", "--host", "0.0.0.0", "--port", "0", "--home", str(tmp_path / "home"))
    with Command(tmp_path, *arguments, ITEMFORGE_ADMIN_KEY=key) as system:
        port = system.address().rsplit(":", 1)[1]
        url = f"http://127.0.0.1:{port}"
        with Client(url) as stranger, pytest.raises(Exception, match="needs a key"):
            stranger.submit("a key")
        with Client(url, key) as client:
            request = client.submit("a key", num_inference_steps=2)
            assert _ended(client, request.id) is Status.COMPLETED
        assert system.end() == 0
    assert key not in system.log.read_text()


def test_two_demos_at_once_write_six_pictures_and_a_sheet_each(tmp_path: Path) -> None:
    demos = [
        subprocess.Popen(
            [sys.executable, "-m", "itemforge", "demo", "--out", str(tmp_path / name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment({}),
        )
        for name in ("one", "two")
    ]
    for demo, name in zip(demos, ("one", "two"), strict=True):
        said, _ = demo.communicate(timeout=110)
        assert demo.returncode == 0, said
        paths = [Path(line) for line in said.splitlines() if line.endswith(".png")]
        assert len(paths) == 7
        assert {path.parent.name for path in paths} == {name}
        for path in paths[:6]:
            assert _size(path) == (64, 64)
        assert paths[6].name == "contact-sheet.png"
        assert _size(paths[6])[0] > 3 * 64
        assert "6 of 6" in said
