"""The files of a W&B artifact: chosen and checked here, downloaded by W&B's client."""

import shutil
from collections.abc import Sequence

from itemforge.errors import InvalidInput, ModelError
from itemforge.pulling.choice import Entry, choose
from itemforge.pulling.means import Means
from itemforge.pulling.source import ArtifactSource
from itemforge.pulling.workshop import Workshop, check_room


def fetch_artifact(source: ArtifactSource, workshop: Workshop, means: Means, sha256: str | None) -> list[str]:
    """Bring the needed files of an artifact into the workshop; their names.

    Raises:
        InvalidInput, ModelError, ObjectMissing: as `choose`, or a file is not what W&B lists.
        ConfigurationError, SourceUnavailable: as `wandb_client.wandb_artifact`; no space.
    """
    chosen: list[Entry] = []
    keys: dict[str, str] = {}
    # The client writes here, and finds here what it wrote before it was interrupted.
    arriving = workshop.folder / "arriving"

    def choice(version: str, entries: Sequence[Entry]) -> list[Entry]:
        workshop.record.revision = version
        found = choose(entries, source.file, source.label)
        if sha256 is not None and len(found) != 1:
            raise InvalidInput(f"--sha256 is for a single file; {source.label} has {len(found)}")
        chosen[:] = [Entry(e.path, e.size, sha256 or e.sha256, e.md5) for e in found]
        keys.update({e.path: f"{source.reference} {version} {e.path} {e.md5}" for e in chosen})
        check_room(workshop.folder, workshop.missing(chosen, keys))
        wanted = [e for e in chosen if not workshop.arrived(e.path, keys[e.path])]
        for entry in wanted:
            means.tell(entry.path, 0, entry.size)
        return wanted

    key = means.settings.wandb_api_key
    means.artifact(source.reference, arriving, choice, key.get_secret_value() if key else None)
    for entry in chosen:
        if not workshop.arrived(entry.path, keys[entry.path]):
            came = arriving / entry.path
            if not came.is_file():
                raise ModelError(f"W&B's client did not write {entry.path} of {source.reference}; pull again")
            shutil.move(came, workshop.begin(entry.path, keys[entry.path]))
            workshop.finish(entry, f"{entry.path} of {source.reference}")
        size = workshop.record.files[entry.path].size or 0
        means.tell(entry.path, size, size)
    return [entry.path for entry in chosen]
