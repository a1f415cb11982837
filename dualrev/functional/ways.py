"""The ways to a Jacobian and to a Hessian among which ``engine="auto"`` chooses, and the counts that speak against each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from dualrev._jax.avals import is_array_like, typeof
from dualrev._jax.trees import PyTree
from dualrev.functional.automatic import Asking, Automatic, Special, Way, has_few_inputs
from dualrev.functional.waists import narrowest
from dualrev.programs.jaxprs import work
from dualrev.programs.partition import graph_of

#: Where there are so many times more inputs than outputs, or the reverse, counts decide between pushes and pulls.
DECISIVE = 8
#: Local Jacobians are multiplied one by one in programs of at most so many equations, whose values have at most so many entries on
#: average; with more, a sweep has fewer kernels.
MOST_EQUATIONS, MOST_ENTRIES = 100, 4
#: With fewer passes than this there is nothing to save.
FEWEST_PASSES = 4
#: As for a waist, which has so many times fewer numbers than a sweep has passes, in programs of at most so many equations.
FEWEST_THROUGH, NARROW, MOST_CUTS = 32, 4, 2000


def jacobian(fun: Callable[..., PyTree], argnums: int | tuple[int, ...], has_aux: bool, by: Callable[[str], Callable[..., Any]],
             fallback: Callable[..., Any], special: Special, why_no_elimination: str | None,
             why_no_waist: str | None) -> Automatic[..., Any]:
    """Forward, reverse, pushes through a tape, elimination, through a waist, and the compressed way."""

    def eliminates(asking: Asking) -> str | None:
        return why_no_elimination or _why_no_elimination(asking)

    ways = [Way("tape", by("tape"), 'jacfwd(f, engine="reverse")', _why_decided),
            Way("reverse", by("reverse"), 'jacobian(f, engine="reverse")', _why_decided),
            Way("forward", by("forward"), 'jacobian(f, engine="forward")', _why_decided),
            Way("waist", by("waist"), 'jacobian(f, engine="waist")', lambda asking: why_no_waist or _why_no_waist(asking)),
            Way("elimination", by("elimination"), 'jacobian(f, engine="elimination")', eliminates)]
    return Automatic("jacobian", fun, argnums, has_aux, ways, _by_counts, fallback, special)


def hessian(fun: Callable[..., PyTree], argnums: int | tuple[int, ...], has_aux: bool, by: Callable[[str | None], Callable[..., Any]],
            special: Special) -> Automatic[..., Any]:
    """Forward over reverse, one engine for both orders, and the compressed way."""
    usual = Way("forward over reverse", by(None), "hessian(f)", lambda _: None)
    ways = [usual, *[Way(engine, by(engine), f'hessian(f, engine="{engine}")', has_few_inputs) for engine in ("forward", "reverse")]]
    return Automatic("hessian", fun, argnums, has_aux, ways, lambda _: usual.name, usual.call, special)


def _is_real(asking: Asking) -> bool:
    return all(is_array_like(x) and jnp.issubdtype(typeof(x).dtype, jnp.floating) for x in asking.inputs)


def _by_counts(asking: Asking) -> str:
    """Pushes through a tape if there are no more inputs than outputs, and else pulls."""
    return "tape" if asking.outs is not None and asking.n <= asking.m and _is_real(asking) else "reverse"


def _why_decided(asking: Asking) -> str | None:
    """Why counts decide between pushes and pulls: only real inputs of a program that will be compiled leave it open."""
    if not asking.is_compiled:
        return "outside of jit counts decide"
    if (why := has_few_inputs(asking)) is not None:
        return why
    if not _is_real(asking):
        return "an input is not real"
    if asking.outs is None:
        return "the function can't be traced"
    n, m = asking.n, asking.m
    if n > DECISIVE * m or m > DECISIVE * n:
        return f"{n:,.0f} inputs and {m:,.0f} outputs decide it"
    return None


def _why_no_waist(asking: Asking) -> str | None:
    if not asking.is_compiled:
        return "outside of jit counts decide"
    if not _is_real(asking):
        return "an input is not real"
    if asking.program is None:
        return "the function can't be traced"
    if not (math.isfinite(asking.n) and math.isfinite(asking.m)):
        return "a length is a symbol"
    passes = int(min(asking.n, asking.m))
    if passes < FEWEST_THROUGH:
        return f"{passes} passes are few"
    if len({x.dtype for x in (*asking.program.in_avals, *asking.program.out_avals)}) > 1:
        return "inputs and outputs have several dtypes"
    graph = graph_of(asking.program)
    if len(graph.eqns) > MOST_CUTS:
        return f"{len(graph.eqns):,} equations are more than {MOST_CUTS:,}"
    waist = narrowest(graph)
    if waist is None:
        return "there is no cut"
    if NARROW * waist.size > passes:
        return f"{waist.size:,} numbers cross its narrowest cut, for {passes:,} passes"
    return None


def _why_no_elimination(asking: Asking) -> str | None:
    if (why := _why_decided(asking)) is not None:
        return why
    if min(asking.n, asking.m) < FEWEST_PASSES:
        return f"{min(asking.n, asking.m):,.0f} passes are few"
    equations, entries = work(asking.program)  # type: ignore[arg-type]  # the function was traced
    if equations > MOST_EQUATIONS:
        return f"{equations:,} equations are more than {MOST_EQUATIONS}"
    if entries > MOST_ENTRIES * equations:
        return f"its values have {entries / max(equations, 1):,.0f} entries on average"
    return None
