"""Small files with the names and headers of real ones."""

import json
import struct
from pathlib import Path

COMMIT = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
BIG = 3_000_000


def weights(*keys: str, size: int = 64, seed: int = 0) -> bytes:
    """A safetensors file whose tensors have these names; its bytes depend on the seed."""
    header, end = {}, 0
    for key in keys:
        header[key] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    pattern = bytes((seed + i * i) % 251 for i in range(997))
    return struct.pack("<Q", len(text)) + text + (pattern * (end // 997 + 1))[:end]


def lora(size: int = 64, seed: int = 0) -> bytes:
    return weights(
        "unet.down_blocks.0.to_q.lora_A.weight", "unet.down_blocks.0.to_q.lora_B.weight", size=size, seed=seed
    )


def checkpoint() -> bytes:
    return weights(
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.decoder.up.0.block.0.conv1.weight",
        "first_stage_model.decoder.up.1.block.0.conv1.weight",
    )


def sd15() -> dict[str, bytes]:
    """What the repository has: all that is needed, and much that is not."""
    files = {
        "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
        "unet/config.json": b'{"sample_size": 64}',
        "vae/config.json": b'{"block_out_channels": [128, 256, 512, 512]}',
        "text_encoder/config.json": b"{}",
        "scheduler/scheduler_config.json": b"{}",
        "tokenizer/vocab.json": b'{"a": 1}',
        "tokenizer/merges.txt": b"#version\n",
        "tokenizer/tokenizer_config.json": b"{}",
        "tokenizer/special_tokens_map.json": b"{}",
        "unet/diffusion_pytorch_model.fp16.safetensors": weights("conv_in.weight", size=BIG),
        "vae/diffusion_pytorch_model.fp16.safetensors": weights("decoder.conv_in.weight", size=1000),
        "text_encoder/model.fp16.safetensors": weights("text_model.embeddings.weight", size=2000),
    }
    return files | dict.fromkeys(UNNEEDED, b"no need of it")


NEEDED_FILES = 12
UNNEEDED = (
    ".gitattributes",
    "README.md",
    "v1-5-pruned.safetensors",
    "v1-5-pruned-emaonly.ckpt",
    "feature_extractor/preprocessor_config.json",
    "safety_checker/config.json",
    "safety_checker/model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.fp16.bin",
)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
