"""Matrix algebra over batches, which the rules for matrix operations use.

A matrix is the last two axes of an array; the axes before them are batches.
"""

from __future__ import annotations

from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualrev._jax.avals import DType


def T(x: Array) -> Array:
    """The transpose."""
    return lax.transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def H(x: Array) -> Array:
    """The conjugate transpose."""
    return lax.conj(T(x)) if x.dtype.kind == "c" else T(x)


def mm(*factors: Array) -> Array:
    """The product of matrices, in full precision."""
    return reduce(lambda x, y: lax.batch_matmul(x, y, precision=lax.Precision.HIGHEST), factors)


def keep(mask: Array | np.ndarray, x: Array) -> Array:
    """``x`` where ``mask``, over the last axes, holds; else zero."""
    mask = lax.broadcast_in_dim(mask, x.shape, tuple(range(x.ndim - mask.ndim, x.ndim)))
    return lax.select(mask, x, lax.full_like(x, 0))


def _offsets(x: Array) -> np.ndarray:
    """For each entry of a matrix, its column less its row."""
    return np.arange(x.shape[-1])[None, :] - np.arange(x.shape[-2])[:, None]


def tril(x: Array, k: int = 0) -> Array:
    """The entries on and below diagonal ``k``."""
    return keep(_offsets(x) <= k, x)


def triu(x: Array, k: int = 0) -> Array:
    """The entries on and above diagonal ``k``."""
    return keep(_offsets(x) >= k, x)


def half(x: Array, lower: bool = True) -> Array:
    """One triangle, with half of the diagonal: ``half(x) + H(half(x))`` is ``x`` where that is Hermitian."""
    offsets = _offsets(x)
    weights = np.where(offsets == 0, 0.5, offsets < 0 if lower else offsets > 0).astype(x.dtype)
    return lax.mul(x, lax.broadcast_in_dim(weights, x.shape, (x.ndim - 2, x.ndim - 1)))


def hermitian(x: Array, lower: bool) -> Array:
    """The Hermitian matrix with one triangle of ``x``."""
    part = half(x, lower)
    return lax.add(part, H(part))


def eye_like(x: Array, m: int, n: int | None = None) -> Array:
    """The ``m`` by ``n`` identity in the dtype and batches of ``x``."""
    one = np.eye(m, m if n is None else n, dtype=x.dtype)
    return lax.broadcast_in_dim(one, (*x.shape[:-2], *one.shape), (x.ndim - 2, x.ndim - 1))


def diagonal(x: Array) -> Array:
    """The diagonal, as vectors."""
    n = min(x.shape[-2:])
    square = lax.slice(x, (0,) * x.ndim, (*x.shape[:-2], n, n))
    return lax.reduce_sum(keep(np.eye(n, dtype=bool), square), (x.ndim - 1,))


def across(v: Array, n: int) -> Array:
    """Vectors as the rows of ``n`` equal rows: ``out[i, j] = v[j]``."""
    k = v.ndim - 1
    return lax.broadcast_in_dim(v, (*v.shape[:-1], n, v.shape[-1]), (*range(k), k + 1))


def down(v: Array, n: int) -> Array:
    """Vectors as ``n`` equal columns: ``out[i, j] = v[i]``."""
    return lax.broadcast_in_dim(v, (*v.shape, n), tuple(range(v.ndim)))


def rows(x: Array, start: int, stop: int) -> Array:
    return lax.slice_in_dim(x, start, stop, axis=x.ndim - 2)


def columns(x: Array, start: int, stop: int) -> Array:
    return lax.slice_in_dim(x, start, stop, axis=x.ndim - 1)


def beside(*blocks: Array) -> Array:
    """Blocks joined from left to right."""
    return lax.concatenate(blocks, blocks[0].ndim - 1)


def above(*blocks: Array) -> Array:
    """Blocks joined from top to bottom."""
    return lax.concatenate(blocks, blocks[0].ndim - 2)


def take_rows(x: Array, permutation: Array) -> Array:
    """``x[permutation]``, batch by batch."""
    k = x.ndim - 2
    batches = tuple(range(k))
    numbers = lax.GatherDimensionNumbers(offset_dims=(k + 1,), collapsed_slice_dims=(k,), start_index_map=(k,),
                                         operand_batching_dims=batches, start_indices_batching_dims=batches)
    return lax.gather(x, lax.expand_dims(permutation, (k + 1,)), numbers, (*[1] * (k + 1), x.shape[-1]), unique_indices=True,
                      mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)


def take_columns(x: Array, permutation: Array) -> Array:
    return T(take_rows(T(x), permutation))


def triangular(a: Array, b: Array, *, left: bool = True, lower: bool, adjoint: bool = False, unit: bool = False) -> Array:
    """``x`` with ``a x = b``, or ``x a = b``, where ``a`` (or its conjugate transpose) is triangular."""
    return lax.linalg.triangular_solve_p.bind(a, b, left_side=left, lower=lower, transpose_a=adjoint, conjugate_a=adjoint,
                                              unit_diagonal=unit)


def solve(a: Array, b: Array) -> Array:
    """``x`` with ``a x = b``."""
    lu, _, permutation = lax.linalg.lu_p.bind(a)
    return triangular(lu, triangular(lu, take_rows(b, permutation), lower=True, unit=True), lower=False)


def cast(x: Array, dtype: DType) -> Array:
    return x if x.dtype == dtype else lax.convert_element_type(x, dtype)


def epsilon(x: Array) -> float:
    """The rounding error of 1 in the dtype of ``x``."""
    return float(jnp.finfo(x.dtype).eps)



def real(x: Array) -> Array:
    """The real part, of real numbers too."""
    return lax.real(x) if x.dtype.kind == "c" else x


def real_dtype(x: Array) -> DType:
    return jnp.finfo(x.dtype).dtype
