"""``explain``: what a derivative costs in each way, and which way to take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from dualrev import time_model
from dualrev._jax.avals import is_array_like
from dualrev._jax.calls import while_p
from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev._jax.trees import PyTree
from dualrev.calls.derived_programs import apart
from dualrev.functional.automatic import MARGIN
from dualrev.functional.checks import Argnums
from dualrev.functional.choices import Choice
from dualrev.functional.sparse_way import HANDICAP
from dualrev.inspection.anew import as_written
from dualrev.inspection.drawing.api import draw
from dualrev.inspection.drawing.drawings import Drawing
from dualrev.inspection.explanation.candidates import CALLS, Lines, candidates
from dualrev.inspection.explanation.explanation import Explanation
from dualrev.inspection.explanation.lines import dominating
from dualrev.inspection.explanation.measuring import Progress, fastest, measured
from dualrev.inspection.explanation.question import NOT_FOR_IT, Derivative, Question, described, why
from dualrev.inspection.explanation.variants import Argument, Variant
from dualrev.inspection.liveness import peak_bytes
from dualrev.linear.residuals import Residuals
from dualrev.programs.partition import eqns_within
from dualrev.time_model import Cost
from dualrev.time_model.reading import UNKNOWN_STEPS


def explain(fun: Callable[..., PyTree], *args: PyTree, derivative: Derivative | None = None, argnums: Argnums | None = None,
            has_aux: bool = False, measure: bool = False, **kwargs: PyTree) -> Explanation:
    r"""What the derivative of a function costs in each way that there is, and which way to take.

    For each way to :math:`\nabla f`, :math:`\partial f` or :math:`\nabla^2 f`, forward, reverse, sparse, checkpointed: passes, kernels,
    arithmetic, bytes moved, bytes kept for pulls, peak memory and predicted time, from the traced program and
    :mod:`dualrev.time_model`, which also chooses in ``engine="auto"``, in loops and in colourings.  Nothing is compiled, and only the
    function is run, once.

    Args:
      fun: function of arrays or pytrees of them, with floats as outputs.
      args, kwargs: its arguments; a :class:`jax.ShapeDtypeStruct` does for an array.  An option below is not handed to ``fun``.
      derivative: ``"grad"``, ``"jacobian"`` or ``"hessian"``; by default the gradient of a scalar, or else the Jacobian.
      argnums: which positional arguments to differentiate, as in :func:`dualrev.grad`; by default the first one that holds floats.
        Integers and what else has no derivative are held fixed.
      has_aux: whether ``fun`` returns ``(value, aux)``.
      measure: compile the variants and time them, in rounds of all; the recommendation is then the fastest one.

    Returns:
      An :class:`~dualrev.inspection.explanation.Explanation`: ``print`` shows it, a notebook draws it, ``.to_dict()`` is for machines.
      Its ``code`` is the line that makes the recommended derivative.

    Raises:
      TypeError: no input or an output that can't be differentiated; a gradient or Hessian of what is no scalar; ``measure`` of shapes.
      ValueError: an unknown derivative; a function that can't be traced.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> def swing(x):
    ...     return x[1:] * jnp.sin(x[:-1])
    >>> found = dr.explain(swing, jnp.ones(1000))
    >>> found.recommended, found.code, found["sparse"].passes, found["forward"].passes
    ('sparse', 'jax.jit(dr.jacobian(swing, engine="sparse"))', 2, 1000)

    Source: [WilliamsEtAl2009] for the prices; [GriewankWalther2008] for the ways.
    """
    return explained(fun, args, kwargs, derivative, argnums, has_aux, measure)


def _silent(step: str, done: int, steps: int) -> None:
    pass


def explained(fun: Callable[..., PyTree], args: tuple[PyTree, ...], kwargs: dict[str, PyTree], derivative: Derivative | None = None,
              argnums: Argnums | None = None, has_aux: bool = False, measure: bool = False, told: Progress = _silent) -> Explanation:
    """As :func:`explain`; ``told`` hears of each step."""
    with apart():
        return _explained(fun, args, kwargs, derivative, argnums, has_aux, measure, told)


def _explained(fun: Callable[..., PyTree], args: tuple[PyTree, ...], kwargs: dict[str, PyTree], derivative: Derivative | None,
               argnums: Argnums | None, has_aux: bool, measure: bool, told: Progress) -> Explanation:
    told("tracing", 0, 1)
    asked = Question(as_written(fun), args, kwargs, derivative, argnums, has_aux)
    if measure and not asked.is_concrete:
        raise TypeError("explain: measure=True runs the function, and an argument has a shape and no values; give arrays, or leave out "
                        "measure")
    constants = time_model.constants()
    choice = _automatic(asked)
    found, left_out = candidates(asked, choice)
    once = time_model.cost_of_jaxpr(asked.program, constants)
    rows: dict[str, Variant] = {}
    programs: dict[str, tuple[ClosedJaxpr, Cost]] = {}
    kept: dict[str, Residuals] = {}
    for i, candidate in enumerate(found):
        told(f"pricing: {candidate.name}", i, len(found))
        try:
            program = asked.traced_with(candidate.derivative)
            is_taped = candidate.tape != "none"
            kept[candidate.name] = residuals = asked.residuals(candidate.taped, candidate.options) if is_taped else Residuals()
        except NOT_FOR_IT as error:
            if candidate.name == choice.chosen:  # the derivative itself fails, and says why
                raise
            left_out[candidate.name] = f"it is not for this function: {why(error)}"
            continue
        if candidate.priced_as:
            cost = Cost()
            cost.add(programs[candidate.priced_as][1])
            cost.add(once)
        else:
            cost = time_model.cost_of_jaxpr(program, constants)
        programs[candidate.name] = program, cost
        rows[candidate.name] = _row(candidate.name, candidate.code, candidate.passes, candidate.how, program, cost, residuals.nbytes)
    told("pricing", len(found), len(found))
    predicted = _best(rows, choice)
    recommended, variants = predicted, list(rows.values())
    if measure:
        variants = measured(asked, variants, {c.name: c.derivative for c in found}, predicted, told)
        recommended = fastest(variants, predicted)
    value, norm = _value(asked, fun)
    return Explanation(
        asked.name, asked.derivative, tuple(_arguments(asked)), tuple(map(described, asked.outs)), value, norm,
        _row("the function", "", 0, "", asked.program, once, 0),
        tuple(sorted(variants, key=lambda v: v.measured_seconds or v.seconds)), left_out, predicted, recommended, choice.chosen,
        rows[recommended].code, tuple(_notes(asked)), dominating(*programs[recommended], kept[recommended]), constants.name, measure,
        _drawing(asked))


def _drawing(asked: Question) -> Callable[[], Drawing]:
    """What draws the function, by the types of its arrays: their values are not held.  Python numbers stay as they are."""
    leaves, tree = tree_flatten((asked.args, asked.kwargs))
    arrays = [i for i, x in enumerate(leaves) if isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))]
    shapes = [jax.ShapeDtypeStruct(leaves[i].shape, leaves[i].dtype) for i in arrays]
    others = [None if i in set(arrays) else x for i, x in enumerate(leaves)]

    def of_arrays(*given: jax.Array) -> PyTree:
        filled = list(others)
        for i, x in zip(arrays, given, strict=True):
            filled[i] = x
        args, kwargs = tree_unflatten(tree, filled)
        return asked.fun(*args, **kwargs)

    of_arrays.__name__ = asked.name
    return lambda: draw(of_arrays, *shapes)


def _automatic(asked: Question) -> Choice:
    """What ``engine="auto"`` does within ``jit``."""
    plain: dict[str, Any] = {} if asked.is_plain else {"non_float": "none"}
    derived = CALLS[asked.derivative](asked.fun, asked.argnums, asked.has_aux, engine="auto", **plain)
    choice: Choice = derived.plan(*asked.args, **asked.kwargs)
    return choice


def _row(name: str, code: str, passes: int, how: str, program: ClosedJaxpr, cost: Cost, kept: int) -> Variant:
    return Variant(name, code, passes, how, cost.flops, cost.nbytes, cost.kernels, kept, peak_bytes(program), cost.seconds)


def _best(rows: dict[str, Variant], choice: Choice) -> str:
    """What ``engine="auto"`` takes, unless a variant that it does not compare is predicted to be clearly faster."""
    chosen = rows[choice.chosen]
    price = chosen.seconds * (HANDICAP if chosen.name == "sparse" else 1.0)
    others = [v for v in rows.values() if v.name not in choice.seconds]
    least = min(others, key=lambda v: v.seconds, default=chosen)
    return least.name if least.seconds < MARGIN * price else chosen.name


def _arguments(asked: Question) -> list[Argument]:
    moving = set(asked.moving)
    return [Argument(name, described(x), i in moving) for i, (name, x) in enumerate(zip(asked.names, asked.leaves, strict=True))]


def _notes(asked: Question) -> list[str]:
    """What must be known of the line of code, and of the prices."""
    found = []
    if nested := Lines(asked).nested:
        found.append(f"the line has no jit, as {', '.join(nested)} is no array; the prices are those of a compiled program")
    if any(eqn.primitive is while_p for eqn in eqns_within(asked.program)):
        found.append(f"a loop of unknown length is taken to make {UNKNOWN_STEPS} steps")
    return found


def _value(asked: Question, fun: Callable[..., PyTree]) -> tuple[float | None, float | None]:
    """The value of a scalar function, and the norm of what any returns; None where it can't be run."""
    if not asked.is_concrete:
        return None, None
    found = fun(*asked.args, **asked.kwargs)
    outs = [np.asarray(x) for x in tree_leaves(found[0] if asked.has_aux else found) if is_array_like(x)]
    norm = math.sqrt(sum(float(np.sum(np.square(x.astype(np.float64)))) for x in outs))
    return (float(outs[0]) if asked.derivative != "jacobian" else None), norm


