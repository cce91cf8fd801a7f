"""The starter's networks: SD 1.x in the small."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from itemforge.errors import ModelError
from itemforge.styles.models import weight_files
from itemforge.training.config import StarterConfig

log = structlog.get_logger(__name__)

#: Tokens of a prompt, as in SD 1.x.
LENGTH = 77
LATENT_CHANNELS = 4
#: Each stands in the vocabulary, so that there is no word that cannot be written.
_CHARACTERS = " ".join(map(chr, range(33, 127)))


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """CLIP's kind of byte-pair encoding, learnt from `texts`.

    The library numbers characters in an order of its own each time, so a run keeps the tokenizer that it began with.
    """
    bare = CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[])
    made = bare.train_new_from_iterator(
        [*texts, _CHARACTERS],
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.model_max_length = LENGTH
    return made


def open_tokenizer(folder: Path) -> Any:
    """One that was saved."""
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def build_text_encoder(config: StarterConfig, tokenizer: Any) -> Any:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text.hidden_size,
            intermediate_size=2 * config.text.hidden_size,
            num_hidden_layers=config.text.layers,
            num_attention_heads=config.text.heads,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae(config: StarterConfig) -> Any:
    levels = len(config.vae.channels)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=list(config.vae.channels),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=config.vae.norm_groups,
        sample_size=config.size,
        # At few pixels attention costs little and gives nothing: no two icons have far corners in common.
        mid_block_add_attention=False,
    )


def latent_side(config: StarterConfig) -> int:
    halvings = len(config.vae.channels) - 1
    return config.size >> halvings


def build_unet(config: StarterConfig) -> Any:
    attending = len(config.unet.channels) - 1
    return UNet2DConditionModel(
        sample_size=latent_side(config),
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * attending,
        up_block_types=["CrossAttnUpBlock2D"] * attending + ["UpBlock2D"],
        block_out_channels=list(config.unet.channels),
        layers_per_block=config.unet.layers_per_block,
        attention_head_dim=config.unet.heads,  # diffusers' name for the number of heads
        cross_attention_dim=config.text.hidden_size,
    )


def warm(module: nn.Module, component: Path) -> None:
    """Take over those weights of a component's folder whose name and shape fit.

    Raises:
        ModelError: the folder has no safetensors weights.
    """
    own = module.state_dict()
    found = {
        name: tensor.to(own[name].dtype)
        for file in weight_files(component)
        if file.suffix == ".safetensors"
        for name, tensor in load_file(file).items()
        if name in own and own[name].shape == tensor.shape
    }
    if not found:
        raise ModelError(f"no weight of {component} fits this configuration; leave warm_start out")
    module.load_state_dict(found, strict=False)
    log.info("weights_taken", component=component.name, taken=len(found), of=len(own))
