"""Operations that run one program once: named, wrapped and composite calls, and calls that are declared linear.

Such an operation adds something to its program: a name for the compiler, metadata.  Its derivative is that of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from dualrev import errors
from dualrev._jax.avals import typeof
from dualrev._jax.calls import jit_p
from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev._jax.primitives import Params, primitive
from dualrev._jax.references import discharge
from dualrev._jax.source_lines import defined_at
from dualrev.calls import library_functions
from dualrev.calls.call_rows import MapRow, RunRow, splice
from dualrev.calls.derived_programs import cached, wrapper_of
from dualrev.calls.linearization import linearization_of
from dualrev.engines.custom_derivatives import from_rule
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.table.rows import Operand, Taped, Unknown, register


def runs(name: str, jaxpr_of: Callable[[Params], ClosedJaxpr]) -> None:
    """State that an operation runs the program ``jaxpr_of(params)``; no effect where this release of jax lacks the operation."""
    found = primitive(name)
    if found is not None:
        register(RunRow(found, jaxpr_of, lambda params: splice(name)))


def program_of(params: Params) -> ClosedJaxpr:
    """The program among the parameters, whose name differs between releases."""
    jaxpr: ClosedJaxpr = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
    return jaxpr


def without_references(params: Params) -> ClosedJaxpr:
    """The program of ``run_state``, from the initial values of its references to their final values."""
    jaxpr = params["jaxpr"]
    return cached(jaxpr, "without references", lambda: discharge(jaxpr))


# The derivative of a compiled function is a compiled function.
register(RunRow(jit_p, library_functions.program_of, wrapper_of))
# Since 0.12 the call of a program in another one is an operation; before, it reaches a trace by ``process_call``.
runs("eval_jaxpr", program_of)
runs("composite", program_of)
# The forward function of a custom_vjp, whose residuals may be unused: primal outputs and residuals.
runs("remat_opt", lambda params: params["fwd_jaxpr"])
runs("run_state", without_references)


# ------------------------------------------------------------------------------------------------------------ linear_call


class LinearCallMap(LinearMap):
    """A call that the user declares linear: the push is the call itself, the pull the transpose that the user states."""

    __slots__ = ("active", "fixed", "params")

    name = "linear_call"

    def __init__(self, fixed: Sequence[jax.Array], params: Params, active: tuple[Active, ...]):
        self.fixed = fixed
        self.params = params
        self.active = active

    def push(self, *tangents: Tangent) -> Tangents:
        given = iter(tangents)
        of_operands = [next(given) if flag else None for flag in self.active]
        avals = self.params["callee"].in_avals[len(self.fixed):]
        filled = [zeros.instantiate(t, aval) for t, aval in zip(of_operands, avals, strict=True)]
        return tuple(_linear_call.bind(*self.fixed, *filled, **self.params))

    def pull(self, *cotangents: Tangent) -> Tangents:
        params = self.params
        n_consts, n_res = params["num_callee_consts"], params["num_res"]
        transpose, consts = params["transpose_thunk"]()
        filled = [zeros.instantiate(ct, aval) for ct, aval in zip(cotangents, params["callee"].out_avals, strict=True)]
        there_and_back = dict(params, callee=transpose, num_callee_consts=len(consts),
                              transpose_thunk=lambda: (params["callee"], self.fixed[:n_consts]))
        cts = _linear_call.bind(*consts, *self.fixed[n_consts: n_consts + n_res], *filled, **there_and_back)
        avals = params["callee"].in_avals[n_consts + n_res:]
        try:
            for ct, aval in zip(cts, avals, strict=True):
                if typeof(ct).shape != aval.shape:
                    raise errors.DoesNotFit(typeof(ct), aval)
            cts = [from_rule(ct, aval) for ct, aval in zip(cts, avals, strict=True)]
        except errors.DoesNotFit as found:
            raise errors.transpose_does_not_fit(defined_at(params["callee"].jaxpr), found) from None
        return tuple([ct for ct, flag in zip(cts, self.active, strict=True) if flag])


class SumMap(LinearMap):
    """The sum of two linear maps with inputs of their own: the first map takes the first ``split`` inputs."""

    __slots__ = ("left", "right", "split")

    name = "sum"

    def __init__(self, left: LinearMap, right: LinearMap, split: int):
        self.left, self.right, self.split = left, right, split

    def inner_maps(self) -> list[LinearMap]:
        return [self.left, self.right]

    def push(self, *tangents: Tangent) -> Tangents:
        pairs = zip(self.left.push(*tangents[: self.split]), self.right.push(*tangents[self.split:]), strict=True)
        return tuple([zeros.add(x, y) for x, y in pairs])

    def pull(self, *cotangents: Tangent) -> Tangents:
        return (*self.left.pull(*cotangents), *self.right.pull(*cotangents))


jax.tree_util.register_pytree_node(
    LinearCallMap, lambda m: ((m.fixed,), (tuple(m.params.items()), m.active)),
    lambda aux, fixed: LinearCallMap(fixed[0], dict(aux[0]), aux[1]))
jax.tree_util.register_pytree_node(SumMap, lambda m: ((m.left, m.right), m.split), lambda split, maps: SumMap(*maps, split))


def _linear_call_reverse(primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                         is_linear: bool) -> Taped:
    """In its residual arguments the function need not be linear: the derivative with respect to them is that of its program."""
    n = params["num_callee_consts"] + params["num_res"]
    out_avals = params["callee"].out_avals
    if is_linear:
        if any(active[:n]):
            raise errors.not_linear(_linear_call)
        outs: list[Operand] = [Unknown(a) for a in out_avals]
    else:
        outs = list(_linear_call.bind(*primals, **params))
    fixed: list[jax.Array] = list(primals[:n])  # type: ignore[arg-type]  # no linear input is among them
    linear_map: LinearMap = LinearCallMap(fixed, params, active[n:])
    if any(active[:n]):
        by_residuals = (*active[:n], *[False] * (len(active) - n))
        _, residual_map, _ = linearization_of(params["callee"], by_residuals, False, splice("linear_call"))(primals)
        linear_map = SumMap(residual_map, linear_map, sum(map(bool, active[:n]))) if any(active[n:]) else residual_map
    return outs, linear_map, [True] * len(outs)


_linear_call = primitive("linear_call")
register(MapRow(_linear_call, ("callee",), _linear_call_reverse))
