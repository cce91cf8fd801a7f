"""Queue messages as nobody should send them: mutated bodies, and content headers of every kind.

Everything is made from a valid message and a `random.Random`, so a seed gives the same messages again.
Left out is only what makes the broker itself drop a message (a time to live).
"""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

from raw_amqp import long, properties, short, table

STRANGE: list[Any] = [
    None, True, False, 0, -1, 1.5, -0.0, 1e308, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30,
    "", " ", "0", "-1", "1e3", "NaN", "Infinity", "null", "\x00", "a\x00b", "\ud800", "\udfff\ud800",
    "\u202e\u200b", "🐕" * 50, "a" * 9000, "../../etc/passwd", "{prompt}", "%s%n", "'; DROP TABLE requests;--",
    [], [[]], {}, {"": ""}, ["a", 1, None], {"prompt": {"prompt": "a key"}}, [0] * 500,
]  # fmt: skip
KEYS = (
    "prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "seed", "style", "lora_weight",
    "width", "height", "scheduler", "num_images", "output",
)  # fmt: skip
#: Numbers that JSON does not know, or that no machine word holds.
RAW_VALUES = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"-" + b"9" * 400,
    b"0x10",
    b"01",
    b"1" + b"0" * 4301,
)


def valid(request_id: str) -> dict[str, Any]:
    params = {"prompt": "an apple", "num_inference_steps": 3, "guidance_scale": 4.0, "seed": 7}
    return {"request_id": request_id, "params": params}


def body(dice: random.Random, request_id: str) -> bytes:
    """A mutated body; one in ten stays valid."""
    message = valid(request_id)
    if dice.random() < 0.1:
        return json.dumps(message).encode()
    mutate = dice.choice(_MUTATIONS)
    mutated = mutate(dice, message)
    if dice.random() < 0.1:  # two faults at once
        mutated = dice.choice((_flip, _truncate, _insert))(dice, mutated)
    return mutated


def _strange_value(dice: random.Random, message: dict[str, Any]) -> bytes:
    message["params"][dice.choice(KEYS)] = dice.choice(STRANGE)
    return json.dumps(message).encode()


def _near_the_limits(dice: random.Random, message: dict[str, Any]) -> bytes:
    limits = {
        "num_inference_steps": [0, 1, 2, 151],
        "guidance_scale": [0, 30, 30.001, -0.001],
        "num_images": [0, 1, 2, 17],
        "width": [0, 8, 9, 64, 2056],
        "seed": [0, 2**63 - 1, 2**63, "7", "-7", "007"],
        "lora_weight": [-5, 5, 5.01, 0],
        "scheduler": ["ddim", "euler", "DDIM", "plms"],
        "style": ["plain@1", "plain@0", "PLAIN", "no-such-style", "a@" + "9" * 30],
    }
    key = dice.choice(list(limits))
    message["params"][key] = dice.choice(limits[key])
    return json.dumps(message).encode()


def _strange_id(dice: random.Random, message: dict[str, Any]) -> bytes:
    given = message["request_id"]
    forms = [
        given.upper(),
        f"{{{given}}}",
        f"urn:uuid:{given}",
        given.replace("-", ""),
        f" {given}",
        given[:-1],
    ]
    message["request_id"] = dice.choice([*forms, *STRANGE])
    return json.dumps(message).encode()


def _strange_shape(dice: random.Random, message: dict[str, Any]) -> bytes:
    shapes: list[Any] = [
        [message], {"params": message["params"]}, {"request_id": message["request_id"]},
        {**message, "params": json.dumps(message["params"])}, {**message, "params": [message["params"]]},
        {**message, "params": None}, {**message, "unknown": STRANGE[15]}, {"message": message}, "text", 7, None,
    ]  # fmt: skip
    return json.dumps(dice.choice(shapes)).encode()


def _raw_value(dice: random.Random, message: dict[str, Any]) -> bytes:
    key = dice.choice(KEYS)
    message["params"][key] = "@@"
    return json.dumps(message).encode().replace(b'"@@"', dice.choice(RAW_VALUES))


def _twice(dice: random.Random, message: dict[str, Any]) -> bytes:
    text = json.dumps(message)
    again = json.dumps({dice.choice(("request_id", "params")): dice.choice(STRANGE)})
    return f"{text[:-1]}, {again[1:]}".encode()


def _deep(dice: random.Random, message: dict[str, Any]) -> bytes:
    depth = dice.choice((50, 500, 5000, 100_000))
    opening, closing = dice.choice(((b"[", b"]"), (b'{"a":', b"}")))
    nested = opening * depth + (b"1" + closing * depth if dice.random() < 0.5 else b"")
    return json.dumps({**message, "extra": "@@"}).encode().replace(b'"@@"', nested)


def _giant(dice: random.Random, message: dict[str, Any]) -> bytes:
    size = dice.choice((8_000, 100_000, 262_000, 300_000, 1_000_000))
    if dice.random() < 0.5:
        message["params"]["prompt"] = "a" * size
        return json.dumps(message).encode()
    return json.dumps(message).encode() + b" " * size  # valid, but for its length


def _encoded(dice: random.Random, message: dict[str, Any]) -> bytes:
    message["params"]["prompt"] = "ein Käse \U0001f9c0"
    text = json.dumps(message, ensure_ascii=False)
    return text.encode(dice.choice(("utf-8-sig", "utf-16", "utf-32", "latin-1", "cp037", "utf-7")), "replace")


def _not_utf8(dice: random.Random, message: dict[str, Any]) -> bytes:
    broken = dice.choice(
        (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80", b"\x00", b"\x1b")
    )
    return json.dumps(message).encode().replace(b"apple", b"ap" + broken + b"ple")


def _of_bytes(
    change: Callable[[random.Random, bytes], bytes],
) -> Callable[[random.Random, dict[str, Any]], bytes]:
    return lambda dice, message: change(dice, json.dumps(message).encode())


def _flip(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8)) if changed else 0):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _truncate(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _insert(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.randbytes(dice.choice((1, 4, 64))) + data[at:]


def _noise(dice: random.Random, data: bytes) -> bytes:
    return dice.randbytes(dice.choice((0, 1, 16, 1000)))


_MUTATIONS = (
    _strange_value, _strange_value, _near_the_limits, _near_the_limits, _strange_id, _strange_shape,
    _raw_value, _twice, _deep, _giant, _encoded, _not_utf8,
    *map(_of_bytes, (_flip, _flip, _truncate, _insert, _noise)),
)  # fmt: skip

_TIMES = (0, 1_700_000_000, 2**32, 2**42, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
_TEXTS = (
    b"",
    b"application/json",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x00",
    b"text/" + b"x" * 240,
    b"gzip",
    b"utf-16",
)
_NAMES = (
    b"x-attempt", b"x-death", b"x-delivery-count", b"x-reason", b"traceparent", b"tracestate", b"b3", b"CC2",
    b"x-first-death-queue", b"x-opt-thing", b"", b"\xff", b"\x00", b"n" * 120, b"a b",
)  # fmt: skip


def header(dice: random.Random) -> bytes:
    """A content header: any fields, with values that their types allow and their readers may not."""
    makers: dict[str, Callable[[], bytes]] = {
        "content_type": lambda: short(dice.choice(_TEXTS)),
        "content_encoding": lambda: short(dice.choice(_TEXTS)),
        "headers": lambda: table(_pairs(dice, 0)),
        "delivery_mode": lambda: bytes([dice.choice((1, 2))]),
        "priority": lambda: bytes([dice.choice((0, 9, 10, 255))]),
        "correlation_id": lambda: short(dice.choice(_TEXTS)),
        "message_id": lambda: short(dice.choice(_TEXTS)),
        "reply_to": lambda: short(dice.choice((b"no-such-queue", b"\xff", b"r" * 255))),
        "timestamp": lambda: struct.pack(">Q", dice.choice(_TIMES)),
        "type": lambda: short(dice.choice(_TEXTS)),
        "app_id": lambda: short(dice.choice(_TEXTS)),
    }
    chosen = [name for name in makers if dice.random() < 0.25]
    if dice.random() < 0.5:
        chosen = sorted({*chosen, "headers"})
    return properties({name: makers[name]() for name in chosen})


def _pairs(dice: random.Random, depth: int) -> list[tuple[bytes, bytes]]:
    pairs = [(dice.choice(_NAMES), _value(dice, depth)) for _ in range(dice.choice((0, 1, 2, 6)))]
    if dice.random() < 0.3:
        pairs.append((b"x-attempt", _value(dice, depth)))
    return pairs


def _value(dice: random.Random, depth: int) -> bytes:
    """A value of any type of RabbitMQ's field tables; about one in fifty is of none."""
    if dice.random() < 0.02:
        return dice.choice((b"Z", b"?")) + dice.randbytes(4)
    if depth < 4 and dice.random() < 0.1:
        return b"F" + table(_pairs(dice, depth + 1))
    if depth < 4 and dice.random() < 0.1:
        return b"A" + long(b"".join(_value(dice, depth + 1) for _ in range(dice.choice((0, 1, 5)))))
    if depth == 0 and dice.random() < 0.02:
        return _nested(dice.choice((100, 400, 1500)))
    kind, size = dice.choice(
        ((b"t", 1), (b"b", 1), (b"B", 1), (b"s", 2), (b"u", 2), (b"I", 4), (b"i", 4), (b"l", 8),
         (b"f", 4), (b"d", 8), (b"D", 5), (b"T", 8), (b"V", 0), (b"S", -1), (b"x", -1))
    )  # fmt: skip
    if size < 0:
        return kind + long(dice.choice((b"", b"1", b"\xff\xfe", b"00-" + b"a" * 32 + b"-01", b"s" * 2000)))
    return kind + dice.choice((bytes(size), b"\xff" * size, dice.randbytes(size)))


def _nested(depth: int) -> bytes:
    """Arrays in arrays, deeper than a reader that calls itself can go."""
    value = b"V"
    for _ in range(depth):
        value = b"A" + long(value)
    return value
