"""Style packs that lie in a folder: those that ship with the project, and those of a home."""

from dataclasses import dataclass
from pathlib import Path

import structlog

from itemforge.errors import InvalidStyle, StyleNotFound
from itemforge.styles.files import MAX_BLOB, known_sha256, read_start
from itemforge.styles.models import starter_dir
from itemforge.styles.pack import MAX_TOML, PackLora, StylePack, parse, split_name

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LocalPack:
    """A pack and the file that it was read from; its LoRA files lie beside it."""

    pack: StylePack
    toml: bytes
    folder: Path

    @property
    def sample_file(self) -> Path:
        """Where a picture of what the style looks like lies, if there is one."""
        return self.folder / sample_name(self.pack)

    def lora_file(self, lora: PackLora) -> Path | None:
        """The LoRA's file beside the pack, or None when it has to come from a store.

        Raises:
            InvalidStyle: the source leads out of the pack's folder, or the file is not the one meant.
        """
        if lora.source == "blob" or ":" in lora.source:
            return None
        try:
            file = (self.folder / lora.source).resolve()
            if not file.is_relative_to(self.folder.resolve()):
                raise InvalidStyle(
                    f"the style {self.pack.name} names a LoRA outside its folder: {lora.source}"
                )
            if not file.is_file():
                return None
            if file.stat().st_size > MAX_BLOB:
                raise InvalidStyle(f"{file} has more than the {MAX_BLOB} bytes that a LoRA may have")
            found = known_sha256(file)
        except (OSError, RuntimeError) as error:  # no permission, a name too long, links in a circle
            raise InvalidStyle(
                f"the LoRA {lora.source} of the style {self.pack.name} cannot be read: {error}"
            ) from None
        if found != lora.sha256:
            raise InvalidStyle(
                f"{file} has the sha256 {found}, the style {self.pack.name} wants {lora.sha256}; "
                "publish a changed LoRA under a new version"
            )
        return file


class LocalPacks:
    """All valid packs of the shipped folder and of `home/styles`; the shipped ones win.

    Read once; make a new one to see new files. A broken file is logged and passed over, so that it does
    not take the other styles with it.
    """

    def __init__(self, home: Path) -> None:
        self.packs: dict[tuple[str, int], LocalPack] = {}
        for folder in (starter_dir() / "styles", home / "styles"):
            for file in sorted(folder.rglob("*.toml")):
                self._read(file)

    def _read(self, file: Path) -> None:
        try:
            data = read_start(file, MAX_TOML + 1)
            pack = parse(data)
        except (OSError, InvalidStyle) as error:
            log.warning("style_pack_skipped", file=str(file), reason=str(error))
            return
        self.packs.setdefault((pack.id, pack.version), LocalPack(pack, data, file.parent))

    def find(self, name: str) -> LocalPack | None:
        """The pack of `id@version`, or of `id` in its highest version."""
        style, version = split_name(name)
        if version is None and "@" not in name:
            version = max((v for i, v in self.packs if i == style), default=0)
        return self.packs.get((style, version or 0))

    def blob(self, sha256: str) -> Path | None:
        """The LoRA file with that sha256, if a pack here has it."""
        for local in self.packs.values():
            for lora in local.pack.loras:
                if lora.sha256 == sha256 and (file := local.lora_file(lora)) is not None:
                    return file
        return None


def sample_name(pack: StylePack) -> str:
    """What the picture of a style is called beside its pack."""
    return f"{pack.id}-{pack.version}.webp"


def not_found(name: str) -> StyleNotFound:
    """The error for a style that nobody knows."""
    return StyleNotFound(f"there is no style {name[:80]!r}; GET /v1/styles lists the styles that there are")
