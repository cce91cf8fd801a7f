"""Latents and text states of a training set, computed once and kept by what they are made of.

A name is the sha256 of everything that decides the content: the picture's bytes and how it is prepared, the weights that
encode it. So nothing is ever stale: an edited picture, another VAE or another caption has another name. With both kept,
VAE and text encoder leave the device while the LoRA learns.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from itemforge.errors import InvalidInput
from itemforge.styles.files import write_atomic
from itemforge.training.prepared import Prepared
from itemforge.training.vae import to_unit

Seen = Callable[[int, int], None]


def weights_sha256(module: Any) -> str:
    """Of all weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


class Cache:
    """Tensors in files named by their key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: How many were found and how many had to be made.
        self.found = self.made = 0

    def get(
        self, kind: str, parts: Sequence[str], make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The tensors of this name, made if they are not there or damaged."""
        key = hashlib.sha256("\n".join([kind, *parts]).encode()).hexdigest()
        path = self._folder / kind / key[:2] / f"{key}.safetensors"
        try:
            kept = load(path.read_bytes())
        except (OSError, SafetensorError):
            self.made += 1
            kept = make()
            write_atomic(path, save({name: tensor.contiguous().cpu() for name, tensor in kept.items()}))
        else:
            self.found += 1
        return kept


@torch.inference_mode()
def cached_latents(
    cache: Cache, vae: Any, pictures: Sequence[Prepared], flip: bool, device: torch.device, seen: Seen
) -> Tensor:
    """Mean and deviation of each picture's latents, and of its mirror image's: (flips, N, 2, C, h, w) float32.

    In float32, because SD 1.5's VAE overflows in float16.

    Raises:
        InvalidInput: the latents of a picture are not finite.
    """
    name = weights_sha256(vae)
    flips = []
    for flipped in (False, True) if flip else (False,):
        rows = []
        for n, each in enumerate(pictures):
            kept = cache.get(
                "latents", [name, each.key, str(flipped)], partial(_encode, vae, each, flipped, device)
            )
            if not kept["latents"].isfinite().all():
                raise InvalidInput(f"the VAE gives no numbers for {each.sample.path}")
            rows.append(kept["latents"])
            seen(n + 1 + flipped * len(pictures), len(pictures) * (1 + flip))
        flips.append(torch.stack(rows))
    return torch.stack(flips)


def _encode(vae: Any, picture: Prepared, flipped: bool, device: torch.device) -> dict[str, Tensor]:
    pixels = torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1)[None].to(device)
    pixels = to_unit(pixels.flip(3) if flipped else pixels)
    posterior = vae.encode(pixels).latent_dist
    return {"latents": torch.stack([posterior.mean[0], posterior.std[0]]).float()}


@torch.inference_mode()
def cached_texts(
    cache: Cache, tokenizer: Any, text_encoder: Any, texts: Sequence[str], device: torch.device
) -> dict[str, Tensor]:
    """The text encoder's states of each text: (77, D) float32."""
    name = weights_sha256(text_encoder)

    def encode(text: str) -> dict[str, Tensor]:
        tokens = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return {"states": text_encoder(tokens.to(device)).last_hidden_state[0].float()}

    window = str(tokenizer.model_max_length)
    return {
        text: cache.get("texts", [name, window, text], partial(encode, text))["states"]
        for text in dict.fromkeys(texts)
    }
