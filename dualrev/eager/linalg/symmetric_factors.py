"""Factors of symmetric and Hermitian matrices that need not be definite: ``ldl_factor`` and ``ldl_solve``, by LAPACK on the host."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import scipy.linalg.lapack

from dualrev._jax.source_lines import source
from dualrev.eager.core.dtypes import type_name
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.node import Edge, Node, Pulled
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.conversion import known
from dualrev.eager.ops.decompositions import squares

LDLFactorResult = namedtuple("LDLFactorResult", ["LD", "pivots"])
LDLFactorExResult = namedtuple("LDLFactorExResult", ["LD", "pivots", "info"])


class NotImplemented(Node):  # noqa: A001  (the name that PyTorch shows)
    """The node of a result that PyTorch has no derivative of: backward refuses to pass it."""

    __slots__ = ()

    def pull_custom(self, cts: list[Any], backward_pass: Any) -> Pulled:
        raise RuntimeError(f"derivative for aten::{self.op_name} is not implemented\n.detach() its arguments, or call it under "
                           "torch.no_grad()")


def _without_derivative(name: str, result: Tensor, operands: tuple[Tensor, ...]) -> Tensor:
    """A result that is part of the graph, where an operand is, but has no derivative."""
    if mode.grad and any(t.requires_grad for t in operands):
        edges: list[Edge] = [None if not t.requires_grad else (t, 0) if t.grad_fn is None else (t.grad_fn, t._slot) for t in operands]
        result._node = NotImplemented(None, name, edges, (), (), source(), 1)
        result._requires_grad = True
    return result


def _routine(name: str, dtype: np.dtype, hermitian: bool) -> Any:
    kind = "he" if hermitian and dtype.kind == "c" else "sy"
    letter = {"f4": "s", "f8": "d", "c8": "c", "c16": "z"}[dtype.str[1:]]
    return getattr(scipy.linalg.lapack, f"{letter}{kind}{name}")


def ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False) -> LDLFactorExResult:
    """The factors of ``ldl_factor``, and the place of the first entry of the diagonal that is exactly zero, 0 where there is none.

    Raises:
      RuntimeError: ``A`` is no square matrix of floats; ``check_errors``, and an entry of the diagonal is zero.
      NotImplementedError: floats of 16 bits.
    """
    _wide(A)
    values = known(squares(A, "torch.linalg.ldl_factor_ex"), "ldl_factor()")
    run = _routine("trf", values.dtype, hermitian)
    batch = values.shape[:-2]
    found = [run(m, lower=1) for m in values.reshape(-1, *values.shape[-2:])]
    packed = np.asarray([np.tril(ld) for ld, _, _ in found], values.dtype).reshape(values.shape)
    info = np.asarray([i for _, _, i in found], np.int32).reshape(batch)
    if check_errors and info.any():
        raise RuntimeError(f"torch.linalg.ldl_factor_ex: the diagonal entry {int(info[info != 0][0])} of D is zero")
    ld = _without_derivative("linalg_ldl_factor_ex", wrap(packed), (A,))
    return LDLFactorExResult(ld, wrap(np.asarray([p for _, p, _ in found], np.int32).reshape(values.shape[:-1])), wrap(info))


def _wide(A: Tensor) -> None:
    if A.dtype.is_floating_point and A.dtype.itemsize == 2:
        raise NotImplementedError(f"\"ldl_factor_kernel_cpu\" not implemented for '{type_name(array_of(A).dtype)}'")


def ldl_factor(A: Tensor, *, hermitian: bool = False) -> LDLFactorResult:
    """The factors of ``A = L D L^T`` in one matrix, and the rows that were exchanged [BunchKaufman1977].

    ``A`` is symmetric, or with ``hermitian`` equal to its conjugate transpose; its lower triangle is read.  It need not be definite:
    ``D`` has blocks of one or two rows.  No derivative goes through it, as in PyTorch.

    Raises:
      RuntimeError: ``A`` is no square matrix of floats, or an entry of the diagonal is zero.

    >>> from dualrev import eager as torch
    >>> torch.linalg.ldl_factor(torch.tensor([[2.0, 1.0], [1.0, -1.0]])).LD
    tensor([[ 2.0000,  0.0000],
            [ 0.5000, -1.5000]])
    """
    return LDLFactorResult(*ldl_factor_ex(A, hermitian=hermitian, check_errors=True)[:2])


def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """The solution of ``A X = B``, from what ``ldl_factor`` gives of ``A``; no derivative goes through it, as in PyTorch.

    Raises:
      RuntimeError: shapes or dtypes do not fit.
    """
    values = known(squares(LD, "torch.linalg.ldl_solve"), "ldl_solve()")
    right, places = known(B, "ldl_solve()"), known(pivots, "ldl_solve()")
    if right.ndim < 2:
        raise RuntimeError(f"torch.linalg.ldl_solve: Expected B to have at least 2 dimensions, but it has {right.ndim} dimensions "
                           "instead")
    if values.shape[:-1] != places.shape:
        raise RuntimeError("torch.linalg.ldl_solve: Expected LD.shape[:-1] and pivots.shape to be the same, but got pivots with shape "
                           f"{list(places.shape)} instead")
    if values.shape[-1] != right.shape[-2]:
        raise RuntimeError(f"Incompatible matrix sizes for torch.linalg.ldl_solve: each A matrix is {values.shape[-1]} by "
                           f"{values.shape[-1]} but each b matrix is {right.shape[-2]} by {right.shape[-1]}")
    if values.dtype != right.dtype:
        raise RuntimeError(f"Expected b and A to have the same dtype, but found b of type {type_name(right.dtype)} and A of type "
                           f"{type_name(values.dtype)} instead.")
    run = _routine("trs", values.dtype, hermitian)
    batch = np.broadcast_shapes(values.shape[:-2], right.shape[:-2])
    operands = [np.broadcast_to(x, (*batch, *x.shape[x.ndim - n:])).reshape(-1, *x.shape[x.ndim - n:])
                for x, n in ((values, 2), (places, 1), (right, 2))]
    found = [run(ld, p.astype(np.int32), b, lower=1)[0] for ld, p, b in zip(*operands, strict=True)]
    result = wrap(np.asarray(found, values.dtype).reshape(*batch, *right.shape[-2:]))
    return _without_derivative("linalg_ldl_solve", result, (LD, B))
