"""Primitives of random bits: the counter-based generator of [SalmonEtAl2011], Threefry-2x32 with 20 rounds, as jax counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dualrev._jax.avals import ShapedArray
from dualrev.eager.host.registry import HostFunction, made, plain

_Avals = Sequence[ShapedArray]
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def threefry(key: Any, high: Any, low: Any) -> tuple[Any, Any]:
    """Two words of random bits for each pair of counters."""
    if np.size(low) <= _FEW:
        pairs = [_block(int(key[0]), int(key[1]), h, n) for h, n in zip(np.ravel(high).tolist(), np.ravel(low).tolist(), strict=True)]
        words = np.array(pairs, np.uint32).reshape(*np.shape(low), 2)
        return words[..., 0], words[..., 1]
    keys = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x, y = high + keys[0], low + keys[1]
    turned = np.empty_like(y)
    for i in range(5):
        for r in _ROTATIONS[i % 2]:
            np.add(x, y, out=x)
            np.left_shift(y, np.uint32(r), out=turned)
            np.right_shift(y, np.uint32(32 - r), out=y)
            np.bitwise_or(y, turned, out=y)
            np.bitwise_xor(y, x, out=y)
        np.add(x, keys[(i + 1) % 3], out=x)
        np.add(y, keys[(i + 2) % 3] + np.uint32(i + 1), out=y)
    return x, y


#: Up to so many pairs of counters Python's own numbers are faster than numpy's arrays.
_FEW = 8
_WORD = 0xFFFFFFFF


def _block(first: int, second: int, high: int, low: int) -> tuple[int, int]:
    """The two words of one pair of counters, in Python's numbers."""
    keys = (first, second, first ^ second ^ int(_PARITY))
    x, y = (high + first) & _WORD, (low + second) & _WORD
    for i in range(5):
        for r in _ROTATIONS[i % 2]:
            x = (x + y) & _WORD
            y = ((y << r | y >> 32 - r) & _WORD) ^ x
        x = (x + keys[(i + 1) % 3]) & _WORD
        y = (y + keys[(i + 2) % 3] + i + 1) & _WORD
    return x, y


def _counters(shape: Sequence[int]) -> tuple[Any, Any]:
    """The numbers of the entries of an array, as two words."""
    n = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    return (n >> np.uint64(32)).astype(np.uint32), n.astype(np.uint32)


def _is_plain(aval: ShapedArray) -> bool:
    """Whether it is a single key of the generator, which counts as it does where draws are spread over devices."""
    return str(aval.dtype) == "key<fry>" and aval.shape == () and bool(jax.config.values["jax_threefry_partitionable"])  # type: ignore[attr-defined]


@made("random_bits", cost=40.0)
def _bits(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    shape, width = params["shape"], params["bit_width"]
    if not _is_plain(ins[0]):
        return None

    def bits(key: Any) -> Any:
        high, low = threefry(key, *_counters(shape))
        if width == 64:
            return (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
        return (high ^ low).astype(np.dtype(f"u{width // 8}"))

    return bits


@made("random_split", cost=40.0)
def _split(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    shape = params["shape"]
    return (lambda key: np.stack(threefry(key, *_counters(shape)), -1)) if _is_plain(ins[0]) else None


@made("random_fold_in", cost=40.0)
def _fold(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    if not _is_plain(ins[0]) or ins[1].shape != ():
        return None
    return lambda key, n: np.stack(threefry(key, np.uint32(0), np.asarray(n).astype(np.uint32)), -1)


@made("random_wrap", cost=0.0)
def _wrapped(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    return (lambda key: key) if str(outs[0].dtype) == "key<fry>" else None


plain("random_unwrap", lambda key: key, 0.0)
