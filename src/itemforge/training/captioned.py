"""What a LoRA learns from: a dataset of `itemforge data`, or captioned pictures in another layout."""

from pathlib import Path

from itemforge.dataset.layouts import Sample, read_layout
from itemforge.dataset.manifest import open_manifest
from itemforge.dataset.ready import approved
from itemforge.dataset.store import is_dataset, open_existing
from itemforge.errors import ConfigurationError, InvalidInput

__all__ = ["Sample", "check_trigger", "read_samples"]


def read_samples(folder: Path) -> list[Sample]:
    """All samples of a folder: of a dataset those with an approved caption, on the sides where it has them.

    Raises:
        InvalidInput: the folder holds none, or what says so is broken.
    """
    if not is_dataset(folder):
        return read_layout(folder)
    look = open_manifest(folder).look()
    with open_existing(folder) as store:
        found = approved(store, look)
        samples = [
            Sample(folder / each.picture, (each.text,), folder / each.mask, each.held_out, each.group)
            for each in found
        ]
    if not samples:
        raise InvalidInput(
            f"no caption of {folder} is approved; `itemforge data doctor {folder}` says what to do"
        )
    return samples


def check_trigger(folder: Path, trigger: str) -> None:
    """A dataset's captions are written with the trigger of its own settings.

    Raises:
        ConfigurationError: it is another one than the run's.
    """
    if is_dataset(folder) and (own := open_manifest(folder).trigger) != trigger:
        raise ConfigurationError(
            f"the trigger is {trigger!r} in the training settings, and {own!r} in {folder / 'dataset.toml'}; make them the same"
        )
