"""Products of vectors and matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.checks import same_dtype
from dualrev.eager.ops.precision import low_precision
from dualrev.eager.ops.registry import alias, both


def _fits(name: str, a: jax.Array, b: jax.Array) -> None:
    if a.shape[-1] != b.shape[-2]:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({'x'.join(map(str, a.shape))} and "
                           f"{'x'.join(map(str, b.shape))})\nthe last size of the first must be the first of the second, in {name}")


_DTYPES = "expected m1 and m2 to have the same dtype, but got: {} != {}"


def _mm_of(a: jax.Array, b: jax.Array) -> jax.Array:
    if a.ndim != 2 or b.ndim != 2:
        raise RuntimeError(f"{'self' if a.ndim != 2 else 'mat2'} must be a matrix\nmm takes two matrices, not {a.ndim}-D and "
                           f"{b.ndim}-D; torch.matmul takes more")
    _fits("mm", a, b)
    same_dtype(a, b, _DTYPES)
    return jnp.matmul(a, b)


def _matmul_of(a: jax.Array, b: jax.Array) -> jax.Array:
    if a.ndim == 0 or b.ndim == 0:
        raise RuntimeError(f"both arguments to matmul need to be at least 1D, but they are {a.ndim}D and {b.ndim}D")
    if a.ndim >= 2 and b.ndim >= 2:
        if max(a.ndim, b.ndim) > 2 and a.shape[-1] != b.shape[-2]:
            expected = [*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-1]]
            _bmm_refusal(expected, [*expected[:-1], b.shape[-2]], a, b)
        _fits("matmul", a, b)
    elif a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise RuntimeError(f"size mismatch, got input ({a.shape[-2] if a.ndim > 1 else b.shape[-1]}), mat "
                           f"({'x'.join(map(str, a.shape))}), vec ({b.shape[0]})")
    same_dtype(a, b, _DTYPES)
    return jnp.matmul(a, b)


def _bmm_refusal(expected: list[int], got: list[int], a: jax.Array, b: jax.Array) -> None:
    raise RuntimeError(f"Expected size for first two dimensions of batch2 tensor to be: {expected} but got: {got}.\n"
                       f"the shapes are {list(a.shape)} and {list(b.shape)}")


def _bmm_of(a: jax.Array, b: jax.Array) -> jax.Array:
    for i, x in enumerate((a, b)):
        if x.ndim != 3:
            raise RuntimeError(f"batch{i + 1} must be a 3D tensor\nbmm takes two batches of matrices, not {a.ndim}-D and {b.ndim}-D; "
                               "torch.matmul takes more")
    if b.shape[:2] != (a.shape[0], a.shape[2]):
        _bmm_refusal([a.shape[0], a.shape[2]], list(b.shape[:2]), a, b)
    return _matmul_of(a, b)


def _dot_of(a: jax.Array, b: jax.Array) -> jax.Array:
    if a.ndim != 1 or b.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {a.ndim}D and {b.ndim}D tensors")
    if a.shape != b.shape:
        raise RuntimeError(f"inconsistent tensor size, expected tensor [{a.shape[0]}] and src [{b.shape[0]}] to have the same "
                           f"number of elements, but got {a.shape[0]} and {b.shape[0]} elements respectively")
    return jnp.dot(a, b)


MM, MV, DOT, BMM = Op("Mm", _mm_of), Op("Mv", _matmul_of), Op("Dot", _dot_of), Op("Bmm", _matmul_of)
BATCHES = Op("Bmm", _bmm_of)
ADDMM = Op("Addmm", lambda c, a, b: c + _mm_of(a, b))
OUTER = Op("Outer", lambda a, b: jnp.outer(a, b))


@both
@low_precision
def matmul(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """The product of matrices, vectors, or batches of matrices."""
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        wrong = other if isinstance(input, Tensor) else input
        raise TypeError(f"matmul(): argument 'other' (position 2) must be Tensor, not {type(wrong).__name__}")
    dims = input.ndim, other.ndim
    op = {(2, 2): MM, (1, 1): DOT, (2, 1): MV}.get(dims, BMM)
    return apply(op, (input, other))


Tensor.__matmul__ = matmul  # type: ignore[assignment, method-assign]
Tensor.__rmatmul__ = lambda self, other: matmul(other, self)  # type: ignore[arg-type, method-assign]


@both
@low_precision
def mm(input: Tensor, mat2: Tensor) -> Tensor:  # noqa: A002
    """The product of two matrices."""
    return apply(MM, (input, mat2))


@both
def mv(input: Tensor, vec: Tensor) -> Tensor:  # noqa: A002
    """The product of a matrix and a vector."""
    return apply(MV, (input, vec))


@both
@low_precision
def bmm(input: Tensor, mat2: Tensor) -> Tensor:  # noqa: A002
    """The products of two batches of matrices."""
    return apply(BATCHES, (input, mat2))


@both
def dot(input: Tensor, tensor: Tensor) -> Tensor:  # noqa: A002
    """The product of two vectors."""
    return apply(DOT, (input, tensor))


@both
def outer(input: Tensor, vec2: Tensor) -> Tensor:  # noqa: A002
    """The outer product of two vectors."""
    for name, x in (("self", input), ("vec2", vec2)):
        if x.ndim != 1:
            raise RuntimeError(f"outer: Expected 1-D argument {name}, but got {x.ndim}-D")
    return apply(OUTER, (input, vec2))


alias("ger", outer)
_INNER = Op("Inner", jnp.inner)
_low = low_precision(apply)


@both
def inner(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """Inner products over the last dimensions of two tensors."""
    return (apply if input.ndim == other.ndim == 1 else _low)(_INNER, (input, other))


_cross = family("LinalgCross", lambda a, b, dim: jnp.cross(a, b, axis=dim))
_kron = Op("Kron", jnp.kron)


@both
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:  # noqa: A002
    """The cross product along a dimension of size 3, by default the first one."""
    if dim is None:
        dim = next((d for d, n in enumerate(input.shape) if n == 3), None)
        if dim is None:
            raise RuntimeError(f"no dimension of size 3 in input\nthe shape is {list(input.shape)}")
    return apply(_cross(dim), (input, other))


@both
def kron(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """The Kronecker product."""
    return apply(_kron, (input, other))
