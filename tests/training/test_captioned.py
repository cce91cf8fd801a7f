"""Captioned pictures in each layout, and how one becomes what training sees."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from itemforge.errors import InvalidInput
from itemforge.training.captioned import Sample, read_samples
from itemforge.training.prepared import prepare


def _picture(path: Path, colour: str = "tomato", size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_an_imagefolder_has_its_metadata(tmp_path: Path) -> None:
    _picture(tmp_path / "sub/a.png")
    _picture(tmp_path / "b.png")
    lines = [
        {"file_name": "sub/a.png", "text": "one"},
        {"file_name": "b.png", "text": "x", "captions": ["two", "three"]},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read_samples(tmp_path)
    assert [(s.path.name, s.captions) for s in found] == [("a.png", ("one",)), ("b.png", ("two", "three"))]


@pytest.mark.parametrize("place", ["a.png", "images/a.png", "/kaggle/input/set/a.png"])
def test_the_original_notebooks_table_is_read_wherever_it_was_made(tmp_path: Path, place: str) -> None:
    _picture(tmp_path / ("images/a.png" if place == "images/a.png" else "a.png"))
    (tmp_path / "metadata.csv").write_text(f'image_path,prompt\n{place},"tsuki_advtr, a key, white"\n')
    (sample,) = read_samples(tmp_path)
    assert sample.path.is_file() and sample.captions == ("tsuki_advtr, a key, white",)


def test_sidecars_are_texts_beside_the_pictures_and_masks_are_no_pictures(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    _picture(tmp_path / "a-masklabel.png")
    (tmp_path / "a.txt").write_text("\ufeffone\n\ntwo \n", encoding="utf-8")
    _picture(tmp_path / "b.jpg")
    _picture(tmp_path / "masks/b.png")
    a, b = read_samples(tmp_path)
    assert a.captions == ("one", "two") and a.mask == tmp_path / "a-masklabel.png"
    assert b.captions == () and b.mask == tmp_path / "masks/b.png"
    assert a.held_out is None


def test_folders_train_and_validation_are_a_split(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        _picture(tmp_path / name / f"{name}.png")
        (tmp_path / name / f"{name}.txt").write_text(name)
    assert [(s.path.stem, s.held_out) for s in read_samples(tmp_path)] == [
        ("train", False),
        ("validation", True),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("metadata.jsonl", '{"file_name": "a.png"}', "line 1"),
        ("metadata.jsonl", "", "is empty"),
        ("metadata.csv", "a,b\n1,2\n", "needs the columns image_path and prompt"),
        ("other.txt", "x", "no captioned pictures"),
    ],
)
def test_what_is_no_training_set_says_what_is_missing(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=said):
        read_samples(tmp_path)


def _prepared(data: bytes, folder: Path, size: int = 32) -> np.ndarray:
    (folder / "p.png").write_bytes(data)
    return prepare(Sample(folder / "p.png", ("x",), None), size).pixels


def _saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def test_transparent_becomes_white_whatever_is_hidden_there(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (8, 8, 24, 24))
    pixels = _prepared(_saved(picture), tmp_path)
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[16, 16].tolist() == [0, 0, 255]
    assert pixels[..., 0].max() == 255 and not ((pixels[..., 0] > 200) & (pixels[..., 2] < 100)).any(), (
        "no red"
    )
    palette = picture.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert (
        _prepared(_saved(palette, transparency=palette.getpixel((0, 0))), tmp_path)[0, 0].tolist()
        == [255] * 3
    )


def test_the_aspect_is_kept_by_a_white_border(tmp_path: Path) -> None:
    pixels = _prepared(_saved(Image.new("RGB", (64, 16), "black")), tmp_path)
    assert pixels.shape == (32, 32, 3)
    assert pixels[:12].min() == 255 and pixels[20:].min() == 255 and pixels[12:20].max() == 0


def test_a_turned_photograph_is_turned_back(tmp_path: Path) -> None:
    picture = Image.new("RGB", (32, 32), "white")
    picture.paste((0, 0, 0), (0, 0, 32, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = _prepared(_saved(picture, "JPEG", exif=exif, quality=95), tmp_path)
    assert pixels[:16].mean() > 200 > pixels[28:].mean()


def test_masks_go_with_their_pictures(tmp_path: Path) -> None:
    path = _picture(tmp_path / "a.png", size=(16, 16))
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (0, 0, 8, 16))
    mask.save(tmp_path / "m.png")
    made = prepare(Sample(path, ("x",), tmp_path / "m.png"), 32)
    assert made.mask is not None
    assert made.mask[:, :13].min() > 0.9 and made.mask[:, 19:].max() < 0.1
    alone = prepare(Sample(path, ("x",), None), 32)
    assert alone.mask is None and alone.key != made.key, "another mask is another lesson"
    Image.new("L", (9, 9)).save(tmp_path / "m.png")
    with pytest.raises(InvalidInput, match="its picture"):
        prepare(Sample(path, ("x",), tmp_path / "m.png"), 32)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", _saved(Image.new("RGB", (64, 64)))[:70]], ids=["empty", "text", "cut"]
)
def test_what_cannot_be_read_is_an_error_with_its_name(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"p\.png"):
        _prepared(data, tmp_path)


def test_the_key_is_of_the_bytes_and_the_size(tmp_path: Path) -> None:
    path = _picture(tmp_path / "a.png")
    sample = Sample(path, ("x",), None)
    first = prepare(sample, 32).key
    assert prepare(sample, 32).key == first and prepare(sample, 64).key != first
    _picture(path, "navy")
    assert prepare(sample, 32).key != first
