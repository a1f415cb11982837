"""Factorizations of matrices, and what is computed from them: the operations, and PyTorch's functions outside ``torch.linalg``."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.checks import square
from dualrev.eager.ops.linear_algebra import CHOLESKY, SLOGDET, check, first_negative_minor, first_zero_pivot, infos
from dualrev.eager.ops.registry import FUNCTIONS, both, function

svd_parts = namedtuple("svd_parts", ["U", "S", "V"])
qr_parts = namedtuple("qr_parts", ["Q", "R"])
sign_log = namedtuple("sign_log", ["sign", "logabsdet"])
triangular_solution = namedtuple("triangular_solution", ["solution", "cloned_coefficient"])


def matrices(x: Tensor, name: str, what: str = "A") -> Tensor:
    """The argument, if it is a matrix of floats or a batch of them."""
    array = array_of(x)
    if array.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor {what} must have at least 2 dimensions.\nthe shape is {list(array.shape)}")
    if array.dtype not in (np.float32, np.float64, np.complex64, np.complex128):
        what = "Low precision dtypes not supported." if array.dtype.kind in "fV" else (
            "Expected a floating point or complex tensor as input.")
        raise RuntimeError(f"{name}: {what} Got {dtypes.type_name(array.dtype)}")
    return x


def squares(x: Tensor, name: str) -> Tensor:
    """The argument, if it is a square matrix of floats or a batch of them."""
    square(array_of(x), name)
    return matrices(x, name)


def _packed(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both factors in one matrix, and the row that each was exchanged with, from 1."""
    packed, pivots, _ = jax.lax.linalg.lu(x)
    return packed, pivots + 1


def _hermitian(x: jax.Array, uplo: str) -> jax.Array:
    """A Hermitian matrix, of one triangle; the gradient goes to both, as PyTorch has it."""
    kept = jnp.triu(x) if uplo == "U" else jnp.tril(x)
    full = kept + jnp.conj(jnp.swapaxes(kept, -1, -2)) - jnp.triu(jnp.tril(x))
    half = (x + jnp.conj(jnp.swapaxes(x, -1, -2))) / 2
    return half + jax.lax.stop_gradient(full - half)


EIGH = family("LinalgEigh", lambda x, uplo: jnp.linalg.eigh(_hermitian(x, uplo), symmetrize_input=False), many=True)
EIGVALSH = family("LinalgEigh", lambda x, uplo: jnp.linalg.eigh(_hermitian(x, uplo), symmetrize_input=False)[0])
EIG = Op("LinalgEig", jnp.linalg.eig, many=True)
EIGVALS = Op("LinalgEig", jnp.linalg.eigvals)
SVD = family("LinalgSvd", lambda x, full: jnp.linalg.svd(x, full_matrices=full), many=True)
SVDVALS = Op("LinalgSvd", lambda x: jnp.linalg.svd(x, full_matrices=False)[1])
QR = family("LinalgQr", lambda x, mode: jnp.linalg.qr(x, mode), many=True)
QR_R = Op("LinalgQr", lambda x: jnp.linalg.qr(x, "r"))
LU_FACTOR = Op("LinalgLuFactorEx", lambda x: _packed(x), many=True)
LU = Op("LinalgLu", lambda x: _lu(x), many=True)
EXPM = Op("LinalgMatrixExp", jax.scipy.linalg.expm)


def _lu(x: jax.Array) -> tuple[jax.Array, ...]:
    packed, _, order = jax.lax.linalg.lu(x)
    n, k = x.shape[-2], min(x.shape[-2:])
    p = (order[..., None, :] == jnp.arange(n)[:, None]).astype(x.dtype)
    lower = jnp.tril(packed[..., :, :k], -1) + jnp.eye(n, k, dtype=x.dtype)
    return p, lower, jnp.triu(packed[..., :k, :])


def _triangular(a: jax.Array, b: jax.Array, upper: bool, left: bool, unit: bool, adjoint: bool = False) -> jax.Array:
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = jnp.broadcast_to(a, (*batch, *a.shape[-2:])), jnp.broadcast_to(b, (*batch, *b.shape[-2:]))
    return jax.lax.linalg.triangular_solve(a, b, left_side=left, lower=not upper, unit_diagonal=unit, transpose_a=adjoint,
                                           conjugate_a=adjoint)


TRIANGULAR = family("LinalgSolveTriangular", _triangular)


def _cholesky_solve(b: jax.Array, factor: jax.Array, upper: bool) -> jax.Array:
    first = _triangular(factor, b, upper, True, False, adjoint=upper)
    return _triangular(factor, first, upper, True, False, adjoint=not upper)


_cholesky_solve_op = family("CholeskySolve", _cholesky_solve)
_cholesky_inverse_op = family("CholeskyInverse", lambda factor, upper: _cholesky_solve(
    jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape), factor, upper))


@both
def cholesky(input: Tensor, upper: bool = False) -> Tensor:  # noqa: A002
    """The Cholesky factor of a positive definite matrix, lower or upper triangular.

    Raises:
      LinAlgError: the matrix is not positive definite.
    """
    factor = apply(CHOLESKY, (input,))
    check(factor, input, first_negative_minor, "cholesky: {batch}The factorization could not be completed because the input is not "
          "positive-definite (the leading minor of order {info} is not positive-definite).")
    return factor.mH if upper else factor


@both
def cholesky_solve(input: Tensor, input2: Tensor, upper: bool = False) -> Tensor:  # noqa: A002
    """The solution of ``A x = input``, where ``input2`` is the Cholesky factor of ``A``."""
    if input.ndim < 2:
        raise RuntimeError(f"b should have at least 2 dimensions, but has {input.ndim} dimensions instead")
    if input2.ndim < 2:
        raise RuntimeError(f"u should have at least 2 dimensions, but has {input2.ndim} dimensions instead")
    if input.shape[-2] != input2.shape[-1]:
        n = input2.shape[-1]
        raise RuntimeError(f"Incompatible matrix sizes for cholesky_solve: each A matrix is {n} by {n} but each b matrix is "
                           f"{input.shape[-2]} by {input.shape[-1]}")
    return apply(_cholesky_solve_op(bool(upper)), (input, input2))


@both
def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:  # noqa: A002
    """The inverse of the matrix whose Cholesky factor is given."""
    square(array_of(input), "cholesky_inverse")
    return apply(_cholesky_inverse_op(bool(upper)), (input,))


def _logdet_of(x: jax.Array) -> jax.Array:
    sign, log = jnp.linalg.slogdet(square(x, "linalg.slogdet"))
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return log + jnp.log(sign)
    return jnp.where(sign < 0, jnp.nan, log)


_logdet = Op("LinalgSlogdet", _logdet_of, guards=(0,))


@both
def logdet(input: Tensor) -> Tensor:  # noqa: A002
    """The logarithm of the determinant; NaN where that is negative."""
    return apply(_logdet, (input,))


@both
def slogdet(input: Tensor) -> sign_log:  # noqa: A002
    """The sign of the determinant, and the logarithm of its absolute value."""
    return sign_log(*apply(SLOGDET, (input,)))


@both
def qr(input: Tensor, some: bool = True) -> qr_parts:  # noqa: A002
    """``(Q, R)``: an orthogonal and an upper triangular factor."""
    return qr_parts(*apply(QR("reduced" if some else "complete"), (matrices(input, "linalg.qr"),)))


@both
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> svd_parts:  # noqa: A002
    """``(U, S, V)``: the singular values, in descending order, and singular vectors: the matrix is ``U diag(S) V.mH``."""
    if not compute_uv:
        m, n, k = input.shape[-2], input.shape[-1], min(input.shape[-2:])
        zeros = FUNCTIONS["zeros"]
        values = apply(SVDVALS, (matrices(input, "linalg.svd"),))
        return svd_parts(zeros(*input.shape[:-2], m, k if some else m, dtype=input.dtype), values,
                         zeros(*input.shape[:-2], n, k if some else n, dtype=input.dtype))
    u, s, vh = apply(SVD(not some), (matrices(input, "linalg.svd"),))
    return svd_parts(u, s, vh.mH)


@both
def matrix_exp(input: Tensor) -> Tensor:  # noqa: A002
    """The exponential of a matrix."""
    return apply(EXPM, (squares(input, "linalg.matrix_exp"),))


@both
def triangular_solve(input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,  # noqa: A002
                     unitriangular: bool = False) -> triangular_solution:
    """The solution of ``A x = input`` for a triangular matrix, and the matrix."""
    if transpose:
        return triangular_solution(apply(TRIANGULAR(not upper, True, unitriangular), (A.mT, input)), A.clone())
    return triangular_solution(apply(TRIANGULAR(upper, True, unitriangular), (A, input)), A.clone())


def _lu_solved(b: jax.Array, packed: jax.Array, pivots: jax.Array, left: bool, adjoint: bool) -> jax.Array:
    if not left:  # X A = B is A^T X^T = B^T, and X A^H = B is A conj(X^T) = conj(B^T)
        turned = jnp.swapaxes(b, -1, -2)
        turned = jnp.conj(turned) if adjoint else turned
    trans = (2 if adjoint else 0) if left else (0 if adjoint else 1)
    batch = jnp.broadcast_shapes(b.shape[:-2], packed.shape[:-2])

    def solved(p: jax.Array, i: jax.Array, c: jax.Array) -> jax.Array:
        return jax.scipy.linalg.lu_solve((p, i - 1), c, trans)

    for _ in batch:
        solved = jax.vmap(solved)
    operands = [jnp.broadcast_to(x, (*batch, *x.shape[x.ndim - n:])) for x, n in ((packed, 2), (pivots, 1), (b if left else turned, 2))]
    found = solved(*operands)
    if left:
        return found
    return jnp.swapaxes(jnp.conj(found) if adjoint else found, -1, -2)


LU_SOLVE = family("LinalgLuSolve", _lu_solved)


@both
def lu(input: Tensor, pivot: bool = True, get_infos: bool = False) -> tuple[Tensor, ...]:  # noqa: A002
    """``(LU, pivots)``, and with ``get_infos`` the place of the first zero pivot: the older name of ``linalg.lu_factor``.

    Raises:
      RuntimeError: ``pivot`` is false, or a factor is singular and ``get_infos`` is not asked for.
    """
    if not pivot:
        raise RuntimeError("linalg.lu_factor: LU without pivoting is not implemented on the CPU")
    found = apply(LU_FACTOR, (matrices(input, "torch.linalg.lu_factor_ex"),))
    return (*found, infos(input, first_zero_pivot)) if get_infos else found


@both
def lu_solve(input: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:  # noqa: A002
    """The solution of ``A x = input``, from the packed factors and pivots of ``lu_factor``."""
    return apply(LU_SOLVE(True, False), (input, LU_data, LU_pivots))


def _unpacked(packed: jax.Array, pivots: jax.Array) -> tuple[jax.Array, ...]:
    n, k = packed.shape[-2], min(packed.shape[-2:])
    order = jax.lax.linalg.lu_pivots_to_permutation(pivots - 1, n)
    p = (order[..., None, :] == jnp.arange(n)[:, None]).astype(packed.dtype)
    return p, jnp.tril(packed[..., :, :k], -1) + jnp.eye(n, k, dtype=packed.dtype), jnp.triu(packed[..., :k, :])


_lu_unpack = Op("LuUnpack", _unpacked, many=True)


@function
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> tuple[Any, ...]:
    """``(P, L, U)`` from the packed factors and pivots of ``lu_factor``."""
    p, lower, upper = apply(_lu_unpack, (LU_data, LU_pivots))
    empty = FUNCTIONS["empty"](0, dtype=LU_data.dtype)
    return (p if unpack_pivots else empty, lower if unpack_data else empty, upper if unpack_data else empty)
