"""What `itemforge doctor` says of the machine: each fault is made for real, and its remedy is named."""

import hashlib
import os
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import time

import pytest
from typer.testing import CliRunner

from itemforge.cli import app, doctor_machine
from itemforge.pulling.record import FileRecord, Record
from itemforge.settings import WorkerSettings, load
from own_log import restored_log  # noqa: F401 - a fixture
from services.process import free_port


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ITEMFORGE_HOME", str(tmp_path / "items"))
    return tmp_path / "items"


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A server whose clock is wrong by the seconds in the list."""
    off = [0.0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", formatdate(time() + off[0], usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("API_GATEWAY_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield off
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("off, ok", [(0.0, True), (20.0, True), (3600.0, False), (-3600.0, False)])
async def test_a_clock_that_differs_from_the_gateways_is_told(
    gateway: list[float], off: float, ok: bool
) -> None:
    gateway[0] = off
    found = await doctor_machine.clock(load(WorkerSettings))
    assert found.ok is ok, found
    assert ok or (("timedatectl" in found.text and "360" in found.text) or "359" in found.text)


async def test_without_a_gateway_no_clock_is_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_GATEWAY_URL", f"http://127.0.0.1:{free_port()}")
    assert (await doctor_machine.clock(load(WorkerSettings))).ok is None


def test_a_model_that_does_not_fit_into_memory_is_told(home: Path) -> None:
    assert doctor_machine.memory(load(WorkerSettings)).ok
    large = home / "models/large.safetensors"
    large.parent.mkdir(parents=True)
    with large.open("wb") as file:
        file.truncate(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))  # no block is written
    found = doctor_machine.memory(load(WorkerSettings, model="large"))
    assert found.ok is False and "ITEMFORGE_MODEL" in found.text


def _pulled(home: Path, name: str, content: bytes) -> Path:
    file = home / "loras" / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    record = Record(source=f"hf:a/{name}", files={file.name: FileRecord("key", len(content), sha256)})
    record.write(file.with_name(f"{name}.pulled.json"))
    return file


async def test_what_was_pulled_is_compared_with_its_sha256(home: Path) -> None:
    _pulled(home, "sound", b"weights")
    file = _pulled(home, "damaged", b"other weights")
    found = await doctor_machine.models(load(WorkerSettings))
    assert found.ok and "sound" in found.text and "damaged" in found.text
    file.write_bytes(b"other_weights")
    found = await doctor_machine.models(load(WorkerSettings))
    assert found.ok is False
    assert (
        "damaged.safetensors" in found.text and "itemforge models pull hf:a/damaged --replace" in found.text
    )
    file.with_name("damaged.pulled.json").write_text("{")
    found = await doctor_machine.models(load(WorkerSettings))
    assert found.ok is False and "cannot be read" in found.text


async def test_a_packs_lora_with_another_sha256_is_told(home: Path) -> None:
    folder = home / "styles/mine"
    folder.mkdir(parents=True)
    (folder / "lora.safetensors").write_bytes(b"not what the pack means")
    (folder / "mine-1.toml").write_text(
        f'id = "mine"\nversion = 1\nbase = "{"0" * 64}"\ntemplate = "{{prompt}}"\n'
        f'[lora]\nsource = "lora.safetensors"\nsha256 = "{"1" * 64}"\n'
    )
    found = await doctor_machine.models(load(WorkerSettings))
    assert found.ok is False and "lora.safetensors" in found.text and "mine" in found.text


def _nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_a_gpu_that_torch_does_not_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine's torch uses its GPU")
    _nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA GeForce RTX 3060, 535.183.01'")
    found = doctor_machine.device(load(WorkerSettings))
    assert found.ok is False and "RTX 3060, driver 535.183.01" in found.text and "torch" in found.text


def test_cuda_without_a_driver_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    _nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA-SMI has failed'; exit 9")
    assert doctor_machine.device(load(WorkerSettings)).ok
    found = doctor_machine.device(load(WorkerSettings, device="cuda"))
    assert found.ok is False and "nvidia-container-toolkit" in found.text


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = doctor_machine.home(load(WorkerSettings, home=tmp_path / "file/home"))
    assert found.ok is False and "ITEMFORGE_HOME" in found.text


@pytest.mark.usefixtures("restored_log")
def test_the_command_tells_every_check_and_fails_where_one_does(home: Path, gateway: list[float]) -> None:
    gateway[0] = 7200.0
    _pulled(home, "damaged", b"weights").write_bytes(b"w")
    done = CliRunner().invoke(app.app, ["doctor"])
    assert done.exit_code == 1
    told = {line.split(":")[0][7:]: line[:7].strip() for line in done.stdout.splitlines()}
    assert told["clock"] == "BROKEN" and told["models"] == "BROKEN"
    assert told["memory"] == told["home"] == told["python"] == "ok"


#: Settings (HERE is a folder with a file `junk`), the check that finds the fault, and what it says to do.
FAULTS = {
    "the home is a file": ({"ITEMFORGE_HOME": "HERE/junk"}, "home", "ITEMFORGE_HOME"),
    "the home cannot be made": ({"ITEMFORGE_HOME": "/proc/home"}, "home", "ITEMFORGE_HOME"),
    "no SQLite file": ({"DATABASE_URL": "sqlite:///HERE/junk"}, "database", "DATABASE_URL"),
    "no PostgreSQL": ({"DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/x"}, "database", "DATABASE_URL"),
    "another database": ({"DATABASE_URL": "mysql://u:s3cret@127.0.0.1/x"}, "database", "postgresql://"),
    "another store": ({"ITEMFORGE_STORAGE_URL": "s3://x"}, "storage", "gs://bucket/prefix"),
    "the store is a file": ({"ITEMFORGE_STORAGE_URL": "file://HERE/junk"}, "storage", "folder"),
    "no key": ({"GCS_BUCKET_NAME": "b", "GOOGLE_APPLICATION_CREDENTIALS": "HERE/no"}, "storage", "no file"),
    "a wrong key": (
        {"GCS_BUCKET_NAME": "b", "GOOGLE_APPLICATION_CREDENTIALS": "HERE/junk"}, "storage", "download it again",
    ),
    "no model": ({"ITEMFORGE_MODEL": "nothing"}, "model", "ITEMFORGE_MODEL"),
    "no certificate": ({"ITEMFORGE_CA_FILE": "HERE/no"}, "gateway", "ITEMFORGE_CA_FILE"),
    "no gateway of ours": ({}, "gateway", "API_GATEWAY_URL"),
}  # fmt: skip


@pytest.mark.usefixtures("restored_log", "gateway")
@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_the_settings_is_found_and_the_rest_is_looked_at_too(
    case: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, name, remedy = FAULTS[case]
    (tmp_path / "junk").write_text("{}")
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value.replace("HERE", str(tmp_path)))
    done = CliRunner().invoke(app.app, ["doctor"])
    assert done.exit_code == 1, done.output
    told = {line.split(":")[0][7:]: line for line in done.stdout.splitlines()}
    assert told[name].startswith("BROKEN") and remedy in told[name]
    assert {"python", "home", "model", "gateway", "database", "storage"} <= set(told)
    assert "s3cret" not in done.output
