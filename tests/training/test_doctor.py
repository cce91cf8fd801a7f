"""The doctor: what is wrong with a training set, found before any GPU time is spent."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from itemforge.errors import InvalidInput
from itemforge.training.doctor import Diagnosis, check, examine, tags

TRIGGER = "tsuki_advtr"


def _picture(path: Path, n: int, size: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(picture)
    for k in range(4):  # of its own shape: the split goes by what pictures look like
        x, y = (n * 13 + k * 29) % 40, (n * 31 + k * 17) % 40
        pen.rectangle((x, y, x + 6 + (n + k) % 17, y + 6 + (n * k) % 13), fill=(n * 40 % 256, k * 60, 90))
    picture.save(path)


def _set(folder: Path, count: int = 12, caption: str = f"{TRIGGER}, a thing, white background") -> Path:
    for n in range(count):
        _picture(folder / f"{n:02}.png", n)
        (folder / f"{n:02}.txt").write_text(caption)
    return folder


def _examine(folder: Path, validation: float = 0.0, size: int = 64) -> Diagnosis:
    return examine(folder, size, TRIGGER, validation, lambda text: len(text.split()), lambda done, of: None)


def test_a_good_set_has_nothing_to_complain_of(tmp_path: Path) -> None:
    found = _examine(_set(tmp_path))
    check(found, drop_bad=False)
    assert (len(found.train), len(found.validation), found.bad) == (12, 0, 0)
    assert tags(found).most_common(1) == [(TRIGGER, 12)]


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("", "no caption"),
        ("a thing", "no trigger 'tsuki_advtr' in the caption"),
        (f"a thing, {TRIGGER}", "the trigger 'tsuki_advtr' is not first"),
        (f"{TRIGGER}s, a thing", "no trigger|not first"),
        (f"{TRIGGER}, " + "very " * 80, "more than 75 tokens"),
    ],
)
def test_what_is_wrong_with_a_caption_is_said_with_the_pictures_name(
    tmp_path: Path, caption: str, said: str
) -> None:
    (_set(tmp_path) / "03.txt").write_text(caption)
    found = _examine(tmp_path)
    with pytest.raises(InvalidInput, match=said) as caught:
        check(found, drop_bad=False)
    assert "03.png" in str(caught.value) and "11 pictures to train on" in str(caught.value)
    check(found, drop_bad=True)
    assert len(found.train) == 11


def test_pictures_that_are_broken_or_tiny_are_found(tmp_path: Path) -> None:
    _set(tmp_path)
    (tmp_path / "01.png").write_bytes(b"no picture")
    _picture(tmp_path / "02.png", 2, size=8)
    found = _examine(tmp_path, size=64)
    assert set(found.problems) == {"a picture that cannot be used", "a picture smaller than 16 pixels"}
    assert len(found.train) == 10


def test_a_split_goes_by_content_and_stays_when_pictures_come_or_go(tmp_path: Path) -> None:
    found = _examine(_set(tmp_path, 60), validation=0.25)
    held_out = {each.sample.path.name for each in found.validation}
    assert 5 <= len(held_out) <= 30
    for n in range(30):
        for suffix in ("png", "txt"):
            (tmp_path / f"{n:02}.{suffix}").unlink()
    fewer = {each.sample.path.name for each in _examine(tmp_path, validation=0.25).validation}
    assert fewer == {name for name in held_out if name >= "30.png"}


def test_copies_and_recolours_never_stand_on_both_sides(tmp_path: Path) -> None:
    _set(tmp_path, 40)
    for n in range(40):
        picture = Image.open(tmp_path / f"{n:02}.png")
        red, green, blue = picture.split()
        Image.merge("RGB", (red.point(lambda v: min(255, v + 6)), green, blue)).save(
            tmp_path / f"copy-{n:02}.png"
        )
        (tmp_path / f"copy-{n:02}.txt").write_text(f"{TRIGGER}, a thing")
    found = _examine(tmp_path, validation=0.3)
    sides = [
        {each.sample.path.name.removeprefix("copy-") for each in side}
        for side in (found.train, found.validation)
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_a_split_that_somebody_made_is_kept_and_its_leaks_are_told(tmp_path: Path) -> None:
    _set(tmp_path / "train", 6)
    _set(tmp_path / "validation", 3)
    found = _examine(tmp_path, validation=0.9)
    with pytest.raises(InvalidInput, match="the same picture in training and in validation"):
        check(found, drop_bad=False)
    assert len(found.problems["the same picture in training and in validation"]) == 3
    assert len(found.train) == 3


def test_nothing_left_is_an_error_even_when_bad_ones_may_be_dropped(tmp_path: Path) -> None:
    found = _examine(_set(tmp_path, caption="no trigger"))
    with pytest.raises(InvalidInput, match="nothing is left"):
        check(found, drop_bad=True)
