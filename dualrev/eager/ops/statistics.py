"""Means with deviations, covariances, distances between rows, and integrals by trapezoids."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Dims
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.outputs import into
from dualrev.eager.ops.reductions import norm_of, root, std, var
from dualrev.eager.ops.registry import alias, both, function


def _mean_beside(x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    return x.mean(None if isinstance(dim, bool) else dim, keepdim)


@function
def var_mean(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *,  # noqa: A002
             correction: int | None = None) -> tuple[Tensor, Tensor]:
    """The variance, as of ``var``, and the mean."""
    return var(input, dim, unbiased, keepdim, correction=correction), _mean_beside(input, dim, keepdim)


@function
def std_mean(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False, *,  # noqa: A002
             correction: int | None = None) -> tuple[Tensor, Tensor]:
    """The standard deviation, as of ``std``, and the mean."""
    return std(input, dim, unbiased, keepdim, correction=correction), _mean_beside(input, dim, keepdim)


# ------------------------------------------------------------------------------------------------------------ covariances

def _cov_of(x: jax.Array, correction: jax.Array, weights: tuple[jax.Array, ...], kinds: str) -> jax.Array:
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(dtypes.get_default_dtype().numpy)
    rows = x.reshape(1, -1) if x.ndim < 2 else x
    real = jnp.finfo(x.dtype).dtype
    given = dict(zip(kinds, [w.astype(real) for w in weights], strict=True))
    w = math.prod(given.values(), start=jnp.ones(rows.shape[1], real))
    total = jnp.sum(w)
    rows = rows - jnp.sum(rows * w, 1, keepdims=True) / total
    lost = jnp.sum(w * given["a"]) / total if "a" in given else 1
    found = rows @ jnp.conj((rows * w).T) / jnp.maximum(total - correction * lost, 0).astype(real)
    return found.reshape(()) if rows.shape[0] == 1 else found


_cov = family("Cov", lambda x, correction, *rest: _cov_of(x, correction, rest[:-1], rest[-1]))


@both
def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:  # noqa: A002
    """The covariances of the rows; ``fweights`` count the columns, ``aweights`` weigh them."""
    if input.ndim > 2:
        raise RuntimeError(f"cov(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions")
    if array_of(input).dtype.kind == "b":
        raise RuntimeError("cov(): bool dtype is not supported for input")
    n = input.numel() if input.ndim < 2 else input.shape[1]
    given = {"f": fweights, "a": aweights}
    for kind, name in (("f", "fweights"), ("a", "aweights")):
        w = given[kind]
        if w is None:
            continue
        if w.ndim > 1:
            raise RuntimeError(f"cov(): expected {name} to have one or fewer dimensions but got {name} with {w.ndim} dimensions")
        if kind == "f" and array_of(w).dtype.kind not in "iu":
            raise RuntimeError("cov(): expected fweights to have integral dtype but got fweights with "
                               f"{dtypes.type_name(array_of(w).dtype)} dtype")
        if kind == "a" and array_of(w).dtype.kind not in "fV":
            raise RuntimeError("cov(): expected aweights to have floating point dtype but got aweights with "
                               f"{dtypes.type_name(array_of(w).dtype)} dtype")
        if w.numel() != n:
            raise RuntimeError(f"cov(): expected {name} to have the same numel as there are observations in the input but got "
                               f"{w.numel()} != {n}")
    kinds = "".join(kind for kind, w in given.items() if w is not None)
    return apply(_cov(kinds), (input, correction, *[w for w in given.values() if w is not None]))


@both
def corrcoef(input: Tensor) -> Tensor:  # noqa: A002
    """The correlations of the rows."""
    if input.ndim > 2:
        raise RuntimeError(f"corrcoef(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions")
    c = cov(input)
    if c.ndim == 0:
        return c / c
    deviation = (c.diagonal().real if c.is_complex() else c.diagonal()).sqrt()
    c = c / deviation.view(-1, 1) / deviation.view(1, -1)
    return c if c.is_complex() else c.clip(-1, 1)


# ------------------------------------------------------------------------------------------------------------- distances

_MANY = 25
_MODES = {"use_mm_for_euclid_dist_if_necessary": None, "use_mm_for_euclid_dist": True, "donot_use_mm_for_euclid_dist": False}


def _cdist_of(x: jax.Array, y: jax.Array, p: float, by_products: bool) -> jax.Array:
    if by_products:
        squares = jnp.sum(x * x, -1)[..., :, None] + jnp.sum(y * y, -1)[..., None, :] - 2 * jnp.matmul(x, jnp.swapaxes(y, -1, -2))
        return root(jnp.maximum(squares, 0))
    return norm_of(x[..., :, None, :] - y[..., None, :, :], p, (-1,), False)


_cdist = family("Cdist", _cdist_of)


@function
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm distances between all pairs of rows of two matrices, or of two batches of matrices.

    >>> from dualrev import eager as torch
    >>> torch.cdist(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    if compute_mode not in _MODES:
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode")
    for name, x in (("X1", x1), ("X2", x2)):
        if array_of(x).dtype.kind not in "fV":
            raise RuntimeError(f"cdist only supports floating-point dtypes, {name} got: {dtypes.type_name(array_of(x).dtype)}")
    for name, x in (("X1", x1), ("X2", x2)):
        if x.ndim < 2:
            raise RuntimeError(f"cdist only supports at least 2D tensors, {name} got: {x.ndim}D")
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}")
    if p < 0:
        raise RuntimeError("cdist only supports non-negative p values")
    asked = _MODES[compute_mode]
    by_products = p == 2 and (asked if asked is not None else x1.shape[-2] > _MANY or x2.shape[-2] > _MANY)
    return apply(_cdist(float(p), bool(by_products)), (x1, x2))


# ------------------------------------------------------------------------------------------------------------- integrals

def _areas(y: jax.Array, x: jax.Array | float, dim: int) -> jax.Array:
    """The areas between neighbours along a dimension, in steps of a number or between coordinates."""
    y = jnp.moveaxis(y, dim, -1)
    y = y if jnp.issubdtype(y.dtype, jnp.inexact) else y.astype(dtypes.get_default_dtype().numpy)
    step = x
    if getattr(x, "ndim", 0):
        x = jnp.moveaxis(x, dim, -1) if x.ndim > 1 else x  # type: ignore[union-attr, arg-type]
        step = x[..., 1:] - x[..., :-1]  # type: ignore[index]
    return (y[..., 1:] + y[..., :-1]) / 2 * step


_trapezoid = family("Trapezoid", lambda y, x, dim: jnp.sum(_areas(y, x, dim), -1))
_trapezoids = family("CumulativeTrapezoid", lambda y, x, dim: jnp.moveaxis(jnp.cumsum(_areas(y, x, dim), -1), -1, dim))


@function
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1) -> Tensor:
    """The integral along a dimension by trapezoids, between coordinates ``x`` or in steps of ``dx``, 1 by default."""
    return apply(_trapezoid(dim_of(dim, y.ndim)), (y, (1 if dx is None else dx) if x is None else x))


alias("trapz", trapezoid)


@function
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1) -> Tensor:
    """The integrals up to each entry, without the first."""
    return apply(_trapezoids(dim_of(dim, y.ndim)), (y, (1 if dx is None else dx) if x is None else x))


_renorm = family("Renorm", lambda x, most, p, dim: _renormed(x, p, dim, most))


def _renormed(x: jax.Array, p: float, dim: int, most: jax.Array) -> jax.Array:
    lengths = norm_of(x, p, tuple([d for d in range(x.ndim) if d != dim]), True)
    return x * jnp.where(lengths > most, most / (lengths + 1e-7), 1).astype(x.dtype)


@both
def renorm(input: Tensor, p: float, dim: int, maxnorm: float, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The slices along a dimension, scaled down where their p-norm is above ``maxnorm``."""
    if input.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    if p <= 0:
        raise RuntimeError("renorm: non-positive norm not supported")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    found = apply(_renorm(p, dim_of(dim, input.ndim)), (input, float(maxnorm)))
    return found if out is None else into(out, array_of(found), "renorm")


