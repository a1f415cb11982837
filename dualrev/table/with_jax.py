"""Rows of primitives that are new to jax: its transformations follow the same row."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Params
from dualrev._jax.rules_for_jax import register_with_jax
from dualrev.linear.maps import Tangent
from dualrev.table.rows import Row, Unknown, linearized, pushed


def follow_in_jax(row: Row) -> None:
    """Have jax push through the row's primitive, and transpose it, by the row."""
    def pull(cotangents: Sequence[Tangent], operands: Sequence[jax.Array | None], avals: Sequence[ShapedArray | None],
             params: Params) -> Sequence[Tangent]:
        linear = tuple([aval is not None for aval in avals])
        primals = [x if aval is None else Unknown(aval) for x, aval in zip(operands, avals, strict=True)]
        _, linear_map, _ = linearized(row, primals, linear, params, True)  # type: ignore[arg-type]  # a constant is no None
        if linear_map is None or all(ct is None for ct in cotangents):
            return [None] * sum(linear)
        return linear_map.pull(*cotangents)

    register_with_jax(row.primitive, functools.partial(pushed, row), pull)
