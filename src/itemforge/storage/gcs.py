"""Google Cloud Storage, by Google's own client in threads (it is synchronous).

Objects are created with `if_generation_match=0`. That makes a repeated upload harmless, so the client may
retry it by itself: when an answer was lost on the way, the second try hears 412, which means that the
object is there.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import google.auth
from google.api_core.exceptions import (
    ClientError,
    Forbidden,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    RetryError,
    TooManyRequests,
    Unauthorized,
)
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2.service_account import Credentials as ServiceAccount
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from itemforge.errors import ConfigurationError, ObjectMissing, PermanentError, StorageUnavailable
from itemforge.settings import StorageSettings
from itemforge.storage.face import GENERATION_HEADER, SignedPut
from itemforge.storage.gcs_signing import SIGNING_SCOPE, signature_by, signing_errors
from itemforge.storage.keys import check_key

#: Both spellings are in use by operators of the existing services.
KEY_FILES = ("gcs-key.json", "gcs_key.json")
_PUBLIC = "https://storage.googleapis.com"
_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)


class GcsStore:
    """`storage.face.ObjectStore` in one bucket, under `prefix` (empty, or it ends with a slash)."""

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str,
        public_url: str,
        timeout: float,
        signing: Credentials | None = None,
    ) -> None:
        """`signing` signs uploads, where that is not the client's own credentials."""
        self._client = client
        self._signing = signing or client._credentials
        # It asks for the bucket's properties behind our back, to put them on traces that we do not make.
        client._bucket_metadata_cache = None
        self._bucket = client.bucket(bucket)
        self._prefix = prefix
        self._public = public_url.rstrip("/")
        # One try may take a part of the time only, so that a hanging one can be tried again.
        retry = DEFAULT_RETRY.with_delay(initial=0.25, maximum=8.0).with_timeout(timeout)
        self._limits = {"timeout": max(timeout / 3, 0.1), "retry": retry}

    @property
    def bucket(self) -> str:
        return str(self._bucket.name)

    def public_url(self, key: str) -> str:
        return f"{self._public}/{quote(check_key(key))}"

    async def put(
        self, key: str, data: bytes, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> bool:
        def upload() -> bool:
            blob = self._blob(key)
            blob.metadata = dict(metadata or {})
            try:
                blob.upload_from_string(data, content_type, if_generation_match=0, **self._limits)
            except PreconditionFailed:
                return False
            return True

        return await asyncio.to_thread(self._mapped, upload)

    async def replace(self, key: str, data: bytes, content_type: str) -> None:
        def upload() -> None:
            blob = self._blob(key)
            blob.cache_control = "no-cache"  # public objects are cached for an hour otherwise
            blob.upload_from_string(data, content_type, **self._limits)

        await asyncio.to_thread(self._mapped, upload)

    async def get(self, key: str) -> bytes:
        def download() -> bytes:
            try:
                return bytes(self._blob(key).download_as_bytes(**self._limits))
            except NotFound:
                raise ObjectMissing(f"there is no object {key!r} in the bucket {self.bucket!r}") from None

        return await asyncio.to_thread(self._mapped, download)

    async def exists(self, key: str) -> bool:
        return bool(await asyncio.to_thread(self._mapped, lambda: self._blob(key).exists(**self._limits)))

    async def delete(self, key: str) -> None:
        def delete() -> None:
            try:
                self._blob(key).delete(**self._limits)
            except NotFound:
                return

        await asyncio.to_thread(self._mapped, delete)

    async def list(self, prefix: str) -> list[str]:
        def names() -> list[str]:
            found = self._client.list_blobs(
                self._bucket,
                prefix=self._prefix + prefix,
                fields="items(name),nextPageToken",
                **self._limits,
            )
            return sorted(blob.name.removeprefix(self._prefix) for blob in found)

        return list(await asyncio.to_thread(self._mapped, names))

    async def sign_put(self, key: str, content_type: str, seconds: int, max_bytes: int) -> SignedPut:
        headers = {GENERATION_HEADER: "0", "x-goog-content-length-range": f"0,{max_bytes}"}

        def sign() -> SignedPut:
            url = self._blob(key).generate_signed_url(
                version="v4",
                method="PUT",
                expiration=timedelta(seconds=seconds),
                content_type=content_type,
                headers=dict(headers),  # it adds to what it is given
                **signature_by(self._signing),
            )
            return SignedPut(url, {"Content-Type": content_type, **headers})

        with signing_errors():
            return await asyncio.to_thread(self._mapped, sign)

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._prefix + check_key(key))

    def _mapped(self, call: Any) -> Any:
        with gcs_errors(self.bucket):
            return call()


@contextmanager
def gcs_errors(bucket: str) -> Iterator[None]:
    """The border where Google's errors become ours.

    Raises:
        StorageUnavailable: not reached, or 429 or 5xx after the client's own retries.
        PermanentError: refused; the text says what to do.
    """
    try:
        yield
    except NotFound as error:
        raise PermanentError(
            f"there is no bucket {bucket!r}; make it, or correct GCS_BUCKET_NAME or ITEMFORGE_STORAGE_URL"
        ) from error
    except (Forbidden, Unauthorized) as error:
        raise PermanentError(
            f"Google refused access to the bucket {bucket!r} ({error.code}); give the service account "
            "the role Storage Object User on it, and check that its key is not revoked"
        ) from error
    except TooManyRequests as error:
        raise StorageUnavailable(f"Google Cloud Storage asks for fewer calls: {error.message}") from error
    except ClientError as error:
        raise PermanentError(f"Google Cloud Storage refused ({error.code}): {error.message}") from error
    except RefreshError as error:
        if error.retryable:
            raise StorageUnavailable("Google's token service does not answer; trying again helps") from error
        raise PermanentError(
            "Google does not accept these credentials; make a new key for the service account"
        ) from error
    except (GoogleAPICallError, RetryError, GoogleAuthError, RequestException, HTTPError, OSError) as error:
        raise StorageUnavailable(
            f"Google Cloud Storage cannot be reached or failed ({type(error).__name__}); "
            "check the network and status.cloud.google.com"
        ) from error


def open_gcs(settings: StorageSettings, bucket: str, prefix: str) -> GcsStore:
    """The store with the credentials that the settings lead to; nothing is asked over the network yet.

    Raises:
        ConfigurationError: no credentials, or a key file that is none.
    """
    emulator = settings.storage_emulator_host
    if emulator is not None:
        address = emulator if "://" in emulator else f"http://{emulator}"
        # An explicit endpoint and no credentials: nothing may be looked for on this machine.
        client = Client("emulator", AnonymousCredentials(), client_options={"api_endpoint": address})
        store = f"{address.rstrip('/')}/{bucket}"
        named = settings.google_application_credentials is not None
        signing = _credentials(settings)[0] if named else None
    else:
        credentials, project = _credentials(settings)
        signing = None
        client = Client(project or "none", credentials)
        store = f"{_PUBLIC}/{bucket}"
    public = settings.storage_public_url or f"{store}/{quote(prefix)}"
    return GcsStore(client, bucket, prefix, public, settings.storage_timeout, signing)


def find_key_file(settings: StorageSettings) -> Path | None:
    """The service-account key: the one set, else one in the working directory, else one at home.

    Raises:
        ConfigurationError: the one set does not exist.
    """
    if (named := settings.google_application_credentials) is not None:
        if not named.is_file():
            raise ConfigurationError(f"GOOGLE_APPLICATION_CREDENTIALS names {str(named)!r}, which is no file")
        return named
    places = [folder / name for folder in (Path.cwd(), settings.home) for name in KEY_FILES]
    return next((path for path in places if path.is_file()), None)


def _credentials(settings: StorageSettings) -> tuple[Credentials, str | None]:
    path = find_key_file(settings)
    if path is not None:
        try:
            account = ServiceAccount.from_service_account_file(str(path), scopes=_SCOPES)
        except Exception as error:  # Google's reader raises what the file's content leads it to
            # No cause, and not the error's text: they may quote the key.
            raise ConfigurationError(
                f"{path} is no readable service-account key ({type(error).__name__}); download it again"
            ) from None
        return account, account.project_id
    try:
        scopes = (*_SCOPES, SIGNING_SCOPE)
        found: tuple[Credentials, str | None] = google.auth.default(scopes=scopes)
    except DefaultCredentialsError as error:
        raise ConfigurationError(
            "no Google credentials: put the service account's key into gcs-key.json here, "
            "or name it in GOOGLE_APPLICATION_CREDENTIALS"
        ) from error
    return found
