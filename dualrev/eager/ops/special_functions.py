"""Special functions entry by entry: gamma, Bessel, normal and zeta functions; ``torch.special`` has them under its names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Operand, Tensor, array_of
from dualrev.eager.ops.promotion import broadcasting
from dualrev.eager.ops.registry import both, function, method, renamed, unary
from dualrev.eager.ops.unary import floating


def _entr(x: jax.Array) -> jax.Array:
    inside = x > 0
    safe = jnp.where(inside, x, 1)
    return jnp.where(inside, -safe * jnp.log(safe), jnp.where(x == 0, 0, jnp.where(jnp.isnan(x), x, -jnp.inf)))


def _i0(x: jax.Array) -> jax.Array:
    # Around zero by its series: the exponential of the absolute value, of which it is a multiple, has no derivative there.
    small = jnp.abs(x) < 1e-2
    square = jnp.where(small, x, 0) ** 2 / 4
    return jnp.where(small, 1 + square + square * square / 4, special.i0(jnp.where(small, 1, x)))


def _sinc(x: jax.Array) -> jax.Array:
    # Around zero the derivative is that of the series.
    small = jnp.abs(x) < 1e-3
    y = jnp.pi * jnp.where(small, 1, x)
    square = (jnp.pi * jnp.where(small, x, 0)) ** 2
    return jnp.where(small, 1 - square / 6 + square * square / 120, jnp.sin(y) / y)


#: Functions of one tensor of floats, by name; integers become the default float.
_FUNCTIONS: list[tuple[str, str, Callable[[jax.Array], jax.Array]]] = [
    ("i0", "I0", _i0), ("i0e", "SpecialI0E", special.i0e), ("i1", "SpecialI1", special.i1), ("i1e", "SpecialI1E", special.i1e),
    ("entr", "SpecialEntr", _entr), ("ndtr", "SpecialNdtr", special.ndtr), ("log_ndtr", "SpecialLogNdtr", special.log_ndtr),
    ("ndtri", "SpecialNdtri", special.ndtri), ("sinc", "Sinc", _sinc)]
OF_ONE: dict[str, Op] = {name: Op(op_name, floating(fun)) for name, op_name, fun in _FUNCTIONS}
for _name in ("i0", "sinc"):
    unary(_name, OF_ONE[_name])


def _pair(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function of two operands, which broadcast; integers become the default float."""
    def of(x: Any, y: Any) -> Any:
        kind = jnp.result_type(x, y)
        kind = kind if jnp.issubdtype(kind, jnp.inexact) else dtypes.get_default_dtype().numpy
        return fun(*jnp.broadcast_arrays(jnp.asarray(x, kind), jnp.asarray(y, kind)))

    return broadcasting(of)


def _xlog1py(x: jax.Array, y: jax.Array) -> jax.Array:
    # Where x is zero the product is zero, and so is the gradient where the logarithm is not finite.
    outside = (x == 0) & (y <= -1)
    return jnp.where(jnp.isnan(y), y, special.xlog1py(x, jnp.where(outside, 1, y)))


#: Functions of two operands, by name.
OF_TWO: dict[str, Op] = {
    "xlog1py": Op("SpecialXlog1Py", _pair(_xlog1py)),
    "zeta": Op("SpecialZeta", _pair(lambda x, q: special.zeta(x, q))),
    "igamma": Op("Igamma", _pair(special.gammainc)),
    "igammac": Op("Igammac", _pair(special.gammaincc)),
}


def _register(name: str) -> None:
    op = OF_TWO[name]

    def of_two(input: Operand, other: Operand) -> Tensor:  # noqa: A002
        return apply(op, (input, other))

    def in_place(self: Tensor, other: Operand) -> Tensor:
        return change(self, op, (other,))

    both(renamed(of_two, name, f"{name} of each pair of entries."))
    method(renamed(in_place, f"{name}_", f"{name} of each pair of entries, in place."))


for _name in ("igamma", "igammac"):
    _register(_name)


# ------------------------------------------------------------------------------------------------- with further numbers

def _logit_of(x: jax.Array, *eps: Any) -> jax.Array:
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(dtypes.get_default_dtype().numpy)
    if eps:
        low = jnp.asarray(eps[0], x.dtype)
        x = jnp.where(x < low, low, jnp.where(x > 1 - low, 1 - low, x))
    return jnp.log(x / (1 - x))


_logit = Op("Logit", _logit_of)


@both
def logit(input: Tensor, eps: float | None = None) -> Tensor:  # noqa: A002
    """``log(x / (1 - x))``, with ``x`` clamped to ``[eps, 1 - eps]`` where ``eps`` is given."""
    return apply(_logit, (input,) if eps is None else (input, float(eps)))


@method
def logit_(self: Tensor, eps: float | None = None) -> Tensor:
    """As ``logit``, in place."""
    return change(self, _logit, () if eps is None else (float(eps),))


def _polygamma_of(x: jax.Array, n: int) -> jax.Array:
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(dtypes.get_default_dtype().numpy)
    return jax.lax.digamma(x) if n == 0 else special.polygamma(jnp.asarray(n), x)


_polygamma = family("Polygamma", _polygamma_of)


def _order(n: int) -> int:
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n.\nn is {n}")
    return int(n)


@function
def polygamma(n: int, input: Tensor) -> Tensor:  # noqa: A002
    """The ``n``-th derivative of the digamma function."""
    return apply(_polygamma(_order(n)), (input,))


Tensor.polygamma = lambda self, n: polygamma(n, self)  # type: ignore[method-assign, arg-type]


@method
def polygamma_(self: Tensor, n: int) -> Tensor:
    """The ``n``-th derivative of the digamma function, in place."""
    return change(self, _polygamma(_order(n)), ())


_mvlgamma = family("Mvlgamma", lambda x, p: special.multigammaln(
    x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(dtypes.get_default_dtype().numpy), p))


def _check_mvlgamma(x: Tensor, p: int) -> int:
    if p < 1:
        raise RuntimeError("p has to be greater than or equal to 1")
    return int(p)


@both
def mvlgamma(input: Tensor, p: int) -> Tensor:  # noqa: A002
    """The logarithm of the gamma function of matrices of ``p`` rows."""
    return apply(_mvlgamma(_check_mvlgamma(input, p)), (input,))


@method
def mvlgamma_(self: Tensor, p: int) -> Tensor:
    """As ``mvlgamma``, in place."""
    return change(self, _mvlgamma(_check_mvlgamma(self, p)), ())


_nextafter = Op("Nextafter", lambda x, y: jnp.nextafter(x, y))


@both
def nextafter(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """The next number after each entry towards another."""
    for x in (input, other):
        if array_of(x).dtype not in (np.float32, np.float64, np.dtype(jnp.bfloat16)):
            raise NotImplementedError(f"\"nextafter_cpu\" not implemented for '{dtypes.type_name(array_of(x).dtype)}'")
    return apply(_nextafter, (input.detach(), other.detach()))


@method
def nextafter_(self: Tensor, other: Tensor) -> Tensor:
    """As ``nextafter``, in place."""
    return change(self, _nextafter, (other,))
