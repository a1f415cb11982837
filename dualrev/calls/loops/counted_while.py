"""While loops that a counter ends: their number of steps is known before they run, and they are scans.

    lax.while_loop(lambda s: s[0] < 50, lambda s: (s[0] + 1, f(s[1])), (0, x))

A scan stores the residuals of its steps and has no states to store and to restart from.  It is taken where the residuals surely fit
into the memory that stored states may take.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import lax

from dualrev._jax.jaxprs import jaxpr_as_fun
from dualrev._jax.primitives import Params
from dualrev._jax.traces import Tracer
from dualrev.calls.derived_programs import cached
from dualrev.calls.loops.known_indices import counter, is_integer, known_values
from dualrev.calls.loops.recompute import STATE_BYTES
from dualrev.options.settings import current
from dualrev.programs.jaxprs import nbytes_of
from dualrev.programs.partition import graph_of
from dualrev.table.rows import Expansion, Operand

#: The most steps that are counted.
MOST_STEPS = 2**16


def as_scan(primals: Sequence[Operand], params: Params) -> Expansion | None:
    """The loop as a scan of the steps that it takes; None where they are not known, or where the user asks for something else."""
    settings = current.get()
    if (settings.max_steps, settings.loop_checkpoints, settings.schedule, settings.recompute_residuals, settings.stack_cotangents) != (
            None, None, "all", "auto", "auto"):
        return None
    n_cond, n_body, test, step = (params[name] for name in ("cond_nconsts", "body_nconsts", "cond_jaxpr", "body_jaxpr"))
    avals = [*test.in_avals[:n_cond], *step.in_avals]
    known = {i: np.asarray(x).astype(avals[i].dtype) for i, x in enumerate(primals)
             if isinstance(x, (int, np.ndarray, np.generic, jax.Array)) and not isinstance(x, Tracer) and np.shape(x) == ()
             and is_integer(avals[i])}
    if not known or test.effects or step.effects:
        return None
    key = ("steps", n_cond, n_body, tuple([(i, int(x)) for i, x in known.items()]))
    (steps,) = cached((test, step), key, lambda: (_steps(known, params),))
    if steps is None:
        return None
    run = jaxpr_as_fun(step)

    def scan(*operands: jax.Array) -> Sequence[jax.Array]:
        consts, init = operands[n_cond: n_cond + n_body], list(operands[n_cond + n_body:])
        found: Sequence[jax.Array] = lax.scan(lambda carry, _: (run(*consts, *carry), None), init, None, length=steps)[0]
        return found

    return Expansion(None, scan)


def _steps(known: dict[int, np.ndarray], params: Params) -> int | None:
    """How many steps the loop takes, if that follows from what is known and their residuals fit into memory."""
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    test, step = (graph_of(params[name], checkpoints=False) for name in ("cond_jaxpr", "body_jaxpr"))
    carries = step.invars[n_body:]
    made_by = {v: eqn for eqn in step.eqns for v in eqn.outvars}
    computed = sum(nbytes_of(v.aval) for v in made_by)
    most = min(MOST_STEPS, STATE_BYTES // max(computed, 1))
    length = 64
    while True:
        # One more than there may be: the condition ends the loop there.
        length = min(length, most + 1)
        values = {v: np.full(length, known[i]) for i, v in enumerate(test.invars[:n_cond]) if i in known}
        for i, (carry, after) in enumerate(zip(carries, step.outvars, strict=True)):
            if n_cond + n_body + i in known:
                found = counter(carry, after, made_by, known[n_cond + n_body + i], length)
                if found is not None:
                    values[test.invars[n_cond + i]] = found
        goes_on = known_values(test.eqns, values, length).get(test.outvars[0])  # type: ignore[arg-type]  # a number is not known
        if goes_on is None:
            return None
        if not goes_on.all():
            return int(np.argmin(goes_on)) or None
        if length > most:
            return None
        length *= 16
