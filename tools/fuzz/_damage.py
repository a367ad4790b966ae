"""Damage to files: bytes cut, turned and put in; and odd values inside the JSON of a file, where the rest of it stays whole."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

__all__ = ["damaged", "odd"]

_ODD = (None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, 0.5, float("nan"), float("-inf"), "", "x", "\x00", "é😀", "../../x", "F16", "F32", "I32", "BOOL", "U8", "F8_E4M3", [], [0], [[]], [0, -1], [2**62, 2**62], {}, {"x": 1}, [None], "0", "cpu", "float16", "a" * 300)  # fmt: skip


def odd(rng: random.Random) -> Any:
    """A value that is rarely what was wanted."""
    return rng.choice(_ODD)


def damaged(rng: random.Random, data: bytes, kind: str) -> bytes:
    """The bytes of a file, with damage.

    Args:
        rng: decides which.
        data: the whole file.
        kind: "safetensors", "json" or "text".
    """
    if rng.random() < 0.5 and kind == "safetensors":
        return _in_header(rng, data)
    if rng.random() < 0.5 and kind == "json":
        return _dumped(_in_json(rng, json.loads(data)))
    for _ in range(rng.choice((1, 1, 1, 3))):
        data = _in_bytes(rng, data)
    return data


def _in_bytes(rng: random.Random, data: bytes) -> bytes:  # noqa: PLR0911  one for each kind of damage
    at = rng.choice((0, 1, 7, 8, 9, len(data) // 2, len(data) - 1, rng.randrange(len(data) + 1)))
    at = max(0, min(at, len(data)))
    length = rng.choice((1, 1, 2, 8, 64))
    kind = rng.randrange(7)
    if kind == 0:
        return data[:at]
    if kind == 1 and at < len(data):
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + rng.randbytes(length) + data[at + length :]
    if kind == 3:
        return data[:at] + bytes(length) + data[at + length :]
    if kind == 4:
        return data[:at] + rng.randbytes(length) + data[at:]
    if kind == 5:
        return data[:at] + data[at + length :]
    return data[:at] + b"\xff" * length + data[at + length :]


def _in_header(rng: random.Random, data: bytes) -> bytes:
    """Odd values in the header of safetensors, or in the JSON that a value of its metadata holds."""
    (length,) = struct.unpack("<Q", data[:8])
    header: Any = json.loads(data[8 : 8 + length])
    about = header.get("__metadata__", {})
    if about and rng.random() < 0.6:
        name = rng.choice(sorted(about))
        try:
            about[name] = _dumped(_in_json(rng, json.loads(about[name]))).decode()
        except ValueError:
            about[name] = str(odd(rng))
    else:
        header = _in_json(rng, header)
    written = _dumped(header)
    return struct.pack("<Q", len(written)) + written + data[8 + length :]


def _in_json(rng: random.Random, value: Any) -> Any:  # noqa: PLR0911  one for each kind of damage
    """The value with something in it that is odd, or missing, or a neighbour's."""
    if isinstance(value, dict) and value and rng.random() < 0.93:
        name = rng.choice(sorted(value))
        if rng.random() < 0.12:
            return {key: each for key, each in value.items() if key != name}
        if rng.random() < 0.1:
            return value | {name: value[rng.choice(sorted(value))]}
        return value | {name: _in_json(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return [*value[:at], _in_json(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, int | float) and rng.random() < 0.4:
        return rng.choice((-value, value + 1, value * 2, value / 2, str(value)))
    return odd(rng)


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()
