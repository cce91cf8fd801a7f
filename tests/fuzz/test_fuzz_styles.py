"""Hostile style packs: refused with a word on what is wrong, and the other styles stay."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from size import SEED, count, dice

from itemforge.errors import InvalidStyle, ItemForgeError, ModelError, PermanentError, StyleNotFound
from itemforge.styles import files
from itemforge.styles.cache import StyleCache
from itemforge.styles.local import LocalPacks
from itemforge.styles.models import describe
from itemforge.styles.pack import MAX_TOML, StylePack, parse

SHA = "ab" * 32
GOOD = f"""
id = "tale"
version = 3
trigger = "trg"
template = "{{prompt}}, thick outlines"
[[lora]]
source = "tale.safetensors"
sha256 = "{SHA}"
[size]
width = 64
height = 64
[defaults]
guidance_scale = 4.0
"""

REFUSED = {
    "a path as id": GOOD.replace('"tale"', '"../../tale"'),
    "an absolute id": GOOD.replace('"tale"', '"/etc/tale"'),
    "an id of another script": GOOD.replace('"tale"', '"tаle"'),  # a Cyrillic а
    "an id with a line break": GOOD.replace('"tale"', '"tale\\n"'),
    "a NUL in the source": GOOD.replace("tale.safe", "tale\\u0000.safe"),
    "a sha256 that is a path": GOOD.replace(SHA, "../" * 21 + "x"),
    "a sha256 in capitals": GOOD.replace(SHA, SHA.upper()),
    "a version as text": GOOD.replace("version = 3", 'version = "3"'),
    "a version that is true": GOOD.replace("version = 3", "version = true"),
    "a version of 5000 digits": GOOD.replace("version = 3", f"version = {'9' * 5000}"),
    "a size of 2^40": GOOD.replace("width = 64", f"width = {2**40}"),
    "a guidance that is no number": GOOD.replace("4.0", "nan"),
    "an infinite guidance": GOOD.replace("4.0", "inf"),
    "two places for the prompt": GOOD.replace("{prompt}", "{prompt} {prompt}"),
    "a format that reads attributes": GOOD.replace("{prompt}", "{prompt.__class__}"),
    "an unknown key": 'run = "rm -rf /"\n' + GOOD,
    "a hundred LoRAs": GOOD.split("[size]")[0] + f'[[lora]]\nsha256 = "{SHA}"\n' * 100,
    "a key given twice": 'id = "tale"\n' + GOOD,
    "a deep table": "[" + ".".join("a" * 1) + ".a" * 1900 + "]\n",
    "a deep array": "x = " + "[" * 20_000,
    "deep inline tables": "x = " + "{a=" * 20_000,
    "a key of many dots": "a" + ".a" * 3000 + " = 1",
    "more than its limit": GOOD + "#" * MAX_TOML,
    "no text": "\x00\x01",
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_hostile_pack_is_refused_with_a_reason(what: str) -> None:
    with pytest.raises(InvalidStyle) as error:
        parse(REFUSED[what].encode())
    assert 10 < len(str(error.value)) < 2000


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", GOOD.encode("utf-16"), GOOD.encode("utf-8-sig"), b"\xed\xa0\x80"]
)
def test_a_pack_that_is_no_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidStyle):
        parse(data)


def test_a_mutated_pack_is_a_pack_or_refused() -> None:
    random = dice("packs")
    outcomes = {True: 0, False: 0}
    for _ in range(count(500, 30_000)):
        data = bytearray(GOOD.encode())
        for _ in range(random.choice((1, 1, 3))):
            at = random.randrange(len(data))
            data[at : at + random.choice((0, 1, 9))] = random.choice(
                (
                    b"",
                    b"\0",
                    b"[",
                    b'"""',
                    b".",
                    b"9" * 20,
                    b"\xf0\x9f",
                    b"\\u0000",
                    b"-",
                    b"[[lora]]\n",
                    b"= {}",
                )
            )
        try:
            pack = parse(bytes(data))
        except InvalidStyle:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert parse(pack.to_toml().encode()) == pack
    assert all(outcomes.values()), outcomes


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a sound style, and a LoRA that lies where no style may reach."""
    styles = tmp_path / "home" / "styles"
    styles.mkdir(parents=True)
    (styles / "sound.toml").write_text('id = "sound"\nversion = 1\n')
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    return tmp_path / "home"


def _with_source(source: str) -> StylePack:
    sha = hashlib.sha256(b"secret").hexdigest()
    return parse(GOOD.replace(SHA, sha).replace('"tale.safetensors"', repr(source)).encode())


OUTSIDE = ("../secret.safetensors", "../../secret.safetensors", "x/../../../secret.safetensors", "link.safetensors",
           "linked/secret.safetensors")  # fmt: skip


@pytest.mark.parametrize("source", [*OUTSIDE, "ABSOLUTE"])
async def test_no_source_leads_out_of_its_packs_folder(source: str, home: Path) -> None:
    styles = home / "styles"
    (styles / "link.safetensors").symlink_to(home.parent / "secret.safetensors")
    (styles / "linked").symlink_to(home.parent)
    if source == "ABSOLUTE":
        source = str(home.parent / "secret.safetensors")
    pack = _with_source(source)
    (styles / "tale.toml").write_text(pack.to_toml())
    with pytest.raises(InvalidStyle, match="outside its folder"):
        await StyleCache(home).loras(pack)


@pytest.mark.parametrize("source", ["a" * 300, "circle.safetensors", "sound.toml/x", "huge.safetensors", "."])
async def test_a_source_that_cannot_be_read_is_our_own_error(
    source: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("itemforge.styles.local.MAX_BLOB", 1000)
    circle = home / "styles" / "circle.safetensors"
    circle.symlink_to(circle)
    (home / "styles" / "huge.safetensors").write_bytes(bytes(1001))
    pack = _with_source(source)
    (home / "styles" / "tale.toml").write_text(pack.to_toml())
    with pytest.raises((InvalidStyle, ModelError)):
        await StyleCache(home).loras(pack)


def test_files_that_are_no_packs_take_no_other_style_with_them(home: Path) -> None:
    styles = home / "styles"
    os.mkfifo(styles / "pipe.toml")
    (styles / "folder.toml").mkdir()
    (styles / "device.toml").symlink_to("/dev/zero")
    (styles / "nowhere.toml").symlink_to("nowhere")
    (styles / "circle").symlink_to(styles)
    with (styles / "huge.toml").open("wb") as huge:
        huge.truncate(50 * 1024**3)
    for number, text in enumerate(REFUSED.values()):
        (styles / f"hostile-{number}.toml").write_text(text)
    packs = LocalPacks(home).packs
    assert ("sound", 1) in packs
    assert ("plain", 1) in packs
    assert not [name for name, _ in packs if name.startswith("tale")]


class _Source:
    """A gateway that answers with what it was told."""

    def __init__(self, toml: bytes, blob: bytes = b"") -> None:
        self._toml, self._blob = toml, blob

    async def pack_toml(self, style: str, version: int | None) -> bytes:
        return self._toml

    async def blob(self, sha256: str) -> bytes:
        return self._blob


_names = st.one_of(
    st.text(max_size=80),
    st.sampled_from(["../x@1", "tale@0", "tale@١", "/etc@1", "tale@1/../..", "@1", "a@"]),
)


@seed(SEED)
@settings(max_examples=count(50, 2000), deadline=None, database=None)
@given(name=_names)
async def test_no_style_name_makes_a_file_outside_the_cache(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home") / "home"
    with pytest.raises(ItemForgeError):
        await StyleCache(home, _Source(GOOD.encode())).pack(name)
    assert not [file for file in home.parent.rglob("*") if file.is_file()]


async def test_a_fetched_pack_must_be_the_one_asked_for_and_a_blob_must_have_its_hash(home: Path) -> None:
    with pytest.raises(InvalidStyle, match="asked for"):
        await StyleCache(home, _Source(GOOD.encode())).pack("other@3")
    cache = StyleCache(home, _Source(GOOD.encode(), b"other bytes"))
    with pytest.raises(InvalidStyle, match="sha256"):
        await cache.loras(await cache.pack("tale@3"))
    assert not list((home / "cache" / "blobs").glob("*"))
    assert files.MAX_BLOB == 2 * 1024**3


CARDS = {
    "deep": "x = " + "[" * 20_000,
    "digits": f"width = {'9' * 5000}",
    "text": "\udcff",
    "path": f'base = "../{SHA}"\nwidth = 64\nheight = 64',
    "size": f'base = "{SHA}"\nwidth = {2**70}\nheight = 64',
    "scale": f'base = "{SHA}"\nwidth = 64\nheight = 64\nvae_scale_factor = 1000000',
}


@pytest.mark.parametrize("what", CARDS)
def test_a_hostile_model_card_is_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.toml").write_bytes(CARDS[what].encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"m\.toml"):
        describe("m", tmp_path)


def test_the_errors_are_of_the_family_that_fails_a_job() -> None:
    assert all(issubclass(kind, PermanentError) for kind in (InvalidStyle, StyleNotFound, ModelError))
