"""Draws the pictures by which the shipped styles are shown: four items of each, on one small sheet beside its pack.

To be run when a shipped style or the starter changes; minutes on two cores. Usage: python scripts/style_samples.py [STYLE …]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from itemforge.imaging.sample import sample_sheet
from itemforge.styles.local import LocalPacks
from itemforge.styles.models import starter_dir

THINGS = ("a red apple", "a mushroom", "a hot drink", "a cat")
SEED = 7
#: So that all of them together stay small beside the model.
MOST_BYTES = 40 * 1024


def draw(style: str, folder: Path) -> bytes:
    """The sheet of one style."""
    pictures = []
    for n, thing in enumerate(THINGS):
        out = folder / f"{style}-{n}.png"
        command = ["generate", thing, "--style", style, "--seed", str(SEED + n), "--out", str(out)]
        subprocess.run([Path(sys.executable).with_name("itemforge"), *command], check=True)  # noqa: S603  # ours
        pictures.append(out.read_bytes())
    return sample_sheet(pictures)


def main() -> int:
    wanted = set(sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        shipped = [
            each
            for each in LocalPacks(Path(folder)).packs.values()
            if each.folder == starter_dir() / "styles"
        ]
        for local in shipped:
            if wanted and local.pack.id not in wanted:
                continue
            sheet = draw(local.pack.name, Path(folder))
            if len(sheet) > MOST_BYTES:
                print(f"the sample of {local.pack.name} has {len(sheet)} bytes, more than {MOST_BYTES}")
                return 1
            local.sample_file.write_bytes(sheet)
            print(f"{local.pack.name}: {len(sheet)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
