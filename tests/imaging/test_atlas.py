"""Sheets as game engines read them, shown by the engines themselves: Phaser and PixiJS in Chromium."""

import base64
import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from itemforge.dataset.packages import Package
from itemforge.errors import InvalidInput
from itemforge.imaging.atlas import Layout, Sheet, make_atlas
from itemforge.imaging.packing import pack
from services import npm
from services.process import unavailable

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE / "texturepacker_hash.schema.json").read_text())
ENGINES = {
    "phaser": (Package("phaser", "3.90.0"), "dist/phaser.min.js"),
    "pixi": (Package("pixi.js", "8.22.0"), "dist/pixi.min.js"),
}
SIZE = st.tuples(st.integers(1, 90), st.integers(1, 90))


def pictures(count: int, seed: int = 3) -> dict[str, np.ndarray]:
    """Blocks of colours and alphas of their own, with empty borders; one is all transparent, one opaque RGB."""
    draw = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for n in range(count):
        width, height = (int(side) for side in draw.integers(24, 60, 2))
        pixels = np.zeros((height, width, 4), np.uint8)
        left, top, right, bottom = (int(side) for side in draw.integers(0, 9, 4))
        inner = pixels[top : height - bottom, left : width - right]
        inner[..., :3] = draw.integers(0, 256, (1, inner.shape[1], 3))
        inner[..., 3] = 255
        inner[: len(inner) // 3, :, 3] = 128
        made[f"größe {n}.png"] = pixels
    made["nothing.png"] = np.zeros((20, 30, 4), np.uint8)
    made["opaque.png"] = np.full((16, 24, 3), (10, 200, 90), np.uint8)
    return made


def restored(sheets: list[Sheet]) -> dict[str, np.ndarray]:
    """The pictures, by what the JSON says of them."""
    found = {}
    for sheet in sheets:
        for name, told in json.loads(sheet.json)["frames"].items():
            at, to, size = told["frame"], told["spriteSourceSize"], told["sourceSize"]
            pixels = np.zeros((size["h"], size["w"], 4), np.uint8)
            part = sheet.pixels[at["y"] : at["y"] + at["h"], at["x"] : at["x"] + at["w"]]
            pixels[to["y"] : to["y"] + to["h"], to["x"] : to["x"] + to["w"]] = part
            assert told["trimmed"] == ((to["w"], to["h"]) != (size["w"], size["h"])) and not told["rotated"]
            found[name] = pixels
    return found


def as_rgba(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("RGBA"))


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("extrude", [0, 3])
@pytest.mark.parametrize("max_side", [128, 1024])
def test_every_picture_comes_back_out_of_the_sheets(trim: bool, extrude: int, max_side: int) -> None:
    given_ = pictures(30)
    sheets = make_atlas(given_, Layout(max_side, padding=2, extrude=extrude, trim=trim))
    assert (len(sheets) > 1) == (max_side == 128)
    for sheet in sheets:
        told = json.loads(sheet.json)
        Draft202012Validator(SCHEMA).validate(told)
        height, width = sheet.pixels.shape[:2]
        assert told["meta"]["size"] == {"w": width, "h": height}
        assert width & (width - 1) == 0 and height & (height - 1) == 0 and max(width, height) <= max_side
        assert told["meta"]["image"] == sheet.image and list(told["frames"]) == list(sheet.frames)
    linked = json.loads(sheets[0].json)["meta"].get("related_multi_packs", [])
    assert linked == [sheet.data for sheet in sheets[1:]]
    found = restored(sheets)
    assert found.keys() == given_.keys()
    for name, pixels in given_.items():
        wanted = as_rgba(pixels)
        assert (found[name] == wanted)[wanted[..., 3] > 0].all(), name
        assert (found[name][..., 3] == wanted[..., 3]).all(), name


def test_extruded_edges_repeat_the_pictures_outermost_pixels() -> None:
    (sheet,) = make_atlas({"a": np.full((8, 8, 3), 77, np.uint8)}, Layout(64, padding=0, extrude=2))
    at = json.loads(sheet.json)["frames"]["a"]["frame"]
    assert (at["x"], at["y"], at["w"], at["h"]) == (2, 2, 8, 8)
    assert (sheet.pixels[:12, :12] == (77, 77, 77, 255)).all()


def test_the_schema_refuses_what_is_not_the_form() -> None:
    (sheet,) = make_atlas({"a": np.full((8, 8, 3), 77, np.uint8)}, Layout())
    for wrong in (
        lambda told: told.pop("meta"),
        lambda told: told["frames"]["a"].pop("sourceSize"),
        lambda told: told["frames"]["a"]["frame"].update(x=-1),
        lambda told: told["meta"].update(scale=1),
        lambda told: told.update(frames=[]),
    ):
        told = json.loads(sheet.json)
        wrong(told)
        assert not Draft202012Validator(SCHEMA).is_valid(told)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(SIZE, min_size=1, max_size=40),
    max_side=st.sampled_from([128, 256]),
    gap=st.integers(0, 5),
    power_of_two=st.booleans(),
)
def test_rectangles_keep_apart_and_within_their_sheet(
    sizes: list[tuple[int, int]], max_side: int, gap: int, power_of_two: bool
) -> None:
    sheets = pack(sizes, max_side, gap, power_of_two)
    assert sorted(n for sheet in sheets for n in sheet.places) == list(range(len(sizes)))
    for sheet in sheets:
        width, height = sheet.size
        taken = np.zeros((height + gap, width + gap), int)
        for n, (x, y) in sheet.places.items():
            assert x + sizes[n][0] <= width <= max_side and y + sizes[n][1] <= height <= max_side
            taken[y : y + sizes[n][1] + gap, x : x + sizes[n][0] + gap] += 1
        assert taken.max() == 1
        assert not power_of_two or (width & (width - 1) == 0 and height & (height - 1) == 0)


def test_equal_pictures_fill_a_sheet_without_waste() -> None:
    (sheet,) = pack([(64, 64)] * 64, 2048, 0, True)
    assert sheet.size == (512, 512)
    (sheet,) = pack([(1024, 1024)], 1024, 4, True)
    assert sheet.size == (1024, 1024)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="make the pictures smaller"):
        make_atlas({"a": np.full((300, 8, 3), 77, np.uint8)}, Layout(256))
    with pytest.raises(InvalidInput, match="at least one"):
        make_atlas({}, Layout())


# ── The engines themselves ───────────────────────────────────────────────────────────────────────


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    driver = shutil.which("chromedriver")
    if driver is None:
        unavailable("no Chromium: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        # WebGL without a graphics card.
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    chrome = webdriver.Chrome(options, Service(driver))
    chrome.set_script_timeout(90)
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("max_side", [128, 512])
def test_an_engine_draws_every_picture_as_it_was(
    engine: str, max_side: int, npm_packages: Path, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    package, script = ENGINES[engine]
    folder = tmp_path / "site"
    shutil.copytree(HERE / "atlas_page", folder)
    (folder / Path(script).name).write_bytes(npm.member(package, npm_packages, script))
    given_ = pictures(14)
    sheets = make_atlas(given_, Layout(max_side, padding=2, extrude=1))
    assert (len(sheets) > 1) == (max_side == 128)
    for sheet in sheets:
        Image.fromarray(sheet.pixels).save(folder / sheet.image)
        (folder / sheet.data).write_bytes(sheet.json)
    names = ",".join(Path(sheet.data).stem for sheet in sheets)
    with served(folder) as url:
        browser.get(f"{url}/{engine}.html?sheets={names}&cell=64&rows=2")
        drawn = browser.execute_async_script(
            "const done = arguments[0]; window.drawn.then(done, why => done({failed: String(why)}));"
        )
    assert "failed" not in drawn, drawn
    assert {frame["name"]: (frame["w"], frame["h"]) for frame in drawn["frames"]} == {
        name: pixels.shape[1::-1] for name, pixels in given_.items()
    }
    canvas = np.frombuffer(base64.b64decode(drawn["pixels"]), np.uint8)
    canvas = canvas.reshape(drawn["height"], drawn["width"], 4)
    for n, frame in enumerate(drawn["frames"]):
        wanted = as_rgba(given_[frame["name"]]).astype(int)
        x, y = n % 8 * 64, n // 8 * 64
        seen = canvas[y : y + wanted.shape[0], x : x + wanted.shape[1]].astype(int)
        assert np.abs(seen[..., 3] - wanted[..., 3]).max() <= 1, frame
        # A canvas keeps colours weighed by alpha, so half of them is off by a level or two.
        assert (np.abs(seen - wanted)[wanted[..., 3] > 0] <= 2).all(), frame
        around = canvas[y : y + 64, x : x + 64].copy()
        around[: wanted.shape[0], : wanted.shape[1]] = 0
        assert not around.any(), f"{frame} reaches beyond its picture"
