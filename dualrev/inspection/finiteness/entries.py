"""Bad entries of arrays, and which entries of the operands a bad entry of a result is due to.

An operand is to blame for a NaN if the result has none once the NaNs of the operand are replaced by numbers.  This holds for any
operation without a word about it: a NaN that ``select_n`` does not choose is not to blame, one that a matrix product adds is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.avals import typeof

#: What is looked for.
Kind: TypeAlias = Literal["nan", "inf"]
#: The position of an entry of an array.
Entry: TypeAlias = tuple[int, ...]
#: An operation, or a program, as a function of its operands.
Run: TypeAlias = Callable[[Sequence[jax.Array]], Sequence[jax.Array]]


def holds_floats(x: object) -> bool:
    """Whether a value is an array that can hold a NaN or an infinity."""
    dtype = getattr(typeof(x), "dtype", None)
    return dtype is not None and bool(jax.dtypes.issubdtype(dtype, np.inexact))


def bad_entries(x: jax.Array, kind: Kind) -> np.ndarray:
    """Where an array has a NaN, or an infinity: an array of booleans."""
    if not holds_floats(x):
        return np.zeros(getattr(x, "shape", ()), bool)
    return np.asarray(jnp.isnan(x) if kind == "nan" else jnp.isinf(x))


#: Results of up to this many bytes in memory of the host are looked at there: a compiled program takes longer to call.
_BYTES_ON_HOST = 1_000_000


def all_good(arrays: Sequence[jax.Array], infinities: bool) -> bool:
    """Whether no value is NaN (or infinite)."""
    if all(x.is_fully_addressable and x.sharding.memory_kind != "device" and x.nbytes < _BYTES_ON_HOST for x in arrays):
        return all(is_good_on_host(x, infinities) for x in arrays)
    return bool(_are_good(tuple(arrays), infinities))


def is_good_on_host(x: jax.Array, infinities: bool) -> bool:
    """The same of one value, by numpy."""
    kind = getattr(x.dtype, "kind", "V")
    if kind not in "fc" and (kind in "biu" or not holds_floats(x)):
        return True
    values = np.asarray(x)
    # As bytes: numpy's own reductions take longer than all else for few entries.
    return b"\0" not in np.isfinite(values).tobytes() if infinities else b"\1" not in np.isnan(values).tobytes()


@functools.partial(jax.jit, static_argnums=1)
def _are_good(arrays: tuple[jax.Array, ...], infinities: bool) -> jax.Array:
    return are_good(arrays, infinities)


def are_good(leaves: Sequence[jax.Array], infinities: bool) -> jax.Array:
    """Whether no result is NaN (or infinite): one boolean, computed with the results."""
    good: jax.Array = jnp.bool_(True)
    for x in leaves:
        if holds_floats(x):
            is_good = jnp.all(jnp.isfinite(x) if infinities else ~jnp.isnan(x))
            good = lax.bitwise_and(good, is_good)
    return good


def first_bad(x: jax.Array, kind: Kind) -> Entry | None:
    """The first bad entry of an array, row by row."""
    found = bad_entries(x, kind)
    return tuple(map(int, np.unravel_index(np.argmax(found), found.shape))) if found.any() else None


def is_bad(x: jax.Array, entry: Entry, kind: Kind) -> bool:
    return bool(bad_entries(x, kind)[entry])


def _irregular(shape: tuple[int, ...]) -> np.ndarray:
    """Different numbers between 0.2 and 0.9: no difference of two of them is zero."""
    return 0.2 + 0.7 * np.mod(np.arange(1, np.prod(shape, dtype=int) + 1) * 0.6180339887498949, 1.0).reshape(shape)


def _diagonal(shape: tuple[int, ...]) -> np.ndarray:
    """Matrices that are positive definite, with eigenvalues that differ."""
    if len(shape) < 2:
        return np.full(shape, 2.5)
    return np.broadcast_to(np.eye(shape[-2], shape[-1]) * np.arange(1.0, shape[-1] + 1), shape)


#: What bad entries are replaced by: an operation that has no value at one of these has one at another.
_NUMBERS: tuple[Callable[[tuple[int, ...]], np.ndarray], ...] = (_irregular, np.zeros, np.ones, _diagonal)


def replaced(x: jax.Array, bad: np.ndarray, numbers: Callable[[tuple[int, ...]], np.ndarray]) -> jax.Array:
    """``x`` with numbers in place of its bad entries; diagonal matrices replace matrices as a whole."""
    everywhere = numbers is _diagonal and bad.any()
    values = np.asarray(numbers(bad.shape)).astype(x.dtype)
    changed = values if everywhere else np.where(bad, values, np.asarray(x))
    made: jax.Array = jnp.asarray(changed, x.dtype)
    return jax.device_put(made, x.sharding) if len(x.sharding.device_set) > 1 else made


def blamed(run: Run, operands: Sequence[jax.Array], result: int, entry: Entry, kind: Kind,
           of: Kind | None = None) -> list[tuple[int, Entry]]:
    """The operands that a bad entry of a result is due to, with one bad entry of each; none where the operation itself made it.

    ``of`` is the kind of the bad entries of operands, where it is not that of the result: infinities that make a NaN.
    """
    of = of or kind
    bad = {i: found for i, x in enumerate(operands) if (found := bad_entries(x, of)).any()}
    if not bad:
        return []

    def still(left: dict[int, np.ndarray], numbers: Callable[[tuple[int, ...]], np.ndarray]) -> bool:
        """Whether the entry of the result is bad with these bad entries left in the operands, and the others replaced."""
        given = list(operands)
        for i, found in bad.items():
            away = found & ~left[i] if i in left else found
            if away.any():
                given[i] = replaced(given[i], away, numbers)
        return is_bad(run(given)[result], entry, kind)

    numbers = next((way for way in _NUMBERS if not still({}, way)), None)
    if numbers is None:
        return []
    one_by_one = numbers if numbers is not _diagonal else _irregular
    alone = [i for i in bad if still({i: bad[i]}, one_by_one)] or list(bad)
    return [(i, _one_entry(lambda left, i=i: still({i: left}, one_by_one), bad[i], entry)) for i in alone]  # type: ignore[misc]


def _one_entry(still: Callable[[np.ndarray], bool], bad: np.ndarray, like: Entry) -> Entry:
    """One of the bad entries of an operand that is enough: the one at the place of the result's, or one found by halving."""
    places = np.argwhere(bad)
    is_inside = len(like) == bad.ndim and all(i < n for i, n in zip(like, bad.shape, strict=True))
    if len(places) > 1 and is_inside and bad[like] and still(_only(bad, np.array([like]))):
        return like
    while len(places) > 1:
        half = places[: len(places) // 2]
        places = half if still(_only(bad, half)) else places[len(places) // 2:]
    return tuple(map(int, places[0]))


def _only(bad: np.ndarray, places: np.ndarray) -> np.ndarray:
    left = np.zeros_like(bad)
    left[tuple(places.T)] = True
    return left
