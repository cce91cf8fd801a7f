"""`itemforge cutout`: files in, game-ready files out."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from itemforge.cli.app import app
from itemforge.errors import InvalidInput


def _ring(path: Path) -> Path:
    picture = Image.new("RGB", (100, 80), "white")
    ImageDraw.Draw(picture).ellipse((10, 10, 60, 60), outline=(200, 20, 30), width=12)
    picture.save(path)
    return path


def test_files_are_cut_out_and_a_bad_one_stops_no_other(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    files = [str(_ring(tmp_path / "a.png")), str(bad), str(_ring(tmp_path / "b.png"))]
    done = CliRunner().invoke(
        app, ["cutout", *files, "--out", str(tmp_path / "out"), "--size", "64", "--trim"]
    )
    assert done.exit_code == 1 and "bad.png: this is not a PNG file" in done.output
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / "out" / name) as made:
            assert (made.mode, made.size, made.getchannel("A").getbbox()) == (
                "RGBA",
                (64, 64),
                (0, 0, 64, 64),
            )
            assert made.getpixel((32, 32))[3] == 0
    assert not (tmp_path / "out" / "bad.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "10"], "size"),
        (["--size", "64", "--pad", "17"], "a quarter"),
        (["--out", "."], "replaced"),
        (["a.png", "--format", "webp"], "several files"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], said: str, tmp_path: Path) -> None:
    _ring(tmp_path / "a.png")  # tests run in tmp_path
    done = CliRunner().invoke(app, ["cutout", "a.png", "--out", "out", *arguments])
    assert isinstance(done.exception, InvalidInput) and said in str(done.exception)
    assert not (tmp_path / "out").exists()
