"""Uploads signed for others: by a service account's key, by Google's IAM service, by a folder's secret.

The bucket is a store that verifies V4 signatures, expiry, content type and the generation header.
"""

import base64
import json
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import TransportError
from google.cloud.storage import Client

from itemforge.errors import ConfigurationError, PermanentError, StorageUnavailable
from itemforge.settings import StorageSettings, load
from itemforge.storage.face import SignedPut
from itemforge.storage.folder import FolderStore
from itemforge.storage.gcs import GcsStore, open_gcs
from itemforge.storage.signing import UploadSigner, folder_secret
from services.signed_store import EMAIL, Account, SignedStore

KEY = "generated/ä b/0.png"
PNG = b"\x89PNG\r\n\x1a\n a picture"


@pytest.fixture(scope="module")
def account() -> Account:
    return Account()


@pytest.fixture
def bucket(account: Account) -> Iterator[SignedStore]:
    store = SignedStore(account)
    yield store
    store.close()


@pytest.fixture
def store(bucket: SignedStore, account: Account, tmp_path: Path) -> GcsStore:
    settings = load(
        StorageSettings,
        storage_emulator_host=bucket.url,
        google_application_credentials=account.key_file(tmp_path / "key.json"),
    )
    return open_gcs(settings, "items", "team a/")


async def sign(store: GcsStore, seconds: int = 900, max_bytes: int = 1000) -> SignedPut:
    return await store.sign_put(KEY, "image/png", seconds, max_bytes)


def put(signed: SignedPut, body: bytes = PNG, method: str = "PUT", **changed: str | None) -> httpx.Response:
    """Send it as a worker does; `changed` headers are replaced, or left out where they are None."""
    headers = {name: value for name, value in signed.headers.items() if name.lower() not in changed}
    headers |= {name: value for name, value in changed.items() if value is not None}
    return httpx.request(method, signed.url, content=body, headers=headers, trust_env=False)


async def test_a_signed_upload_creates_the_object_and_a_second_one_finds_it_there(
    store: GcsStore, bucket: SignedStore
) -> None:
    signed = await sign(store)
    assert put(signed).status_code == 200
    assert bucket.objects == {f"items/team a/{KEY}": (PNG, "image/png")}
    assert put(signed, b"other bytes").status_code == 412
    assert put(await sign(store), b"other bytes").status_code == 412
    assert bucket.objects[f"items/team a/{KEY}"][0] == PNG


async def test_a_signed_upload_permits_nothing_else(store: GcsStore, bucket: SignedStore) -> None:
    signed = await sign(store)
    swapped = signed.url[:-1] + ("0" if signed.url[-1] != "0" else "1")
    longer = signed.url.replace("X-Goog-Expires=900", "X-Goog-Expires=90000")
    assert longer != signed.url
    refused = {
        "another method": put(signed, method="POST"),
        "another key": put(SignedPut(signed.url.replace("0.png", "1.png"), signed.headers)),
        "another signature": put(SignedPut(swapped, signed.headers)),
        "a longer life": put(SignedPut(longer, signed.headers)),
        "another content type": put(signed, **{"content-type": "text/html"}),
        "another generation": put(signed, **{"x-goog-if-generation-match": "1"}),
        "no generation": put(signed, **{"x-goog-if-generation-match": None}),
        "another limit": put(signed, **{"x-goog-content-length-range": "0,999999"}),
        "a public object": put(signed, **{"x-goog-acl": "public-read"}),
        "too many bytes": put(signed, b"x" * 1001),
    }
    assert all(answer.status_code in (400, 403) for answer in refused.values()), refused
    assert bucket.objects == {}
    assert put(signed, b"x" * 1000).status_code == 200, "and what is permitted still is"


async def test_a_signed_upload_expires(store: GcsStore, bucket: SignedStore) -> None:
    signed = await sign(store, seconds=60)
    bucket.later = timedelta(seconds=62)
    answer = put(signed)
    assert (answer.status_code, bucket.refusals) == (400, ["ExpiredToken"])


def test_the_address_is_a_secret_that_no_repr_shows() -> None:
    assert "s3cret" not in repr(SignedPut("https://store.example/x?X-Goog-Signature=s3cret", {}))


class MachineCredentials(Credentials):
    """As a virtual machine's: a token and an account's name, known after the first refresh, and no key."""

    def __init__(self) -> None:
        super().__init__()
        self.service_account_email = "default"

    def refresh(self, request: object) -> None:
        self.token = "token-of-the-machine"
        self.service_account_email = EMAIL


def store_of(bucket: SignedStore, credentials: Credentials) -> GcsStore:
    client = Client("project", AnonymousCredentials(), client_options={"api_endpoint": bucket.url})
    return GcsStore(client, "items", "", bucket.url, 5.0, credentials)


def iam_answers(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    """Put our own IAM service in the place of Google's; gives the calls that it gets."""
    calls: list[dict[str, Any]] = []

    def call(**request: Any) -> Any:
        calls.append(request)
        return answer(request)

    monkeypatch.setattr("google.cloud.storage._signing.requests.Request", lambda: call)
    return calls


async def test_credentials_without_a_key_have_googles_iam_service_sign(
    bucket: SignedStore, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signed_blob(request: dict[str, Any]) -> Any:
        payload = base64.b64decode(json.loads(request["body"])["payload"])
        blob = base64.b64encode(account.sign(payload)).decode()
        return SimpleNamespace(status=200, data=json.dumps({"signedBlob": blob}).encode())

    calls = iam_answers(monkeypatch, signed_blob)
    signed = await sign(store_of(bucket, MachineCredentials()))
    assert put(signed).status_code == 200
    assert f"serviceAccounts/{EMAIL}:signBlob" in calls[0]["url"]
    assert calls[0]["headers"]["Authorization"] == "Bearer token-of-the-machine"


async def test_an_account_that_may_not_sign_is_told_which_role_it_lacks(
    bucket: SignedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = b'{"error": {"code": 403, "status": "PERMISSION_DENIED"}}'
    iam_answers(monkeypatch, lambda _: SimpleNamespace(status=403, data=denied))
    with pytest.raises(ConfigurationError, match="Service Account Token Creator"):
        await sign(store_of(bucket, MachineCredentials()))


async def test_an_iam_service_that_is_away_is_retryable(
    bucket: SignedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> Any:
        raise TransportError("no route")

    monkeypatch.setattr("google.cloud.storage._signing.DEFAULT_RETRY", lambda call: call)
    iam_answers(monkeypatch, away)
    with pytest.raises(StorageUnavailable):
        await sign(store_of(bucket, MachineCredentials()))


async def test_credentials_that_cannot_sign_at_all_are_a_clear_error(bucket: SignedStore) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot sign.*gcs-key\.json"):
        await sign(store_of(bucket, AnonymousCredentials()))


# ── The folder ──────────────────────────────────────────────────────────────────────────────────


def test_a_folder_s_secret_is_made_once_and_readable_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "objects/.itemforge/upload-secret"
    secret = folder_secret(path)
    assert len(secret) == 32 and folder_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["upload-secret"], "and no part of it is left"


async def test_two_gateways_on_one_folder_accept_each_other_s_signatures(tmp_path: Path) -> None:
    one, other = FolderStore(tmp_path), FolderStore(tmp_path)
    signed = await one.sign_put("a.png", "image/png", 60, 1000)
    query = httpx.URL(signed.url).params
    headers = {name.lower(): value for name, value in signed.headers.items()}
    allowed = (await other.signer()).allows("a.png", int(query["expires"]), query["signature"], headers)
    assert allowed
    assert await one.list("") == [], "the secret is no object"


async def test_a_broken_secret_is_a_clear_error(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / ".itemforge/upload-secret").write_bytes(b"short")
    with pytest.raises(StorageUnavailable, match="delete it"):
        await store.sign_put("a.png", "image/png", 60, 1000)


def test_only_objects_keys_are_signed() -> None:
    with pytest.raises(PermanentError, match="cannot be an object's key"):
        UploadSigner(b"x" * 32).sign("../itemforge.db", "image/png", 60)


def test_no_two_uploads_share_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    signer = UploadSigner(b"x" * 32)
    signatures = {
        httpx.URL(signer.sign(key, kind, seconds).url).params["signature"]
        for key in ("a/1", "a/11")
        for kind in ("image/png", "image/pn")
        for seconds in (1, 11)
    }
    assert len(signatures) == 8
