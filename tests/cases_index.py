"""Lines for indexing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from cases import ALL, ALL_FLOATS, RC, Maker, bind, case, constant, distinct, fixed, ints, normal, tied, values
from jax import lax

#: Rows of a table of 5 rows, with duplicates; and with indices out of bounds on both sides.
TWICE = fixed([3, 0, 3, 1, 3], "int32")
ONCE = fixed([3, 0, 4], "int32")
OUTSIDE = fixed([3, -7, 5, 0, 9], "int32")
MODES = ("fill", "clip", "promise_in_bounds")

#: Windows of all dimensions at starts along the second.
OUTER = lax.GatherDimensionNumbers(offset_dims=(0, 2, 3), collapsed_slice_dims=(), start_index_map=(1,))
OUTER_SCATTER = lax.ScatterDimensionNumbers(update_window_dims=(0, 2, 3), inserted_window_dims=(), scatter_dims_to_operand_dims=(1,))
ROWS = lax.ScatterDimensionNumbers(update_window_dims=(1,), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,))
BATCHED_SCATTER = lax.ScatterDimensionNumbers(
    update_window_dims=(2,), inserted_window_dims=(1,), scatter_dims_to_operand_dims=(1,), operand_batching_dims=(0,),
    scatter_indices_batching_dims=(0,))


def take(mode: str, fill_value: Any = None) -> Callable[..., Any]:
    return lambda x, i: x.at[i].get(mode=mode, fill_value=fill_value)


def put(method: str, **options: Any) -> Callable[..., Any]:
    """``x.at[i].method(updates)``."""
    return lambda x, i, u: getattr(x.at[i], method)(u, **options)


def scatter(function: Callable[..., Any], numbers: lax.ScatterDimensionNumbers, **options: Any) -> Callable[..., Any]:
    return lambda x, i, u: function(x, i, u, numbers, **options)


def one_by_one(x: Any, i: Any, u: Any) -> Any:
    for k in range(len(u)):
        x = x.at[i[k]].multiply(u[k], unique_indices=True)
    return x


def slide(sizes: tuple[int, ...]) -> Callable[..., Any]:
    return lambda x, *starts: lax.dynamic_slice(x, starts, sizes)


def scatter_lines(name: str, method: str, operand: Callable[..., Maker], updates: Callable[..., Maker], dtypes: Any,
                  function: Callable[..., Any], duplicates: bool, modes: tuple[str, ...] = ("drop", "clip")) -> list[Any]:
    """What holds for every scatter: modes, windows, batches, scalars, sizes 0 and 1."""
    once = {} if duplicates else {"unique_indices": True}
    at = TWICE if duplicates else ONCE
    n = 5 if duplicates else 3
    lines = [
        case(name, put(method, **once), operand(5, 2), at, updates(n, 2), dtypes=dtypes),
        case(name, put(method, unique_indices=True, indices_are_sorted=True), operand(5), fixed([1, 3, 4], "int32"), updates(3),
             label="sorted"),
        case(name, put(method, **once), operand(5), fixed(2, "int32"), updates(), label="scalar"),
        case(name, scatter(function, ROWS, **once), operand(5, 2), ints(0, 5, 0, 1), updates(0, 2), label="no indices"),
        case(name, put(method, **once), operand(1), fixed([0], "int32"), updates(1), label="size 1"),
        case(name, scatter(function, OUTER_SCATTER, **once), operand(2, 6, 3), fixed([[3], [2 if duplicates else 0]], "int32"),
             updates(2, 2, 2, 3), label="windows"),
        case(name, scatter(function, BATCHED_SCATTER, **once), operand(3, 4, 2), fixed([[[0], [3]], [[1], [2]], [[2], [0]]], "int32"),
             updates(3, 2, 2), label="batching dimensions"),
        case(name, put(method, **once), constant(operand(5)), ONCE, updates(3), label="constant operand"),
        case(name, put(method, **once), operand(5), ONCE, constant(updates(3)), label="constant updates"),
    ]
    lines += [case(name, put(method, mode=mode, wrap_negative_indices=False, **once), operand(5), OUTSIDE, updates(5),
                   label=f"out of bounds, {mode}") for mode in modes]
    return lines


CASES = [
    case("dynamic_slice", slide((2, 3)), normal(4, 5), ints(0, 2), ints(0, 3), dtypes=ALL),
    case("dynamic_slice", slide((2, 3)), normal(4, 5), fixed(3, "int32"), fixed(-9, "int32"), dtypes=RC, label="clamped"),
    case("dynamic_slice", slide((0, 3)), normal(4, 5), ints(0, 2), ints(0, 3), label="size 0"),
    case("dynamic_slice", slide((1,)), normal(4), ints(0, 4), label="size 1"),
    case("dynamic_slice", slide(()), normal(), label="scalar"),
    case("dynamic_slice", slide((4, 5)), normal(4, 5), fixed(0, "int64"), fixed(0, "int64"), label="everything"),
    case("dynamic_slice", lambda x, i: bind("dynamic_slice", slice_sizes=(2,))(x, i), normal(4), fixed(-1, "int32"),
         label="negative start"),

    case("dynamic_update_slice", lambda x, u, i, j: lax.dynamic_update_slice(x, u, (i, j)), normal(4, 5), normal(2, 3), ints(0, 2),
         ints(0, 3), dtypes=ALL),
    case("dynamic_update_slice", lambda x, u, i: lax.dynamic_update_slice(x, u, (i,)), normal(5), normal(2), fixed(7, "int32"),
         label="clamped"),
    case("dynamic_update_slice", lambda x, u, i: lax.dynamic_update_slice(x, u, (i,)), normal(5), normal(0), ints(0, 3),
         label="size 0"),
    case("dynamic_update_slice", lambda x, u: lax.dynamic_update_slice(x, u, ()), normal(), normal(), label="scalar"),
    case("dynamic_update_slice", lambda x, u, i: lax.dynamic_update_slice(x, u, (i,)), constant(normal(5)), normal(2), ints(0, 3),
         label="constant operand"),
    case("dynamic_update_slice", lambda x, u, i: lax.dynamic_update_slice(x, u, (i,)), normal(5), constant(normal(2)), ints(0, 3),
         label="constant update"),
    case("dynamic_update_slice", lambda x, u, i: bind("dynamic_update_slice")(x, u, i), normal(5), normal(2), fixed(-1, "int32"),
         label="negative start"),

    case("gather", lambda x, i: x[i], normal(5, 2), TWICE, dtypes=ALL, label="duplicates"),
    case("gather", lambda x, i, j: x[i, j], normal(4, 5), ints(0, 4, 3, 2), ints(0, 5, 2), dtypes=RC, label="two index arrays"),
    case("gather", take("fill"), normal(5, 2), ints(0, 5), label="one row"),
    case("gather", lambda x, i: lax.gather(x, i, OUTER, (2, 3, 3)), normal(2, 6, 3), ints(0, 3, 0, 1), label="no indices"),
    case("gather", lambda x, i: x[i], normal(1), fixed([0, 0], "int32"), label="size 1"),
    case("gather", lambda x, i: lax.gather(x, i, OUTER, (2, 3, 0)), normal(2, 6, 0), ints(0, 3, 4, 1), label="size 0"),
    case("gather", lambda x, i: x.at[i].get(unique_indices=True, indices_are_sorted=True), normal(5), fixed([0, 2, 3], "int64"),
         label="unique and sorted"),
    *[case("gather", take(mode), normal(5, 2), OUTSIDE if mode != "promise_in_bounds" else TWICE, dtypes=RC, label=mode)
      for mode in MODES],
    case("gather", take("fill", 2.5), normal(5, 2), OUTSIDE, dtypes=RC, label="fill value"),
    case("gather", lambda x, i: lax.gather(x, i, OUTER, (2, 3, 3), mode="clip"), normal(2, 6, 3), fixed([[5], [1]], "int32"),
         label="windows, clipped"),
    case("gather", lambda x, i: jnp.take_along_axis(x, i, 1, mode="fill"), normal(3, 4), ints(0, 6, 3, 2), dtypes=RC,
         label="along an axis"),

    *scatter_lines("scatter", "set", normal, normal, ALL, lax.scatter, duplicates=True),
    *scatter_lines("scatter-add", "add", normal, normal, ALL, lax.scatter_add, duplicates=True),
    *scatter_lines("scatter-sub", "subtract", normal, normal, ALL, lax.scatter_sub, duplicates=True),
    *scatter_lines("scatter-mul", "multiply", normal, normal, ALL, lax.scatter_mul, duplicates=False, modes=("drop",)),
    *scatter_lines("scatter-min", "min", tied, tied, ALL_FLOATS, lax.scatter_min, duplicates=True, modes=("drop",)),
    *scatter_lines("scatter-max", "max", tied, tied, ALL_FLOATS, lax.scatter_max, duplicates=True, modes=("drop",)),
    *scatter_lines("scatter-max", "max", distinct, normal, ALL_FLOATS, lax.scatter_max, duplicates=True, modes=("drop",)),
    case("scatter-mul", put("multiply", unique_indices=True), values(0.0, 2.0, 0.0), fixed([0, 1], "int32"), values(0.0, 0.0),
         dtypes=RC, label="zeros"),
    case("scatter-mul", put("multiply"), normal(5, 2), TWICE, constant(normal(5, 2)), dtypes=RC, label="duplicates"),
    # jax has no derivative by updates that meet, so here they are multiplied one after the other.
    case("scatter-mul", put("multiply"), normal(5, 2), TWICE, normal(5, 2), label="duplicates move",
         oracle=one_by_one),
    case("scatter-mul", put("multiply"), values(2.0, 0.0, 3.0), fixed([0, 1, 0, 0, 1], "int32"), values(0.0, 5.0, 3.0, 0.0, 0.0),
         label="duplicate zeros", oracle=one_by_one),
    # jax's derivative of these two divides by zero where an index is clipped.
    *[case(f"scatter-{method}", put(method, mode="clip", wrap_negative_indices=False), make(5), OUTSIDE, make(5), label="clipped",
           oracle=lambda x, i, u, method=method: put(method)(x, jnp.clip(i, 0, 4), u))
      for method in ("min", "max") for make in (tied, distinct)],
]
