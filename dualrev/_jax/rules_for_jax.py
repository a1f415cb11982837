"""The derivative of a user's own primitive, registered with jax: ``jax.grad`` and ``jax.jvp`` then know the primitive too.

To register a rule is not to differentiate with jax: two entries of jax's registries are written, as the user would, and none is read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
from jax import dtypes

from dualrev._jax.avals import ShapedArray, cotangent_aval, tangent_aval, typeof
from dualrev._jax.custom_rules import Zero, is_symbolic_zero
from dualrev._jax.primitives import Params, Primitive

if TYPE_CHECKING:
    from typing_extensions import TypeIs

#: A tangent or cotangent as jax hands it on.
Given: TypeAlias = jax.Array | Zero

#: The primitives whose rules were registered here, and may be registered anew.
_registered: weakref.WeakSet[Primitive] = weakref.WeakSet()

#: ``push(primals, tangents, params) -> (outs, tangents of the outs)``; None is the zero tangent.
Push: TypeAlias = Callable[[Sequence[jax.Array], Sequence[jax.Array | None], Params],
                           tuple[Sequence[jax.Array], Sequence[jax.Array | None]]]

#: ``pull(cotangents, operands, avals, params) -> cotangents``: operands that the operation is linear in come as abstract values in
#: ``avals``, with None in ``operands``; the others the other way round.
Pull: TypeAlias = Callable[[Sequence[jax.Array | None], Sequence[jax.Array | None], Sequence[ShapedArray | None], Params],
                           Sequence[jax.Array | None]]


def register_with_jax(primitive: Primitive, push: Push, pull: Pull) -> bool:
    """Have jax push through a primitive by ``push``, and transpose it by ``pull``; False where someone else has registered a rule.

    Only for a primitive that is the caller's own (see :func:`dualrev._jax.libraries.is_own`).
    """
    from jax._src.interpreters.ad import (
        UndefinedPrimal,
        fancy_transposes,
        primitive_jvps,
        primitive_linearizations,
        primitive_transposes,
    )

    if primitive not in _registered and (primitive in primitive_jvps or primitive in primitive_linearizations
                                   or primitive in primitive_transposes or primitive in fancy_transposes):
        return False

    def jvp(primals: Sequence[jax.Array], tangents: Sequence[Given],
            **params: Any) -> tuple[jax.Array | list[jax.Array], Given | list[Given]]:
        outs, pushed = push(primals, [None if _is_zero(t) else t for t in tangents], params)
        moved: list[Given] = [Zero(tangent_aval(typeof(out))) if t is None else t for out, t in zip(outs, pushed, strict=True)]
        return (list(outs), moved) if primitive.multiple_results else (outs[0], moved[0])

    def transpose(cotangents: Any, *operands: Any, **params: Any) -> list[Given | None]:  # one or several; values and undefined primals
        avals = [x.aval if type(x) is UndefinedPrimal else None for x in operands]
        known = [None if type(x) is UndefinedPrimal else x for x in operands]
        cts = [None if _is_zero(ct) else ct for ct in (cotangents if primitive.multiple_results else [cotangents])]
        pulled = iter(pull(cts, known, avals, params))
        found = [None if aval is None else next(pulled) for aval in avals]
        return [Zero(cotangent_aval(aval)) if ct is None and aval is not None else ct for aval, ct in zip(avals, found, strict=True)]

    primitive_jvps[primitive] = jvp
    primitive_transposes[primitive] = transpose
    _registered.add(primitive)
    return True


def is_registered(primitive: Primitive) -> bool:
    """Whether it is from here that jax knows the derivative of a primitive."""
    return primitive in _registered


def _is_zero(t: Given) -> TypeIs[Zero]:
    return is_symbolic_zero(t) or typeof(t).dtype == dtypes.float0
