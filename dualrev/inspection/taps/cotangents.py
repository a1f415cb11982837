"""Changes of a cotangent, for :func:`~dualrev.inspection.taps.intercepting.intercept`: clip, scale, stop."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.tree_util import tree_leaves, tree_map

from dualrev._jax.avals import ArrayLike, common_dtype, float0, is_differentiable, typeof
from dualrev._jax.trees import PyTree

__all__ = ["clip", "scale", "stop"]


class Linear:
    """A change of a cotangent that multiplies it by a number, so that tangents are changed alike: forward mode has it too."""

    def __call__(self, ct: PyTree) -> PyTree:
        return tree_map(self.changed, ct)

    def changed(self, t: jax.Array) -> jax.Array:
        """The change of one leaf, of a cotangent or of a tangent."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class _Scale(Linear):
    factor: ArrayLike

    @property
    def __name__(self) -> str:
        return f"scale({self.factor})"

    def changed(self, t: jax.Array) -> jax.Array:
        return t if t.dtype == float0 else t * jnp.asarray(self.factor).astype(t.dtype)


class _Stop(Linear):
    __name__ = "stop()"

    def changed(self, t: jax.Array) -> jax.Array:
        return t if t.dtype == float0 else jnp.zeros_like(t)


@dataclasses.dataclass(frozen=True, eq=False)
class _Clip:
    norm: ArrayLike | None
    value: ArrayLike | None

    @property
    def __name__(self) -> str:
        return f"clip(value={self.value})" if self.norm is None else f"clip(norm={self.norm})"

    def __call__(self, ct: PyTree) -> PyTree:
        return tree_map(self._by_value, ct) if self.norm is None else self._by_norm(ct)

    def _by_value(self, ct: jax.Array) -> jax.Array:
        if ct.dtype == float0:
            return ct
        bound = jnp.asarray(self.value).astype(jnp.finfo(ct.dtype).dtype)
        if jnp.issubdtype(ct.dtype, jnp.complexfloating):
            return jax.lax.complex(jnp.clip(ct.real, -bound, bound), jnp.clip(ct.imag, -bound, bound))
        return jnp.clip(ct, -bound, bound)

    def _by_norm(self, ct: PyTree) -> PyTree:
        leaves = [x for x in tree_leaves(ct) if x.dtype != float0]
        if not leaves:
            return ct
        # In float32 at least, and in units of the largest entry: squares of low precision overflow, and those of small numbers vanish.
        # The norm does not depend on the unit, which is therefore no part of its derivative.
        wide = common_dtype(jnp.dtype("float32"), *[jnp.finfo(x.dtype).dtype for x in leaves])
        parts = [part.astype(wide) for x in leaves for part in ((x.real, x.imag) if jnp.iscomplexobj(x) else (x,))]
        largest = jax.lax.stop_gradient(jnp.stack([jnp.max(jnp.abs(x), initial=0.0) for x in parts]).max())
        unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, jnp.ones_like(largest))
        square = sum((jnp.sum(jnp.square(x / unit)) for x in parts), jnp.zeros((), wide))
        # The root has no slope at 0, where nothing is clipped.
        total = unit * jnp.sqrt(jnp.where(square == 0, jnp.ones_like(square), square))
        bound = jnp.asarray(self.norm).astype(wide)
        is_large = (square != 0) & (total > bound)
        factor = jnp.where(is_large, bound / jnp.where(is_large, total, jnp.ones_like(total)), jnp.ones_like(total))
        return tree_map(lambda x: x if x.dtype == float0 else x * factor.astype(x.dtype), ct)


def clip(*, norm: ArrayLike | None = None, value: ArrayLike | None = None) -> _Clip:
    r"""Make a cotangent smaller where it is too large.

    With ``norm``, :math:`c \mapsto c \min(1, \mathit{norm} / \lVert c \rVert_2)`, the norm of all leaves together; under ``vmap`` that
    of each example, and under ``shard_map`` of each device's shard.  With ``value``, each entry is brought into
    :math:`[-\mathit{value}, \mathit{value}]`.

    Args:
      norm: the largest 2-norm; a number, which may be traced.
      value: the largest absolute value of an entry; of a complex number, of its real and of its imaginary part.

    Returns:
      A function of a cotangent.  It is not linear: there is no push through it.

    Raises:
      TypeError: not exactly one of ``norm`` and ``value``.
      ValueError: a bound that is negative or not a number.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> f = lambda x: jnp.sum(dr.intercept(x, dr.cotangents.clip(norm=1.0)) * jnp.array([3.0, 4.0]))
    >>> [round(float(g), 3) for g in dr.grad(f)(jnp.ones(2))]
    [0.6, 0.8]

    Source: [PascanuEtAl2013].
    """
    if (norm is None) == (value is None):
        raise TypeError("clip takes one of norm= (the largest 2-norm) and value= (the largest entry); got "
                        f"norm={norm!r}, value={value!r}")
    _check_number("clip", "norm" if value is None else "value", norm if value is None else value, is_bound=True)
    return _Clip(norm, value)


def scale(factor: ArrayLike) -> _Scale:
    r"""Multiply a cotangent by a number: :math:`c \mapsto s\, c`; with :math:`s = -1`, gradient reversal.

    Args:
      factor: the number, which may be traced; it is not differentiated.

    Returns:
      A function of a cotangent.  It is linear: tangents are multiplied too.

    Raises:
      TypeError: the factor is not a real number.

    >>> import dualrev as dr
    >>> float(dr.grad(lambda x: dr.intercept(x, dr.cotangents.scale(-1.0)) ** 2)(3.0))
    -6.0

    Source: [GaninLempitsky2015].
    """
    _check_number("scale", "factor", factor)
    return _Scale(factor)


def stop() -> _Stop:
    r"""Make a cotangent zero: :math:`c \mapsto 0`, as ``jax.lax.stop_gradient`` does.

    Returns:
      A function of a cotangent.  It is linear: tangents become zero too.

    >>> import dualrev as dr
    >>> float(dr.grad(lambda x: x * dr.intercept(x, dr.cotangents.stop()))(3.0))
    3.0

    Source: [GriewankWalther2008, ch. 3].
    """
    return _Stop()


def _check_number(call: str, what: str, x: object, is_bound: bool = False) -> None:
    try:
        aval = typeof(jnp.asarray(x))
    except TypeError:
        raise TypeError(f"{call}: {what} must be a number; got {x!r}") from None
    if aval.shape or jnp.issubdtype(aval.dtype, jnp.complexfloating) or aval.dtype == bool or not (
            is_differentiable(aval) or jnp.issubdtype(aval.dtype, jnp.integer)):
        raise TypeError(f"{call}: {what} must be a real number; got {aval.dtype.name}{list(aval.shape)}")
    if is_bound and isinstance(x, (int, float)) and (math.isnan(x) or x < 0):
        raise ValueError(f"{call}: {what} must be at least 0; got {x!r}")
