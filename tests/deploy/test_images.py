"""The images: every step of both Dockerfiles in a Debian root, then their entrypoints against real services."""

import html
import os
import re
import signal
from pathlib import Path

import httpx
import pytest
from dockerfile import ROOT, Stage, context, instructions, kept

from polling import wait_until
from services.chroot import first_child
from services.process import Service, free_ports
from services.rabbitmq import Vhost

ADMIN_KEY = "admin-key-of-the-images-test"
SECRETS = ("gcs-key.json", "gcs_key.json", ".env", "worker.env", "id_rsa")


def test_no_secret_and_nothing_unneeded_reaches_a_build_context(tmp_path: Path) -> None:
    source, files = tmp_path / "checkout", tmp_path / "context"
    planted = [
        *SECRETS,
        ".git/config",
        "tests/x.py",
        "src/itemforge/__pycache__/a.pyc",
        "deploy/vm/worker.env",
    ]
    wanted = [
        "pyproject.toml",
        "src/itemforge/cli/app.py",
        "starter/unet/config.json",
        "deploy/docker/ready.py",
    ]
    for name in [*planted, *wanted]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    (source / ".dockerignore").write_text((ROOT / ".dockerignore").read_text())
    context(source, files)
    found = sorted(str(f.relative_to(files)) for f in files.rglob("*") if f.is_file())
    assert found == sorted(wanted)


def test_dockerignore_reads_as_docker_reads_it() -> None:
    patterns = ["*", "!src", "**/*.pyc"]
    assert (
        kept("src/a/b.py", patterns) and not kept("src/a/b.pyc", patterns) and not kept("README.md", patterns)
    )


@pytest.mark.parametrize("name", ["worker", "gateway"])
def test_a_dockerfile_is_what_it_must_be(name: str) -> None:
    found = instructions((ROOT / f"deploy/docker/{name}.Dockerfile").read_text())
    froms = [rest.split()[0] for instruction, rest in found if instruction == "FROM"]
    assert len(froms) == 2, "several stages"
    assert all(":" in image and not image.endswith(":latest") for image in froms)
    last = found[max(i for i, (instruction, _) in enumerate(found) if instruction == "FROM") :]
    by_name = dict(last)
    assert by_name["USER"].split(":")[0] not in ("0", "root")
    assert "/readyz" in (ROOT / "deploy/docker/ready.py").read_text() and "ready.py" in by_name["HEALTHCHECK"]
    assert by_name["ENTRYPOINT"].startswith('["/usr/bin/tini"')
    assert not any(word in rest for _, rest in found for word in ("KEY=", "PASS=", "TOKEN=", "SECRET="))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_gateways_image_has_no_torch_and_nothing_that_its_user_may_change(gateway_image: Stage) -> None:
    root = gateway_image.root
    python = ["/opt/itemforge/bin/python", "-c"]
    done = root.run([*python, "import fastapi, itemforge.gateway.app"], gateway_image.env, gateway_image.user)
    assert done.returncode == 0, done.stderr
    done = root.run([*python, "import torch"], gateway_image.env, gateway_image.user)
    assert "No module named 'torch'" in done.stderr
    _nothing_to_change(gateway_image)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_workers_image_has_no_fastapi_and_nothing_that_its_user_may_change(worker_image: Stage) -> None:
    python = ["/opt/itemforge/bin/python", "-c"]
    done = worker_image.root.run([*python, "import torch, wandb"], worker_image.env, worker_image.user)
    assert done.returncode == 0, done.stderr
    done = worker_image.root.run([*python, "import fastapi"], worker_image.env, worker_image.user)
    assert "No module named 'fastapi'" in done.stderr
    _nothing_to_change(worker_image)
    for command in (["--version"], ["models", "pull", "--help"], ["doctor", "--help"]):
        said = worker_image.root.run(
            [*worker_image.entrypoint, *command], worker_image.env, worker_image.user, worker_image.workdir
        )
        assert said.returncode == 0, said.stderr


def _nothing_to_change(image: Stage) -> None:
    """Its user may write /app and the usual places for what is temporary, and no program."""
    done = image.root.run(
        ["find", "/", "-xdev", "-writable", "-not", "-type", "l", "-not", "-path", "/proc/*", "-not", "-path", "/dev/*"],
        image.env, image.user,
    )  # fmt: skip
    assert set(done.stdout.split()) == {"/app", "/tmp", "/var/tmp", "/run/lock"}, done.stdout
    whole = {path.name for path in image.root.path.rglob("*") if path.name in SECRETS}
    assert not whole


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_both_images_serve_a_prompt_tell_their_health_and_drain(
    gateway_image: Stage,
    worker_image: Stage,
    amqp_vhost: Vhost,
    postgres_url: str,
    gcs_emulator: str,
    gcs_bucket: str,
    tmp_path: Path,
) -> None:
    port, probes = free_ports(2)
    shared = {
        "ITEMFORGE_AMQP_URL": amqp_vhost.url,
        "ITEMFORGE_STORAGE_URL": f"gs://{gcs_bucket}",
        "STORAGE_EMULATOR_HOST": gcs_emulator,
    }
    gateway_env = shared | {
        "DATABASE_URL": postgres_url,
        "ITEMFORGE_ADMIN_KEY": ADMIN_KEY,
        "ITEMFORGE_PORT": str(port),
        "ITEMFORGE_HOST": "127.0.0.1",
    }
    worker_env = shared | {
        "API_GATEWAY_URL": f"http://127.0.0.1:{port}",
        "ITEMFORGE_API_KEY": ADMIN_KEY,
        "ITEMFORGE_WORKER_PORT": str(probes),
        "ITEMFORGE_THREADS": "1",
    }
    root = gateway_image.root
    upgrade = [*gateway_image.entrypoint, "db", "upgrade"]
    done = root.run(upgrade, gateway_image.env | gateway_env, gateway_image.user, gateway_image.workdir)
    assert done.returncode == 0, done.stderr
    assert not gateway_image.healthy(gateway_env), "nothing runs yet"
    gateway = Service(gateway_image.command(env=gateway_env), tmp_path / "gateway.log")
    worker = Service(worker_image.command(env=worker_env), tmp_path / "worker.log")
    try:
        gateway.wait_until(lambda: gateway_image.healthy(gateway_env), within=180)
        inside = first_child(worker.pid)
        assert inside is not None
        worker.wait_until(lambda: worker_image.healthy(worker_env), within=600)
        status = Path(f"/proc/{inside}/status").read_text()
        assert "Uid:\t1000\t1000" in status and "tini" in status
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": ADMIN_KEY}, trust_env=False
        ) as http:
            page = http.get("/enter").text
            files = re.findall(r'"(/studio/static/[^"]+)"', page)
            assert "<form" in page and any("studio.css" in file for file in files)
            assert all(http.get(html.unescape(file)).is_success for file in files)
            body = {"prompt": "a red apple", "num_inference_steps": 4, "seed": "7"}
            made = http.post("/v1/generations", json=body)
            assert made.status_code == 202, made.text
            place = f"/v1/generations/{made.json()['id']}"
            wait_until(lambda: http.get(place).json()["status"] == "Completed", 300)
            assert http.get(f"{place}/image").content.startswith(b"\x89PNG")
        os.kill(inside, getattr(signal, worker_image.stopsignal))
        wait_until(
            lambda: worker.returncode is not None, 120, why="SIGTERM to PID 1 drains and ends the worker"
        )
        assert worker.returncode == 0
        assert '"worker_stopped"' in (tmp_path / "worker.log").read_text()
    finally:
        worker.stop()
        gateway.stop()
