"""Choose the object store by the settings."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from itemforge.errors import ConfigurationError
from itemforge.settings import StorageSettings
from itemforge.storage.face import ObjectStore
from itemforge.storage.folder import FolderStore


def open_store(settings: StorageSettings) -> ObjectStore:
    """The store of `settings.storage_url`.

    Raises:
        ConfigurationError: the address is neither `gs://bucket/prefix` nor `file:///folder`, or there are
            no credentials for it.
        StorageUnavailable, PermanentError: the folder cannot be made or written.
    """
    parts = urlsplit(settings.storage_url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return FolderStore(Path(url2pathname(parts.path)), settings.storage_public_url)
    if parts.scheme == "gs" and parts.netloc:
        # Imported here: it costs half a second that the embedded system need not pay.
        from itemforge.storage.gcs import open_gcs

        prefix = parts.path.strip("/")
        return open_gcs(settings, parts.netloc, f"{prefix}/" if prefix else "")
    raise ConfigurationError(
        f"ITEMFORGE_STORAGE_URL is {settings.storage_url!r}; write gs://bucket/prefix or file:///folder"
    )
