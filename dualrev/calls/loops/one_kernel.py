"""Small loops as one kernel, on CPUs (see :mod:`dualrev._jax.one_kernel`).

A loop over few numbers spends its time on the calls of the kernels of its steps.  What is asked for here are loops that consist of
operations which a compiler writes into any kernel: arithmetic, moves of entries, small sums and products of matrices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from dualrev._jax.avals import typeof
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, hoisted, jaxpr_as_fun, stage
from dualrev._jax.one_kernel import one_kernel_primitive
from dualrev._jax.sharding import varying
from dualrev._jax.traces import is_staging
from dualrev.calls.call_rows import RunRow, splice
from dualrev.options.settings import current
from dualrev.programs.jaxprs import nbytes_of
from dualrev.programs.partition import eqns_within
from dualrev.table.rows import register
from dualrev.table.with_jax import follow_in_jax
from dualrev.time_model import constants
from dualrev.time_model.fusion import program
from dualrev.time_model.library_calls import is_matrix_product
from dualrev.time_model.operations import GATHERS, JOINS, MOVES_WITHIN, REDUCTIONS, SIMPLE
from dualrev.time_model.reading import Operation, size_of

T = TypeVar("T")

#: Operations that become part of any kernel.
WITHIN = SIMPLE | MOVES_WITHIN | GATHERS | JOINS | REDUCTIONS | frozenset((
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "broadcast_in_dim", "cbrt", "ceil", "copy", "copy_p", "cos", "cosh",
    "div", "dot_general", "erf", "erfc", "exp", "exp2", "expand_dims", "expm1", "gap", "log", "log1p", "logistic", "name", "pow",
    "ratio", "rem", "reshape", "rsqrt", "sin", "sinh", "sqrt", "squeeze", "stop_gradient", "tan", "tanh", "tie", "tile",
    # calls
    "cond", "custom_jvp_call", "custom_vjp_call", "eval_jaxpr", "jit", "one_kernel", "pjit", "scan", "while",
)) - {"reduce"}
#: Sums of at least this many entries, and products of matrices with at least this many multiplications, run in a library.
LIBRARY_SUM, LIBRARY_DOT = 4096, 64
#: The bytes of an array of a step, from which on calls of kernels take no time to speak of.
LARGEST = 2**16
#: A loop of more equations takes long to compile as one function.
MOST_EQUATIONS = 2000
DTYPES = frozenset(("bool", "float32", "float64", "int32", "int64", "uint32", "uint64"))


def as_one_kernel(run: Callable[..., T], init: object, xs: object) -> T:
    """``run(init, xs)``, a loop over ``xs``, where that becomes part of a program: as one kernel, if it may be one and is small."""
    operands = init, xs
    if current.get().fuse_loops is False or constants().backend != "cpu" or not is_staging() or (
            any(nbytes_of(typeof(x)) > LARGEST for x in tree_leaves(init))):  # tracing the loop to look at it would take time
        return run(*operands)
    leaves, structure = tree_flatten(operands)
    out_structure = None

    def flat(*leaves: jax.Array) -> list[jax.Array]:
        nonlocal out_structure
        outs, out_structure = tree_flatten(run(*tree_unflatten(structure, leaves)))
        return outs

    jaxpr, consts = hoisted(stage(flat, [typeof(x) for x in leaves]))
    bind = functools.partial(one_kernel_p.bind, jaxpr=jaxpr) if is_wanted(jaxpr) else jaxpr_as_fun(jaxpr)
    outs = bind(*consts, *leaves)
    result: T = tree_unflatten(out_structure, outs)
    return result


def is_wanted(jaxpr: ClosedJaxpr) -> bool:
    """Whether the compiler can make one kernel of a loop, and its steps are small."""
    if jaxpr.effects or len(held := list(eqns_within(jaxpr))) > MOST_EQUATIONS or not all(map(_may_be_within, held)):
        return False
    return all(map(_is_small, program(jaxpr).calls))


def _is_small(op: Operation) -> bool:
    """Whether the kernels of a loop or branch, were they separate, would write little."""
    return all(kernel.root.nbytes <= LARGEST for held in op.held for kernel in held.kernels) and all(
        _is_small(inner) for held in op.held for inner in held.calls)


def _may_be_within(eqn: JaxprEqn) -> bool:
    name = str(eqn.primitive)
    if name not in WITHIN or eqn.effects:
        return False
    avals: list[Any] = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    if any(str(getattr(a, "dtype", "")) not in DTYPES or varying(a) or not all(isinstance(n, int) for n in a.shape) for a in avals):
        return False
    if name in REDUCTIONS:
        return size_of(avals[0]) < LIBRARY_SUM
    return name != "dot_general" or _is_small_dot(eqn)


def _is_small_dot(eqn: JaxprEqn) -> bool:
    """Whether no library computes a contraction."""
    op = Operation(eqn, "call", [])
    (contracted, _), _ = eqn.params["dimension_numbers"]
    x: Any = eqn.invars[0].aval
    length = math.prod([x.shape[int(i)] for i in contracted])
    return not is_matrix_product(op) or size_of(eqn.outvars[0].aval) * length < LIBRARY_DOT


one_kernel_p = one_kernel_primitive("one_kernel", is_wanted)
_ROW = RunRow(one_kernel_p, lambda params: params["jaxpr"], lambda params: splice("one_kernel"))
register(_ROW)
follow_in_jax(_ROW)
