"""Calls that tell the compiler how or where to run a program: the derivative is that of the program, and runs in the same way.

``compute_on`` says on which part of the device or host, ``fused_call`` that it is one kernel, ``program_order`` that operations run in
the order in which they are written; ``xla_metadata_call`` tags the program for the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax

from dualrev._jax import annotated_calls
from dualrev._jax.annotated_calls import Like
from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev._jax.primitives import Params, Primitive, primitive
from dualrev.calls.call_rows import RunRow
from dualrev.calls.derived_programs import Wrapper
from dualrev.calls.jit import program_of
from dualrev.table.rows import register

#: The parameters of a call of a derived program.
Derived: TypeAlias = Callable[[Params, ClosedJaxpr, Like, Like], Params]


def _annotated(call: Primitive, derived: Derived) -> None:
    """State that a program derived from that of ``call`` runs by ``call`` too, with the parameters ``derived``."""

    def bind(like: Params, jaxpr: ClosedJaxpr, args: Sequence[jax.Array], name: str, in_like: Like, out_like: Like) -> list[jax.Array]:
        results: list[jax.Array] = call.bind(*args, **derived(like, jaxpr, in_like, out_like))
        return results

    def wrapper_of(params: Params) -> Wrapper:
        settings = {name: value for name, value in params.items() if name not in ("jaxpr", "call_jaxpr")}
        return Wrapper(str(call), settings, bind)

    register(RunRow(call, program_of, wrapper_of))


for _name in ("compute_on", "fused_call", "program_order", "xla_metadata_call"):
    if (_call := primitive(_name)) is not None:  # in this release of jax
        _annotated(_call, getattr(annotated_calls, _name))
