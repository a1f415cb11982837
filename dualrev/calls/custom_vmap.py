"""``jax.custom_batching.custom_vmap``: a function with a rule of the user's for ``vmap``.

The function's derivative is that of its program.  Its push is again a function with a rule for ``vmap``: where primals are batched, the
push of the user's rule; where only tangents are batched, ``vmap`` of the push of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import jax
from jax import lax
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import is_differentiable, tangent_aval
from dualrev._jax.jaxprs import ClosedJaxpr, FlatFunction, jaxpr_as_fun, stage
from dualrev._jax.primitives import Params, primitive
from dualrev._jax.traces import in_front, is_eager, is_same_for_all
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.calls.call_rows import RunRow, own_copy, splice
from dualrev.calls.derived_programs import cached
from dualrev.calls.evaluation import pushforward_of
from dualrev.engines import forward
from dualrev.engines.forward import TANGENTS
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Expansion, Pushed, register

T = TypeVar("T")

#: Results under ``vmap``, and which of them are batched.
Batched: TypeAlias = tuple[list[jax.Array], list[bool]]


class CustomVmapRow(RunRow):
    """A call of a function that has a rule for ``vmap``."""

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        # The user's rule is for primals and tangents; other parts are carried through the program.
        return self.jvp(primals, parts, params) if mode.pushes else super().through(mode, primals, parts, params)

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        nonzero = [t for t in tangents if t is not None]
        if is_eager((*primals, *nonzero)):
            return super().through(TANGENTS, primals, tangents, params)
        active = tuple([t is not None for t in tangents])
        with_tangents = [is_differentiable(aval) for aval in params["call"].out_avals]
        program = cached(params["call"], ("push of all outputs", active), lambda: _push_of_all(own_copy(params["call"]), active))
        rule = _rule_of_push(params["rule"], params["in_tree"], params["out_tree"], active, jaxpr_as_fun(program))
        n_out = len(with_tangents)
        outs = self.primitive.bind(*primals, *nonzero, call=program, rule=rule, in_tree=tree_structure((0,) * len(program.in_avals)),
                                   out_tree=tree_structure([0] * len(program.out_avals)))
        found = iter(outs[n_out:])
        return list(outs[:n_out]), [next(found) if has_tangent else None for has_tangent in with_tangents]


def _spread(values: Sequence[T], active: Sequence[Active]) -> list[T | None]:
    """For each input, its value if it is active, else None."""
    given = iter(values)
    return [next(given) if flag else None for flag in active]


def _with_zeros(outs: Sequence[jax.Array], tangents: Sequence[Tangent]) -> list[jax.Array]:
    """Outputs, and then the tangents of all that are differentiable."""
    filled = [zeros.instantiate(t, jax.typeof(x)) for x, t in zip(outs, tangents, strict=True) if is_differentiable(jax.typeof(x))]
    return [*outs, *filled]


def _push_of_all(jaxpr: ClosedJaxpr, active: tuple[Active, ...]) -> ClosedJaxpr:
    """The program of outputs and tangents, also zero ones: the results of the rule then have one structure."""
    push = pushforward_of(jaxpr, active, splice("custom_vmap"))

    def both(*flat: jax.Array) -> list[jax.Array]:
        return _with_zeros(*push(flat[: len(active)], _spread(flat[len(active):], active)))

    of_tangents = [tangent_aval(aval) for aval, flag in zip(jaxpr.in_avals, active, strict=True) if flag]
    return stage(both, [*jaxpr.in_avals, *of_tangents])


def _rule_of_push(rule: Callable[..., tuple[PyTree, PyTree]], in_tree: PyTreeDef, out_tree: PyTreeDef, active: tuple[Active, ...],
                  push: FlatFunction) -> Callable[..., Batched]:
    """The rule for ``vmap`` of the push, from the user's rule."""
    n = len(active)

    def rule_of_push(axis_size: int, in_batched: Sequence[bool], *flat: jax.Array) -> Batched:
        if not any(in_batched[:n]):
            return _mapped(push, axis_size, in_batched, flat)
        tangents_batched = [bool(b) for b in _spread(in_batched[n:], active)]
        batched = [p or t for p, t in zip(in_batched[:n], tangents_batched, strict=True)]
        primals = [in_front(x, axis_size) if b and not own else x
                   for x, b, own in zip(flat[:n], batched, in_batched[:n], strict=True)]
        tangents = [in_front(t, axis_size) if t is not None and b and not own else t
                    for t, b, own in zip(_spread(flat[n:], active), batched, tangents_batched, strict=True)]
        out_batched: list[bool] = []

        def by_rule(*operands: jax.Array) -> list[jax.Array]:
            out, which = rule(axis_size, list(tree_unflatten(in_tree, batched)), *tree_unflatten(in_tree, operands))
            outs, tree = tree_flatten(out)
            out_batched[:], which_tree = tree_flatten(which)
            if tree != out_tree or which_tree != out_tree:
                raise errors.vmap_rule_does_not_fit(out_tree, tree, which_tree)
            return outs

        outs, tangents_out = forward.push_through(by_rule, primals, tangents)
        of_tangents = [b for x, b in zip(outs, out_batched, strict=True) if is_differentiable(jax.typeof(x))]
        return _with_zeros(outs, tangents_out), [*out_batched, *of_tangents]

    return rule_of_push


def _mapped(push: FlatFunction, axis_size: int, in_batched: Sequence[bool], flat: Sequence[jax.Array]) -> Batched:
    """Results of a program under ``vmap``, and which of them are batched."""
    out_batched: list[bool] = []

    def one(*member: jax.Array) -> list[jax.Array]:
        results = list(push(*member))
        out_batched[:] = [not is_same_for_all(x) for x in results]
        return results

    outs = jax.vmap(one, in_axes=tuple([0 if b else None for b in in_batched]), axis_size=axis_size)(*flat)
    return [x if b else lax.index_in_dim(x, 0, 0, keepdims=False) for x, b in zip(outs, out_batched, strict=True)], out_batched


_custom_vmap = primitive("custom_vmap_call")
if _custom_vmap is not None:
    register(CustomVmapRow(_custom_vmap, lambda params: params["call"], lambda params: splice("custom_vmap_call")))
