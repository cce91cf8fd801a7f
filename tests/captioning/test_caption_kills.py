"""SIGKILL in the middle: whatever was answered and stored is paid for once."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from captioning_pictures import picture
from gemini_server import GeminiServer, Reply

from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.dataset.captioning.gemini import GeminiCaptioner
from itemforge.dataset.captioning.gemini_batch import BatchOptions, caption_batch
from itemforge.dataset.captioning.run import caption_all

_HERE = Path(__file__).parent
_COUNT = 12
ALL = [picture(number) for number in range(_COUNT)]


def start(gemini: GeminiServer, cache: Path, mode: str) -> "subprocess.Popen[str]":
    paths = [str(_HERE), *(each for each in sys.path if each)]
    command = [
        sys.executable,
        "-W",
        "error",
        str(_HERE / "captioning_process.py"),
        gemini.url,
        str(cache),
        mode,
        str(_COUNT),
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def running(gemini: GeminiServer, cache: Path, mode: str) -> Iterator["subprocess.Popen[str]"]:
    process = start(gemini, cache, mode)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(happened: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 40
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_run_asks_for_nothing_again_that_was_answered(
    gemini: GeminiServer, captioner: GeminiCaptioner, tmp_path: Path
) -> None:
    never = threading.Event()
    places = iter(range(7))  # so many are answered, the others wait until the run is dead
    lock = threading.Lock()

    def reply(sha256: str) -> Reply:
        with lock:
            answered = next(places, None) is not None
        return Reply() if answered else Reply(before=lambda: never.wait(60), cut=True)

    gemini.always = reply
    with running(gemini, tmp_path / "captions.db", "each") as process:
        # All three threads hang: what was answered before was stored before they asked for the next.
        until(lambda: len(gemini.pictures()) == 10, process)
    never.set()
    before = list(gemini.answered)
    assert len(before) == 7
    gemini.always = lambda sha256: Reply()
    with CaptionCache(tmp_path / "captions.db") as cache:
        summary = caption_all(ALL, captioner, cache, concurrency=3)
    assert (summary.captioned, summary.known) == (_COUNT, 7)
    assert Counter(gemini.answered) == Counter(each.sha256 for each in ALL)


@pytest.mark.parametrize("route", ["create", "look"])
def test_a_killed_batch_run_creates_no_second_job(
    gemini: GeminiServer, captioner: GeminiCaptioner, tmp_path: Path, route: str
) -> None:
    never = threading.Event()
    gemini.route_replies[route].append(Reply(before=lambda: never.wait(60), cut=True))
    with running(gemini, tmp_path / "captions.db", "batch") as process:
        until(lambda: len(gemini.asked(route)) == 1, process)
    never.set()
    deadline = time.monotonic() + 10
    while not gemini.jobs and time.monotonic() < deadline:
        time.sleep(0.01)
    with CaptionCache(tmp_path / "captions.db") as cache:
        assert caption_batch(ALL, captioner, cache, BatchOptions(poll=0.01)).captioned == _COUNT
    assert len(gemini.jobs) == 1
    assert len(gemini.asked("create")) == 1
