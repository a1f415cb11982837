"""Calls that tell the compiler how or where to run a program: their parameters, for a program that is derived from theirs.

Each function is given the parameters of the original call, the derived program, and for each operand and result of it the operand or
result of the original call that it is like (see :func:`~dualrev._jax.calls.bind_jit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax

from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev._jax.primitives import Params

#: For each operand or result, the one of the original call that it is like.
Like: TypeAlias = Sequence[int | None]


def _spaces(spaces: Sequence[Any], jaxpr: ClosedJaxpr, out_like: Like) -> tuple[Any, ...]:
    """The memory of results: a new one stays where the program has it, or on the device where that leaves it open."""
    own = [jax.memory.Space.Device if aval.memory_space.name == "Any" else aval.memory_space for aval in jaxpr.out_avals]
    return tuple([space if i is None else spaces[i] for i, space in zip(out_like, own, strict=True)])


def compute_on(like: Params, jaxpr: ClosedJaxpr, in_like: Like, out_like: Like) -> Params:
    return dict(like, jaxpr=jaxpr, out_memory_spaces=_spaces(like["out_memory_spaces"], jaxpr, out_like))


def fused_call(like: Params, jaxpr: ClosedJaxpr, in_like: Like, out_like: Like) -> Params:
    return dict(like, jaxpr=jaxpr, out_spaces=_spaces(like["out_spaces"], jaxpr, out_like))


def program_order(like: Params, jaxpr: ClosedJaxpr, in_like: Like, out_like: Like) -> Params:
    mask = [i is not None and like["exclude_mask"][i] for i in in_like]
    return dict(like, call_jaxpr=jaxpr, exclude_mask=tuple(mask))


def xla_metadata_call(like: Params, jaxpr: ClosedJaxpr, in_like: Like, out_like: Like) -> Params:
    """Since 0.12 the user may give the programs of linear maps a tag of their own."""
    is_linear_map = all(i is None for i in (*in_like, *out_like))
    if is_linear_map and like.get("ad_metadata", "same") != "same":
        like = dict(like, xla_metadata=like["ad_metadata"], ad_metadata="same")
    return dict(like, jaxpr=jaxpr)
