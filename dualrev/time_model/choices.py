"""The prices that planners compare: storing a value, computing it again, a kernel, a sum in a loop or after it."""

from __future__ import annotations

from dualrev._jax.avals import AbstractValue
from dualrev._jax.jaxprs import JaxprEqn, is_literal
from dualrev.programs.jaxprs import nbytes_of
from dualrev.time_model.fusion import program_of_equation
from dualrev.time_model.machine import Constants
from dualrev.time_model.pricing import Cost, Place, cost_of_program, entry_seconds
from dualrev.time_model.reading import Operation, Value, kind_of, size_of


def cost_of_equation(eqn: JaxprEqn, constants: Constants, *, in_loop: bool = False) -> Cost:
    """The cost of one equation in a kernel of its own; a call costs its program."""
    found = program_of_equation(eqn)
    kernel_s = constants.loop_kernel_s if in_loop else constants.kernel_s
    nbytes = sum(v.nbytes for v in (*found.inputs, *found.stored))
    return cost_of_program(found, constants, Place(kernel_s, nbytes))


def recompute_cost(eqn: JaxprEqn, constants: Constants) -> float:
    """Seconds to compute an equation once more inside a kernel that runs anyway, where its operands are at hand.

    An operation that does not fuse costs its kernel as well.
    """
    kind = kind_of(eqn)
    if kind == "alias":
        return 0.0
    if kind in ("loop", "branch", "whole", "call"):
        return cost_of_equation(eqn, constants, in_loop=True).seconds
    op = Operation(eqn, kind, [None if is_literal(a) else Value(a.aval) for a in eqn.invars])
    op.outs = [Value(v.aval, op) for v in eqn.outvars]
    if kind == "reduce":
        return constants.loop_kernel_s + size_of(eqn.invars[0].aval) * entry_seconds(op, constants)
    return sum(v.size for v in op.outs) * entry_seconds(op, constants)


def store_cost(aval: AbstractValue, constants: Constants, steps: int = 1, together: float = 0.0) -> float:
    """Seconds for each step to write a value to a stack of so many steps, and to read it again in the backward loop.

    The stack is filled before; it is fresh memory where it is large; it is written by a kernel of its own.  ``together``: the bytes of
    all stacks that are gone through with it.
    """
    nbytes = nbytes_of(aval)
    total = float(nbytes) * steps
    per_byte = 3.0 / constants.rate(max(total, together)) + (constants.fresh_s if total > constants.fresh_from else 0.0)
    return nbytes * per_byte + constants.loop_kernel_s


def read_cost(aval: AbstractValue, constants: Constants) -> float:
    """Seconds to read a value that has memory."""
    nbytes = float(nbytes_of(aval))
    return nbytes / constants.rate(nbytes)


def kernel_cost(constants: Constants, *, in_loop: bool = True) -> float:
    """Seconds that one more kernel takes, besides its work."""
    return constants.loop_kernel_s if in_loop else constants.kernel_s


def accumulate_cost(aval: AbstractValue, constants: Constants) -> float:
    """Seconds for each step to add an array to one of the same shape in the carry."""
    nbytes = nbytes_of(aval)
    return size_of(aval) * constants.entry("simple", nbytes // max(size_of(aval), 1)) + 2.0 * nbytes / constants.rate(2.0 * nbytes)


def reduce_cost(aval: AbstractValue, constants: Constants) -> float:
    """Seconds for each step to sum an array to a scalar."""
    n = size_of(aval)
    return n * constants.reduce_s[nbytes_of(aval) // max(n, 1) > 4] + constants.loop_kernel_s
