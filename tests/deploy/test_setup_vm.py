"""setup_vm.sh: what it says of drivers and machines, and all of it but the GPU for real in a Debian root."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from dockerfile import ROOT

from polling import wait_until
from services.chroot import Root, first_child
from services.process import Service, free_ports
from services.rabbitmq import Vhost

SCRIPT = ROOT / "deploy/vm/setup_vm.sh"
KEY = "admin-key-of-the-vm-test"


@dataclass(frozen=True)
class Card:
    name: str
    driver: str
    memory: int
    capability: str
    cuda: str


def dry_run(tmp_path: Path, card: Card | None, *options: str) -> str:
    """What --dry-run says on a machine with this card."""
    programs = tmp_path / "bin"
    programs.mkdir()
    if card is not None:
        smi = programs / "nvidia-smi"
        smi.write_text(
            f"""#!/bin/sh
case $* in
    *--query-gpu=*) echo '{card.name}, {card.driver}, {card.memory}, {card.capability}' ;;
    *) echo '| NVIDIA-SMI {card.driver}    Driver Version: {card.driver}    CUDA Version: {card.cuda}     |' ;;
esac
"""
        )
        smi.chmod(0o755)
    done = subprocess.run(
        ["bash", str(SCRIPT), "--dry-run", *options],
        capture_output=True,
        text=True,
        env={"PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "card, index",
    [
        (Card("NVIDIA GeForce RTX 3060", "580.95.05", 12288, "8.6", "13.0"), None),
        (Card("NVIDIA GeForce RTX 3060", "570.133.07", 12288, "8.6", "12.8"), "cu126"),
        (Card("NVIDIA L4", "525.60.13", 23034, "8.9", "12.0"), "cu126"),
    ],
)
def test_the_driver_decides_which_torch_is_installed(tmp_path: Path, card: Card, index: str | None) -> None:
    said = dry_run(tmp_path, card)
    (line,) = [line for line in said.splitlines() if "pip install" in line and "--requirement" in line]
    assert (f"https://download.pytorch.org/whl/{index}" in line) if index else ("--extra-index" not in line)
    assert "would stop" not in said and f"driver {card.driver}" in said


@pytest.mark.parametrize(
    "card, options, why",
    [
        (None, (), "no NVIDIA driver"),
        (Card("NVIDIA GeForce RTX 3060", "470.10", 12288, "8.6", "11.4"), (), "CUDA 11.8 is the least"),
        (Card("NVIDIA GeForce RTX 3060", "520.61.05", 12288, "8.6", "11.8"), (), "update it to 525"),
        (Card("Tesla T4", "580.95.05", 15360, "7.5", "13.0"), (), "--any-gpu"),
        (Card("NVIDIA GeForce RTX 3050", "580.95.05", 8192, "8.6", "13.0"), (), "--any-gpu"),
    ],
)
def test_a_machine_that_is_not_enough_is_told(
    tmp_path: Path, card: Card | None, options: tuple[str, ...], why: str
) -> None:
    stops = [line for line in dry_run(tmp_path, card, *options).splitlines() if "would stop" in line]
    assert any(why in line for line in stops), stops


def test_a_lesser_gpu_may_be_asked_for(tmp_path: Path) -> None:
    said = dry_run(tmp_path, Card("Tesla T4", "580.95.05", 15360, "7.5", "13.0"), "--any-gpu")
    assert "would stop" not in said


def test_docker_is_run_as_the_original_was(tmp_path: Path) -> None:
    settings = tmp_path / "worker.env"
    settings.write_text("API_GATEWAY_URL=https://items.example\nRABBITMQ_HOST=rabbit.example\n")
    card = Card("NVIDIA GeForce RTX 3060", "580.95.05", 12288, "8.6", "13.0")
    said = dry_run(tmp_path, card, "--docker", "--env", str(settings), "--image", "docker.io/me/worker:0.1.0")
    (line,) = [line for line in said.splitlines() if "docker run --detach" in line]
    words = shlex.split(line.removeprefix("  would run: "))
    for wanted in (
        ["--restart", "always"],
        ["--gpus", "all"],
        ["--log-driver", "json-file"],
        ["--log-opt", "max-size=50m"],
        ["--log-opt", "max-file=5"],
        ["--stop-timeout", "660"],
    ):
        assert any(words[n : n + 2] == wanted for n in range(len(words))), wanted
    assert "--env-file" in words and words[-1] == "docker.io/me/worker:0.1.0"
    assert "docker pull --quiet docker.io/me/worker:0.1.0" in said and "models pull tsuki" in said


@pytest.mark.parametrize("options", [["--dry"], ["--env"], ["--image", ""], ["--dry-run", "--style"]])
def test_unknown_options_are_refused(options: list[str]) -> None:
    done = subprocess.run(["bash", str(SCRIPT), *options], capture_output=True, text=True)
    assert done.returncode == 64 and "--dry-run" in done.stderr


def checkout(to: Path) -> None:
    """The project as git would give it out."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def _files_changed_since(machine: Root, stamp: str) -> list[str]:
    found = machine.run(["find", "/etc", "/opt", "/usr", "/var/lib/itemforge", "-newer", stamp, "-type", "f"])
    return [name for name in found.stdout.split() if "__pycache__" not in name and "/cache/" not in name]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_bare_machine_becomes_a_worker_that_draws(
    bookworm: Root, amqp_vhost: Vhost, postgres_url: str, gcs_emulator: str, gcs_bucket: str, tmp_path: Path
) -> None:
    machine = bookworm.copy(tmp_path / "machine")
    checkout(machine.path / "srv/itemforge")
    pip = machine.give_pip()
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "systemd"]):
        done = machine.run(command, quiet)  # what every rented machine has
        assert done.returncode == 0, done.stderr
    port, probes, exporter = free_ports(3)
    shared = {
        "ITEMFORGE_AMQP_URL": amqp_vhost.url,
        "ITEMFORGE_STORAGE_URL": f"gs://{gcs_bucket}",
        "STORAGE_EMULATOR_HOST": gcs_emulator,
    }
    own = {
        "DATABASE_URL": postgres_url,
        "ITEMFORGE_ADMIN_KEY": KEY,
        "ITEMFORGE_PORT": str(port),
    }
    gateway = Service(
        [sys.executable, "-m", "itemforge", "gateway"], tmp_path / "gateway.log", {**os.environ, **shared, **own}
    )  # fmt: skip
    worker = metrics = None
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, trust_env=False
        ) as http:
            gateway.wait_until(lambda: _answers(http), within=180)
            settings = shared | {
                "API_GATEWAY_URL": f"http://127.0.0.1:{port}",
                "ITEMFORGE_API_KEY": KEY,
                "ITEMFORGE_HOME": "/var/lib/itemforge",
                "ITEMFORGE_LOG_FORMAT": "json",
                "ITEMFORGE_THREADS": "1",
                "ITEMFORGE_WORKER_PORT": str(probes),
            }
            text = "# of the test\n" + "".join(f"{name}={value}\n" for name, value in settings.items())
            (machine.path / "srv/worker.env").write_text(text)
            script = ["bash", "/srv/itemforge/deploy/vm/setup_vm.sh", "--no-gpu", "--style", "none"]
            script += ["--env", "/srv/worker.env"]

            # --dry-run changes nothing.
            machine.run(["touch", "/srv/stamp"])
            planned = machine.run([*script, "--dry-run"], pip)
            assert planned.returncode == 0 and "would run" in planned.stdout, planned.stderr
            assert _files_changed_since(machine, "/srv/stamp") == []

            done = machine.run(script, pip | quiet)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
            assert "BROKEN" not in done.stdout and "ok     storage" in done.stdout
            assert (
                machine.path / "etc/systemd/system/multi-user.target.wants/itemforge-worker.service"
            ).is_symlink()
            secret = machine.run(["cat", "/etc/itemforge/worker.env"], user="65534:65534")
            assert secret.returncode != 0, "nobody else reads the settings"

            # Again: nothing to do.
            machine.run(["touch", "/srv/stamp"])
            again = machine.run(script, pip | quiet)
            assert again.returncode == 0 and "the worker is installed" in again.stdout, again.stderr
            assert "setup_vm: wrote" not in again.stdout
            changed = _files_changed_since(machine, "/srv/stamp")
            assert changed == [], changed

            # As systemd starts it by the unit: this user, these settings, this program, this log.
            worker = Service(_unit(machine, settings), tmp_path / "outside.log")
            log = machine.path / "var/log/itemforge/worker.log"
            worker.wait_until(lambda: _ready(probes), within=600)
            assert _draws(http)
            metrics = Service(
                machine.command(
                    ["/usr/bin/prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{exporter}"]
                ),
                tmp_path / "exporter.log",
            )
            metrics.wait_until(lambda: _serves(exporter), within=60)

            # The log is rotated under the running worker, which goes on writing into it.
            before = log.read_text()
            assert '"worker_ready"' in before
            rotated = machine.run(["logrotate", "--force", "/etc/logrotate.d/itemforge"])
            assert rotated.returncode == 0, rotated.stderr
            assert log.with_name("worker.log.1").read_text() == before
            inside = first_child(worker.pid)
            assert inside is not None
            os.kill(inside, signal.SIGTERM)
            wait_until(lambda: worker is not None and worker.returncode is not None, 120)
            assert worker.returncode == 0
            assert log.read_text().startswith("{") and '"worker_stopped"' in log.read_text()
    finally:
        for service in (worker, metrics, gateway):
            if service is not None:
                service.stop()
        shutil.rmtree(machine.path)


def _unit(machine: Root, settings: dict[str, str]) -> list[str]:
    """The unit's ExecStart as its user with its settings and its log, without systemd."""
    unit = (machine.path / "etc/systemd/system/itemforge-worker.service").read_text()
    values = dict(
        line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#")
    )
    assert values["EnvironmentFile"] == "/etc/itemforge/worker.env"
    passwd = (machine.path / "etc/passwd").read_text()
    (entry,) = [line.split(":") for line in passwd.splitlines() if line.startswith(f"{values['User']}:")]
    log = values["StandardOutput"].removeprefix("append:")
    command = ["sh", "-c", f"exec {values['ExecStart']} >>{log} 2>&1"]
    return machine.command(command, settings, f"{entry[2]}:{entry[3]}", values["WorkingDirectory"])


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").is_success
    except httpx.HTTPError:
        return False


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=10).is_success
    except httpx.HTTPError:
        return False


def _serves(port: int) -> bool:
    try:
        return "node_cpu_seconds_total" in httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    except httpx.HTTPError:
        return False


def _draws(http: httpx.Client) -> bool:
    made = http.post("/v1/generations", json={"prompt": "a red apple", "num_inference_steps": 4, "seed": "7"})
    assert made.status_code == 202, made.text
    place = f"/v1/generations/{made.json()['id']}"
    wait_until(lambda: http.get(place).json()["status"] == "Completed", 300)
    return http.get(f"{place}/image").content.startswith(b"\x89PNG")
