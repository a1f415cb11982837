"""Functions of jax that are known by what they are, and those that take a setting or a binding of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import jax

from dualrev._jax.avals import typeof
from dualrev._jax.jaxprs import ClosedJaxpr, FlatFunction, Jaxpr, hoisted, stage
from dualrev._jax.primitives import Params


def softmax(x: jax.Array, axis: int) -> jax.Array:
    """jax's softmax, with its rule in terms of the result, which it has behind a setting that is off until a release turns it on."""
    from jax._src.config import softmax_custom_jvp

    with softmax_custom_jvp(True):
        return jax.nn.softmax(x, axis)


def is_custom_root(operation: object) -> bool:
    """Whether what ``call_hi_primitive`` holds is ``lax.custom_root``: since 0.12; before, that was a function with a JVP rule."""
    from jax._src.lax.control_flow import solves

    return isinstance(operation, getattr(solves, "CustomRoot", ()))

_JAX = os.path.dirname(jax.__file__) + os.sep

#: Functions of jax that are programs and whose programs have no derivative, or another than the function: name -> file.
LIBRARY_FUNCTIONS = {"_sqrtm": "jax/_src/scipy/linalg.py", "eigh_tridiagonal": "jax/_src/scipy/linalg.py"}


def library_function(params: Params) -> str | None:
    """Which of :data:`LIBRARY_FUNCTIONS` a ``jit`` call runs: its program has that name, and was traced from jax's own file."""
    name = params["name"]
    if name not in LIBRARY_FUNCTIONS:
        return None
    info = params["jaxpr"].jaxpr.debug_info
    file = (info.func_filename or "").replace("\\", "/") if info is not None else ""
    return name if file.endswith(LIBRARY_FUNCTIONS[name]) else None


def is_global_of_jax(jaxpr: ClosedJaxpr | Jaxpr) -> bool:
    """Whether a program was traced from a global function of jax's: it closes over nothing, and jax keeps the trace."""
    info = getattr(jaxpr, "jaxpr", jaxpr).debug_info
    file, name = info.func_filename or "", info.func_src_info.split(" at ")[0]
    if not file.startswith(_JAX):
        return False
    module = "jax." + file.removeprefix(_JAX).removesuffix(".py").replace(os.sep, ".")
    return callable(getattr(sys.modules.get(module), name, None))


def is_inside_jax(module: str) -> bool:
    """Whether a module is part of jax's own workings, as opposed to what jax shows."""
    return module.split(".")[0] == "jaxlib" or module == "jax._src" or module.startswith("jax._src.")


def bind_linear_solve(matvec: FlatFunction, vecmat: FlatFunction | None, solve: FlatFunction, transpose_solve: FlatFunction | None,
                      b: Sequence[jax.Array]) -> list[jax.Array]:
    """Bind the primitive of ``lax.custom_linear_solve``, on flat functions; ``vecmat`` and ``transpose_solve`` may both be None.

    ``lax.custom_linear_solve`` itself would have jax transpose ``matvec``.
    """
    from jax._src.lax.control_flow.solves import _LinearSolveTuple, linear_solve_p

    avals = [typeof(x) for x in b]
    programs = [(None, []) if fun is None else hoisted(stage(fun, avals)) for fun in (matvec, vecmat, solve, transpose_solve)]
    consts = [x for _, xs in programs for x in xs]
    return list(linear_solve_p.bind(*consts, *b, const_lengths=_LinearSolveTuple(*[len(xs) for _, xs in programs]),
                                    jaxprs=_LinearSolveTuple(*[jaxpr for jaxpr, _ in programs])))
