"""What a call for a sparse derivative asks for, checked as far as it does not depend on arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dualrev import errors
from dualrev._jax.avals import ShapedArray, typeof
from dualrev.functional import checks
from dualrev.functional.checks import Argnums
from dualrev.options.settings import Options, Request
from dualrev.sparse import formats
from dualrev.sparse.colouring import orders
from dualrev.sparse.colouring.search import Task
from dualrev.sparse.formats import Format
from dualrev.sparse.plans import Kind, Plan


class Asked(NamedTuple):
    """What a call asks for, checked."""

    name: str
    kind: Kind
    argnums: int | tuple[int, ...]
    has_aux: bool
    engine: str
    chunk_size: int | None
    format: Format
    pattern: Any
    is_checked: bool
    plan: Plan | None
    task: Task
    request: Request
    holomorphic: bool = False


def asked(name: str, kind: Kind, argnums: Argnums, has_aux: bool, engine: str | None, chunk_size: int | None, format: str,  # noqa: A002
          pattern: Any, check: bool, plan: Plan | bool | None, options: Options, task: Task | None = None,
          holomorphic: bool = False) -> Asked:
    """The request of a call, after checks of what does not depend on arguments."""
    positions = checks.normalize_argnums(argnums)
    checks.check_engine(engine, ("auto", "forward", "reverse") if kind == "jacobian" else (None, "auto"), name)
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"{name}: chunk_size must be a positive int or None; got {chunk_size!r}")
    formats.check_format(name, format)
    formats.check_pattern(pattern, name)
    plan = None if plan is True else plan  # sparse=True
    if plan is not None:
        if not isinstance(plan, Plan):
            raise TypeError(f"{name}: sparse must be True, False or a plan of dualrev.sparse.plan; got {plan!r}")
        if plan.kind != kind:
            raise ValueError(f"{name}: the plan is one for a {plan.kind}: {plan!r}")
        if pattern is not None:
            raise ValueError(f"{name}: a plan has its pattern; give the plan or pattern=, not both")
    if check and pattern is None and plan is None:
        raise ValueError(f"{name}: check=True checks a pattern that is given; without pattern= it is detected, and holds for all "
                         "inputs")
    request = Request.of(name, options, isinstance(positions, int))
    if request.keeps_all or request.cotangent_dtype is not None:
        option = "non_float" if request.keeps_all else "cotangent_dtype"
        raise ValueError(f"{name}: {option}= is not for sparse derivatives, whose entries have the dtype of their output")
    return Asked(name, kind, positions, has_aux, engine or "auto", chunk_size, format,  # type: ignore[arg-type]  # it was checked
                 pattern, check, plan, task or Task(), request, holomorphic)


def check_input(asked: Asked, x: jax.Array) -> None:
    """Refuse an input of a dtype that the derivative is not defined for."""
    if asked.kind == "hessian" or asked.engine == "forward" or asked.holomorphic or not _is_complex(typeof(x)):
        checks.check_forward_input_dtype(asked.name, asked.holomorphic, x)
    else:
        checks.check_input_dtype(asked.name, False, False, x)


def check_dtypes(asked: Asked, in_avals: Sequence[ShapedArray], out_avals: Sequence[ShapedArray]) -> str:
    """The engine, which complex numbers leave no choice of: of real functions of complex inputs the rows are gradients, by pulls; of
    complex functions of real inputs the columns are derivatives, by pushes.
    """
    name, holomorphic = asked.name, asked.holomorphic
    beyond = "inputs" if any(map(_is_complex, in_avals)) else "outputs" if any(map(_is_complex, out_avals)) else ""
    if not beyond or holomorphic:
        for aval in out_avals:
            checks.check_output_dtype(name, holomorphic, jax.ShapeDtypeStruct(aval.shape, aval.dtype))
        return asked.engine
    if asked.kind == "hessian":
        raise TypeError(f"{name}: the {beyond} are complex. For a holomorphic function pass holomorphic=True; otherwise give real and "
                        "imaginary parts as two arrays.")
    is_pushed = beyond == "outputs" and asked.engine != "reverse"
    for aval in out_avals:
        if not is_pushed or not _is_complex(aval):
            checks.check_output_dtype(name, False, jax.ShapeDtypeStruct(aval.shape, aval.dtype))
    if asked.is_checked:
        raise errors.OptionError(f"{name}: check=True compares products of real, or of holomorphic, functions; this one has complex "
                                 f"{beyond}. Compare entries with those of jacobian(f) at a point.")
    return "forward" if is_pushed else "reverse"


def _is_complex(aval: ShapedArray) -> bool:
    return bool(jnp.issubdtype(aval.dtype, jnp.complexfloating))


def check_task(name: str, order: str | Sequence[str], substitution: bool, time_budget: float, seed: int,
               costs: tuple[float, float] | None) -> Task:
    """What the search for colours is asked for."""
    for each in (order,) if isinstance(order, str) else tuple(order):
        if each not in orders.NAMES and not (each == "auto" and isinstance(order, str)):
            raise ValueError(f"{name}: order must be one of 'auto', {', '.join(map(repr, orders.NAMES))}, or several of the latter; "
                             f"got {each!r}")
    if not isinstance(order, str) and not order:
        raise ValueError(f"{name}: order must name at least one of {', '.join(map(repr, orders.NAMES))}")
    if not time_budget >= 0:
        raise ValueError(f"{name}: time_budget must be a number of seconds, at least 0; got {time_budget!r}")
    if costs is not None and not (isinstance(costs, tuple) and len(costs) == 2 and all(0 < c < math.inf for c in costs)):
        raise ValueError(f"{name}: costs must be a pair of positive numbers, seconds of one push and of one pull; got {costs!r}")
    push, pull = costs or (1.0, 1.0)
    order = order if isinstance(order, str) else tuple(order)
    return Task(push, pull, order, substitution, time_budget, seed, is_priced=costs is not None)
