"""Further functions of PyTorch, each one of jax.numpy or a composition of others, and second names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops import linear_algebra as products  # noqa: F401  (what gets second names)
from dualrev.eager.ops import pointwise  # noqa: F401  (what gets second names)
from dualrev.eager.ops.registry import FUNCTIONS, alias, both, dim_of, dims_of, function, renamed
from dualrev.eager.ops.shapes import cat

for _name, _old in dict(greater="gt", greater_equal="ge", less="lt", less_equal="le", not_equal="ne", arctan2="atan2", arcsinh="asinh",
                        arccosh="acosh", arctanh="atanh", fix="trunc", moveaxis="movedim", swapdims="transpose", ger="outer").items():
    alias(_name, FUNCTIONS[_old])


def _pairs(name: str, fun: Callable[[Any, Any], Any], op_name: str) -> None:
    op = Op(op_name, fun)
    if name == "heaviside":
        both(renamed(lambda input, values: apply(op, (input, values)), name, f"{name} of two tensors."))  # noqa: A006
    else:
        both(renamed(lambda input, other: apply(op, (input, other)), name, f"{name} of two tensors."))  # noqa: A006


_pairs("inner", jnp.inner, "Inner")
_pairs("fmax", jnp.fmax, "Fmax")
_pairs("fmin", jnp.fmin, "Fmin")
_pairs("copysign", jnp.copysign, "Copysign")
_pairs("logaddexp2", jnp.logaddexp2, "Logaddexp2")
_pairs("heaviside", jnp.heaviside, "Heaviside")

_nan_to_num = family("NanToNum", lambda x, *values: jnp.nan_to_num(x, nan=values[0], posinf=values[1], neginf=values[2]))
_diff = family("Diff", lambda x, n, dim: jnp.diff(x, n, dim))
_tile = family("Repeat", lambda x, dims: jnp.tile(x, dims))
_rot = family("Rot90", lambda x, k, dims: jnp.rot90(x, k, dims))
_nansum = family("Nansum", lambda x, dim, keep: jnp.nansum(x, dim, keepdims=keep))
_nanmean = family("Nanmean", lambda x, dim, keep: jnp.nanmean(x, dim, keepdims=keep))


def _as(input: Tensor, dtype: Any) -> Tensor:  # noqa: A002
    return input if dtype is None else input.to(dtype)


_power = family("LinalgMatrixPower", lambda x, n: jnp.linalg.matrix_power(x, n))
_close = family("Isclose", lambda a, b, *how: jnp.isclose(a, b, *how))


@both
def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:  # noqa: A002
    """Numbers in place of what is none."""
    return apply(_nan_to_num(nan, posinf, neginf), (input,))


@both
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:  # noqa: A002
    """Where entries are equal within tolerances."""
    return apply(_close(rtol, atol, equal_nan), (input, other))


@both
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:  # noqa: A002
    """Differences of neighbours along a dimension, before and after which others may be put."""
    d = dim_of(dim, input.ndim)
    parts = [x for x in (prepend, input, append) if x is not None]
    return apply(_diff(n, d), (input if len(parts) == 1 else cat(parts, d),))


@both
def tile(input: Tensor, *dims: Any) -> Tensor:  # noqa: A002
    """Copies along each dimension."""
    return apply(_tile(tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], Sequence) else dims), (input,))


@both
def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:  # noqa: A002
    """A quarter of a turn, ``k`` times."""
    return apply(_rot(k, tuple(dims)), (input,))


@both
def fliplr(input: Tensor) -> Tensor:  # noqa: A002
    """The columns in reverse."""
    return input.flip(1)


@both
def flipud(input: Tensor) -> Tensor:  # noqa: A002
    """The rows in reverse."""
    return input.flip(0)


@both
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:  # noqa: A002
    """The sum of the entries that are numbers."""
    return apply(_nansum(dims_of(dim, input.ndim), keepdim), (_as(input, dtype),))


@both
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:  # noqa: A002
    """The mean of the entries that are numbers."""
    return apply(_nanmean(dims_of(dim, input.ndim), keepdim), (_as(input, dtype),))


@both
def matrix_power(input: Tensor, n: int) -> Tensor:  # noqa: A002
    """The product of a matrix with itself, ``n`` times."""
    return apply(_power(n), (input,))


@both
def ravel(input: Tensor) -> Tensor:  # noqa: A002
    """All entries in one dimension."""
    return input.reshape(-1)


@both
def adjoint(input: Tensor) -> Tensor:  # noqa: A002
    """The transposed and conjugated matrix."""
    return input.transpose(-2, -1).conj() if input.is_complex() else input.transpose(-2, -1)


@both
def is_complex(input: Tensor) -> bool:  # noqa: A002
    """Whether the dtype is complex."""
    return jnp.issubdtype(array_of(input).dtype, jnp.complexfloating)


@both
def is_nonzero(input: Tensor) -> bool:  # noqa: A002
    """Whether the only entry is not zero."""
    return bool(input)


@both
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:  # noqa: A002
    """The norm of the difference."""
    return (input - other).norm(p)


def _each(name: str, doc: str, fun: Callable[[Tensor], Tensor]) -> None:
    def of_each(*tensors: Any) -> Any:
        given = tensors[0] if len(tensors) == 1 else tensors
        return tuple([fun(x) for x in given]) if isinstance(given, (tuple, list)) else fun(given)

    function(renamed(of_each, name, doc))


def _deeper(x: Tensor) -> Tensor:
    return x.reshape(1, 1, 1) if x.ndim == 0 else x.reshape(1, -1, 1) if x.ndim == 1 else x.unsqueeze(2) if x.ndim == 2 else x


_each("atleast_1d", "With one dimension, if it has none.", lambda x: x.reshape(1) if x.ndim == 0 else x)
_each("atleast_2d", "With two dimensions at least.", lambda x: x if x.ndim > 1 else x.reshape(1, -1))
_each("atleast_3d", "With three dimensions at least.", _deeper)


@function
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors side by side."""
    given = [FUNCTIONS["atleast_1d"](t) for t in tensors]
    return cat(given, 0 if given[0].ndim == 1 else 1)


@function
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one below the other."""
    return cat([FUNCTIONS["atleast_2d"](t) for t in tensors], 0)


alias("row_stack", vstack)


Tensor.H = property(lambda self: self.t() if not self.is_complex() else self.t().conj())  # type: ignore[attr-defined]
Tensor.mH = property(lambda self: self.adjoint())  # type: ignore[attr-defined]
Tensor.nbytes = property(lambda self: array_of(self).nbytes)  # type: ignore[attr-defined]
Tensor.itemsize = property(lambda self: array_of(self).dtype.itemsize)  # type: ignore[attr-defined]
Tensor.nelement = Tensor.numel  # type: ignore[attr-defined]
Tensor.ndimension = Tensor.dim  # type: ignore[attr-defined]
Tensor.is_cpu = property(lambda self: self.device.type == "cpu")  # type: ignore[attr-defined]
