"""Products of matrices with sums and factors, and over several dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dualrev.eager.core.annotations import Sizes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.matrix_products import ADDMM, BATCHES, MM, MV, OUTER
from dualrev.eager.ops.outputs import into
from dualrev.eager.ops.precision import low_precision
from dualrev.eager.ops.registry import both, function, method, renamed


def _scaled(product: Any) -> Any:
    """``beta * c + alpha * product``; where ``beta`` is zero, what stands in ``c`` is ignored, NaN too."""
    def of(c: jax.Array, a: jax.Array, b: jax.Array, beta: Any, alpha: Any) -> jax.Array:
        found = product(a, b)
        kept = jnp.where(jnp.asarray(beta) == 0, jnp.zeros_like(c), c)
        return (beta * kept + alpha * found).astype(jnp.result_type(c, found))

    return of


def _plain(product: Any) -> Any:
    return lambda c, a, b: c + product(a, b)


def _names(name: str, product: Any) -> tuple[Op, Op]:
    return Op(name, _plain(product)), Op(name, _scaled(product))


_OPS = {
    "addmm": (ADDMM, Op("Addmm", _scaled(MM.fun))), "addmv": _names("Addmv", MV.fun), "addr": _names("Addr", OUTER.fun),
    "baddbmm": _names("Baddbmm", BATCHES.fun), "addbmm": _names("Addbmm", lambda a, b: jnp.sum(BATCHES.fun(a, b), 0)),
}


def _factors(name: str, x: Tensor, beta: float, alpha: float) -> tuple[Op, tuple[float, ...]]:
    plain, scaled = _OPS[name]
    if beta == alpha == 1:
        return plain, ()
    if array_of(x).dtype.kind in "iu" and any(isinstance(k, float) for k in (beta, alpha)):
        raise RuntimeError("For integral input tensors, argument beta must not be a floating point number.")
    return scaled, (beta, alpha)


def _apply(name: str, x: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> Tensor:
    op, factors = _factors(name, x, beta, alpha)
    return apply(op, (x, a, b, *factors))


@both
@low_precision
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:  # noqa: A002
    """``beta * input + alpha * mat1 @ mat2``."""
    return _apply("addmm", input, mat1, mat2, beta, alpha)


@both
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:  # noqa: A002
    """``beta * input + alpha * mat @ vec``."""
    return _apply("addmv", input, mat, vec, beta, alpha)


@both
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:  # noqa: A002
    """``beta * input + alpha * outer(vec1, vec2)``."""
    return _apply("addr", input, vec1, vec2, beta, alpha)


@both
@low_precision
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:  # noqa: A002
    """``beta * input + alpha * batch1 @ batch2``."""
    return _apply("baddbmm", input, batch1, batch2, beta, alpha)


@both
@low_precision
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:  # noqa: A002
    """``beta * input``, and ``alpha`` times the sum of the products of two batches of matrices."""
    return _apply("addbmm", input, batch1, batch2, beta, alpha)


def _in_place(name: str) -> None:
    def changed(self: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        op, factors = _factors(name, self, beta, alpha)
        return change(self, op, (a, b, *factors))

    method(renamed(changed, f"{name}_", f"As ``{name}``, in place."))


for _name in _OPS:
    _in_place(_name)


_tensordot = family("Tensordot", lambda a, b, dims: jnp.tensordot(a, b, dims))


def _numbers(dims: Any) -> tuple[int, ...]:
    return (dims,) if isinstance(dims, int) else tuple([int(d) for d in dims])


_low = low_precision(apply)


@function
def tensordot(a: Tensor, b: Tensor, dims: int | Sequence[Sizes] | Tensor = 2, out: Tensor | None = None) -> Tensor:
    """The sum of products over dimensions: the last ``dims`` of one and the first of the other, or two lists of them."""
    given: Any = dims.tolist() if isinstance(dims, Tensor) else dims
    if isinstance(given, int):
        if given < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={given}")
        if given > min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={given}")
        first, second = tuple(range(a.ndim - given, a.ndim)), tuple(range(given))
    else:
        first, second = _numbers(given[0]), _numbers(given[1])
    if len(first) != len(second):
        raise RuntimeError("both dimension lists should have same length")
    for i, k in zip(first, second, strict=True):
        if a.shape[i] != b.shape[k]:
            raise RuntimeError(f"contracted dimensions need to match, but first has size {a.shape[i]} in dim {i} and second has size "
                               f"{b.shape[k]} in dim {k}")
    run = apply if len(first) == a.ndim == b.ndim else _low  # a product of vectors keeps its dtype under autocast
    found = run(_tensordot((first, second)), (a, b))
    return found if out is None else into(out, array_of(found), "tensordot")


_chain = Op("LinalgMultiDot", lambda *arrays: jnp.linalg.multi_dot(arrays))


def chain(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices, in the order that costs least; the first and the last may be vectors."""
    tensors = list(tensors)
    if len(tensors) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    return apply(_chain, tensors)


@function
def chain_matmul(*matrices: Any) -> Tensor:
    """The product of several matrices, in the order that costs least."""
    given = matrices[0] if len(matrices) == 1 and isinstance(matrices[0], (tuple, list)) else matrices
    return given[0] if len(given) == 1 else chain(given)


_vdot = Op("Vdot", lambda a, b: jnp.vdot(a, b))


@both
def vdot(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """The product of two vectors, the first of which is conjugated."""
    for x in (input, other):
        if x.ndim != 1:
            raise RuntimeError(f"1D tensors expected, but got {input.ndim}D and {other.ndim}D tensors")
    return apply(_vdot, (input, other))
