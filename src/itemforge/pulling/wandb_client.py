"""An artifact of Weights & Biases, by W&B's own client.

`wandb_artifact` is the only place that knows the client; whoever tests a pull passes another function of the
same contract. The client gives whole files: an interrupted file begins anew, finished ones stay.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from itemforge.errors import ConfigurationError, ItemForgeError, ModelError, ObjectMissing, SourceUnavailable
from itemforge.pulling.choice import Entry

#: Gets the artifact's version and all its files, gives those that are to be downloaded.
Chooser = Callable[[str, Sequence[Entry]], Sequence[Entry]]
_TIMEOUT = 20
#: How W&B's client says in a text what has no class of its own.
_AWAY = ("did not respond", "timed out", "timeout", "connect", "dial tcp", "no such host", "unreachable")
_REFUSED = ("401", "403", "permission", "unauthorized", "forbidden", "api key", "not logged in")
_MISSING = ("404", "not found", "does not exist", "could not find")


class ArtifactWay(Protocol):
    """The contract of `wandb_artifact`."""

    def __call__(self, reference: str, into: Path, choose: Chooser, api_key: str | None) -> None: ...


def wandb_artifact(reference: str, into: Path, choose: Chooser, api_key: str | None) -> None:
    """Write the chosen files of an artifact to `into`, each under its path in the artifact.

    Raises:
        ConfigurationError: wandb is not installed, or there is no key, or it is refused.
        ObjectMissing: no such artifact.
        SourceUnavailable: the server cannot be reached.
        ModelError: a file is only a reference to another place.
    """
    try:
        import wandb
    except ImportError:
        raise ConfigurationError(
            "wandb is not installed, by which artifacts are fetched: pip install 'itemforge[train]'"
        ) from None
    with _errors(wandb.errors, reference):
        artifact = wandb.Api(api_key=api_key, timeout=_TIMEOUT).artifact(reference)
        listed = artifact.manifest.entries
        version = f"{artifact.version} {artifact.digest}"
        for entry in choose(version, [_entry(path, each) for path, each in listed.items()]):
            if listed[entry.path].ref is not None:
                raise ModelError(
                    f"{entry.path} of {reference} lies elsewhere ({listed[entry.path].ref}); pull that"
                )
            listed[entry.path].download(root=str(into), skip_cache=True)


def _entry(path: str, entry: Any) -> Entry:
    # Clients before this method knew MD5 only.
    algorithm = entry.digest_algorithm() if hasattr(entry, "digest_algorithm") else "md5"
    is_md5 = entry.ref is None and "md5" in str(algorithm).lower()
    return Entry(str(path), entry.size, md5=entry.digest if is_md5 else None)


@contextmanager
def _errors(known: Any, reference: str) -> Iterator[None]:
    """The border where W&B's errors become ours."""
    try:
        yield
    except ItemForgeError:
        raise
    except (known.Error, ValueError, OSError) as error:
        raise refused(error, reference) from None  # a cause may quote the request with its key


def refused(error: Exception, reference: str) -> ItemForgeError:
    """What an error of W&B's client means."""
    text = str(error)
    said = text.lower()
    if "no api key" in said:
        return ConfigurationError(
            f"W&B wants an API key for {reference}: set WANDB_API_KEY (from your user settings at W&B)"
        )
    # The client calls a server that is away an authentication that failed, so this is asked first.
    if any(mark in said for mark in _AWAY):
        return SourceUnavailable(
            f"W&B cannot be reached for {reference}; check the network and WANDB_BASE_URL"
        )
    if any(mark in said for mark in _MISSING):
        return ObjectMissing(
            f"W&B has no artifact {reference}, or WANDB_API_KEY may not see it; check entity, project, name and version"
        )
    if type(error).__name__ == "AuthenticationError" or any(mark in said for mark in _REFUSED):
        return ConfigurationError(
            f"W&B refused access to {reference}; check that WANDB_API_KEY is right and may read the project"
        )
    return SourceUnavailable(f"W&B failed for {reference} ({type(error).__name__}): {text[:200]}")
