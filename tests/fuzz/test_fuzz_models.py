"""Hostile weights: LoRAs, checkpoints and model directories. Nothing pickled is ever loaded."""

import hashlib
import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ldm_files import write_checkpoint
from lora_files import TEXT_ENDINGS, UNET_ENDINGS, kohya, random_pairs, ref, save
from size import count, dice

from itemforge.engine.lora import Merger
from itemforge.engine.model import Model, load_model
from itemforge.errors import ModelError
from itemforge.styles import models
from itemforge.styles.models import describe, safetensors_header, starter_dir

DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "I64",
    "I32",
    "I8",
    "U8",
    "BOOL",
    "F8_E4M3",
    "F8_E8M0",
    "C64",
    "U64",
    "F4",
    "X",
    None,
)
LENGTHS = (0, 1, 7, 2**31, 2**62, 2**63, 2**64 - 1, 100 * 1024**2)
SHAPES: tuple[Any, ...] = ([], [0], [1] * 30, [-1], [2**63], [2**64], ["a"], None, [2**32, 2**32, 2**32])
OFFSETS: tuple[Any, ...] = ([0, 0], [10, 5], [0, 2**63], [2**64, 2**65], [-4, 4], [0], None)
NAMES = (
    "../../x.lora_down.weight",
    "\0",
    "a" * 10_000,
    "lora_unet_",
    "",
    "unet.lora_A.weight",
    "__metadata__",
)
METADATA: tuple[Any, ...] = (
    None, 7, [], {"a": 1}, {"lora_adapter_metadata": "[" * 20_000}, {"lora_adapter_metadata": "[]"},
    {"lora_adapter_metadata": '{"unet.lora_alpha": 1e400}'}, {"lora_adapter_metadata": '{"unet.alpha_pattern": 7}'},
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(starter_dir(), torch.device("cpu"), torch.float32)


def written(header: Any, data: bytes, *, raw: bytes | None = None, length: int | None = None) -> bytes:
    text = json.dumps(header).encode() if raw is None else raw
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def mutated(good: bytes, dice: random.Random) -> bytes:
    """A safetensors file with one fault."""
    end = 8 + int.from_bytes(good[:8], "little")
    header, data = json.loads(good[8:end]), good[end:]
    name = dice.choice([key for key in header if key != "__metadata__"])
    match dice.randrange(10):
        case 0:
            changed = bytearray(good)
            for _ in range(dice.choice((1, 2, 8))):
                changed[dice.randrange(end)] = dice.randrange(256)
            return bytes(changed)
        case 1:
            return good[: dice.randrange(len(good))]
        case 2:
            header[name]["dtype"] = dice.choice(DTYPES)
        case 3:
            header[name]["shape"] = dice.choice(
                (*SHAPES, header[name]["shape"][::-1], header[name]["shape"][:1])
            )
        case 4:
            header[name]["data_offsets"] = dice.choice((*OFFSETS, [0, len(data)]))
        case 5:
            header[dice.choice(NAMES)] = header.pop(name)
        case 6:
            header["__metadata__"] = dice.choice(METADATA)
        case 7:
            return written(header, data, length=dice.choice(LENGTHS))
        case 8:
            raw = dice.choice(
                (b"[]", b"null", b"7", b"{", b"\xff", b'{"a":' * 5000, b'{"a":' + b"9" * 5000 + b"}")
            )
            return written(header, data, raw=raw)
        case 9:  # in the middle of some numbers
            changed, at = bytearray(good), end + 4 * dice.randrange(len(data) // 4)
            changed[at : at + 4] = struct.pack(
                "<f", dice.choice((float("nan"), float("inf"), -float("inf"), 3e38))
            )
            return bytes(changed)
    return written(header, data)


def _state(model: Model) -> str:
    weights = (*model.parts.unet.parameters(), *model.parts.text_encoder.parameters())
    return hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in weights)).hexdigest()


def test_a_mutated_lora_is_merged_or_refused_and_leaves_no_trace(model: Model, tmp_path: Path) -> None:
    numbers = dice("loras")
    unet = random_pairs(model.parts.unet, UNET_ENDINGS, 1)
    text = random_pairs(model.parts.text_encoder, TEXT_ENDINGS, 2)
    file = save(tmp_path / "lora.safetensors", kohya(unet, text))
    good = file.read_bytes()
    pristine, merger = _state(model), Merger(model.parts.unet, model.parts.text_encoder)
    outcomes = {True: 0, False: 0}
    for _ in range(count(60, 4000)):
        file.write_bytes(mutated(good, numbers))
        before = merger.current
        try:
            merger.apply((ref(file),))
        except ModelError as error:
            assert len(str(error)) < 15_000
            assert merger.current == before
            outcomes[False] += 1
        else:
            assert all(weight.isfinite().all() for weight in model.parts.unet.parameters())
            outcomes[True] += 1
    merger.apply(())
    assert _state(model) == pristine
    assert all(outcomes.values()), outcomes


def test_a_lora_of_finite_values_that_overflow_is_refused(model: Model, tmp_path: Path) -> None:
    pairs = {name: (a * 1e30, b) for name, (a, b) in random_pairs(model.parts.unet, ("to_q",), 1).items()}
    file = save(tmp_path / "lora.safetensors", kohya(pairs, {}))
    with pytest.raises(ModelError, match="so large"):
        Merger(model.parts.unet, model.parts.text_encoder).apply((ref(file),))


def test_a_header_of_100_megabytes_is_not_parsed(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    file.write_bytes(written(None, b"", raw=b'{"__metadata__":{}}' + b" " * (models.MAX_HEADER + 1)))
    with pytest.raises(ModelError, match="header"):
        Merger(model.parts.unet, model.parts.text_encoder).apply((ref(file),))
    with pytest.raises(ModelError, match="safetensors"):
        safetensors_header(file)


@pytest.fixture
def checkpoint(model: Model, tmp_path: Path) -> Path:
    parts = model.parts
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        shutil.copytree(starter_dir() / name, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors"))
    return write_checkpoint(tmp_path / "base.safetensors", parts.unet, parts.vae, parts.text_encoder)


def test_a_mutated_checkpoint_is_loaded_or_refused(checkpoint: Path) -> None:
    numbers = dice("checkpoints")
    good = checkpoint.read_bytes()
    refused = 0
    for _ in range(count(8, 600)):
        checkpoint.write_bytes(mutated(good, numbers))
        for read in (lambda: load_model(checkpoint, torch.device("cpu"), torch.float32), lambda: describe(str(checkpoint), checkpoint.parent)):  # fmt: skip
            try:
                read()
            except ModelError:
                refused += 1
    assert refused


CONFIGS = [
    b"", b"[]", b"null", b"\xff", b"[" * 20_000, b'{"sample_size": 1e400}', b'{"sample_size": "a"}',
    b'{"sample_size": ' + b"9" * 5000 + b"}", b'{"block_out_channels": 7}', b'{"_class_name": "os.system"}',
    b'{"sample_size": 8, "block_out_channels": [' + b"1," * 5000 + b"1]}", b'{"auto_map": {"AutoModel": "evil.Evil"}}',
    b'{"in_channels": -1}', b'{"attention_head_dim": 0}', b'{"hidden_size": 1000000000000}',
]  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(starter_dir(), tmp_path / "model"))


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_a_hostile_configuration_is_refused(component: str, directory: Path) -> None:
    config = directory / component / "config.json"
    good = json.loads(config.read_bytes())
    for hostile in dice(component).sample(CONFIGS, count(3, len(CONFIGS))):
        config.write_bytes(hostile)
        _neither_loaded_nor_crashed(directory)
        try:
            config.write_text(json.dumps({**good, **json.loads(hostile)}))
        except (ValueError, TypeError, RecursionError):
            continue
        _neither_loaded_nor_crashed(directory, may_load=True)


def _neither_loaded_nor_crashed(path: Path, may_load: bool = False) -> None:
    for read in (
        lambda: load_model(path, torch.device("cpu"), torch.float32),
        lambda: describe(str(path), path),
    ):
        try:
            read()
        except ModelError:
            continue
        assert may_load or read.__code__.co_names[0] == "describe"


@pytest.mark.parametrize("weight_map", [None, 7, [], {"a": 7}, {"a": "../../x.safetensors"}, {"a": "/etc/x.safetensors"}, {"a": "x.bin"}])  # fmt: skip
def test_shards_outside_their_folder_are_refused(weight_map: object, directory: Path) -> None:
    index = directory / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError):
        describe(str(directory), directory)
    with pytest.raises(ModelError):
        load_model(directory, torch.device("cpu"), torch.float32)


class _Payload:
    """What a pickle does to whoever loads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.mkdir, (str(self.marker), 0o777)


def _pickles(marker: Path) -> list[bytes]:
    plain = pickle.dumps(_Payload(marker))
    torch.save({"x": _Payload(marker)}, marker.with_suffix(".zip"))
    torch.save({"x": _Payload(marker)}, marker.with_suffix(".old"), _use_new_zipfile_serialization=False)
    return [plain, marker.with_suffix(".zip").read_bytes(), marker.with_suffix(".old").read_bytes()]


def test_the_payload_of_these_tests_works(tmp_path: Path) -> None:
    for n, data in enumerate(_pickles(tmp_path / "marker")):
        if n == 0:
            pickle.loads(data)
        else:
            (tmp_path / "p").write_bytes(data)
            torch.load(tmp_path / "p", weights_only=False)
        (tmp_path / "marker").rmdir()


def test_no_pickle_is_ever_loaded(
    model: Model, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    pickles = _pickles(marker)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, forbidden)
    merger = Merger(model.parts.unet, model.parts.text_encoder)
    for data in pickles:
        for ending in ("safetensors", "ckpt", "pt", "bin", "pth", "pkl"):
            file = tmp_path / f"evil.{ending}"
            file.write_bytes(data)
            _refused(lambda file=file: describe(str(file), tmp_path))
            _refused(lambda file=file: load_model(file, torch.device("cpu"), torch.float32))
            _refused(lambda file=file: merger.apply((ref(file),)))
        for component, stem in (("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
            weights = directory / component / f"{stem}.safetensors"
            kept = weights.read_bytes()
            others = [
                directory / component / name
                for name in (f"{stem}.bin", "pytorch_model.bin", f"{stem}.fp16.bin")
            ]
            for other in others:
                other.write_bytes(data)
            load_model(directory, torch.device("cpu"), torch.float32)  # pickles beside: not looked at
            weights.unlink()
            _refused(lambda: load_model(directory, torch.device("cpu"), torch.float32), "pickled")
            weights.write_bytes(data)  # and one that only has another name
            _refused(lambda: load_model(directory, torch.device("cpu"), torch.float32))
            weights.write_bytes(kept)
            for other in others:
                other.unlink()
    assert not marker.exists()


def test_an_adapter_that_lies_in_a_model_is_refused(directory: Path, tmp_path: Path) -> None:
    """The text encoder's library would merge it in silence, from wherever its configuration says."""
    adapter = {
        "peft_type": "LORA",
        "base_model_name_or_path": "/elsewhere",
        "target_modules": ["q_proj"],
        "r": 4,
    }
    (directory / "text_encoder" / "adapter_config.json").write_text(json.dumps(adapter))
    (directory / "text_encoder" / "adapter_model.bin").write_bytes(_pickles(tmp_path / "marker")[1])
    _refused(lambda: load_model(directory, torch.device("cpu"), torch.float32), "has an adapter")
    assert not (tmp_path / "marker").exists()


def _refused(call: Callable[[], object], words: str | None = None) -> None:
    with pytest.raises(ModelError, match=words):
        call()
