"""What a terminal, systemd and docker do to our processes: signals to the whole group, at any moment."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment, run

from polling import wait_until

SECRET = "pa:ss-w0rd-of-rabbit"


def _children(pid: int) -> list[int]:
    """Those of all threads: the engine and the tracker that multiprocessing starts before it."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, tasks.read_text().split())
    return found


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for the signal (proc(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_a_signal_while_the_program_is_still_being_imported_ends_it_cleanly(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "itemforge", "up", "--port", "0", "--home", str(tmp_path / "home")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({}),
    )
    try:
        wait_until(lambda: _catches(process.pid, signal.SIGTERM), 60, every=0.001)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait(30)
    assert process.returncode == 0
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("phase", "number"),
    [("starting", signal.SIGINT), ("loading", signal.SIGTERM), ("serving", signal.SIGINT)],
)
def test_a_signal_to_the_whole_group_ends_the_system_cleanly(
    tmp_path: Path, phase: str, number: signal.Signals
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    with out.open("w") as out_file, log.open("w") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "itemforge", "up", "--port", "0", "--home", str(tmp_path / "home")],
            stdout=out_file,
            stderr=log_file,
            stdin=subprocess.DEVNULL,
            env=environment({}),
            start_new_session=True,
        )
    try:
        if phase == "serving":
            wait_until(lambda: "engine_ready" in log.read_text(), 60, why="the engine is warm")
        wait_until(lambda: len(_children(process.pid)) >= 2, 60, every=0.002, why="the engine is started")
        children = _children(process.pid)
        if phase == "loading":
            wait_until(lambda: "http://" in out.read_text(), 60, why="the gateway answers")
        os.killpg(process.pid, number)
        assert process.wait(30) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
    for line in log.read_text().splitlines():
        assert "message" in json.loads(line)
    wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children), 10)


@pytest.mark.parametrize(
    ("command", "settings", "said"),
    [
        ("worker", {"ITEMFORGE_AMQP_URL": f"http://u:{SECRET}@h/"}, "ITEMFORGE_AMQP_URL"),
        ("gateway", {"RABBITMQ_HOST": "h", "DATABASE_URL": f"mysql://u:{SECRET}@h/d"}, "DATABASE_URL"),
        ("worker", {"RABBITMQ_HOST": "h", "ITEMFORGE_STORAGE_URL": "s3://b"}, "ITEMFORGE_STORAGE_URL"),
        ("worker", {}, "RABBITMQ_HOST"),
        ("up", {"ITEMFORGE_HOME": "/proc/nowhere"}, "ITEMFORGE_HOME"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    tmp_path: Path, command: str, settings: dict[str, str], said: str
) -> None:
    if command != "up":
        settings = {"ITEMFORGE_HOME": str(tmp_path / "home"), **settings}
    ended = run(tmp_path, command, **settings)
    assert ended.returncode == 64
    (line,) = ended.stderr.splitlines()
    assert line.startswith("itemforge: ")
    assert said in line
    assert SECRET not in line


def test_a_dot_env_that_is_no_text_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe=1")
    ended = run(tmp_path, "worker")
    assert ended.returncode == 64
    (line,) = ended.stderr.splitlines()
    assert ".env" in line
