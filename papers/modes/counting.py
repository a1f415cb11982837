"""Operation counting: what a function, its push and its pull cost, without running them.

This mode carries nothing.  It traces the derivative, and asks the table of each operation what kind of work it is: one that only moves
entries, one that computes entry by entry (a compiler makes one kernel of neighbours of either sort), or one that is a kernel of its
own.  What contracts says how many products it takes; loops and branches count their programs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

import dualrev as dr
from dualrev.modes import cost_of


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, bytes read and written, and kernels."""

    flops: int = 0
    bytes: int = 0
    kernels: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes, self.kernels + other.kernels)

    def __rmul__(self, n: int) -> Cost:
        return Cost(n * self.flops, n * self.bytes, n * self.kernels)


def count(f: Callable[..., Any], *args: Any) -> dict[str, Cost]:
    """The cost of ``f(*args)``, of its value and push (``jvp``), and of its value and pull (``vjp``).

    A ``while`` loop counts as one step, as nobody knows how many it takes.
    """
    def push(*args: Any) -> Any:
        return dr.jvp(f, args, args)

    def pull(*args: Any) -> Any:
        out, back = dr.vjp(f, *args)
        return out, back(out)

    return {name: cost(jax.make_jaxpr(fun)(*args)) for name, fun in (("value", f), ("push", push), ("pull", pull))}


def cost(program: ClosedJaxpr) -> Cost:
    """The cost of a traced program: of the operations that are kernels of their own, and of the groups that fuse."""
    jaxpr, total = program.jaxpr, Cost()
    groups: dict[int, list[Any]] = {}  # fused operations, by the number of their group
    group_of: dict[Any, int] = {}  # result -> its group
    for n, eqn in enumerate(jaxpr.eqns):
        kind = cost_of(eqn.primitive)
        if programs := list(programs_of(eqn)):
            each = [cost(inner) for inner in programs]
            if eqn.primitive.name == "cond":
                each = [max(each, key=lambda c: c.flops)]
            total += eqn.params.get("length", 1) * sum(each, Cost())
        elif kind in ("entrywise", "moves"):
            joined = {group_of[x] for x in eqn.invars if not isinstance(x, Literal) and x in group_of}
            groups[n] = [*(e for g in joined for e in groups.pop(g)), eqn]
            group_of.update((x, n) for e in groups[n] for x in e.outvars)
        else:
            total += Cost(flops(eqn), sum(map(size, [*eqn.invars, *eqn.outvars])), 1)
    read_outside = {x for x in jaxpr.outvars if not isinstance(x, Literal)}
    read_outside |= {x for eqn in jaxpr.eqns for x in eqn.invars if not isinstance(x, Literal)
                     and group_of.get(eqn.outvars[0] if eqn.outvars else None) != group_of.get(x)}
    for eqns in groups.values():
        made = {x for eqn in eqns for x in eqn.outvars}
        read = {x for eqn in eqns for x in eqn.invars if not isinstance(x, Literal)} - made
        work = sum(math.prod(eqn.outvars[0].aval.shape) for eqn in eqns if cost_of(eqn.primitive) == "entrywise")
        total += Cost(work, sum(map(size, read | (made & read_outside))), 1)
    return total


def programs_of(eqn: Any) -> Iterator[ClosedJaxpr]:
    """The programs that an operation holds."""
    for value in eqn.params.values():
        yield from (x for x in (value if isinstance(value, (tuple, list)) else [value]) if isinstance(x, ClosedJaxpr))


def flops(eqn: Any) -> int:
    """Multiplications and additions of an operation that is a kernel of its own."""
    out = math.prod(eqn.outvars[0].aval.shape) if eqn.outvars else 0
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * out * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        return 2 * out * math.prod(kernel) // kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return sum(math.prod(x.aval.shape) for x in eqn.invars)  # a reduction, a sort: each entry once, to say the least


def size(x: Any) -> int:
    """Bytes of a value."""
    return math.prod(x.aval.shape) * x.aval.dtype.itemsize
