"""`itemforge generate`: prompts to PNGs, and PNGs back to the same pixels."""

import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from itemforge.cli import generate as module
from itemforge.errors import InvalidInput, InvalidStyle, ItemForgeError, ModelError, StyleNotFound
from itemforge.imaging.png import read_recipe
from itemforge.styles.files import file_sha256
from itemforge.styles.models import starter_dir


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ITEMFORGE_HOME", str(tmp_path / "home"))
    # It would send this test process's own log to the runner's stream.
    monkeypatch.setattr(module, "setup_logs", lambda settings, process: None)
    (tmp_path / "home" / "styles").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def run(home):
    """Run the command; its output, or the error it raises."""
    app = typer.Typer()
    app.command()(module.generate)

    def run(*arguments: object):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if isinstance(result.exception, ItemForgeError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(path.read_bytes())))


def write_style(home: Path, name: str = "warm", **keys: object) -> Path:
    """A style with a LoRA that changes every picture, beside its pack."""
    generator = torch.Generator().manual_seed(1)
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v"
    file = home / "styles" / f"{name}.safetensors"
    parts = {"lora_down": (4, 192), "lora_up": (224, 4)}
    save_file(
        {f"{stem}.{part}.weight": torch.randn(shape, generator=generator) for part, shape in parts.items()},
        file,
    )
    lines = [f'id = "{name}"', "version = 2", *(f"{key} = {value!r}" for key, value in keys.items())]
    lora = ["[lora]", f'source = "{file.name}"', f'sha256 = "{file_sha256(file)}"', "weight = 0.5"]
    (home / "styles" / f"{name}.toml").write_text("\n".join(lines + lora))
    return file


def test_the_command_draws_and_like_draws_the_same_pixels_in_another_process(tmp_path, monkeypatch):
    monkeypatch.setenv("ITEMFORGE_HOME", str(tmp_path / "home"))
    code = "import typer; from itemforge.cli.generate import generate; typer.run(generate)"

    def itemforge(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)

    first = itemforge("red apple", "--style", "plain", "--seed", "7", "--steps", "4", "--out", "apple.png")
    second = itemforge("--like", "apple.png", "--out", "again.png")

    assert first.stdout == "apple.png\n"
    assert first.stderr.splitlines() == [f"apple.png: step {n} of 4" for n in range(1, 5)]
    assert second.stdout == "again.png\n"
    assert "the same pixels as apple.png" in second.stderr
    assert (tmp_path / "apple.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    recipe = read_recipe((tmp_path / "apple.png").read_bytes())
    assert (recipe.prompt, recipe.seed, recipe.steps) == ("red apple, glossy 3d icon, white background", 7, 4)
    assert (recipe.guidance, recipe.model, recipe.dtype) == (4.0, "starter", "float32")


def test_every_option_reaches_the_recipe(run, tmp_path):
    out = tmp_path / "new" / "folder" / "key.png"
    run(
        "a key", "--seed", 5, "--steps", 2, "--guidance", 2.5, "--scheduler", "euler", "--negative", "blurry",
        "--width", 72, "--height", 56, "--out", out,
    )  # fmt: skip
    recipe = read_recipe(out.read_bytes())
    assert (recipe.sampler, recipe.guidance, recipe.negative_prompt) == ("euler", 2.5, "blurry")
    assert (recipe.width, recipe.height) == (72, 56)
    assert pixels(out).shape == (56, 72, 3)


def test_a_seed_is_drawn_and_recorded(run, tmp_path):
    run("a key", "--steps", 1, "--out", tmp_path / "a.png")
    run("a key", "--steps", 1, "--out", tmp_path / "b.png")
    seeds = {read_recipe((tmp_path / name).read_bytes()).seed for name in ("a.png", "b.png")}
    assert len(seeds) == 2
    assert all(seed < 2**32 for seed in seeds)


def test_several_images_have_the_next_seeds_and_are_each_drawn_alone(run, tmp_path):
    result = run("a key", "--seed", 7, "--steps", 2, "--num-images", 2, "--out", tmp_path / "key.png")
    assert result.stdout.splitlines() == [str(tmp_path / f"key-{n}.png") for n in range(2)]
    assert read_recipe((tmp_path / "key-1.png").read_bytes()).seed == 8
    run("a key", "--seed", 8, "--steps", 2, "--out", tmp_path / "alone.png")
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "key-1.png").read_bytes()


def test_a_style_with_a_lora_is_drawn_again_by_its_sha256(run, home, tmp_path):
    file = write_style(home, trigger="wrm")
    run(
        "a key",
        "--style",
        "warm",
        "--seed",
        1,
        "--steps",
        2,
        "--lora-weight",
        0.8,
        "--out",
        tmp_path / "a.png",
    )
    recipe = read_recipe((tmp_path / "a.png").read_bytes())
    assert recipe.prompt == "wrm, a key"
    assert [(lora.sha256, lora.weight, lora.name) for lora in recipe.loras] == [
        (file_sha256(file), 0.8, "warm")
    ]

    result = run("--like", tmp_path / "a.png", "--out", tmp_path / "again.png")

    assert "the same pixels" in result.stderr
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    blobs = home / "cache" / "blobs"
    blobs.mkdir(parents=True)
    file.rename(blobs / f"{recipe.loras[0].sha256}.safetensors")
    run("--like", tmp_path / "a.png", "--out", tmp_path / "again.png")
    shutil.rmtree(blobs)
    with pytest.raises(ModelError, match=recipe.loras[0].sha256):
        run("--like", tmp_path / "a.png", "--out", tmp_path / "again.png")


def test_a_lora_changes_the_picture(run, home, tmp_path):
    write_style(home)
    (home / "styles" / "bare.toml").write_text('id = "bare"\nversion = 1')
    for style in ("warm", "bare"):
        run("a key", "--style", style, "--seed", 1, "--steps", 2, "--out", tmp_path / f"{style}.png")
    off = pixels(tmp_path / "warm.png").astype(int) - pixels(tmp_path / "bare.png")
    assert np.abs(off).max() > 5


def test_like_with_another_base_model_names_both(run, home, tmp_path):
    run("a key", "--steps", 1, "--seed", 1, "--out", tmp_path / "a.png")
    other = shutil.copytree(starter_dir(), home / "models" / "other")
    (other / "scheduler" / "scheduler_config.json").write_text(
        (starter_dir() / "scheduler" / "scheduler_config.json").read_text() + "\n"
    )
    with pytest.raises(ModelError, match=r"drawn with the base model starter \(sha256 .*--model"):
        run("--like", tmp_path / "a.png", "--out", tmp_path / "b.png", "--model", "other")
    assert not (tmp_path / "b.png").exists()


def test_like_says_when_pixels_differ_from_an_edited_picture(run, tmp_path):
    run("a key", "--steps", 1, "--seed", 1, "--out", tmp_path / "a.png")
    recipe = read_recipe((tmp_path / "a.png").read_bytes())
    edited = pixels(tmp_path / "a.png").copy()
    edited[0, 0, 0] ^= 8
    (tmp_path / "a.png").write_bytes(module.encode_png(edited, recipe))
    result = run("--like", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert "1 values differ" in result.stderr
    assert "by at most 8" in result.stderr


def test_our_pictures_are_overwritten_and_other_files_only_by_force(run, tmp_path):
    out = tmp_path / "item.png"
    Image.new("RGB", (4, 4)).save(out)
    before = out.read_bytes()
    with pytest.raises(InvalidInput, match="was not drawn by ItemForge"):
        run("a key", "--steps", 1, "--out", out)
    assert out.read_bytes() == before
    run("a key", "--steps", 1, "--out", out, "--force")
    run("a key", "--steps", 1, "--seed", 3, "--out", out)
    assert read_recipe(out.read_bytes()).seed == 3


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ([], InvalidInput, "say what to draw"),
        (["  "], InvalidInput, "prompt is empty"),
        (["a key", "--steps", "0"], InvalidInput, "--steps: "),
        (["a key", "--steps", "151"], InvalidInput, "--steps: "),
        (["a key", "--guidance", "nan"], InvalidInput, "--guidance: "),
        (["a key", "--seed", "-1"], InvalidInput, "--seed: "),
        (["a key", "--scheduler", "magic"], InvalidInput, "--scheduler: "),
        (["a key", "--width", "70"], InvalidInput, "--width: "),
        (["a key", "--width", "1024"], InvalidInput, "outside the limits of the style plain@1"),
        (["a key", "--num-images", "17"], InvalidInput, "--num-images: "),
        (["x" * 9000], InvalidInput, "the prompt: "),
        (["a key", "--style", "none"], StyleNotFound, "no style 'none'"),
        (["a key", "--model", "none"], ModelError, "no model 'none'"),
        (["a key", "--out", "item.jpg"], InvalidInput, "must end in .png"),
        (["--like", "gone.png"], InvalidInput, "gone.png cannot be read"),
        (["--like", "gone.png", "--seed", "3"], InvalidInput, "--like takes everything from the picture"),
        (["a key", "--like", "gone.png"], InvalidInput, "--like takes everything from the picture"),
    ],
)
def test_wrong_options_are_named_before_any_model_is_loaded(arguments, error, says, run, monkeypatch):
    monkeypatch.setattr(module, "_engine", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(error, match=says):
        run(*arguments)


@pytest.mark.parametrize(
    "style", ["plain@", "plain@x", "plain@2", "plain@" + "9" * 5000, "PLAIN", "é", "../plain"]
)
def test_a_style_that_is_not_there_is_not_taken_for_one_that_is(style, run):
    with pytest.raises(StyleNotFound, match="there is no style"):
        run("a key", "--style", style)


def test_where_a_picture_cannot_be_written_is_said_before_it_is_drawn(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_engine", lambda *_: pytest.fail("the model was loaded"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    for out, says in (
        ("folder", "is a folder"),
        ("folder.png", "is a folder"),
        ("file/item.png", "cannot be written"),
        ("x" * 300 + ".png", "cannot be written"),
    ):
        with pytest.raises(InvalidInput, match=says):
            run("a key", "--out", tmp_path / out)


def test_like_of_a_picture_whose_pixels_are_damaged_still_draws_it(run, tmp_path):
    run("a key", "--steps", 1, "--seed", 1, "--out", tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    pixel_data = data.index(b"IDAT")
    damaged = data[: pixel_data + 8] + b"\xff" * 40 + data[pixel_data + 48 :]
    (tmp_path / "a.png").write_bytes(damaged)
    result = run("--like", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert "a.png is damaged" in result.stderr
    assert (tmp_path / "b.png").read_bytes() == data


def test_a_style_of_another_base_is_refused(run, home):
    (home / "styles" / "other.toml").write_text(f'id = "other"\nversion = 1\nbase = "{"ab" * 32}"')
    with pytest.raises(InvalidStyle, match="other@1 is for the base model abab"):
        run("a key", "--style", "other")


def test_a_png_without_recipe_cannot_be_drawn_again(run, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "foreign.png")
    with pytest.raises(InvalidInput, match="carries no ItemForge recipe"):
        run("--like", tmp_path / "foreign.png", "--out", tmp_path / "again.png")
