"""Contractions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dualrev.rules.forms import bilinear

Axes = Sequence[int]
DimensionNumbers = tuple[tuple[Axes, Axes], tuple[Axes, Axes]]


def permuted_sharding(aval: Any, axes: Axes) -> NamedSharding | None:
    """The sharding of a value laid out as ``aval.transpose(axes)``, where the user's mesh makes shardings explicit."""
    mesh = aval.sharding.mesh
    if mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return None
    spec = aval.sharding.spec
    return NamedSharding(mesh, PartitionSpec(*[spec[axis] for axis in axes]))


def cast_like(ct: Any, aval: Any) -> Any:
    """The adjoint of the promotion of ``aval``'s dtype to that of ``ct``; from complex to real it is the real part."""
    if ct.dtype == aval.dtype:
        return ct
    if ct.dtype.kind == "c" and aval.dtype.kind != "c":
        ct = lax.real(ct)
    return lax.convert_element_type(ct, aval.dtype)


def _adjoint(ct: Any, ct_batch: Axes, ct_other: Axes, x: Any, x_batch: Axes, x_contract: Axes, other: Any,
             other_batch: Axes, other_contract: Axes, precision: Any, preferred_element_type: Any) -> Any:
    """The cotangent of operand ``x`` of a contraction with ``other``.

    With ``b`` batch, ``i`` and ``j`` free and ``k`` contracted axes, ``out[b,i,j] = Σ_k x[b,i,k]·other[b,j,k]``, so
    ``ct_x[b,i,k] = Σ_j ct[b,i,j]·other[b,j,k]``: a contraction over the free axes of ``other``.  It comes out as
    ``(b, i, k)`` or, with its operands exchanged, as ``(b, k, i)``, where ``b`` may be in any order and ``k`` is in the
    order of ``other``.  Of the two, that which lies as ``x`` does needs no transpose.
    """
    x_free = [axis for axis in range(x.ndim) if axis not in x_batch and axis not in x_contract]
    other_free = [axis for axis in range(other.ndim) if axis not in other_batch and axis not in other_contract]
    batch_order = sorted(range(len(x_batch)), key=lambda n: x_batch[n])
    batch = [x_batch[n] for n in batch_order]
    contract = [x_contract[n] for n in sorted(range(len(x_contract)), key=lambda n: other_contract[n])]
    ct_side = (list(ct_other), [ct_batch[n] for n in batch_order])
    other_side = (other_free, [other_batch[n] for n in batch_order])
    ct_first, other_first = [*batch, *x_free, *contract], [*batch, *contract, *x_free]
    if _displaced(ct_first) <= _displaced(other_first):
        axes, operands, (left, right) = ct_first, (ct, other), (ct_side, other_side)
    else:
        axes, operands, (left, right) = other_first, (other, ct), (other_side, ct_side)
    result = lax.dot_general(*operands, ((left[0], right[0]), (left[1], right[1])), precision=precision,
                             preferred_element_type=preferred_element_type, out_sharding=permuted_sharding(x, axes))
    if _displaced(axes):
        result = lax.transpose(result, [axes.index(axis) for axis in range(x.ndim)])
    return cast_like(result, x)


def _displaced(axes: Axes) -> int:
    """The cost of putting axes into order: 0 none, 1 the innermost stays innermost (rows are copied whole), 2 it does not."""
    order = list(range(len(axes)))
    return 0 if list(axes) == order else 1 if axes[-1] == order[-1] else 2


def dot_lhs_transpose(ct: Any, x: Any, y: Any, *, dimension_numbers: DimensionNumbers, precision: Any,
                      preferred_element_type: Any) -> Any:
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    n_batch = len(x_batch)
    split = x.ndim - len(x_contract)
    return _adjoint(ct, range(n_batch), range(split, ct.ndim), x, x_batch, x_contract, y, y_batch, y_contract, precision,
                    preferred_element_type)


def dot_rhs_transpose(ct: Any, x: Any, y: Any, *, dimension_numbers: DimensionNumbers, precision: Any,
                      preferred_element_type: Any) -> Any:
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    n_batch = len(x_batch)
    split = x.ndim - len(x_contract)
    return _adjoint(ct, range(n_batch), range(n_batch, split), y, y_batch, y_contract, x, x_batch, x_contract, precision,
                    preferred_element_type)


bilinear(lax.dot_general_p, dot_lhs_transpose, dot_rhs_transpose)
