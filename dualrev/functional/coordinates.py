"""A linear map in flat coordinates: its matrix, and its products with vectors, for libraries that know nothing of pytrees.

The coordinates are the entries of the differentiable leaves, in the order of the trees.  The matrix is complex where an input or
output is; in its complex inputs the map must be linear over the complex numbers, as the derivative of a holomorphic function is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from dualrev._jax.avals import DType, ShapedArray, common_dtype, convert_to, is_differentiable, tangent_aval
from dualrev._jax.traces import Tracer
from dualrev.engines.sweeps import sweep
from dualrev.functional.results import Structure, pull_flat
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap
from dualrev.options.settings import using

#: A vector in flat coordinates, or a part of one.
Vector: TypeAlias = jax.Array | np.ndarray


def differentiable(avals: Sequence[ShapedArray]) -> list[ShapedArray]:
    return [a for a in avals if is_differentiable(a)]


def dtype_of(s: Structure) -> DType:
    """The dtype that holds every entry of the matrix."""
    dtypes = [a.dtype for a in differentiable((*s.in_avals, *s.out_avals))]
    found = dtypes[0] if dtypes else jnp.dtype("float32")
    for dtype in dtypes[1:]:
        found = common_dtype(found, dtype)
    return np.dtype(found)


def is_complex(avals: Sequence[ShapedArray | jax.Array]) -> bool:
    return any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in avals)


def check_complex_linear(linear_map: LinearMap, s: Structure, call: str) -> None:
    """Raise where a map has complex inputs and no complex matrix: ``J (i v)`` is compared with ``i J v`` for a random ``v``."""
    if not is_complex(s.in_avals):
        return
    if any(isinstance(x, Tracer) for x in jax.tree_util.tree_leaves(linear_map)):
        raise TypeError(f"{call} of the linear map {s}, which has complex inputs, inside a traced program, where it cannot be "
                        "told whether the map is linear over the complex numbers: J.dense and J.to_lineax take holomorphic=True.")
    random = np.random.default_rng(0)
    vector = random.standard_normal(s.shape[1]) + 1j * random.standard_normal(s.shape[1])
    # Real inputs stay real, as a complex matrix need only act on them so.
    given = [jnp.asarray(part.reshape(a.shape) if is_complex([a]) else np.zeros(a.shape), a.dtype)
             for part, a in zip(_cut(vector, differentiable(s.in_avals)), differentiable(s.in_avals), strict=True)]
    straight = _joined(_push(linear_map, s, given), dtype_of(s))
    turned = _joined(_push(linear_map, s, [_turned(t) if is_complex([t]) else t for t in given]), dtype_of(s))
    scale = float(jnp.max(jnp.abs(straight), initial=0)) + float(jnp.max(jnp.abs(turned), initial=0))
    if float(jnp.max(jnp.abs(lax.sub(turned, _turned(straight))), initial=0)) > 1e3 * float(jnp.finfo(straight.dtype).eps) * scale:
        raise ValueError(f"{call}: the linear map {s} is linear over the real numbers only, and has no complex matrix, as the function "
                         "is not holomorphic. Write the function as one of real and imaginary parts, or apply the map as it is: J @ v, "
                         "J.T @ u.")


def dense(linear_map: LinearMap, s: Structure) -> jax.Array:
    """The matrix, from one push for each input element."""
    outs = differentiable(s.out_avals)
    ins = [tangent_aval(a) for a in differentiable(s.in_avals)]

    def push(*tangents: jax.Array) -> list[jax.Array]:
        return _push(linear_map, s, tangents)

    dtype, (m, n) = dtype_of(s), s.shape
    if not ins or not outs:
        return jnp.zeros((m, n), dtype)
    with using(s.settings):
        columns = [lax.convert_element_type(lax.reshape(x, (n, a.size)), dtype)
                   for x, a in zip(sweep(push, ins, None), outs, strict=True)]
    return lax.transpose(lax.concatenate(columns, 1), (1, 0))


def push_vector(linear_map: LinearMap, s: Structure, x: Vector) -> jax.Array:
    r""":math:`A x` for the matrix :math:`A`, with :math:`x` real or complex."""
    avals = differentiable(s.in_avals)
    parts = _cut(x, avals)
    real = [part if is_complex([a]) else _real(part) for part, a in zip(parts, avals, strict=True)]
    moved = _joined(_moved("push", linear_map, s, _as(real, avals)), dtype_of(s))
    if not jnp.iscomplexobj(x) or all(is_complex([a]) for a in avals):
        return moved
    imaginary = [jnp.zeros_like(part) if is_complex([a]) else jnp.imag(part) for part, a in zip(parts, avals, strict=True)]
    return _with_imaginary(moved, _joined(_moved("push", linear_map, s, _as(imaginary, avals)), dtype_of(s)))


def pull_vector(linear_map: LinearMap, s: Structure, x: Vector) -> jax.Array:
    r""":math:`A^{\mathsf T} x`, without a conjugate.

    A pull returns the real part for a real input: the imaginary one is the pull of :math:`-i x`.
    """
    avals, ins = differentiable(s.out_avals), differentiable(s.in_avals)
    parts = _cut(x, avals)
    first = [part if is_complex([a]) else _real(part) for part, a in zip(parts, avals, strict=True)]
    moved = _moved("pull", linear_map, s, _as(first, avals))
    if (jnp.iscomplexobj(x) or is_complex(avals)) and not all(is_complex([a]) for a in ins):
        second = [lax.neg(_turned(part)) if is_complex([a]) else jnp.imag(part) for part, a in zip(parts, avals, strict=True)]
        turned = _moved("pull", linear_map, s, _as(second, avals))
        moved = [x if is_complex([a]) else _with_imaginary(x, y) for x, y, a in zip(moved, turned, ins, strict=True)]
    return _joined(moved, dtype_of(s))


def _push(linear_map: LinearMap, s: Structure, tangents: Sequence[jax.Array]) -> list[jax.Array]:
    moves = [flag for flag, a in zip(s.active, s.in_avals, strict=True) if is_differentiable(a)]
    with using(s.settings):
        moved = linear_map.push(*[t for t, flag in zip(tangents, moves, strict=True) if flag])
        found = zip(moved, s.out_avals, strict=True)
        return [zeros.fit(t, a) for t, a in found if is_differentiable(a)]


@jax.jit
def _pushed(linear_map: LinearMap, s: _Static, given: Sequence[jax.Array]) -> list[jax.Array]:
    return _push(linear_map, s.value, given)


@jax.jit
def _pulled(linear_map: LinearMap, s: _Static, given: Sequence[jax.Array]) -> list[jax.Array]:
    values = iter(given)
    cts = [next(values) if is_differentiable(a) else None for a in s.value.out_avals]
    with using(s.value.settings):
        found = zip(pull_flat(linear_map, s.value, cts), s.value.in_avals, strict=True)
        return [ct for ct, a in found if is_differentiable(a)]


class _Static:
    """A structure that programs know: a pytree without leaves."""

    def __init__(self, value: Structure):
        self.value = value


jax.tree_util.register_pytree_node(_Static, lambda s: ((), s.value), lambda value, _: _Static(value))


def _moved(direction: str, linear_map: LinearMap, s: Structure, given: Sequence[jax.Array]) -> list[jax.Array]:
    moved: list[jax.Array] = (_pushed if direction == "push" else _pulled)(linear_map, _Static(s), given)
    return moved


def check_vector(x: npt.ArrayLike | jax.Array, n: int, call: str, s: Structure) -> Vector:
    """A vector of ``n`` numbers, or a column of them, as a vector."""
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if x.shape not in ((n,), (n, 1)):
        raise ValueError(f"{call} of the linear map {s}, {s.shape[0]} x {s.shape[1]}, takes a vector of {n} numbers; got one of shape "
                         f"{x.shape}")
    return x.reshape(n)


def _cut(x: Vector, avals: Sequence[ShapedArray]) -> list[Vector]:
    parts: list[Vector] = []
    start = 0
    for aval in avals:
        parts.append(x[start: start + aval.size].reshape(aval.shape))
        start += aval.size
    return parts


def _turned(x: Vector) -> jax.Array:
    """``i x``, complex whatever ``x`` is."""
    return lax.complex(lax.neg(jnp.imag(x)), jnp.real(x))


def _with_imaginary(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x + i y``."""
    y = _turned(y)
    return lax.add(lax.convert_element_type(x, y.dtype), y)


def _real(x: Vector) -> Vector:
    return x.real if np.iscomplexobj(x) else x


def _as(parts: Sequence[Vector], avals: Sequence[ShapedArray]) -> list[jax.Array]:
    return [convert_to(lax.convert_element_type(jnp.asarray(x), a.dtype), tangent_aval(a)) for x, a in zip(parts, avals, strict=True)]


def _joined(parts: Sequence[jax.Array], dtype: DType) -> jax.Array:
    """Leaves as one vector, complex where one is."""
    for part in parts:
        dtype = common_dtype(dtype, part.dtype)
    return lax.concatenate([jnp.zeros(0, dtype), *[lax.convert_element_type(lax.reshape(x, (x.size,)), dtype) for x in parts]], 0)


