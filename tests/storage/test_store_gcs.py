"""Google Cloud Storage alone: retries, refusals, credentials."""

import gc
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from google.auth.exceptions import RefreshError, TransportError

from itemforge.errors import ConfigurationError, ObjectMissing, PermanentError, StorageUnavailable
from itemforge.settings import StorageSettings, load
from itemforge.storage.gcs import KEY_FILES, GcsStore, find_key_file, gcs_errors, open_gcs
from itemforge.storage.opening import open_store
from services.flaky import DROP_ANSWER, FORBID, REFUSE, FlakyProxy
from services.process import free_port


@pytest.fixture
def proxy(gcs_emulator: str) -> Iterator[FlakyProxy]:
    with FlakyProxy(gcs_emulator).running() as proxy:
        yield proxy


def store_at(address: str, bucket: str, timeout: float = 20.0) -> GcsStore:
    return open_gcs(load(StorageSettings, storage_emulator_host=address, storage_timeout=timeout), bucket, "")


async def test_an_upload_survives_two_refusals(proxy: FlakyProxy, gcs_bucket: str) -> None:
    store = store_at(proxy.url, gcs_bucket)
    proxy.faults = [REFUSE, REFUSE]
    assert await store.put("a.png", b"x", "image/png") is True
    assert len(proxy.requests) == 3
    assert all(request.startswith("POST /upload") for request in proxy.requests)
    assert await store.get("a.png") == b"x"


async def test_an_upload_whose_answer_was_lost_is_a_success(proxy: FlakyProxy, gcs_bucket: str) -> None:
    store = store_at(proxy.url, gcs_bucket)
    proxy.faults = [DROP_ANSWER]
    assert await store.put("a.png", b"x", "image/png") is False
    assert proxy.faults == []
    assert await store.get("a.png") == b"x"


# Google's client drops the answer of a refused download unread, and its socket with it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fault", [REFUSE, DROP_ANSWER])
async def test_every_other_call_is_retried_too(proxy: FlakyProxy, gcs_bucket: str, fault: str) -> None:
    store = store_at(proxy.url, gcs_bucket)
    proxy.faults = [fault]
    await store.replace("current", b"1", "text/plain")
    for call, answer in (
        (lambda: store.get("current"), b"1"),
        (lambda: store.exists("current"), True),
        (lambda: store.list(""), ["current"]),
        (lambda: store.delete("current"), None),
    ):
        proxy.faults = [fault]
        assert await call() == answer
        assert proxy.faults == []
    assert not await store.exists("current")
    gc.collect()  # here, where the dropped socket is expected


async def test_a_store_that_keeps_failing_is_unavailable_in_time(proxy: FlakyProxy, gcs_bucket: str) -> None:
    store = store_at(proxy.url, gcs_bucket, timeout=1.0)
    proxy.faults = [REFUSE] * 100
    with pytest.raises(StorageUnavailable, match="cannot be reached or failed"):
        await store.put("a.png", b"x", "image/png")
    assert len(proxy.requests) > 1


async def test_a_store_that_is_away_is_unavailable() -> None:
    store = store_at(f"http://127.0.0.1:{free_port()}", "bucket", timeout=0.5)
    with pytest.raises(StorageUnavailable):
        await store.get("a.png")


async def test_a_store_that_does_not_answer_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = store_at(f"http://127.0.0.1:{silent.getsockname()[1]}", "bucket", timeout=0.5)
        with pytest.raises(StorageUnavailable):
            await store.put("a.png", b"x", "image/png")


async def test_a_refusal_is_permanent_and_says_what_to_do(proxy: FlakyProxy, gcs_bucket: str) -> None:
    store = store_at(proxy.url, gcs_bucket)
    proxy.faults = [FORBID]
    with pytest.raises(PermanentError, match="Storage Object User"):
        await store.put("a.png", b"x", "image/png")
    assert len(proxy.requests) == 1, "a refusal is not retried"


async def test_a_missing_bucket_is_permanent_and_named(gcs_emulator: str) -> None:
    store = store_at(gcs_emulator, "no-such-bucket")
    with pytest.raises(PermanentError, match=r"no bucket 'no-such-bucket'.*GCS_BUCKET_NAME"):
        await store.put("a.png", b"x", "image/png")
    with pytest.raises(ObjectMissing):
        await store.get("a.png")


@pytest.mark.parametrize(
    ("error", "ours", "advice"),
    [
        (RefreshError("invalid_grant"), PermanentError, "new key"),
        (RefreshError("timeout", retryable=True), StorageUnavailable, "token service"),
        (TransportError("no route"), StorageUnavailable, "check the network"),
    ],
)
def test_errors_of_the_credentials_are_told_apart(
    error: Exception, ours: type[Exception], advice: str
) -> None:
    with pytest.raises(ours, match=advice), gcs_errors("bucket"):
        raise error


async def test_metadata_and_content_type_reach_the_bucket(gcs_emulator: str, gcs_bucket: str) -> None:
    store = store_at(gcs_emulator, gcs_bucket)
    await store.put("a.png", b"x", "image/png", {"attempt": "3"})
    async with httpx.AsyncClient(trust_env=False) as http:
        found = (await http.get(f"{gcs_emulator}/storage/v1/b/{gcs_bucket}/o/a.png")).json()
    assert (found["contentType"], found["metadata"]) == ("image/png", {"attempt": "3"})


async def test_an_object_under_a_prefix_lies_there_in_the_bucket(gcs_emulator: str, gcs_bucket: str) -> None:
    settings = load(
        StorageSettings, storage_url_setting=f"gs://{gcs_bucket}/team/a/", storage_emulator_host=gcs_emulator
    )
    assert await open_store(settings).put("generated/1.png", b"x", "image/png")
    assert await store_at(gcs_emulator, gcs_bucket).list("") == ["team/a/generated/1.png"]


def key_file(path: Path, email: str = "worker@project.iam.gserviceaccount.com") -> Path:
    """A service-account key with a private key made here."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fields = {
        "type": "service_account",
        "project_id": "the-project",
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": email,
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("name", KEY_FILES)
@pytest.mark.parametrize("place", ["here", "home"])
def test_the_key_file_is_found_under_both_names_here_and_at_home(
    tmp_path: Path, name: str, place: str
) -> None:
    folder = tmp_path if place == "here" else tmp_path / "at-home"
    path = key_file(folder / name)
    settings = load(StorageSettings, gcs_bucket_name="b", home=tmp_path / "at-home")
    assert find_key_file(settings) == path
    store = open_store(settings)
    assert isinstance(store, GcsStore)
    assert store._client._credentials.service_account_email == "worker@project.iam.gserviceaccount.com"
    assert store._client.project == "the-project"
    assert store.public_url("generated/ä.png") == "https://storage.googleapis.com/b/generated/%C3%A4.png"


def test_a_key_that_is_named_wins(tmp_path: Path) -> None:
    key_file(tmp_path / "gcs-key.json")
    named = key_file(tmp_path / "elsewhere/key.json", "named@project.iam.gserviceaccount.com")
    settings = load(StorageSettings, gcs_bucket_name="b", google_application_credentials=named)
    store = open_store(settings)
    assert isinstance(store, GcsStore)
    assert store._client._credentials.service_account_email == "named@project.iam.gserviceaccount.com"


def test_a_named_key_that_is_missing_is_a_clear_error(tmp_path: Path) -> None:
    key_file(tmp_path / "gcs-key.json")
    settings = load(
        StorageSettings, gcs_bucket_name="b", google_application_credentials=tmp_path / "none.json"
    )
    with pytest.raises(ConfigurationError, match=r"none\.json"):
        open_store(settings)


@pytest.mark.parametrize("content", ["", "{}", '{"type": "service_account", "private_key": "s3cret"}', "[1]"])
def test_a_broken_key_is_a_clear_error_that_does_not_quote_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "gcs_key.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"gcs_key\.json is no readable") as raised:
        open_store(load(StorageSettings, gcs_bucket_name="b"))
    assert "s3cret" not in str(raised.value) and raised.value.__cause__ is None


def test_with_a_key_or_an_emulator_nobody_asks_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probed(*_: object, **__: object) -> None:
        raise AssertionError("looked for the machine's own credentials")

    monkeypatch.setattr("google.auth.default", probed)
    monkeypatch.setattr(socket.socket, "connect", probed)
    open_gcs(load(StorageSettings, storage_emulator_host="127.0.0.1:9"), "b", "")
    key_file(tmp_path / "gcs-key.json")
    open_gcs(load(StorageSettings), "b", "")
