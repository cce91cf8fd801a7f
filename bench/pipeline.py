"""The diffusers pipeline alone: no queue, no store, no gateway.

    python bench/pipeline.py [--dtype float32]

As a program it answers lines on standard input (batch size, number of pictures) with the seconds that the
pictures took, encoded as PNG; `bench/worker.py` asks it between the rounds of the workers.
"""

import argparse
import sys
import time
from io import BytesIO
from typing import Any

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline

from itemforge.styles.models import starter_dir

PROMPTS = ("a red apple", "a key", "birthday cake", "a sunflower", "a panda")
STEPS = 25
GUIDANCE = 4.0


def load_pipeline(dtype: torch.dtype) -> Any:
    """The starter in diffusers' own pipeline, with its own DDIM scheduler."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(
        starter_dir(), dtype=dtype, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def one_step(pipeline: Any) -> None:
    pipeline("warm-up", num_inference_steps=2, guidance_scale=GUIDANCE)


def draw(pipeline: Any, count: int, batch: int) -> float:
    """Seconds for `count` pictures in batches of `batch`, each with its own prompt and seed."""
    start = time.perf_counter()
    for first in range(0, count, batch):
        numbers = range(first, min(first + batch, count))
        pictures = pipeline(
            [PROMPTS[n % len(PROMPTS)] for n in numbers],
            negative_prompt=["" for _ in numbers],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(n) for n in numbers],
        ).images
        for picture in pictures:
            picture.save(BytesIO(), "PNG")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    pipeline = load_pipeline(getattr(torch, options.dtype))
    one_step(pipeline)
    print("ready", flush=True)
    for line in sys.stdin:
        batch, count = map(int, line.split())
        print(f"{draw(pipeline, count, batch):.3f}", flush=True)


if __name__ == "__main__":
    main()
