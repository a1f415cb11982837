"""The compressed way to a dense Jacobian or Hessian: whether counts speak for it, and what was found of the function's program.

It pays where a few passes give all entries.  To know that, the pattern must be found and coloured, which takes time of its own: about
so much for each equation of the program, entry of its values and entry of the pattern.  It is therefore looked for only where a dense
derivative is so large that the time is regained: by ``CALLS`` calls of a compiled program, or by one call of what is not compiled.  A
pattern that turns out to be full is left as soon as that is known.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from dualrev._jax.avals import is_array_like, typeof
from dualrev._jax.sharding import in_mesh_context
from dualrev._jax.trees import PyTree
from dualrev.functional.automatic import NOT_TRACED, Asking, Way
from dualrev.functional.checks import Argnums
from dualrev.options.settings import Options
from dualrev.programs.jaxprs import work
from dualrev.sparse import requests
from dualrev.sparse.closure import TooManyError
from dualrev.sparse.derivatives import Sparse, derivative
from dualrev.sparse.loops import EQUATIONS
from dualrev.sparse.plans import Kind
from dualrev.sparse.prepared import Prepared

#: Fewer passes than this are not worth fewer.
FEWEST = 16
#: Un-jitted, with fewer inputs than this operations take longer to call than to run.
FEWEST_UNJITTED = 256
#: How often a compiled derivative is taken to be called.
CALLS = 50
#: So many times fewer passes than a dense derivative takes are worth a prediction.
FEWER = 2
#: At most this part of the entries may be in a pattern that is worth a prediction: they are written one by one.
FULL = 1 / 16
#: Seconds that analysing takes for each equation and each entry of values, and colouring for each entry of the pattern.
EQUATION_S, ENTRY_S, COLOURED_S = 1e-4, 2e-7, 5e-6
#: Seconds of a dense derivative at least, for each pass and each entry of values: compiled, and one operation at a time.
PASS_ENTRY_S, UNJITTED_PASS_ENTRY_S = 5e-10, 1e-8
#: Seconds that an equation takes to be compiled as a part of a program, beyond what it takes alone.
COMPILED_S = 1e-2
#: Both ways write the whole matrix.  Predictions of dense sweeps, which may keep as much for each operation, are low where it is large:
#: on programs of 100 to 3,000 inputs, half as much below the measured times as those of compressed ones (geometric mean).
HANDICAP = 0.4
#: So often the program of an un-jitted function may turn out to be another one.
MOST_CHANGES = 2


class SparseWay:
    """The compressed way of :func:`dualrev.jacobian` or :func:`dualrev.hessian`, for ``engine="auto"``."""

    def __init__(self, call: Kind, fun: Callable[..., PyTree], argnums: Argnums, has_aux: bool, chunk_size: int | None,
                 options: Options, why_never: str | None):
        if options.get("cotangent_dtype") is not None or options.get("non_float", "float0") != "float0":
            why_never = why_never or "an option is about cotangents"
        self.why_never = why_never
        self.changes = 0
        engine = "auto" if call == "jacobian" else None
        own = Options() if why_never else options
        asked = requests.asked(call, call, argnums, has_aux, engine, chunk_size, "dense", None, False, None, own)
        self.sparse = Sparse(fun, asked)
        self.way = Way("sparse", derivative(fun, asked, sparse=self.sparse), f'{call}(f, engine="sparse")', self._why_not,
                       HANDICAP)

    def _why_not(self, asking: Asking) -> str | None:
        """By counts that need no program."""
        if self.why_never is not None:
            return self.why_never
        fewest = FEWEST if asking.is_compiled else FEWEST_UNJITTED
        if asking.n < fewest:
            return f"{asking.n:,.0f} inputs are fewer than {fewest}"
        if asking.n == float("inf"):
            return "a length is a symbol"
        for x in asking.inputs:
            if not is_array_like(x) or not jax.numpy.issubdtype(typeof(x).dtype, np.floating):
                return "an input is not real"
            if len(getattr(getattr(x, "sharding", None), "device_set", ())) > 1:
                return "inputs lie on several devices"
        if in_mesh_context():
            return "a mesh is set"
        if not asking.is_compiled:
            if jax.config.jax_disable_jit or jax.config.jax_debug_nans or jax.config.jax_debug_infs:  # type: ignore[attr-defined]
                return "operations are to run one at a time"
            if self.changes > MOST_CHANGES:
                return "the function's program changes from call to call"
        return None

    def found(self, asking: Asking) -> Prepared | str:
        """What was prepared for the call, or why the way is not worth a prediction."""
        try:
            prepared = self.sparse.current(asking.args, asking.kwargs)
            return self._worth(prepared, asking) or prepared
        except (*NOT_TRACED, NotImplementedError, TypeError, ValueError) as error:  # a sweep raises its own error, or none
            return f"it is not for this function: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        except TooManyError:
            return "its pattern has many entries"

    def _worth(self, prepared: Prepared, asking: Asking) -> str | None:
        """Why the way is not worth a prediction."""
        program, (m, n) = prepared.program, prepared.shape
        dense = min(m, n)
        dtypes = {a.dtype for a in (*prepared.in_avals, *prepared.out_avals)}
        if dense < FEWEST:
            return f"{m:,} outputs are fewer than {FEWEST}"
        if program.effects:
            return "the function has effects"
        if len(dtypes) > 1:
            return "inputs and outputs have several dtypes"
        equations, entries = work(program)
        passed = dense * (entries + max(m, n)) * (PASS_ENTRY_S if asking.is_compiled else UNJITTED_PASS_ENTRY_S)
        passed *= CALLS if asking.is_kept else 1
        analysed = EQUATION_S * min(equations, EQUATIONS) + ENTRY_S * entries + (0 if asking.is_compiled else COMPILED_S * equations)
        if analysed > passed:
            return f"to find the pattern of {equations:,} equations may take longer than {dense:,} passes"
        if not asking.is_compiled and prepared.identity.content is None:
            return "its program can't be compared with that of a later call"
        if "positions" not in vars(prepared):
            prepared.positions = prepared.detected(int(min(FULL * m * n, (passed - analysed) / COLOURED_S)))
        positions = prepared.positions
        least = positions.nnz / max(m, n, 1)
        if least * FEWER > dense:
            return f"{positions.nnz:,} entries take at least {least:,.0f} passes"
        if analysed + COLOURED_S * positions.nnz > passed:
            return f"to colour {positions.nnz:,} entries may take longer than {dense:,} passes"
        plan = prepared.plan
        if (plan.forward_colours + plan.reverse_colours) * FEWER > dense:
            return f"{plan.forward_colours + plan.reverse_colours:,} colours are nearly as many as {dense:,} passes"
        return None

    def holds(self, found: Prepared, asking: Asking) -> bool:
        """Whether the function's program is the one that was analysed.  What it closes over may have changed."""
        try:
            is_same = found.is_current()
        except NOT_TRACED:
            is_same = False
        if not is_same:
            self.changes += not asking.is_compiled
            self.sparse.forget(found)
        return is_same
