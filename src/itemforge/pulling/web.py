"""A file at an https address."""

import httpx

from itemforge.errors import ConfigurationError, ItemForgeError, ObjectMissing, SourceUnavailable
from itemforge.pulling.choice import Entry, check_format
from itemforge.pulling.means import Means
from itemforge.pulling.source import WebSource, identity
from itemforge.pulling.transfer import Remote, download, http_client
from itemforge.pulling.workshop import Workshop

#: Under this name it lies in the workshop: an address says little about what it gives.
_FILE = "weights.safetensors"


def fetch_web(source: WebSource, workshop: Workshop, means: Means, sha256: str | None) -> list[str]:
    """Bring the file into the workshop; its name.

    Raises:
        InvalidInput: the address names a format that is not taken.
        ConfigurationError: the server wants a login; no space.
        ObjectMissing: it has no such file.
        SourceUnavailable: it cannot be reached.
        ModelError: the file is not the one that was expected.
    """
    if "." in source.name or "." in source.label.rpartition("/")[2]:
        check_format(source.label.rpartition("/")[2])
    entry = Entry(_FILE, sha256=sha256)
    remote = Remote(
        source.url, source.label, identity(source), lambda r: _refused(r, source), pinned=sha256 is not None
    )
    with http_client(means.settings.ca_file) as client:
        download(client, remote, entry, workshop, means)
    workshop.record.revision = workshop.record.files[_FILE].etag or ""
    return [_FILE]


def _refused(response: httpx.Response, source: WebSource) -> ItemForgeError:
    status = response.status_code
    if status in (401, 403, 407):
        return ConfigurationError(
            f"{source.label} is refused ({status}): it wants a login that ItemForge does not have; if it is a file of the "
            "Hugging Face Hub or of W&B, pull hf:… or wandb:… with HF_TOKEN or WANDB_API_KEY set; else download it "
            "yourself and pull its path"
        )
    if status in (404, 410):
        return ObjectMissing(f"there is nothing at {source.label} ({status}); check the address")
    return SourceUnavailable(
        f"{source.label} answered {status}; check the address, or repeat the command later"
    )
