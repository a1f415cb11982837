"""Small loops as one kernel, on CPUs (see :mod:`dualrev._jax.one_kernel`).

A loop over few numbers spends its time on the calls of the kernels of its steps.  What is asked for here are loops all of whose
operations are on a list (:data:`WITHIN`), which a compiler writes into any kernel: arithmetic, moves of entries, small sums and
products of matrices.  Everything else is left to the compiler.
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
from dualrev._jax.one_kernel import IS_TRIED, one_kernel_primitive
from dualrev._jax.sharding import varying
from dualrev._jax.source_lines import here
from dualrev._jax.traces import is_staging
from dualrev.calls.call_rows import RunRow, splice
from dualrev.options.settings import current
from dualrev.programs.jaxprs import nbytes_of
from dualrev.programs.partition import eqns_within
from dualrev.table.rows import register
from dualrev.table.with_jax import follow_in_jax
from dualrev.time_model import constants
from dualrev.time_model.fusion import program
from dualrev.time_model.reading import Operation, size_of

T = TypeVar("T")

#: The operations that a loop may consist of, by name, programs that it calls included.  XLA's emitter of a whole function writes each
#: of them; what it can't write are scatters, sorts, transforms, collectives and calls of libraries.
WITHIN = frozenset((
    # entry by entry
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp",
    "convert_element_type", "cos", "cosh", "div", "eq", "eq_to", "erf", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "integer_pow", "is_finite", "le", "le_to", "log", "log1p", "logistic", "lt", "lt_to", "max", "min", "mul", "ne", "neg", "not", "or",
    "pow", "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh",
    "sqrt", "square", "sub", "tan", "tanh", "xor",
    # entry by entry, of this package
    "gap", "one_minus_square", "polynomial", "ratio", "tie",
    # moves of entries
    "broadcast_in_dim", "concatenate", "copy", "copy_p", "dynamic_slice", "expand_dims", "gather", "iota", "name", "pad",
    "perturbed", "reshape", "rev", "slice", "split", "squeeze", "stack", "stop_gradient", "tap", "tile", "transpose", "unstack",
    # calls
    "cond", "custom_jvp_call", "custom_vjp_call", "eval_jaxpr", "jit", "one_kernel", "pjit", "scan", "while",
    # of few entries
    "argmax", "argmin", "dot_general", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "reduce_xor",
))
REDUCTIONS = frozenset(name for name in WITHIN if name.startswith(("reduce", "arg")))
DTYPES = frozenset(("bool", "float32", "float64", "int32", "int64", "uint32", "uint64"))
#: A library (YNNPACK) computes sums of at least this many entries, and products of matrices of which an axis has at least this length:
#: see ``ynn_support.cc`` of XLA.  The emitter of a whole function can call none.  XLA writes out products of a matrix and a vector.
LIBRARY_SUM, LIBRARY_DOT = 4096, 8
#: The bytes of an array of a step, from which on calls of kernels take no time to speak of.
LARGEST = 2**16
#: A loop of more equations takes long to compile as one function.
MOST_EQUATIONS = 2000


def as_one_kernel(run: Callable[..., T], init: object, xs: object) -> T:
    """``run(init, xs)``, a loop over ``xs``, where that becomes part of a program: as one kernel, if it may be one and is small."""
    operands = init, xs
    asked = current.get().fuse_loops
    if asked is False or (asked == "auto" and not IS_TRIED) or constants().backend != "cpu" or not is_staging() or (
            any(nbytes_of(typeof(x)) > LARGEST for x in tree_leaves(init))):  # tracing the loop to look at it would take time
        return run(*operands)
    leaves, structure = tree_flatten(operands)
    out_structure = None

    def flat(*leaves: jax.Array) -> list[jax.Array]:
        nonlocal out_structure
        outs, out_structure = tree_flatten(run(*tree_unflatten(structure, leaves)))
        return outs

    with here():
        jaxpr, consts = hoisted(stage(flat, [typeof(x) for x in leaves]))
    bind = functools.partial(one_kernel_p.bind, jaxpr=jaxpr) if is_wanted(jaxpr) else jaxpr_as_fun(jaxpr)
    outs = bind(*consts, *leaves)
    result: T = tree_unflatten(out_structure, outs)
    return result


def is_wanted(jaxpr: ClosedJaxpr) -> bool:
    """Whether the compiler can make one kernel of a loop, and its steps are small."""
    if jaxpr.effects or not all(map(_is_plain, jaxpr.in_avals)):
        return False
    if len(held := list(eqns_within(jaxpr))) > MOST_EQUATIONS or not all(map(_may_be_within, held)):
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
    if not all(map(_is_plain, avals)):
        return False
    if name in REDUCTIONS:
        return size_of(avals[0]) < LIBRARY_SUM
    return name != "dot_general" or _is_small_dot(eqn)


def _is_plain(aval: Any) -> bool:
    """Whether an array is of a common dtype and has entries.  XLA makes a constant of an array without entries: a kernel that has it as
    an operand would not read it."""
    return str(getattr(aval, "dtype", "")) in DTYPES and not varying(aval) and all(isinstance(n, int) and n > 0 for n in aval.shape)


def _is_small_dot(eqn: JaxprEqn) -> bool:
    """Whether no library computes a contraction, of operands of one dtype by the rules of that dtype."""
    avals: list[Any] = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    x, y, out = avals
    contracted, batch = eqn.params["dimension_numbers"]
    precision = eqn.params["precision"] or ()
    if not str(x.dtype) == str(y.dtype) == str(out.dtype) in ("float32", "float64") or not all(
            isinstance(p, jax.lax.Precision) for p in precision):
        return False

    def length(aval: Any, axes: Any) -> int:
        return math.prod([aval.shape[int(i)] for i in axes])

    summed = length(x, contracted[0])
    rows, columns = [size_of(a) // summed // length(a, axes) for a, axes in ((x, batch[0]), (y, batch[1]))]
    if summed > 1 and rows > 1 and columns > 1:
        return max(rows, summed, columns) < LIBRARY_DOT
    # A product of vectors, or a batch of products, may become a sum of the products of entries.
    return (max(rows, columns) > 1 and not batch[0]) or summed * size_of(out) < LIBRARY_SUM


one_kernel_p = one_kernel_primitive("one_kernel", is_wanted)
_ROW = RunRow(one_kernel_p, lambda params: params["jaxpr"], lambda params: splice("one_kernel"))
register(_ROW)
follow_in_jax(_ROW)
