"""Mutable references: programs and operations without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
from jax._src.state.types import RefEffect as _RefEffect  # of a read, a write or an addition

from dualrev._jax.avals import ShapedArray, abstract_outputs, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, JaxprEqn, open_and_closed
from dualrev._jax.primitives import Params, Primitive

#: The new values of the references among the operands, None for other operands; and what the operation returns.
Discharged: TypeAlias = tuple[Sequence[jax.Array | None], jax.Array | Sequence[jax.Array]]


def discharge(jaxpr: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    """A closed jaxpr without references: those among the inputs are values, whose final values are appended to the outputs."""
    from jax._src.state.discharge import discharge_state  # rewrites reads and writes as operations on values

    return discharge_state(open_and_closed(jaxpr)[1])


def discharge_operation(primitive: Primitive, avals: Sequence[ShapedArray], is_reference: Sequence[bool], values: Sequence[jax.Array],
                        params: Params) -> Discharged | None:
    """``(new values of the references, results)`` of one operation on values in place of references, or None if jax has no rule.

    Rules took their abstract values one by one until 0.12, which puts them into a context.
    """
    from jax._src.state import discharge as rules

    out_avals = abstract_outputs(primitive, avals, params)
    partial = getattr(rules, "_partial_discharge_rules", {})
    if primitive in partial:
        return partial[primitive](is_reference, avals, out_avals, *values, **params)
    rule: Callable[..., Discharged] | None = rules._discharge_rules.get(primitive)
    if rule is None:
        return None
    if hasattr(rules, "DischargeContext"):
        return rule(rules.DischargeContext(avals, out_avals, is_reference, False), *values, **params)
    return rule(avals, out_avals, *values, **params)


def uses_references(eqn: JaxprEqn) -> bool:
    """Whether an equation reads or writes a mutable reference, itself or in a program that it holds."""
    return any(isinstance(effect, _RefEffect) for effect in eqn.effects)


# ------------------------------------------------------------------------------------------- what is wanted of a cotangent

#: The objects that stand for what becomes of a cotangent, since jax 0.10.2: ``GradValue``, ``DontWant``, ``GradRef``, ``DidntWant``.
_wishes: Any = getattr(jax, "ad", None)


def was_added() -> object:
    """Stands in place of a cotangent that was added to a reference."""
    return _wishes.GradRef()


def was_left_out() -> object:
    """Stands in place of a cotangent that nobody wanted."""
    return _wishes.DidntWant()


def is_wanted(entry: object) -> bool:
    """Whether it asks for a cotangent as a value."""
    return isinstance(entry, _wishes.GradValue)


def is_unwanted(entry: object) -> bool:
    """Whether it asks for no cotangent."""
    return isinstance(entry, _wishes.DontWant)


def held_aval(reference: object) -> ShapedArray:
    """The type of the array that a mutable reference holds."""
    found: ShapedArray = typeof(reference).inner_aval  # type: ignore[attr-defined]  # that of a reference
    return found
