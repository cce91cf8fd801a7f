"""Signed uploads in the worker: pictures reach the store by the addresses that claims bring.

The store verifies V4 signatures; the gateway signs with Google's own library and a real key.
"""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fake_engine import pixels_of
from PIL import Image
from structlog.testing import capture_logs
from worker_system import System

from gateways import ClaimingGateway
from itemforge.cli.serve import _embedded_worker
from itemforge.contract import object_key
from itemforge.errors import ConfigurationError, StorageUnavailable
from itemforge.settings import GatewaySettings, StorageSettings, load
from itemforge.storage.gcs import GcsStore, open_gcs
from itemforge.telemetry.logs import Redactor
from itemforge.worker.engine_process import EngineProcess
from polling import eventually
from services.signed_store import Account, SignedStore


class SigningGateway(ClaimingGateway):
    """Claims with signed uploads. `asked` are the bodies of claims; `over` ends every attempt at renewal."""

    def __init__(self, signer: GcsStore) -> None:
        self._signer = signer
        self.asked: list[dict[str, Any]] = []
        self.renewals = 0
        self.lasts = 900
        self.empty = False
        self.over = False
        self.elsewhere: str | None = None
        super().__init__()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/worker/uploads":
            self.renewals += 1
            return (409, {"detail": "over"}) if self.over else (200, self._sign(body["request_id"]))
        code, answers = super().answer(method, path, body)
        if path == "/v1/worker/claims":
            self.asked.append(body)
            for claim in answers:
                if body.get("uploads") and claim["outcome"] == "claimed":
                    claim["uploads"] = [] if self.empty else self._sign(claim["request_id"])
        return code, answers

    def _sign(self, request_id: str) -> list[dict[str, Any]]:
        count = (self.rows[request_id].params or {}).get("num_images", 1)
        return [self._upload(n, object_key(request_id, n, count)) for n in range(count)]  # type: ignore[arg-type]

    def _upload(self, n: int, key: str) -> dict[str, Any]:
        signed = asyncio.run(self._signer.sign_put(key, "image/png", self.lasts, 10**6))
        return {
            "n": n, "url": self.elsewhere or signed.url, "headers": dict(signed.headers), "bucket": "items", "key": key,
            "public_url": f"https://public.example/{key}", "expires_in_s": self.lasts,
        }  # fmt: skip


@pytest.fixture(scope="module")
def account() -> Account:
    return Account()


@pytest.fixture
def bucket(account: Account) -> Iterator[SignedStore]:
    store = SignedStore(account)
    yield store
    store.close()


@pytest.fixture
def gateway(bucket: SignedStore, account: Account, tmp_path: Path) -> Iterator[SigningGateway]:
    settings = load(
        StorageSettings,
        storage_emulator_host=bucket.url,
        google_application_credentials=account.key_file(tmp_path / "key.json"),
    )
    gateway = SigningGateway(open_gcs(settings, "items", ""))
    yield gateway
    gateway.close()


@pytest.fixture
def system(gateway: SigningGateway, tmp_path: Path) -> System:
    return System(tmp_path / "home", gateway)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Row ids that the engine was given."""
    rows: list[str] = []
    submit = EngineProcess.submit

    def counted(engine: EngineProcess, row: Any) -> None:
        rows.append(row.row_id)
        submit(engine, row)

    monkeypatch.setattr(EngineProcess, "submit", counted)
    return rows


async def test_a_picture_is_uploaded_by_its_signed_address_and_reported_by_it(
    system: System, gateway: SigningGateway, bucket: SignedStore
) -> None:
    request_id = gateway.add()
    async with system.run(api_key="k3y-of-the-worker"):
        await system.send(request_id, seed=7)
        await system.ended(request_id, "Completed")
        await system.quiet()
    key = f"generated/{request_id}.png"
    body, content_type = bucket.objects[f"items/{key}"]
    assert content_type == "image/png"
    assert Image.open(BytesIO(body)).getpixel((0, 0)) == tuple(pixels_of(7)[0, 0])
    (image,) = gateway.rows[request_id].images
    assert (image["bucket"], image["key"], image["url"]) == ("items", key, f"https://public.example/{key}")
    ((_, headers),) = bucket.puts
    assert "authorization" not in headers, "the gateway's key goes to the gateway alone"
    assert system.store.puts == 0 and gateway.renewals == 0


async def test_every_image_has_its_own_upload(
    system: System, gateway: SigningGateway, bucket: SignedStore
) -> None:
    request_id = gateway.add({"prompt": "two", "num_images": 2, "num_inference_steps": 3, "seed": 1})
    async with system.run():
        await system.send(request_id, num_images=2)
        await system.ended(request_id, "Completed")
    assert sorted(bucket.objects) == [f"items/generated/{request_id}/{n}.png" for n in (0, 1)]


async def test_expired_addresses_are_renewed_and_nothing_is_drawn_again(
    system: System, gateway: SigningGateway, bucket: SignedStore, drawn: list[str]
) -> None:
    bucket.later, gateway.lasts = timedelta(hours=1), 60
    request_id = gateway.add()
    async with system.run():
        await system.send(request_id)
        await eventually(lambda: len(bucket.refusals) >= 4)
        assert set(bucket.refusals) == {"ExpiredToken"}
        assert len(bucket.puts) - gateway.renewals in (0, 1, 2), "one renewal for each try, and no more"
        gateway.lasts = 7200
        await system.ended(request_id, "Completed")
        await system.quiet()
    assert len(drawn) == 1 and gateway.rows[request_id].attempt == 1


async def test_a_claim_whose_uploads_could_not_be_signed_asks_for_them_later(
    system: System, gateway: SigningGateway, bucket: SignedStore
) -> None:
    gateway.empty = True
    request_id = gateway.add()
    async with system.run():
        await system.send(request_id)
        await system.ended(request_id, "Completed")
    assert gateway.renewals == 1 and system.store.puts == 0


async def test_an_object_that_is_there_already_is_a_success(
    system: System, gateway: SigningGateway, bucket: SignedStore
) -> None:
    request_id = gateway.add()
    name = f"items/generated/{request_id}.png"
    bucket.objects[name] = b"of an earlier attempt", "image/png"
    async with system.run():
        await system.send(request_id)
        await system.ended(request_id, "Completed")
    assert bucket.refusals == ["PreconditionFailed"]
    assert bucket.objects[name][0] == b"of an earlier attempt"


async def test_an_upload_whose_answer_was_lost_is_a_success(
    system: System, gateway: SigningGateway, bucket: SignedStore, drawn: list[str]
) -> None:
    bucket.lost_answers = 1
    request_id = gateway.add()
    async with system.run():
        await system.send(request_id)
        await system.ended(request_id, "Completed")
    assert bucket.refusals == ["PreconditionFailed"] and len(drawn) == 1


async def test_a_store_that_never_answers_is_away(
    system: System, gateway: SigningGateway, drawn: list[str]
) -> None:
    request_id = gateway.add()
    with socket.create_server(("127.0.0.1", 0)) as silent, capture_logs() as lines:
        gateway.elsewhere = f"http://127.0.0.1:{silent.getsockname()[1]}/x?X-Goog-Signature=c0ffee"
        async with system.run(storage_timeout=0.2, spool_time=0.5):
            await system.send(request_id)
            await eventually(lambda: "Released" in gateway.rows[request_id].history)
            gateway.elsewhere = None
            await system.ended(request_id, "Completed")
    failure = next(e for e in lines if e["event"] == "infrastructure_failure")
    assert isinstance(failure["error"], StorageUnavailable) and "c0ffee" not in str(lines)
    assert len(drawn) == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_a_store_that_is_away_costs_no_drawing_and_the_worker_resumes_without_asking_it(
    system: System, gateway: SigningGateway, bucket: SignedStore, drawn: list[str], status: int
) -> None:
    bucket.faults = [status] * 5  # more than open the breaker
    first, second = gateway.add(), gateway.add()
    async with system.run():
        with capture_logs() as lines:
            await system.send(first)
            await system.ended(first, "Completed")
            await eventually(lambda: [e for e in lines if e["event"] == "consuming_resumed"])
        assert [e for e in lines if e["event"] == "consuming_stopped"]
        await system.send(second)
        await system.ended(second, "Completed")
        await system.quiet()
    assert len(drawn) == 2 and gateway.rows[first].attempt == 1
    assert system.store.puts == 0


async def test_an_upload_that_stays_refused_waits_and_goes_back_with_its_picture_in_the_spool(
    system: System, gateway: SigningGateway, bucket: SignedStore, drawn: list[str]
) -> None:
    bucket.faults = [403] * 10_000
    request_id = gateway.add()
    with capture_logs() as lines:
        async with system.run(spool_time=0.5):
            await system.send(request_id)
            await eventually(lambda: "Released" in gateway.rows[request_id].history)
            bucket.faults.clear()
            await system.ended(request_id, "Completed")
            await system.quiet()
    assert len(drawn) == 1, "the second attempt took the picture from the spool"
    failure = next(e for e in lines if e["event"] == "infrastructure_failure")
    assert "service account may create objects" in str(failure["error"])
    assert "Signature=" not in str(lines) and "X-Goog-" not in str(lines)


async def test_an_attempt_that_is_over_is_dropped_at_its_renewal(
    system: System, gateway: SigningGateway, bucket: SignedStore
) -> None:
    bucket.later, gateway.over = timedelta(hours=1), True
    request_id = gateway.add({"prompt": "two", "num_images": 2, "num_inference_steps": 3, "seed": 1})
    async with system.run():
        await system.send(request_id, num_images=2)
        await eventually(lambda: gateway.renewals)
        await system.quiet()
    assert gateway.rows[request_id].history == ["Processing"], "nothing was reported"
    assert bucket.objects == {}


async def test_auto_is_direct_where_storage_is_set(system: System, gateway: SigningGateway) -> None:
    request_id = gateway.add()
    async with system.run(gcs_bucket_name="own-bucket"):
        await system.send(request_id)
        await system.ended(request_id, "Completed")
    assert system.store.puts == 1
    assert not any("uploads" in body for body in gateway.asked), "the claim is as version 0.1 made it"


async def test_signed_wins_over_storage_that_is_set(system: System, gateway: SigningGateway) -> None:
    request_id = gateway.add()
    async with system.run(gcs_bucket_name="own-bucket", uploads="signed"):
        await system.send(request_id)
        await system.ended(request_id, "Completed")
    assert system.store.puts == 0


async def test_auto_falls_back_to_its_own_folder_at_a_gateway_that_signs_nothing(claims: System) -> None:
    request_id = claims.gateway.add()
    async with claims.run():
        await claims.send(request_id)
        await claims.ended(request_id, "Completed")
    assert claims.store.puts == 1


async def test_signed_never_falls_back(claims: System) -> None:
    request_id = claims.gateway.add()
    async with claims.run(uploads="signed"):
        await claims.send(request_id)
        await eventually(lambda: claims.gateway.calls.count("POST /v1/worker/uploads") > 2)
    assert claims.store.puts == 0
    assert claims.gateway.rows[request_id].history == ["Processing", "Released"]


async def test_signed_uploads_need_a_gateway_with_claims(seed: System) -> None:
    worker = seed.worker(uploads="signed")
    with pytest.raises(ConfigurationError, match="ITEMFORGE_UPLOADS"):
        await asyncio.wait_for(worker.run(), 60)
    await seed.broker.close()


def test_the_embedded_worker_shares_its_gateways_folder(tmp_path: Path) -> None:
    assert _embedded_worker(GatewaySettings(home=tmp_path), 8000, "key").uploads == "direct"


@pytest.mark.parametrize(
    "url",
    [
        "https://storage.googleapis.com/b/k?X-Goog-Credential=c0ffee%2Fx&X-Goog-Signature=c0ffee&x=1",
        "http://gateway/v1/uploads/generated/1.png?expires=12&signature=c0ffee",
    ],
)
def test_the_log_shows_no_signature(url: str) -> None:
    line = Redactor([])(f'PUT {url} failed, {{"url": "{url}"}}')
    assert "c0ffee" not in line and line.startswith(f"PUT {url.partition('?')[0]}")


def test_a_worker_with_signed_uploads_loads_nothing_of_googles(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
import itemforge.cli.app, itemforge.broker.rabbitmq, itemforge.worker.service, itemforge.worker.uploads
from itemforge.settings import WorkerSettings, load
from itemforge.storage.opening import open_store
open_store(load(WorkerSettings, home=Path(sys.argv[1])))
print([name for name in sys.modules if name.split(".")[0] in ("google", "google_crc32c", "requests")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
