"""Seven transparent pictures with captions, and a run on them of six steps."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

from itemforge.training.lora_config import LoraConfig

TRIGGER = "tsuki_advtr"
_COLOURS = ("tomato", "gold", "navy", "teal", "plum", "sienna", "olive")
PICTURES = len(_COLOURS)


def write_pictures(folder: Path) -> Path:
    """Sidecar captions beside each."""
    for n, colour in enumerate(_COLOURS):
        picture = Image.new("RGBA", (48, 40 + n), (0, 0, 0, 0))
        pen = ImageDraw.Draw(picture)
        pen.ellipse((4 + n, 4, 30 + n, 30), fill=colour, outline="black")
        pen.rectangle((20 - n, 20, 40, 24 + n), fill=colour)
        picture.save(folder / f"{n}.png")
        (folder / f"{n}.txt").write_text(f"{TRIGGER}, a {colour} thing, white background")
    return folder


def tiny_lora(base: Path, pictures: Path, folder: Path) -> LoraConfig:
    return LoraConfig(
        name="tsuki", base=str(base), data=pictures, run=folder / "run", trigger=TRIGGER, size=32, rank=4, alpha=4.0,
        optimizer="adamw", learning_rate=5e-3, restarts=2, warmup=2, min_snr_gamma=5.0, noise_offset=0.03, ema=0.9,
        clip=0.5, batch_size=1, accumulation=3, epochs=2, precision="float16", seed=3, validation=0.0, flip=True,
    )  # fmt: skip


def write_toml(config: LoraConfig, path: Path) -> Path:
    """The settings as a file."""
    told = config.model_dump(mode="json", exclude_none=True)
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in told.items()))
    return path
