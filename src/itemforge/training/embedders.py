"""What two pictures have in common, as numbers: with a CLIP model where one is at hand, and without.

Nothing is fetched: a CLIP model is a folder. The plain embedder needs none. It knows how a picture is drawn (colours, tones,
edges, outline) and nothing of what it shows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from transformers import CLIPModel, CLIPProcessor

from itemforge.dataset.colours import Pixels, cielab
from itemforge.errors import ModelError
from itemforge.training.measures import Floats, drawn_on

_CHUNK = 32
#: Side at which the plain embedder looks: edges are as wide in every picture then.
_SIDE = 128
_TONES, _COLOURS, _EDGES = 12, 6, 12


class Embedder(Protocol):
    """`pictures` gives (N, D) float32 of length one, near for pictures drawn alike; `texts` the same for what words
    say, comparable with the pictures', or None if it reads no words."""

    name: str

    def pictures(self, pictures: Sequence[Pixels]) -> Floats: ...
    def texts(self, texts: Sequence[str]) -> Floats | None: ...


class PlainEmbedder:
    """Square roots of histograms (Hellinger): of tones, of colours, of edges by strength and direction."""

    name = "plain"

    def pictures(self, pictures: Sequence[Pixels]) -> Floats:
        return np.stack([_histograms(each) for each in pictures])

    def texts(self, texts: Sequence[str]) -> Floats | None:
        return None


class ClipEmbedder:
    """CLIP (Radford et al. 2021) from a folder in transformers layout."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Raises:
        ModelError: the folder has no CLIP model with its processor in safetensors.
        """
        self.name, self._device = folder.name, device
        try:
            self._model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"cannot load a CLIP model from {folder}: {str(error)[:300]}") from error
        self._model.to(device).eval()

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Pixels]) -> Floats:
        found = []
        for at in range(0, len(pictures), _CHUNK):
            some = [Image.fromarray(each) for each in pictures[at : at + _CHUNK]]
            given = self._processor(images=some, return_tensors="pt").to(self._device)
            found.append(_unit(self._model.get_image_features(**given)))
        return np.concatenate(found)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Floats | None:
        given = self._processor(text=list(texts), padding=True, truncation=True, return_tensors="pt")
        return _unit(self._model.get_text_features(**given.to(self._device)))


def _unit(features: object) -> Floats:
    tensor = getattr(features, "pooler_output", features)  # transformers 5 wraps what 4 gave bare
    assert isinstance(tensor, torch.Tensor)  # noqa: S101 - one or the other
    return np.asarray(functional.normalize(tensor.float(), dim=-1).cpu().numpy())


def _histograms(picture: Pixels) -> Floats:
    small = Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(small, dtype=np.uint8)[None]
    ink, lab = drawn_on(pixels)[0], cielab(pixels)[0]
    tone, a, b = lab[ink].T if ink.any() else np.zeros((3, 1), np.float32)
    down, across = np.gradient(lab[..., 0])
    strength, angle = np.hypot(down, across), np.arctan2(down, across) % np.pi
    edges = strength > 1.0  # of 100: below is shading
    parts = [
        np.histogram(tone, _TONES, (0, 100))[0],
        np.histogramdd((a, b), _COLOURS, ((-90, 90), (-90, 90)))[0].ravel(),
        np.histogram(np.log1p(strength[edges]), _EDGES, (0, np.log1p(60)))[0],
        np.histogram(angle[edges], _EDGES, (0, np.pi))[0],
        np.array([ink.mean(), 1 - ink.mean()]),
    ]
    shares: list[NDArray[np.float64]] = [part / max(part.sum(), 1e-9) for part in parts]
    return np.sqrt(np.concatenate(shares) / len(shares)).astype(np.float32)
