"""Registration of numpy's evaluations of primitives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from dualrev._jax.avals import ShapedArray

#: A function of numpy arrays.
HostFunction: TypeAlias = Callable[..., Any]
#: Makes the function of an equation, from its parameters and the types of its operands and results; None where numpy has none.
Maker: TypeAlias = Callable[[dict[str, Any], Sequence[ShapedArray], Sequence[ShapedArray]], HostFunction | None]

#: For each primitive, by name, what makes its function.
MAKERS: dict[str, Maker] = {}
#: About how many nanoseconds an entry takes: of the results, or of the operands where they are more; a tenth of one unless listed.
COSTS: dict[str, float] = {}


def made(*names: str, cost: float = 0.2) -> Callable[[Maker], Maker]:
    """Register what makes the functions of primitives."""
    def register(maker: Maker) -> Maker:
        for name in names:
            MAKERS[name] = maker
            COSTS[name] = cost
        return maker

    return register


def plain(name: str, fun: HostFunction, cost: float = 0.2) -> None:
    """Register the function of a primitive that reads no parameter."""
    MAKERS[name] = lambda params, ins, outs: fun
    COSTS[name] = cost
