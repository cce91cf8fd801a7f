"""What a SOURCE on the command line means.

| written | is |
|---|---|
| `sd15`, `tsuki` | a name that ItemForge knows: a base model, a pack |
| `hf:ORG/REPO`, `hf:ORG/REPO@REVISION/FILE` | a repository of the Hugging Face Hub, or one file of it |
| `wandb:ENTITY/PROJECT/ARTIFACT:VERSION`, the same with `/FILE` | an artifact of Weights & Biases |
| `https://…` | one file |
| anything else | a file or a folder of this machine |
"""

import difflib
import hashlib
import re
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from itemforge.errors import InvalidInput

#: Base models by name.
ALIASES = {"sd15": "hf:stable-diffusion-v1-5/stable-diffusion-v1-5"}
#: Packs that have a recipe in `packs`.
PACKS = ("tsuki",)

_HUB = re.compile(r"(?P<repo>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>[^/@\s]+))?(?:/(?P<file>.+))?")
_ARTIFACT = re.compile(r"(?P<reference>[^/:\s]+/[^/:\s]+/[^/:\s]+:[^/:\s]+)(?:/(?P<file>.+))?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class HubSource:
    """`revision` is a branch, a tag or a commit; None: the main branch."""

    repo: str
    revision: str | None = None
    file: str | None = None
    alias: str | None = None

    @property
    def label(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo}{at}" + (f"/{self.file}" if self.file else "")

    @property
    def name(self) -> str:
        return self.alias or _stem(self.file or self.repo)


@dataclass(frozen=True)
class ArtifactSource:
    """`reference` as W&B's client takes it: `entity/project/artifact:version`."""

    reference: str
    file: str | None = None

    @property
    def label(self) -> str:
        return f"wandb:{self.reference}" + (f"/{self.file}" if self.file else "")

    @property
    def name(self) -> str:
        return _stem(self.file) if self.file else self.reference.rpartition("/")[2].partition(":")[0]


@dataclass(frozen=True)
class WebSource:
    """`url` may hold a password or a token; `label` holds neither."""

    url: str

    @property
    def label(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"

    @property
    def name(self) -> str:
        return _stem(unquote(urlsplit(self.url).path))


@dataclass(frozen=True)
class LocalSource:
    """A file or a folder."""

    path: Path

    @property
    def label(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return _stem(self.path.name)


@dataclass(frozen=True)
class PackSource:
    """A style with its base model and its LoRA."""

    name: str

    @property
    def label(self) -> str:
        return self.name


ModelSource = HubSource | ArtifactSource | WebSource | LocalSource
Source = ModelSource | PackSource


def parse_source(text: str, revision: str | None = None) -> Source:
    """What was asked for.

    Raises:
        InvalidInput: it is none of the forms; the text says which one was meant, if that can be seen.
    """
    source = _parse(text.strip())
    if revision is None:
        return source
    if not isinstance(source, HubSource):
        raise InvalidInput(f"--revision is for the Hugging Face Hub only, and {source.label} is not there")
    if source.revision not in (None, revision):
        raise InvalidInput(f"{text} names the revision {source.revision}, --revision {revision}; give one")
    return replace(source, revision=revision)


def parse_model_source(text: str) -> ModelSource:
    """The same where a pack is of no use.

    Raises:
        InvalidInput: as `parse_source`, or it is a pack.
    """
    source = parse_source(text)
    if isinstance(source, PackSource):
        raise InvalidInput(f"{text} is a pack; here a file, an address or a repository is needed")
    return source


def identity(source: ModelSource) -> str:
    """What two pulls of the same source have in common. A hash, as an address may hold a secret."""
    if isinstance(source, HubSource):
        text = replace(source, alias=None).label
    elif isinstance(source, WebSource):
        text = source.url
    else:
        text = source.label
    return hashlib.sha256(text.encode()).hexdigest()


def check_name(name: str) -> str:
    """A name for a file or a folder at home.

    Raises:
        InvalidInput: it cannot be one.
    """
    name = name.removesuffix(".safetensors")
    if not _NAME.fullmatch(name) or name.endswith((".part", ".toml", ".json")) or name == "starter":
        raise InvalidInput(
            f"{name[:80]!r} cannot be a model's name: letters, digits, dots, - and _, and not one that ItemForge "
            "uses itself; choose another with --as NAME"
        )
    return name


def is_local_host(host: str | None) -> bool:
    """Whether what is sent to this host stays on this machine."""
    if host is None:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse(text: str) -> Source:
    if not text:
        raise InvalidInput("say what to pull, for example: itemforge models pull sd15")
    if text in ALIASES:
        return replace(_hub(ALIASES[text].removeprefix("hf:")), alias=text)
    if text in PACKS:
        return PackSource(text)
    scheme, colon, rest = text.partition(":")
    if scheme == "hf" and colon:
        return _hub(rest)
    if scheme == "wandb" and colon:
        return _artifact(rest)
    if scheme.lower() in ("http", "https") and rest.startswith("//"):
        return _web(text)
    if "://" in text:
        raise InvalidInput(f"{scheme}:// is no source; there are hf:, wandb:, https:// and paths")
    return _local(text)


def _hub(rest: str) -> HubSource:
    if not (found := _HUB.fullmatch(rest.removesuffix("/"))):
        raise InvalidInput(f"hf:{rest} must be hf:ORG/REPO, hf:ORG/REPO/FILE or hf:ORG/REPO@REVISION/FILE")
    revision = found["revision"]
    return HubSource(found["repo"], unquote(revision) if revision else None, found["file"])


def _artifact(rest: str) -> ArtifactSource:
    if not (found := _ARTIFACT.fullmatch(rest.removesuffix("/"))):
        raise InvalidInput(
            f"wandb:{rest} must be wandb:ENTITY/PROJECT/ARTIFACT:VERSION, such as wandb:me/loras/tsuki:v3 "
            "(or :latest), and may end in /FILE"
        )
    return ArtifactSource(found["reference"], found["file"])


def _web(text: str) -> WebSource:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise InvalidInput("the address cannot be read; it must be like https://host/file.safetensors")
    if parts.scheme.lower() == "http" and not is_local_host(host):
        raise InvalidInput(
            f"http://{host} is refused: what comes without TLS may be changed on its way; use https://, or "
            "download the file yourself and pull its path"
        )
    return WebSource(text)


def _local(text: str) -> LocalSource:
    try:
        path = Path(text).expanduser().absolute()
        there = path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidInput(f"{text[:200]!r} cannot be looked at: {error}") from None
    if there:
        return LocalSource(path)
    if "/" in text or text.startswith((".", "~")):
        raise InvalidInput(f"there is no file or folder {path}")
    known = [*ALIASES, *PACKS]
    close = difflib.get_close_matches(text.lower(), known, n=1, cutoff=0.5)
    meant = f"did you mean {close[0]}? " if close else ""
    raise InvalidInput(
        f"{text[:80]!r} is not known, and no file here; {meant}There are {', '.join(known)}, hf:ORG/REPO, "
        "wandb:ENTITY/PROJECT/ARTIFACT:VERSION, https://… and paths"
    )


def _stem(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(".safetensors")
