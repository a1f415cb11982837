"""Mutable references: programs and operations without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev._jax.avals import abstract_outputs
from dualrev._jax.jaxprs import ClosedJaxpr


def discharge(jaxpr: Any) -> Any:
    """A closed jaxpr without references: those among the inputs are values, whose final values are appended to the outputs."""
    from jax._src.state.discharge import discharge_state  # rewrites reads and writes as operations on values

    return discharge_state(jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, ()))


def discharge_operation(primitive: Any, avals: Sequence[Any], is_reference: Sequence[bool], values: Sequence[Any],
                        params: dict[str, Any]) -> tuple[Sequence[Any], Any] | None:
    """``(new values of the references, results)`` of one operation on values in place of references, or None if jax has no rule.

    Rules took their abstract values one by one until 0.12, which puts them into a context.
    """
    from jax._src.state import discharge as rules

    out_avals = abstract_outputs(primitive, avals, params)
    partial = getattr(rules, "_partial_discharge_rules", {})
    if primitive in partial:
        return partial[primitive](is_reference, avals, out_avals, *values, **params)
    rule = rules._discharge_rules.get(primitive)
    if rule is None:
        return None
    if hasattr(rules, "DischargeContext"):
        return rule(rules.DischargeContext(avals, out_avals, is_reference, False), *values, **params)
    return rule(avals, out_avals, *values, **params)
