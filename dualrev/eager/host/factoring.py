"""Factorizations of matrices, triangular systems and Fourier transforms.

Results that a factorization cannot give are NaN, as they are jax's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg

from dualrev._jax.avals import ShapedArray
from dualrev.eager.host.registry import HostFunction, made

_Avals = Sequence[ShapedArray]
_KINDS = "fdFD"
#: Nanoseconds of a call of LAPACK for one matrix, and for each multiplication.
_CALL, _STEP = 8_000.0, 1.0


def _offered(ins: _Avals) -> bool:
    """Whether LAPACK has the dtype, and the matrices are few and small."""
    *batch, m, n = ins[0].shape
    return np.dtype(ins[0].dtype).char in _KINDS and m > 0 and n > 0 and int(np.prod(batch)) * (_CALL + _STEP * m * n * min(m, n)) < 3e5


def _each(fun: Callable[..., Sequence[Any]], outs: _Avals) -> HostFunction:
    """A function of matrices for each of a batch; NaN where it fails."""
    shapes = [(x.shape, np.dtype(x.dtype)) for x in outs]

    def of(*args: Any) -> tuple[Any, ...]:
        batch = args[0].shape[:-2]
        results = [np.empty(shape, dtype) for shape, dtype in shapes]
        for i in np.ndindex(*batch):
            try:
                found = fun(*[x[i] for x in args])
            except (np.linalg.LinAlgError, ValueError):
                found = [np.nan if dtype.kind in "fc" else 0 for _, dtype in shapes]
            for result, value in zip(results, found, strict=True):
                result[i] = value
        return tuple(results)

    return of


@made("cholesky", cost=0.0)
def _cholesky(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    if not _offered(ins):
        return None
    symmetrizes = params.get("symmetrize_input", False)

    def factor(x: Any) -> tuple[Any]:
        if not np.all(np.isfinite(x)):
            raise np.linalg.LinAlgError
        return (np.linalg.cholesky((x + np.conj(x.T)) / 2 if symmetrizes else x),)

    run = _each(factor, outs)
    return lambda x: run(x)[0]


@made("triangular_solve", cost=0.0)
def _triangular(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    if not _offered(ins):
        return None
    lower, left, unit = params["lower"], params["left_side"], params["unit_diagonal"]
    transposes, conjugates = params["transpose_a"], params["conjugate_a"]

    def solve(a: Any, b: Any) -> tuple[Any]:
        below = lower
        if conjugates:
            a = np.conj(a)
        if transposes:
            a, below = a.T, not below
        if not left:
            a, b, below = a.T, b.T, not below
        # A zero on the diagonal gives infinity or NaN, as substitution does.
        if unit or np.all(np.diagonal(a)):
            found = scipy.linalg.solve_triangular(a, b, lower=below, unit_diagonal=unit, check_finite=False)
        else:
            found = _substituted(a, b, below)
        return (found if left else found.T,)

    run = _each(solve, outs)
    return lambda a, b: run(a, b)[0]


def _substituted(a: Any, b: Any, lower: bool) -> Any:
    x = np.array(b)
    n = len(a)
    order = range(n) if lower else range(n - 1, -1, -1)
    for i in order:
        known = slice(0, i) if lower else slice(i + 1, n)
        x[i] = (x[i] - a[i, known] @ x[known]) / a[i, i]
    return x


@made("lu", cost=0.0)
def _lu(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    if not _offered(ins):
        return None
    char = np.dtype(ins[0].dtype).char
    getrf = getattr(scipy.linalg.lapack, {"f": "s", "d": "d", "F": "c", "D": "z"}[char] + "getrf")

    def factor(x: Any) -> tuple[Any, Any, Any]:
        packed, pivots, _ = getrf(x)
        return packed, pivots, _order(pivots, len(x))

    return _each(factor, outs)


def _order(pivots: Any, n: int) -> Any:
    order = np.arange(n)
    for i, k in enumerate(pivots):
        order[[i, k]] = order[[k, i]]
    return order


@made("lu_pivots_to_permutation", cost=2.0)
def _permutation(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    n, shape, dtype = params["permutation_size"], outs[0].shape, np.dtype(outs[0].dtype)
    if int(np.prod(ins[0].shape[:-1])) > 16:
        return None
    return lambda pivots: np.array([_order(p, n) for p in pivots.reshape(-1, pivots.shape[-1])], dtype).reshape(shape)


@made("eigh", cost=0.0)
def _eigh(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    if not _offered(ins) or params.get("subset_by_index") is not None:
        return None
    uplo: Any = "L" if params["lower"] else "U"

    def factor(x: Any) -> Any:
        if not np.all(np.isfinite(x)):
            raise np.linalg.LinAlgError
        values, vectors = np.linalg.eigh(x, uplo)
        return vectors, values

    return _each(factor, outs)


@made("svd", cost=0.0)
def _svd(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    if not _offered(ins) or params.get("subset_by_index") is not None:
        return None
    full, vectors = params["full_matrices"], params["compute_uv"]

    def factor(x: Any) -> Any:
        if not np.all(np.isfinite(x)):
            raise np.linalg.LinAlgError
        if not vectors:
            return (np.linalg.svd(x, compute_uv=False),)
        u, s, vh = np.linalg.svd(x, full_matrices=full)
        return s, u, vh

    return _each(factor, outs)


@made("qr", cost=0.0)
def _qr(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    if not _offered(ins) or params.get("pivoting", False):
        return None
    mode: Any = "complete" if params["full_matrices"] else "reduced"
    return _each(lambda x: np.linalg.qr(x, mode), outs)


@made("eig", cost=0.0)
def _eig(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    if not _offered(ins) or params.get("compute_left_eigenvectors", True):
        return None
    right = params["compute_right_eigenvectors"]

    def factor(x: Any) -> Any:
        if not np.all(np.isfinite(x)):
            raise np.linalg.LinAlgError
        if not right:
            return (np.linalg.eigvals(x),)
        return np.linalg.eig(x)

    return _each(factor, outs)


@made("fft", cost=20.0)
def _fft(params: dict[str, Any], ins: _Avals, outs: _Avals) -> HostFunction | None:
    kind, sizes, dtype = params["fft_type"].name, params["fft_lengths"], np.dtype(outs[0].dtype)
    dims = tuple(range(-len(sizes), 0))
    fun = {"FFT": scipy.fft.fftn, "IFFT": scipy.fft.ifftn, "RFFT": scipy.fft.rfftn, "IRFFT": scipy.fft.irfftn}[kind]
    return lambda x: fun(x, sizes, dims).astype(dtype, copy=False)
