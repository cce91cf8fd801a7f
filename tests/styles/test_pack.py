"""A style pack's TOML: what it means, and what is said about a wrong one."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemforge.contract import Scheduler
from itemforge.errors import InvalidStyle
from itemforge.styles.local import LocalPack
from itemforge.styles.models import base_sha256, starter_dir
from itemforge.styles.pack import StylePack, parse, split_name

SHA = "ab" * 32
FULL = f"""
id = "tsuki"
version = 3
base = "{"cd" * 32}"
licence = "CC-BY-4.0"
trigger = "tsuki_advtr"
template = "tsuki_advtr, {{prompt}}, white background, thick outlines"
negative = "photo"

[lora]
source = "tsuki.safetensors"
sha256 = "{SHA}"
weight = 0.9

[size]
width = 512
height = 512
min = 256
max = 768

[defaults]
num_inference_steps = 50
guidance_scale = 7.5
scheduler = "dpmpp_2m_karras"
lora_weight = 1
"""


def test_all_keys_are_read():
    pack = parse(FULL.encode())
    assert (pack.id, pack.version, pack.name) == ("tsuki", 3, "tsuki@3")
    assert pack.loras[0].source == "tsuki.safetensors"
    assert (pack.size.min, pack.size.max) == (256, 768)
    assert pack.defaults.scheduler is Scheduler.DPMPP_2M_KARRAS
    assert pack.defaults.lora_weight == 1.0


def test_a_pack_needs_only_an_id_and_a_version():
    pack = parse(b'id = "x"\nversion = 1')
    assert (pack.base, pack.size, pack.loras, pack.negative) == (None, None, (), "")
    assert pack.compose("  a key ") == "a key"


@pytest.mark.parametrize(
    ("prompt", "composed"),
    [
        ("a dog", "tsuki_advtr, a dog, white background, thick outlines"),
        ("tsuki_advtr, a dog", "tsuki_advtr, a dog, white background, thick outlines"),
        ("a dog in TSUKI_ADVTR style", "a dog in TSUKI_ADVTR style, white background, thick outlines"),
        ("tsuki_advtrs", "tsuki_advtr, tsuki_advtrs, white background, thick outlines"),
        ("a {prompt} \\1 {0}", "tsuki_advtr, a {prompt} \\1 {0}, white background, thick outlines"),
    ],
)
def test_the_trigger_is_added_once(prompt, composed):
    assert parse(FULL.encode()).compose(prompt) == composed


def test_a_trigger_that_the_template_forgot_is_put_in_front():
    pack = StylePack(id="x", version=1, trigger="trg", template="{prompt}, icon")
    assert pack.compose("a dog") == "trg, a dog, icon"
    assert pack.compose("a trg dog") == "a trg dog, icon"


def test_several_loras_keep_their_proportion():
    toml = f'id="x"\nversion=1\n[[lora]]\nsha256="{SHA}"\nweight=0.5\n[[lora]]\nsha256="{SHA}"\nweight=-0.25'
    pack = parse(toml.encode())
    assert pack.weights() == (0.5, -0.25)
    assert pack.weights(1.0) == (1.0, -0.5)


def test_the_default_weight_holds_unless_another_is_asked_for():
    pack = parse(FULL.encode())
    assert pack.weights() == (1.0,)
    assert pack.weights(0.4) == (0.4,)


def test_a_size_without_limits_allows_only_itself():
    pack = parse(b'id="x"\nversion=1\n[size]\nwidth=64\nheight=96')
    assert (pack.size.min, pack.size.max) == (64, 96)


def test_a_pack_survives_its_own_toml():
    pack = parse(FULL.encode())
    assert parse(pack.to_toml().encode()) == pack


safe = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=80)


@settings(deadline=None)
@given(before=safe, negative=safe, weight=st.floats(-5, 5).filter(bool))
def test_any_text_survives_the_toml(before, negative, weight):
    lora = {"sha256": SHA, "weight": weight}
    before = before.replace("{prompt}", "")
    pack = StylePack(id="x", version=1, template=before + "{prompt}", negative=negative, loras=(lora,))
    assert parse(pack.to_toml().encode()) == pack


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (b"id = ", "not TOML"),
        (b"\xff", "not TOML"),
        (b"version = 1", "id: Field required"),
        (b'id = "Upper"\nversion = 1', "id: String should match"),
        (b'id = "x"\nversion = "1"', "version: "),
        (b'id = "x"\nversion = 0', "version: "),
        (b'id = "x"\nversion = true', "version: "),
        (b'id = "x"\nversion = 1\ntemplate = "no place"', r"template: must contain \{prompt\} exactly once"),
        (b'id = "x"\nversion = 1\ncolour = "red"', "colour: is no key of a style pack"),
        (b'id = "x"\nversion = 1\n[lora]\nweight = 1', r"lora\.0\.sha256: Field required"),
        (b'id = "x"\nversion = 1\n[lora]\nsha256 = "abc"', r"lora\.0\.sha256: "),
        (f'id = "x"\nversion = 1\n[lora]\nsha256 = "{SHA}"\nweight = 0'.encode(), "must not be 0"),
        (b'id = "x"\nversion = 1\nlora = 3', "lora: "),
        (b'id = "x"\nversion = 1\n[size]\nwidth = 60\nheight = 64', r"size\.width: .*multiple of 8"),
        (b'id = "x"\nversion = 1\n[size]\nwidth = 64', r"size\.height: Field required"),
        (
            b'id = "x"\nversion = 1\n[size]\nwidth = 64\nheight = 64\nmin = 128\nmax = 256',
            "between min and max",
        ),
        (b'id = "x"\nversion = 1\n[defaults]\nscheduler = "ddpm"', r"defaults\.scheduler: "),
        (b'id = "x"\nversion = 1\n[defaults]\nguidance_scale = nan', r"defaults\.guidance_scale: "),
        (b'id = "x"\nversion = 1\nnegative = "\\u0000"', "negative: must not contain NUL"),
        (b"#" * 70_000, "at most"),
    ],
)
def test_a_wrong_pack_is_refused_by_the_key_name(toml, says):
    with pytest.raises(InvalidStyle, match=says):
        parse(toml)


def test_names_split_into_id_and_version():
    assert split_name("plain@12") == ("plain", 12)
    assert split_name("plain") == ("plain", None)
    assert split_name("plain@x") == ("plain", None)


@pytest.mark.parametrize("file", sorted((starter_dir() / "styles").glob("*.toml")), ids=lambda f: f.name)
def test_every_shipped_pack_is_valid_and_named_as_its_file(file):
    pack = parse(file.read_bytes())
    assert pack.id == file.stem
    assert pack.licence


@pytest.mark.parametrize(
    "text",
    [
        f"id = 'a'\nversion = {'9' * 5000}",  # more digits than Python turns into an int
        "id" + ".a" * 1500 + " = 1\nversion = 1",  # an id that is 1500 tables deep
        "a" + ".a" * 30_000 + " = 1",  # half a minute in the TOML parser
        "id = " + "[" * 900 + "]" * 900,
        f"id = '{'x' * 60_000}'\nversion = 1",
        "a" * 60_000 + " = 1",
    ],
)
def test_a_hostile_pack_is_refused_at_once_and_in_few_words(text):
    start = time.monotonic()
    with pytest.raises(InvalidStyle) as said:
        parse(text.encode())
    assert time.monotonic() - start < 5
    assert len(str(said.value)) < 1000


@pytest.mark.parametrize("file", sorted((starter_dir() / "styles").glob("*.toml")), ids=lambda f: f.name)
def test_every_shipped_pack_fits_the_starter_and_has_its_loras_beside_it(file):
    toml = file.read_bytes()
    local = LocalPack(parse(toml), toml, file.parent)
    assert local.pack.base in (None, base_sha256(starter_dir()))
    assert all(local.lora_file(lora) for lora in local.pack.loras)


def test_the_starter_is_small_enough_for_a_repository():
    sizes = [file.stat().st_size for file in starter_dir().rglob("*") if file.is_file()]
    assert sum(sizes) <= 40 * 2**20 and max(sizes) <= 15 * 2**20
