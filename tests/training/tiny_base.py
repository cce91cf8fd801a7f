"""All stages of a base model in some seconds."""

from pathlib import Path

from itemforge.training.config import Diffusion, Meaning, StarterConfig, Steps, TextShape, UnetShape, VaeShape

SIZE = 32


def tiny_config(icons: Path, folder: Path) -> StarterConfig:
    few = {"batch_size": 4, "learning_rate": 1e-3, "warmup": 2}
    return StarterConfig(
        data=icons,
        run=folder / "run",
        size=SIZE,
        text=TextShape(vocabulary=700, hidden_size=32, layers=1, heads=2),
        vae=VaeShape(channels=(16, 32), norm_groups=8),
        unet=UnetShape(channels=(32, 64), heads=2),
        train_vae=Steps(steps=6, **few),
        train_diffusion=Diffusion(steps=6, **few),
        train_meaning=Meaning(steps=4, **few),
        train_decoder=Steps(steps=4, **few),
    )
