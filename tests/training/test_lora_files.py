"""The files of a LoRA of SD 1.5's shapes: every key is one that other programs know."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file

from itemforge.engine.lora_keys import KeyTable
from itemforge.training.lora_config import LoraConfig
from itemforge.training.lora_files import DIFFUSERS, PEFT, Factors, Story, factors_of, write_files
from itemforge.training.lora_stage import add_lora

#: rank x (in + out) over the 128 projections of SD 1.5's 16 transformer blocks.
PARAMETERS = 6_377_472


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> LoraConfig:
    return LoraConfig(
        name="tsuki", base="sd15", data=Path("d"), run=tmp_path_factory.mktemp("run"), trigger="tsuki_advtr",
        size=512, rank=32, alpha=16.0, optimizer="adamw", learning_rate=1e-4, restarts=3, warmup=1, min_snr_gamma=5.0,
        noise_offset=0.0, ema=0.999, clip=0.5, batch_size=1, accumulation=4, epochs=2, precision="float32", seed=1,
        validation=0.1, flip=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    """SD 1.5's UNet without its gigabytes: shapes alone."""
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)


@pytest.fixture(scope="module")
def factors(unet: UNet2DConditionModel, config: LoraConfig) -> Factors:
    parameters = add_lora(unet, config)
    assert sum(p.numel() for p in parameters) == PARAMETERS
    shapes = [(name, m) for name, m in unet.named_modules() if hasattr(m, "lora_A") and len(m.lora_A)]
    dice = torch.Generator().manual_seed(1)

    def of(module: torch.nn.Module) -> torch.Tensor:
        return torch.randn(module.weight.shape, generator=dice) * 0.02

    return Factors({n: (of(m.lora_A["default"]), of(m.lora_B["default"])) for n, m in shapes}, config.alpha)


@pytest.fixture(scope="module")
def written(factors: Factors, config: LoraConfig) -> Path:
    story = Story(900, 100, 4500, 20, 1_760_000_000.0, {"tsuki_advtr": 900, "a key": 3}, "d" * 64, "b" * 64)
    return write_files(factors, config, story, config.run / "lora")


def test_all_of_sd15s_attention_is_there_and_every_key_is_known(
    factors: Factors, written: Path, unet: UNet2DConditionModel
) -> None:
    assert (len(factors.layers), factors.parameters) == (128, PARAMETERS)
    names = json.loads((Path(__file__).parents[1] / "data/sd15_keys.json").read_text())
    assert names, "the map of SD 1.5's names"
    with torch.device("meta"):
        bare = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    table = KeyTable(bare, torch.nn.Module())
    for path in (written, written.parent / DIFFUSERS, written.parent / PEFT):
        found = table.resolve(load_file(path))
        assert {target.module for target in found} == set(factors.layers), path


def test_kohyas_layout_has_alpha_and_the_headers_are_texts(factors: Factors, written: Path) -> None:
    tensors = load_file(written)
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert tensors[f"{name}.lora_down.weight"].shape == (32, 320)
    assert tensors[f"{name}.lora_up.weight"].shape == (320, 32)
    assert float(tensors[f"{name}.alpha"]) == 16.0 and tensors[f"{name}.alpha"].ndim == 0
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0.lora_up.weight" in tensors
    with safe_open(written, "pt") as file:
        header = file.metadata()
    assert header["ss_base_model_version"] == "sd_v1" and header["ss_network_alpha"] == "16.0"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.trigger_phrase"] == "tsuki_advtr" and header["modelspec.date"].startswith(
        "2025-10-09T"
    )
    assert json.loads(header["ss_tag_frequency"]) == {"tsuki": {"tsuki_advtr": 900, "a key": 3}}
    assert len(header["sshs_model_hash"]) == 64 and header["sshs_model_hash"].startswith(
        header["sshs_legacy_hash"]
    )


def test_diffusers_reads_its_own_file_and_kohyas_as_the_same(written: Path) -> None:
    theirs, theirs_alphas = StableDiffusionPipeline.lora_state_dict(written)
    own, own_alphas = StableDiffusionPipeline.lora_state_dict(written.parent, weight_name=DIFFUSERS)
    assert len(theirs) == len(own) == 256
    assert set(theirs_alphas.values()) == {16.0} and not own_alphas, "its own tells alpha in the header"
    with safe_open(written.parent / DIFFUSERS, "pt") as file:
        told = json.loads(file.metadata()["lora_adapter_metadata"])
    assert (told["unet.r"], told["unet.lora_alpha"]) == (32, 16.0)


def test_the_original_workers_file_has_the_strength_in_its_weights(factors: Factors, written: Path) -> None:
    tensors = load_file(written.parent / PEFT)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = (tensors[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB")
    wanted = factors.layers[name][1] @ factors.layers[name][0] * 0.5
    assert torch.allclose(up @ down, wanted, atol=2e-3)


def test_factors_are_read_back_from_a_unet_that_has_them(config: LoraConfig) -> None:
    small = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    parameters = add_lora(small, config.model_copy(update={"rank": 4}))
    assert all(p.dtype == torch.float32 for p in parameters)
    found = factors_of(small, 4.0)
    assert found.rank == 4 and found.parameters == sum(p.numel() for p in parameters)
