"""The Hugging Face Hub: its own client says what a repository holds and how to ask for it.

The files come through `transfer`: the client's own download begins a file anew when its process was killed, since its
unfinished files have names of one process (huggingface_hub 2.4). A listing is of one commit, so pieces
of two tries always belong together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from itemforge.errors import (
    ConfigurationError,
    InvalidInput,
    ItemForgeError,
    ObjectMissing,
    SourceUnavailable,
)
from itemforge.pulling.choice import Entry, choose
from itemforge.pulling.means import Means
from itemforge.pulling.source import HubSource
from itemforge.pulling.transfer import Remote, download, http_client
from itemforge.pulling.workshop import Workshop, check_room
from itemforge.tls import client_context, refusal

_TIMEOUT = 30.0


def fetch_hub(source: HubSource, workshop: Workshop, means: Means, sha256: str | None) -> list[str]:
    """Bring the needed files of a repository into the workshop; their names.

    Raises:
        ConfigurationError: no token, or a refused one; no space; huggingface_hub is not installed.
        ObjectMissing: no such repository, revision or file.
        SourceUnavailable: the hub cannot be reached.
        ModelError: nothing that can be used, or a file that is not what the hub lists.
    """
    try:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, but not in __all__
    except ImportError:
        raise ConfigurationError(
            "huggingface_hub is not installed, by which the hub is asked: pip install 'itemforge[worker]'"
        ) from None

    settings = means.settings
    commit, listed, blobs = _listing(source, means)
    chosen = choose(listed, source.file, source.label)
    if sha256 is not None:
        chosen = [_expecting(chosen, sha256, source)]
    keys = {e.path: e.sha256 or f"{source.repo} {blobs[e.path] or commit} {e.path}" for e in chosen}
    check_room(workshop.folder, workshop.missing(chosen, keys))
    workshop.record.revision = commit
    headers = build_hf_headers(token=_token(means), library_name="itemforge")
    with http_client(settings.ca_file, urlsplit(settings.hf_endpoint).hostname) as client:
        for entry in chosen:
            url = hf_hub_url(
                source.repo, entry.path, revision=commit, endpoint=settings.hf_endpoint.rstrip("/")
            )
            shown = f"{entry.path} of {source.repo}"
            remote = Remote(url, shown, keys[entry.path], lambda r: _refused(r, source), headers, pinned=True)
            download(client, remote, entry, workshop, means)
    return [entry.path for entry in chosen]


def _listing(source: HubSource, means: Means) -> tuple[str, list[Entry], dict[str, str | None]]:
    """Commit, files, and what git calls the content of each."""
    from huggingface_hub import HfApi

    _trust(means)
    api = HfApi(
        endpoint=means.settings.hf_endpoint.rstrip("/"), token=_token(means), library_name="itemforge"
    )
    with _hub_errors(source):
        info = api.model_info(source.repo, revision=source.revision, files_metadata=True, timeout=_TIMEOUT)
    files = info.siblings or []
    entries = [
        Entry(f.rfilename, f.lfs.size if f.lfs else f.size, f.lfs.sha256 if f.lfs else None) for f in files
    ]
    commit = info.sha or source.revision or "main"
    return commit, entries, {f.rfilename: f.blob_id for f in files}


def _trust(means: Means) -> None:
    """Have the client believe `ITEMFORGE_CA_FILE` too; without one it is left as it is."""
    ca_file = means.settings.ca_file
    if ca_file is not None:
        import httpx2
        from huggingface_hub import set_client_factory

        context = client_context(ca_file)
        set_client_factory(lambda: httpx2.Client(verify=context, follow_redirects=True))


def _expecting(chosen: list[Entry], sha256: str, source: HubSource) -> Entry:
    if len(chosen) != 1:
        raise InvalidInput(
            f"--sha256 is for a single file; {source.label} has {len(chosen)}, checked by the hub's own"
        )
    entry = chosen[0]
    if entry.sha256 not in (None, sha256):
        raise InvalidInput(
            f"{source.label} has the sha256 {entry.sha256}, not {sha256}; nothing was downloaded"
        )
    return Entry(entry.path, entry.size, sha256)


def _token(means: Means) -> str | None:
    """None leaves it to the client, which knows who has logged in on this machine."""
    token = means.settings.hf_token
    return token.get_secret_value() if token else None


@contextmanager
def _hub_errors(source: HubSource) -> Iterator[None]:
    """The border where the client's errors become ours. None has a cause, as that may hold the request with its token."""
    import httpx2  # huggingface_hub speaks HTTP by it, and lets its errors through
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise InvalidInput(f"{source.label} is no repository's name: {error}") from None
    except errors.OfflineModeIsEnabled:
        raise ConfigurationError("HF_HUB_OFFLINE is set, so the hub is not asked; unset it to pull") from None
    except errors.HfHubHTTPError as error:
        code = error.response.headers.get("x-error-code", "")
        raise _status(error.response.status_code, code, source) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        if (why := refusal(error)) is not None:
            raise SourceUnavailable(f"the Hugging Face Hub: {why}") from None
        raise SourceUnavailable(
            f"the Hugging Face Hub cannot be reached ({type(error).__name__}); check the network, proxy settings "
            "(HTTPS_PROXY) and HF_ENDPOINT, then repeat the command"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):  # an answer that is no listing
        raise SourceUnavailable(
            f"what HF_ENDPOINT leads to does not answer as a hub does for {source.repo}"
        ) from None


def _refused(response: httpx.Response, source: HubSource) -> ItemForgeError:
    return _status(response.status_code, response.headers.get("x-error-code", ""), source)


def _status(status: int, code: str, source: HubSource) -> ItemForgeError:
    at = f" at {source.revision}" if source.revision else ""
    if code == "GatedRepo":
        return ConfigurationError(
            f"{source.repo} is gated: accept its terms on its page at the hub, then set HF_TOKEN to a token of that account"
        )
    if code == "RevisionNotFound":
        return ObjectMissing(f"{source.repo} has no revision {source.revision}; check --revision")
    if code == "EntryNotFound":
        return ObjectMissing(f"{source.repo} lists a file that the hub does not have{at}; pull again later")
    if status in (401, 403):
        return ConfigurationError(
            f"the hub refused access to {source.repo} ({status}): it does not exist, or is private; check the name, "
            "and set HF_TOKEN to a valid token that may read it"
        )
    if status == 404 or code == "RepoNotFound":
        return ObjectMissing(f"the hub has no {source.label}; check its name (a private one needs HF_TOKEN)")
    if status == 429:
        return SourceUnavailable("the hub asks for fewer calls (429); wait some minutes, or set HF_TOKEN")
    return SourceUnavailable(f"the hub answered {status} for {source.repo}; repeat the command later")
