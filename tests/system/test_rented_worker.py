"""A worker on a rented machine: no cloud credentials, a RabbitMQ user of its own, TLS to everything.

Processes as an operator starts them, with the starter model.
"""

import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from commands import Command, run
from PIL import Image

from itemforge.client import Client
from itemforge.contract import Status
from polling import wait_until
from services.rabbitmq import RabbitNode, Vhost
from services.signed_store import Account, SignedStore
from services.tls import Authority

ADMIN_KEY = "admin-key-0123456789abcdef"
SCRIPT = Path(__file__).parents[2] / "deploy/rabbitmq/worker_user.sh"


@pytest.fixture
def authority(rabbit_node: RabbitNode) -> Authority:
    """One private CA for broker and gateway, as a studio has it."""
    return rabbit_node.authority


@pytest.fixture
def bucket() -> Iterator[SignedStore]:
    store = SignedStore(Account())
    yield store
    store.close()


def _gateway(folder: Path, vhost: Vhost, **settings: str) -> Command:
    return Command(
        folder,
        "gateway",
        "--port",
        "0",
        ITEMFORGE_HOME=str(folder / "home"),
        ITEMFORGE_AMQP_URL=vhost.url,
        ITEMFORGE_ADMIN_KEY=ADMIN_KEY,
        **settings,
    )


def _worker(folder: Path, amqp: str, gateway: str, **settings: str) -> Command:
    return Command(
        folder,
        "worker",
        "--probe-port",
        "0",
        ITEMFORGE_HOME=str(folder / "home"),
        ITEMFORGE_AMQP_URL=amqp,
        API_GATEWAY_URL=gateway,
        ITEMFORGE_API_KEY=ADMIN_KEY,
        **settings,
    )


def _drawn(client: Client) -> str:
    """The id of a request that was completed."""
    request = client.submit("a red apple", num_inference_steps=2, seed="3")
    wait_until(lambda: client.get(request.id).status is Status.COMPLETED, 110, every=0.2)
    return request.id


def _loaded(worker: Command) -> str:
    """The libraries that the process has loaded."""
    return Path(f"/proc/{worker.process.pid}/maps").read_text()


@pytest.mark.timeout(300)
def test_a_picture_reaches_the_bucket_from_a_worker_without_credentials(
    tmp_path: Path, amqp_vhost: Vhost, bucket: SignedStore
) -> None:
    key_file = bucket.account.key_file(tmp_path / "key.json")
    gateway = _gateway(
        tmp_path / "gateway",
        amqp_vhost,
        GCS_BUCKET_NAME="items",
        STORAGE_EMULATOR_HOST=bucket.url,
        GOOGLE_APPLICATION_CREDENTIALS=str(key_file),
    )
    with gateway, Client(gateway.address(), ADMIN_KEY) as client:
        with _worker(tmp_path / "worker", amqp_vhost.url, gateway.address()) as worker:
            request_id = _drawn(client)
            assert "google_crc32c" in _loaded(gateway), "the gateway has Google's library, so it is seen"
            assert "google_crc32c" not in _loaded(worker)
            assert worker.end() == 0
        (image,) = client.get(request_id).images
        assert gateway.end() == 0
    body, content_type = bucket.objects[f"items/generated/{request_id}.png"]
    assert Image.open(BytesIO(body)).size == (64, 64) and content_type == "image/png"
    assert image.url == f"{bucket.url}/items/generated/{request_id}.png"
    assert not (tmp_path / "worker/home/objects/generated").exists()
    for command in (gateway, worker):
        assert "Signature" not in command.log.read_text()


@pytest.mark.timeout(300)
def test_a_worker_with_a_user_of_its_own_draws_over_tls_into_the_gateways_folder(
    tmp_path: Path, rabbit_node: RabbitNode, amqp_vhost: Vhost, authority: Authority
) -> None:
    env = rabbit_node.environment() | {
        "RABBITMQCTL": str(rabbit_node.rabbitmqctl),
        "RABBITMQ_VHOST": amqp_vhost.name,
    }
    made = subprocess.run([SCRIPT, "rented-1"], env=env, capture_output=True, text=True, timeout=100)
    assert made.returncode == 0, made.stderr
    user = f"rented-1:{made.stdout.strip()}"
    files = authority.issue("localhost", "127.0.0.1")
    trust = {"ITEMFORGE_CA_FILE": str(authority.ca_file)}
    gateway = _gateway(
        tmp_path / "gateway",
        amqp_vhost,
        ITEMFORGE_TLS_CERT_FILE=str(files.certificate),
        ITEMFORGE_TLS_KEY_FILE=str(files.key),
    )
    with gateway:
        address = gateway.address()
        assert address.startswith("https://")
        with Client(address, ADMIN_KEY, ca_file=authority.ca_file) as client:
            amqp = rabbit_node.tls_url(amqp_vhost.name, user=user)
            with _worker(tmp_path / "worker", amqp, address, **trust) as worker:
                request_id = _drawn(client)
                assert worker.end() == 0
            png = client.image(request_id)
        plain = run(tmp_path, "jobs", API_GATEWAY_URL=address, ITEMFORGE_API_KEY=ADMIN_KEY)
        assert plain.returncode != 0 and "ITEMFORGE_CA_FILE" in plain.stderr + plain.stdout
        trusted = run(tmp_path, "jobs", API_GATEWAY_URL=address, ITEMFORGE_API_KEY=ADMIN_KEY, **trust)
        assert trusted.returncode == 0 and request_id in trusted.stdout
        assert gateway.end() == 0
    stored = tmp_path / "gateway/home/objects/generated" / f"{request_id}.png"
    assert stored.read_bytes() == png and Image.open(BytesIO(png)).size == (64, 64)
    assert not (tmp_path / "worker/home/objects/generated").exists()
    assert user.partition(":")[2] not in worker.log.read_text()
    assert "signature=" not in worker.log.read_text() + gateway.log.read_text()


@pytest.mark.timeout(300)
def test_a_worker_without_the_ca_file_connects_to_nothing_and_says_why(
    tmp_path: Path, rabbit_node: RabbitNode, amqp_vhost: Vhost, authority: Authority
) -> None:
    files = authority.issue("localhost", "127.0.0.1")
    gateway = _gateway(
        tmp_path / "gateway",
        amqp_vhost,
        ITEMFORGE_TLS_CERT_FILE=str(files.certificate),
        ITEMFORGE_TLS_KEY_FILE=str(files.key),
    )
    with gateway:
        amqp = rabbit_node.tls_url(amqp_vhost.name)
        with _worker(tmp_path / "worker", amqp, gateway.address()) as worker:

            def told(event: str) -> list[str]:
                lines = [line for line in worker.log.read_text().splitlines() if event in line]
                return [line for line in lines if "set ITEMFORGE_CA_FILE" in line]

            for event in ("broker_unreachable", "gateway_not_found"):
                wait_until(lambda e=event: len(told(e)) >= 2, 110, every=0.2, why=f"{event}, twice")
            assert httpx.get(f"{worker.address()}/readyz").status_code == 503
            assert worker.end() == 0
        assert gateway.end() == 0


@pytest.mark.timeout(300)
def test_the_embedded_system_serves_https_whatever_name_its_certificate_has(
    tmp_path: Path, authority: Authority
) -> None:
    files = authority.issue("items.example")
    system = Command(
        tmp_path,
        "up",
        "--port",
        "0",
        "--home",
        str(tmp_path / "home"),
        ITEMFORGE_TLS_CERT_FILE=str(files.certificate),
        ITEMFORGE_TLS_KEY_FILE=str(files.key),
    )
    with system:
        address = system.address()
        with httpx.Client(base_url=address, verify=False) as http:
            submitted = http.post("/v1/generations", json={"prompt": "a key", "num_inference_steps": 2})
            request_id = submitted.json()["id"]
            wait_until(
                lambda: http.get(f"/v1/generations/{request_id}").json()["status"] == "Completed",
                110,
                every=0.2,
            )
        assert system.end() == 0


def test_wrong_tls_files_end_the_command_before_it_serves(tmp_path: Path, authority: Authority) -> None:
    one, other = authority.issue("a.example"), authority.issue("b.example")
    done = run(
        tmp_path,
        "up",
        "--port",
        "0",
        ITEMFORGE_HOME=str(tmp_path / "home"),
        ITEMFORGE_TLS_CERT_FILE=str(one.certificate),
        ITEMFORGE_TLS_KEY_FILE=str(other.key),
    )
    assert done.returncode == 64 and "ITEMFORGE_TLS_KEY_FILE" in done.stderr
    assert done.stdout == ""
