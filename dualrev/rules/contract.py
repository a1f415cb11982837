"""Contractions."""

from __future__ import annotations

from collections.abc import Sequence

from jax import Array, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dualrev._jax.avals import DType, ShapedArray
from dualrev._jax.primitives import Params, primitive
from dualrev._jax.sharding import partitions
from dualrev.table.axes import contracted
from dualrev.table.forms import bilinear

Axes = Sequence[int]
DimensionNumbers = tuple[tuple[Axes, Axes], tuple[Axes, Axes]]


def permuted_sharding(aval: ShapedArray, axes: Axes) -> NamedSharding | None:
    """The sharding of a cotangent laid out as ``aval.transpose(axes)``, where the user's mesh makes shardings explicit.

    Where the value counts as reduced over an axis of the mesh, its cotangent is not reduced yet, and conversely.
    """
    mesh = aval.sharding.mesh
    if mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return None
    spec = aval.sharding.spec
    sums = {"unreduced": spec.reduced, "reduced": spec.unreduced} if spec.reduced or spec.unreduced else {}
    names = partitions(spec)
    return NamedSharding(mesh, PartitionSpec(*[names[axis] for axis in axes], **sums))


def cast_like(ct: Array, aval: ShapedArray) -> Array:
    """The adjoint of the promotion of ``aval``'s dtype to that of ``ct``; from complex to real it is the real part."""
    if ct.dtype == aval.dtype:
        return ct
    if ct.dtype.kind == "c" and aval.dtype.kind != "c":
        ct = lax.real(ct)
    return lax.convert_element_type(ct, aval.dtype)


def _adjoint(ct: Array, ct_batch: Axes, ct_other: Axes, x: ShapedArray, x_batch: Axes, x_contract: Axes, other: Array,
             other_batch: Axes, other_contract: Axes, precision: lax.PrecisionLike, preferred_element_type: DType | None) -> Array:
    """The cotangent of operand ``x`` of a contraction with ``other``.

    With ``b`` batch, ``i`` and ``j`` free and ``k`` contracted axes, ``out[b,i,j] = Σ_k x[b,i,k]·other[b,j,k]``, so
    ``ct_x[b,i,k] = Σ_j ct[b,i,j]·other[b,j,k]``: a contraction over the free axes of ``other``.  It comes out as
    ``(b, i, k)`` or, with its operands exchanged, as ``(b, k, i)``, where ``b`` may be in any order and ``k`` is in the
    order of ``other``.  The result with the axes in the order of ``x`` needs no transpose.  If neither has, the contraction itself
    transposes a right operand that is contracted along its last axes, so that a large ``ct`` of this kind becomes the left operand; and
    a left operand that is contracted along its first axes, so that an ``other`` of this kind with more entries than ``ct`` becomes the
    right operand.
    """
    x_free = [axis for axis in range(x.ndim) if axis not in x_batch and axis not in x_contract]
    other_free = [axis for axis in range(other.ndim) if axis not in other_batch and axis not in other_contract]
    batch_order = sorted(range(len(x_batch)), key=lambda n: x_batch[n])
    batch = [x_batch[n] for n in batch_order]
    contract = [x_contract[n] for n in sorted(range(len(x_contract)), key=lambda n: other_contract[n])]
    ct_side = (list(ct_other), [ct_batch[n] for n in batch_order])
    other_side = (other_free, [other_batch[n] for n in batch_order])
    ct_first, other_first = [*batch, *x_free, *contract], [*batch, *contract, *x_free]
    keeps_ct = _displaced(other_first) > 0 and list(ct_other) == list(range(ct.ndim - len(ct_other), ct.ndim)) and _larger(ct, other)
    keeps_other = bool(other_free) and max(other_free) < min(other_contract, default=0) and _larger(other, ct)
    if keeps_ct or keeps_other or _displaced(ct_first) <= _displaced(other_first):
        axes, operands, (left, right) = ct_first, (ct, other), (ct_side, other_side)
    else:
        axes, operands, (left, right) = other_first, (other, ct), (other_side, ct_side)
    result = lax.dot_general(*operands, ((left[0], right[0]), (left[1], right[1])), precision=precision,
                             preferred_element_type=preferred_element_type, out_sharding=permuted_sharding(x, axes))
    if _displaced(axes):
        result = lax.transpose(result, [axes.index(axis) for axis in range(x.ndim)])
    return cast_like(result, x)


def _larger(x: Array, y: Array) -> bool:
    """Whether ``x`` has more entries; False for symbolic sizes, as exported programs have."""
    return isinstance(x.size, int) and isinstance(y.size, int) and x.size > y.size


def _displaced(axes: Axes) -> int:
    """The cost of sorting axes: 0 for none, 1 if the innermost axis stays innermost (whole rows are copied), 2 otherwise."""
    order = list(range(len(axes)))
    return 0 if list(axes) == order else 1 if axes[-1] == order[-1] else 2


def dot_lhs_transpose(ct: Array, x: ShapedArray, y: Array, *, dimension_numbers: DimensionNumbers, precision: lax.PrecisionLike,
                      preferred_element_type: DType | None) -> Array:
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    n_batch = len(x_batch)
    split = x.ndim - len(x_contract)
    return _adjoint(ct, range(n_batch), range(split, ct.ndim), x, x_batch, x_contract, y, y_batch, y_contract, precision,
                    preferred_element_type)


def dot_rhs_transpose(ct: Array, x: Array, y: ShapedArray, *, dimension_numbers: DimensionNumbers, precision: lax.PrecisionLike,
                      preferred_element_type: DType | None) -> Array:
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    n_batch = len(x_batch)
    split = x.ndim - len(x_contract)
    return _adjoint(ct, range(n_batch), range(n_batch, split), y, y_batch, y_contract, x, x_batch, x_contract, precision,
                    preferred_element_type)


bilinear(lax.dot_general_p, dot_lhs_transpose, dot_rhs_transpose,
         axes=lambda x, y, *, dimension_numbers: contracted([x.ndim, y.ndim], *dimension_numbers))


# ------------------------------------------------------------------------------------------------------- ragged contractions


def _ragged(axes: Axes, target: ShapedArray, left: Array, right: Array, sizes: Array, contract: tuple[Axes, Axes],
            batch: tuple[Axes, Axes], ragged: int, group: Axes, precision: lax.PrecisionLike,
            preferred_element_type: DType | None) -> Array:
    """A ragged contraction whose axis ``i`` is axis ``axes[i]`` of the cotangent of ``target``."""
    numbers = lax.RaggedDotDimensionNumbers((contract, batch), [ragged], group)
    sharding = permuted_sharding(target, axes)
    keywords: Params = {} if sharding is None else {"out_sharding": sharding}
    result = lax.ragged_dot_general(left, right, sizes, numbers, precision=precision, preferred_element_type=preferred_element_type,
                                    **keywords)
    return cast_like(lax.transpose(result, [list(axes).index(axis) for axis in range(target.ndim)]), target)


def _ragged_axes(x: Array | ShapedArray, y: Array | ShapedArray,
                 numbers: lax.RaggedDotDimensionNumbers) -> tuple[list[int], list[int], int]:
    """The free axes of both operands, and the ragged one of ``x``."""
    (x_contract, y_contract), (x_batch, y_batch) = numbers.dot_dimension_numbers
    (ragged,) = numbers.lhs_ragged_dimensions
    x_free = [axis for axis in range(x.ndim) if axis not in (*x_contract, *x_batch)]
    y_free = [axis for axis in range(y.ndim) if axis not in (*y_contract, *y_batch, *numbers.rhs_group_dimensions)]
    return x_free, y_free, ragged


def ragged_lhs_transpose(ct: Array, x: ShapedArray, y: Array, sizes: Array, *,
                         ragged_dot_dimension_numbers: lax.RaggedDotDimensionNumbers, precision: lax.PrecisionLike,
                         preferred_element_type: DType | None) -> Array:
    """With ``b`` batch, ``m`` and ``n`` free and ``k`` contracted axes, and ``G[g,r]`` 1 where place ``r`` is in group ``g``, else 0:

    - ragged ``m``: ``out[b,m,n] = Σ_gk G[g,m] x[b,m,k] y[g,b,k,n]``, so ``ct_x[b,m,k] = Σ_gn G[g,m] ct[b,m,n] y[g,b,k,n]``;
    - ragged ``k``: ``out[g,b,m,n] = Σ_k G[g,k] x[b,m,k] y[b,k,n]``, so ``ct_x[b,m,k] = Σ_gn G[g,k] y[b,k,n] ct[g,b,m,n]``, in which
      ``k`` is a free axis of ``y``;
    - ragged ``b``: as without groups.
    """
    numbers, how = ragged_dot_dimension_numbers, (precision, preferred_element_type)
    (x_contract, y_contract), (x_batch, y_batch) = numbers.dot_dimension_numbers
    x_free, y_free, ragged = _ragged_axes(x, y, numbers)
    n_batch, n_contract = len(x_batch), len(x_contract)
    if ragged in x_contract:
        # Group sizes may depend on the contracted axes before the ragged one: these keep their order.
        y = lax.transpose(y, (*y_batch, *y_contract, *y_free))
        return _ragged((*x_batch, *x_contract, *x_free), x, y, ct, sizes,
                       (range(n_batch + n_contract, y.ndim), range(1 + n_batch + len(x_free), ct.ndim)),
                       (range(n_batch), range(1, 1 + n_batch)), n_batch + x_contract.index(ragged), (0,), *how)
    place = x_batch.index(ragged) if ragged in x_batch else n_batch + x_free.index(ragged)
    contract = [x_contract[n] for n in sorted(range(n_contract), key=lambda n: y_contract[n])]
    return _ragged((*x_batch, *x_free, *contract), x, ct, y, sizes, (range(n_batch + len(x_free), ct.ndim), y_free),
                   (range(n_batch), y_batch), place, numbers.rhs_group_dimensions, *how)


def ragged_rhs_transpose(ct: Array, x: Array, y: ShapedArray, sizes: Array, *,
                         ragged_dot_dimension_numbers: lax.RaggedDotDimensionNumbers, precision: lax.PrecisionLike,
                         preferred_element_type: DType | None) -> Array:
    """As above: ``ct_y[g,b,k,n] = Σ_m G[g,m] x[b,m,k] ct[b,m,n]``, or ``ct_y[b,k,n] = Σ_gm G[g,k] x[b,m,k] ct[g,b,m,n]``."""
    numbers, how = ragged_dot_dimension_numbers, (precision, preferred_element_type)
    (x_contract, y_contract), (x_batch, y_batch) = numbers.dot_dimension_numbers
    x_free, y_free, ragged = _ragged_axes(x, y, numbers)
    n_batch, n_contract = len(x_batch), len(x_contract)
    if ragged in x_contract:
        x = lax.transpose(x, (*x_batch, *x_contract, *x_free))
        return _ragged((*y_batch, *y_contract, *y_free), y, x, ct, sizes,
                       (range(n_batch + n_contract, x.ndim), range(1 + n_batch, 1 + n_batch + len(x_free))),
                       (range(n_batch), range(1, 1 + n_batch)), n_batch + x_contract.index(ragged), (0,), *how)
    contract = [y_contract[n] for n in sorted(range(n_contract), key=lambda n: x_contract[n])]
    return _ragged((*numbers.rhs_group_dimensions, *y_batch, *contract, *y_free), y, x, ct, sizes,
                   (x_free, range(n_batch, n_batch + len(x_free))), (x_batch, range(n_batch)), ragged, (), *how)


bilinear(primitive("ragged_dot_general"), ragged_lhs_transpose, ragged_rhs_transpose, None)
