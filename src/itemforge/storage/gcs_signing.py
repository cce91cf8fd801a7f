"""Who signs an upload to Google Cloud Storage: a private key at hand, or Google's IAM service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.auth.credentials import Credentials, Signing
from google.auth.exceptions import TransportError
from google.auth.transport.requests import Request

from itemforge.errors import ConfigurationError, StorageUnavailable

#: The machine's own credentials have no private key: they need this scope to have the IAM service sign.
SIGNING_SCOPE = "https://www.googleapis.com/auth/iam"


def signature_by(credentials: Credentials) -> dict[str, Any]:
    """What `Blob.generate_signed_url` is told of these credentials.

    Raises:
        ConfigurationError: they can sign in neither way.
        google.auth.exceptions.GoogleAuthError: the token service is away, or does not accept them.
    """
    if isinstance(credentials, Signing):
        return {"credentials": credentials}
    if not getattr(credentials, "service_account_email", None):
        raise ConfigurationError(
            "these Google credentials cannot sign uploads: they are no service account's. Put a service "
            "account's key into gcs-key.json, or name it in GOOGLE_APPLICATION_CREDENTIALS"
        )
    if not credentials.valid:  # this also tells a virtual machine its account's real name
        credentials.refresh(Request())
    return {"service_account_email": credentials.service_account_email, "access_token": credentials.token}


@contextmanager
def signing_errors() -> Iterator[None]:
    """Tell a refusal of the IAM service from its absence; Google's client throws both as one.

    Raises:
        ConfigurationError: the account may not sign; the text says which role it lacks.
    """
    try:
        yield
    except StorageUnavailable as error:
        if isinstance(error.__cause__, TransportError) and "PERMISSION_DENIED" in str(error.__cause__):
            raise ConfigurationError(
                "this service account may not sign uploads: give it the role Service Account Token Creator "
                "on itself and enable the IAM Service Account Credentials API, or use a key file"
            ) from None
        raise
