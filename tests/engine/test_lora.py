"""LoRAs draw what diffusers and PEFT draw, and leave no trace when they go."""

import hashlib
import json
import os
from pathlib import Path

import lora_files as files
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from itemforge.engine.lora import Merger
from itemforge.errors import ModelError
from itemforge.styles.models import starter_dir

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def pipeline() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(starter_dir(), dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def ours() -> StableDiffusionPipeline:
    return pipeline()


@pytest.fixture
def merger(ours):
    merger = Merger(ours.unet, ours.text_encoder)
    yield merger
    merger.apply(())


def draw(pipe) -> np.ndarray:
    """A picture as float, 0 to 255."""
    generator = torch.Generator().manual_seed(7)
    pictures = pipe(
        "a red apple", num_inference_steps=2, guidance_scale=4.0, generator=generator, output_type="np"
    ).images
    return pictures[0] * 255


def fingerprint(pipe) -> dict[str, str]:
    """sha256 of every weight of the UNet and the text encoder."""
    tensors = pipe.unet.state_dict() | {f"te.{n}": t for n, t in pipe.text_encoder.state_dict().items()}
    return {name: hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for name, t in tensors.items()}


LAYOUTS = {
    "kohya": (files.kohya, files.CONV_ENDINGS),
    "diffusers": (files.diffusers, files.CONV_ENDINGS),
    "diffusers with lora.down": (files.diffusers_old, files.UNET_ENDINGS),
    "diffusers with processors": (files.diffusers_first, ATTENTION),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_in_each_layout_draws_what_diffusers_draws(layout, ours, merger, tmp_path):
    write, endings = LAYOUTS[layout]
    unet = files.random_pairs(ours.unet, endings, seed=1)
    text = files.random_pairs(ours.text_encoder, files.TEXT_ENDINGS, seed=2)
    file = files.save(tmp_path / "style.safetensors", write(unet, text))
    reference = pipeline()
    plain = draw(reference)
    reference.load_lora_weights(str(file), adapter_name="style")
    reference.set_adapters(["style"], [0.7])
    wanted = draw(reference)

    merger.apply((files.ref(file, 0.7),))

    assert np.abs(wanted - plain).max() > 20  # the LoRA does something
    assert np.abs(draw(ours) - wanted).max() <= 1


def test_the_text_encoder_part_alone_draws_what_diffusers_draws(ours, merger, tmp_path):
    text = files.random_pairs(ours.text_encoder, files.TEXT_ENDINGS, seed=3)
    file = files.save(tmp_path / "text.safetensors", files.kohya({}, text))
    reference = pipeline()
    plain = draw(reference)
    reference.load_lora_weights(str(file))

    merger.apply((files.ref(file),))

    assert np.abs(draw(ours) - plain).max() > 2
    assert np.abs(draw(ours) - draw(reference)).max() <= 1


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # several adapters are what is meant
def test_several_loras_with_weights_draw_what_diffusers_draws(ours, merger, tmp_path):
    reference, refs, weights = pipeline(), [], [0.6, -0.4, 1.2]
    writers = [files.kohya, files.diffusers, files.kohya]
    for n, (write, weight) in enumerate(zip(writers, weights, strict=True)):
        unet = files.random_pairs(ours.unet, files.UNET_ENDINGS[n:], seed=10 + n)
        text = files.random_pairs(ours.text_encoder, files.TEXT_ENDINGS[n:], seed=20 + n)
        file = files.save(tmp_path / f"{n}.safetensors", write(unet, text))
        reference.load_lora_weights(str(file), adapter_name=f"style{n}")
        refs.append(files.ref(file, weight))
    reference.set_adapters(["style0", "style1", "style2"], weights)

    merger.apply(tuple(refs))

    assert np.abs(draw(ours) - draw(reference)).max() <= 1


@pytest.mark.parametrize("rslora", [False, True])
def test_a_lora_saved_by_peft_draws_what_peft_draws(rslora, ours, merger, tmp_path):
    settings = LoraConfig(
        r=4, lora_alpha=6, target_modules=["to_q", "to_v"], init_lora_weights=False, use_rslora=rslora
    )
    torch.manual_seed(5)
    get_peft_model(pipeline().unet, settings).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    assert next(iter(load_file(file))).startswith("base_model.model.")
    reference = pipeline()
    reference.unet = PeftModel.from_pretrained(reference.unet, tmp_path).merge_and_unload()

    merger.apply((files.ref(file),))

    assert np.abs(draw(ours) - draw(pipeline())).max() > 20
    assert np.abs(draw(ours) - draw(reference)).max() <= 1


def test_the_peft_layout_without_its_configuration_has_alpha_equal_rank(ours, merger, tmp_path):
    pairs = files.random_pairs(ours.unet, ATTENTION, seed=4)
    merger.apply((files.ref(files.save(tmp_path / "a.safetensors", files.diffusers(pairs, {}))),))
    wanted = fingerprint(ours)
    merger.apply(())

    merger.apply((files.ref(files.save(tmp_path / "b.safetensors", files.peft(pairs))),))

    assert fingerprint(ours) == wanted


def test_alpha_in_the_metadata_that_diffusers_writes_is_used(ours, merger, tmp_path):
    pairs = files.random_pairs(ours.unet, ATTENTION, seed=4)
    metadata = {"unet.r": files.RANK, "unet.lora_alpha": 2, "unet.target_modules": [*ATTENTION]}
    file = files.save(tmp_path / "a.safetensors", files.diffusers(pairs, {}), metadata)
    reference = pipeline()
    reference.load_lora_weights(str(file))

    merger.apply((files.ref(file),))

    assert np.abs(draw(ours) - draw(reference)).max() <= 1


def test_names_of_the_original_code_mean_the_same_modules(ours, merger, tmp_path):
    # down block 1, attention 0 of the starter (one layer a block) is input block 3.
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    pairs = {name: files.random_pairs(ours.unet, ("to_q",), seed=6)[name]}
    merger.apply((files.ref(files.save(tmp_path / "a.safetensors", files.kohya(pairs, {}))),))
    wanted = fingerprint(ours)
    merger.apply(())
    original = {"input_blocks.3.1.transformer_blocks.0.attn1.to_q": pairs[name]}

    merger.apply((files.ref(files.save(tmp_path / "b.safetensors", files.kohya(original, {}))),))

    assert fingerprint(ours) == wanted


def test_the_numbered_text_encoder_of_kohyas_layout_is_the_same_one(ours, merger, tmp_path):
    tensors = files.kohya({}, files.random_pairs(ours.text_encoder, files.TEXT_ENDINGS, seed=3))
    merger.apply((files.ref(files.save(tmp_path / "a.safetensors", tensors)),))
    wanted = fingerprint(ours)
    merger.apply(())
    numbered = {name.replace("lora_te_", "lora_te1_"): tensor for name, tensor in tensors.items()}

    merger.apply((files.ref(files.save(tmp_path / "b.safetensors", numbered)),))

    assert fingerprint(ours) == wanted


def test_a_tucker_decomposed_convolution_is_up_after_mid_after_down(ours, merger, tmp_path):
    name = "down_blocks.0.resnets.0.conv1"
    weight = ours.unet.get_submodule(name).weight
    out, inside = weight.shape[:2]
    torch.manual_seed(0)
    down, mid, up = torch.randn(3, inside, 1, 1), torch.randn(5, 3, 3, 3), torch.randn(out, 5, 1, 1)
    stem = f"lora_unet_{name.replace('.', '_')}"
    tensors = {f"{stem}.lora_{part}.weight": t for part, t in (("down", down), ("mid", mid), ("up", up))}
    before, picture = weight.clone(), torch.randn(1, inside, 9, 9)
    conv = torch.nn.functional.conv2d
    wanted = conv(conv(conv(picture, down), mid, padding=1), up)

    merger.apply((files.ref(files.save(tmp_path / "a.safetensors", tensors)),))

    torch.testing.assert_close(conv(picture, weight - before, padding=1), wanted, atol=1e-3, rtol=1e-4)


def test_two_hundred_swaps_leave_the_base_bit_identical_and_memory_flat(ours, merger, tmp_path):
    refs = []
    for n in range(5):
        unet = files.random_pairs(ours.unet, files.UNET_ENDINGS, seed=30 + n)
        text = files.random_pairs(ours.text_encoder, files.TEXT_ENDINGS, seed=40 + n)
        write = (files.kohya, files.diffusers)[n % 2]
        refs.append(files.ref(files.save(tmp_path / f"{n}.safetensors", write(unet, text)), 0.5 + n / 10))
    before, grown_from, pristine = fingerprint(ours), 0, 0
    for swap in range(200):
        if swap == 20:
            grown_from = resident()
        merger.apply((refs[swap % 5],) if swap % 3 else (refs[swap % 5], refs[(swap + 1) % 5]))
        if swap % 25 == 24:
            assert fingerprint(ours) != before
            merger.apply(())
            assert fingerprint(ours) == before
            pristine += 1

    assert pristine == 8
    assert resident() - grown_from < 20 * 1024**2


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_the_same_loras_give_the_same_weights_whatever_was_merged_before(ours, merger, tmp_path):
    refs = [
        files.ref(
            files.save(tmp_path / f"{n}.safetensors", files.kohya(files.random_pairs(ours.unet, e, n), {}))
        )
        for n, e in enumerate([("to_q",), ("to_q", "to_k"), ("to_v",)])
    ]
    merger.apply((refs[0], refs[1]))
    wanted = fingerprint(ours)

    merger.apply((refs[2],))
    merger.apply((refs[1], refs[2]))
    merger.apply((refs[0], refs[1]))

    assert fingerprint(ours) == wanted
    assert merger.current == (refs[0], refs[1])


def test_float16_weights_are_merged_in_float32_and_restored(tmp_path):
    pipe = pipeline()
    pipe.unet.to(torch.float16)
    merger, before = Merger(pipe.unet, pipe.text_encoder), fingerprint(pipe)
    pairs = files.random_pairs(pipe.unet, ("to_q",), seed=1)
    name, (down, up) = next(iter(pairs.items()))
    weight = pipe.unet.get_submodule(name).weight
    wanted = (weight.float() + up.float() @ down.float() * 0.3).half()

    merger.apply((files.ref(files.save(tmp_path / "a.safetensors", files.diffusers(pairs, {})), 0.3),))
    assert torch.equal(weight, wanted)
    merger.apply(())
    assert fingerprint(pipe) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, s: t.update({"lora_unet_no_such_block.lora_up.weight": torch.ones(1)}), "no_such_block"),
        (lambda t, s: t.update({f"{s}.dora_scale": torch.ones(4)}), "DoRA"),
        (lambda t, s: t.update({f"{s}.hada_w1_a": torch.ones(4)}), "LoHa"),
        (lambda t, s: t.pop(f"{s}.lora_up.weight"), "no up weight"),
        (lambda t, s: t.update({f"{s}.lora_up.weight": torch.ones(3, 4)}), "do not fit"),
        (lambda t, s: t[f"{s}.lora_up.weight"].fill_(float("nan")), "not numbers"),
        (lambda t, s: t.clear(), "holds no weights"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_says_why_and_changes_nothing(
    change, says, ours, merger, tmp_path
):
    # `s` is the stem of the file's first module.
    tensors = files.kohya(files.random_pairs(ours.unet, ("to_q",), seed=1), {})
    change(tensors, next(iter(tensors)).partition(".")[0])
    good = files.save(
        tmp_path / "good.safetensors", files.kohya(files.random_pairs(ours.unet, ("to_v",), 2), {})
    )
    merger.apply((files.ref(good),))
    before = fingerprint(ours)
    file = tmp_path / "bad.safetensors"
    save_file(tensors, file)

    with pytest.raises(ModelError, match=says):
        merger.apply((files.ref(good), files.ref(file)))

    assert fingerprint(ours) == before
    assert merger.current == (files.ref(good),)


def test_a_file_that_is_not_the_one_meant_is_refused(ours, merger, tmp_path):
    file = files.save(
        tmp_path / "a.safetensors", files.kohya(files.random_pairs(ours.unet, ("to_q",), 1), {})
    )
    meant = files.ref(file)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ModelError, match="sha256"):
        merger.apply((meant,))
    with pytest.raises(ModelError, match="cannot be read"):
        merger.apply((files.LoraRef(tmp_path / "gone.safetensors", "0" * 64, 1.0),))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, s: t.update({f"{s}.alpha": torch.ones(3)}), "do not fit"),
        (lambda t, s: t.update({f"{s}.alpha": torch.ones(0)}), "do not fit"),
        (lambda t, s: t.update({f"{s}.lora_up.weight": torch.ones(4, 224)}), "do not fit"),
        (lambda t, s: t.update({f"{s}.lora_up.weight": torch.ones(4 * 224)}), "do not fit"),
        (lambda t, s: t.update({f"{s}.lora_down.weight": torch.ones(224)}), "do not fit"),
        (
            lambda t, s: t.update({f"{s}.lora_down.weight": torch.ones(4, 224).to(torch.int8)}),
            "floating point",
        ),
        (
            lambda t, s: t.update({f"{s}.lora_up.weight": torch.ones(224, 4).to(torch.complex64)}),
            "floating point",
        ),
    ],
)
def test_odd_tensors_are_a_clear_error_and_change_nothing(change, says, ours, merger, tmp_path):
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{stem}.lora_down.weight": torch.ones(4, 224), f"{stem}.lora_up.weight": torch.ones(224, 4)}
    change(tensors, stem)
    before = fingerprint(ours)
    with pytest.raises(ModelError, match=says):
        merger.apply((files.ref(files.save(tmp_path / "odd.safetensors", tensors)),))
    merger.apply(())
    assert fingerprint(ours) == before


def test_weights_in_eight_bits_are_read(merger, ours, tmp_path):
    pairs = files.random_pairs(ours.unet, ("to_q",), seed=1)
    tensors = {name: t.to(torch.float8_e4m3fn) for name, t in files.diffusers(pairs, {}).items()}
    before = fingerprint(ours)
    merger.apply((files.ref(files.save(tmp_path / "small.safetensors", tensors)),))
    assert fingerprint(ours) != before


@pytest.mark.parametrize(
    "metadata",
    [
        '{"unet.lora_alpha": "x"}',
        '{"unet.lora_alpha": [1]}',
        '{"unet.lora_alpha": null}',
        '{"unet.lora_alpha": NaN}',
        '{"unet.lora_alpha": 1' + "0" * 400 + "}",
        '{"unet.alpha_pattern": [1]}',
        '{"unet.alpha_pattern": {"to_q": "x"}}',
        "[" * 100_000,
        "[1]",
    ],
)
def test_a_configuration_that_makes_no_sense_is_a_clear_error(metadata, ours, merger, tmp_path):
    tensors = files.diffusers(files.random_pairs(ours.unet, ("to_q",), seed=1), {})
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata={"lora_adapter_metadata": metadata})
    with pytest.raises(ModelError, match="PEFT configuration"):
        merger.apply((files.ref(path),))


def test_pickles_and_other_files_are_refused(merger, tmp_path):
    pickled = tmp_path / "style.bin"
    torch.save({"a": torch.ones(1)}, pickled)
    with pytest.raises(ModelError, match=r"only \.safetensors"):
        merger.apply((files.ref(pickled),))
    renamed = pickled.rename(tmp_path / "style.safetensors")
    with pytest.raises(ModelError, match="no safetensors file"):
        merger.apply((files.ref(renamed),))


def test_dora_settings_of_peft_are_refused(ours, merger, tmp_path):
    file = files.save(
        tmp_path / "adapter_model.safetensors", files.peft(files.random_pairs(ours.unet, ("to_q",), 1))
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps({"use_dora": True, "r": 4}))
    with pytest.raises(ModelError, match="DoRA"):
        merger.apply((files.ref(file),))
