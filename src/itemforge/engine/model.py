"""Load a Stable Diffusion 1.x model: a diffusers directory or a single-file checkpoint, safetensors only.

Pickled weights are never read, the network is never asked, and a weight that is missing from the files is
an error: diffusers itself would draw it at random and say so in a log line.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from itemforge.engine.checkpoint import open_checkpoint
from itemforge.engine.components import Components
from itemforge.errors import ModelError
from itemforge.styles.models import MAX_LATENTS, base_sha256, weight_files
from itemforge.telemetry.logs import adopt

adopt("diffusers", "transformers")

#: Bytes to which PyTorch aligns what it allocates on a CPU.
_ALIGNMENT = 64


@dataclass(frozen=True)
class Model:
    """A loaded base model. Its modules change dtype and memory format in place (`place`).

    `base` is the sha256 that styles and recipes name it by, `golden` where a golden picture may lie
    beside it, `width` and `height` its native size in pixels.
    """

    name: str
    base: str
    golden: Path
    parts: Components
    vae_scale_factor: int
    width: int
    height: int

    @property
    def device(self) -> torch.device:
        return next(self.parts.unet.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parts.unet.parameters()).dtype  # type: ignore[no-any-return]

    @property
    def latent_channels(self) -> int:
        return int(self.parts.unet.config.in_channels)


def load_model(path: Path, device: torch.device, dtype: torch.dtype, home: Path | None = None) -> Model:
    """Load the model at `path`, a directory or a .safetensors file; `home` speeds up its sha256.

    Raises:
        ModelError: something is missing or broken; the text says what and what to do.
    """
    _quiet()
    if not path.exists():
        raise ModelError(f"there is no model at {path}; set ITEMFORGE_MODEL to a directory or checkpoint")
    base = base_sha256(path, home)
    parts = open_checkpoint(path) if path.is_file() else _open_directory(path)
    if parts.unet.config.in_channels != parts.vae.config.latent_channels:
        raise ModelError(
            f"{path} is no text-to-image model: its UNet takes {parts.unet.config.in_channels} channels, "
            f"its VAE makes {parts.vae.config.latent_channels} (inpainting models cannot be used)"
        )
    scale = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    height, width = _native_latents(parts.unet)
    name = path.stem if path.is_file() else path.name
    golden = path.with_suffix(".golden.png") if path.is_file() else path / "golden.png"
    model = Model(name, base, golden, parts, scale, width * scale, height * scale)
    for module in (parts.unet, parts.vae, parts.text_encoder):
        module.requires_grad_(False).eval()
        _own(module)
    place(model, device, dtype, torch.contiguous_format)
    return model


def place(model: Model, device: torch.device, dtype: torch.dtype, layout: torch.memory_format) -> None:
    """Bring the model's modules to a device, dtype and memory format, in place.

    A VAE that overflows in float16 (`force_upcast`, as in SD 1.5: black pictures) stays in float32.
    """
    parts = model.parts
    upcast = dtype == torch.float16 and parts.vae.config.get("force_upcast", True)
    vae_dtype = torch.float32 if upcast else dtype
    parts.unet.to(device=device, dtype=dtype, memory_format=layout)
    parts.vae.to(device=device, dtype=vae_dtype, memory_format=layout)
    parts.text_encoder.to(device=device, dtype=dtype)


def _own(module: nn.Module) -> None:
    """Bring weights that lie in a mapped file, at whatever place of it, into memory of our own.

    On some processors a matrix product's last bit depends on where its operands begin, and a file that is
    replaced while it is mapped would change the weights.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()


def _native_latents(unet: Any) -> tuple[int, int]:
    """Height and width in latents."""
    size = unet.config.sample_size
    try:
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    except (TypeError, ValueError, LookupError, OverflowError):
        height, width = 0, 0
    if not (0 < height <= MAX_LATENTS and 0 < width <= MAX_LATENTS):
        raise ModelError(f"the UNet's configuration has the sample_size {size!r:.80}; SD 1.5 has 64")
    return height, width


def _open_directory(path: Path) -> Components:
    def part(name: str, load: Callable[..., tuple[Any, Mapping[str, Any]]], **options: Any) -> Any:
        folder = path / name
        if (folder / "adapter_config.json").exists():
            # The library would merge it in silence, and the model's sha256 would not know.
            raise ModelError(
                f"{folder} has an adapter; remove adapter_config.json, and load the LoRA by a style"
            )
        variant = "fp16" if ".fp16." in weight_files(folder)[0].name else None
        module, info = _wrapped(
            folder,
            lambda: load(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                variant=variant,
                **options,
            ),
        )
        if lost := sorted([*info["missing_keys"], *map(str, info["mismatched_keys"])]):
            raise ModelError(f"{folder} lacks weights ({', '.join(lost[:3])}, ...); download the model again")
        return module

    return Components(
        unet=part("unet", UNet2DConditionModel.from_pretrained, torch_dtype=torch.float32),
        vae=part("vae", AutoencoderKL.from_pretrained, torch_dtype=torch.float32),
        text_encoder=part("text_encoder", CLIPTextModel.from_pretrained, dtype=torch.float32),
        tokenizer=_wrapped(
            path / "tokenizer",
            lambda: CLIPTokenizer.from_pretrained(path / "tokenizer", local_files_only=True),
        ),
        scheduler=_wrapped(
            path / "scheduler",
            lambda: json.loads((path / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")),
        ),
    )


def _wrapped(folder: Path, load: Callable[[], Any]) -> Any:
    """Turn whatever the libraries raise over a broken file into a ModelError that names the folder."""
    if not folder.is_dir():
        raise ModelError(
            f"{folder} is missing; a diffusers directory has unet, vae, text_encoder, tokenizer and scheduler"
        )
    try:
        return load()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the libraries document no common base
        raise ModelError(f"cannot load {folder}: {type(error).__name__}: {str(error)[:300]}") from error


def _quiet() -> None:
    """Progress bars and hints on standard error would break a log of one JSON event a line."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
