"""`make demo`: the whole way once, for somebody who has just cloned the project."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from itemforge.client import Client, Generation
from itemforge.contract import Status
from itemforge.errors import ItemForgeError

PROMPTS = (
    "a red apple",
    "a key",
    "birthday cake",
    "a sunflower",
    "a panda",
    "a purple mushroom",
)
STEPS = 25
GUIDANCE = 4.0
#: Fixed, so that every demo of one version shows the same pictures.
SEED = 7
#: Seconds that the system may take to answer, and a request to end.
_START, _END = 120.0, 300.0
#: Seconds between looks: each takes time from the two cores that draw.
_POLL = 0.25


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/demo"),
) -> None:
    """Start the embedded system, ask it for six items over HTTP, show them, stop it."""
    began = time.monotonic()
    console = Console(highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="itemforge-demo-") as home,
        _system(Path(home), out / "itemforge.log") as url,
        Client(url) as client,
    ):
        console.print(f"the embedded system answers at {url}", soft_wrap=True)
        requests = [
            client.submit(prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, seed=str(SEED + i))
            for i, prompt in enumerate(PROMPTS)
        ]
        paths = _collect(client, requests, out, console, began)
    sheet = _sheet(paths, out)
    for path in (*paths, sheet):
        console.print(str(path), soft_wrap=True)


def _collect(
    client: Client, requests: list[Generation], out: Path, console: Console, began: float
) -> list[Path]:
    """Write each picture as it is done; progress is a bar on a terminal and plain lines elsewhere."""
    paths: dict[str, Path] = {}
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + _END
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {r.id: bars.add_task(r.prompt, total=STEPS) for r in requests}
        while len(paths) < len(requests):
            if time.monotonic() > deadline:
                raise ItemForgeError(
                    f"the pictures were not done within {_END:.0f} s; see {out}/itemforge.log"
                )
            time.sleep(_POLL)
            for now in client.page(limit=len(requests)).items:
                if now.id in paths or now.id not in tasks:
                    continue
                if now.progress:
                    bars.update(tasks[now.id], completed=now.progress.step)
                if now.status is Status.COMPLETED:
                    number = list(tasks).index(now.id) + 1
                    path = paths[now.id] = out / f"{number}-{now.prompt.replace(' ', '-')}.png"
                    path.write_bytes(client.image(now.id))
                    bars.update(tasks[now.id], completed=STEPS)
                    seconds = time.monotonic() - began
                    _tell(
                        console,
                        f"{len(paths)} of {len(requests)}: {now.prompt} ({seconds:.1f} s after the start)",
                    )
                elif now.status.terminal:
                    raise ItemForgeError(f"{now.prompt!r} ended as {now.status}: {now.error}")
    return [paths[r.id] for r in requests]


def _tell(console: Console, line: str) -> None:
    if not console.is_terminal:
        console.print(line, soft_wrap=True)


def _sheet(paths: list[Path], out: Path) -> Path:
    from itemforge.imaging.sheet import contact_sheet

    sheet = out / "contact-sheet.png"
    contact_sheet(
        [(p.read_bytes(), prompt) for p, prompt in zip(paths, PROMPTS, strict=True)], columns=3
    ).save(sheet)
    return sheet


@contextmanager
def _system(home: Path, log: Path) -> Iterator[str]:
    """`itemforge up` as a process of its own on a free port; yields its address."""
    command = [sys.executable, "-m", "itemforge", "up", "--port", "0", "--home", str(home)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ITEMFORGE_", "GCS_"))}
    with log.open("w") as log_file:
        process = subprocess.Popen(  # noqa: S603  # our own command
            command, stdout=subprocess.PIPE, stderr=log_file, text=True, env=environment, cwd=home
        )
    try:
        yield _address(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
    if process.returncode != 0:
        raise ItemForgeError(f"the embedded system ended with code {process.returncode}; see {log}")


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    """The address that `up` prints once it answers."""
    deadline = time.monotonic() + _START
    while process.stdout and time.monotonic() < deadline:
        line = process.stdout.readline()
        if found := re.search(r"http://\S+", line):
            return found.group()
        if not line:
            break
    raise ItemForgeError(f"the embedded system did not start; see {log}:\n{log.read_text()[-2000:]}")
