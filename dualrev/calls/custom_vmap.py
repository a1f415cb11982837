"""``jax.custom_batching.custom_vmap``: a function with a rule of the user's for ``vmap``.

The function's derivative is that of its program.  Its push is again a function with a rule for ``vmap``: where primals are batched, the
push of the user's rule; where tangents alone are, ``vmap`` of the push of the program, to whose primals the rule has nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import is_differentiable, tangent_aval
from dualrev._jax.jaxprs import ClosedJaxpr, jaxpr_as_fun, stage
from dualrev._jax.primitives import Params, primitive
from dualrev._jax.traces import in_front, is_eager, is_same_for_all
from dualrev.calls.call_rows import RunRow, own_copy, splice
from dualrev.calls.staging import cached, pushforward_of
from dualrev.engines import forward
from dualrev.engines.forward import TANGENTS
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Expansion, Pushed, register


class CustomVmapRow(RunRow):
    """A call of a function that has a rule for ``vmap``."""

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        # Of parts other than tangents the user's rule says nothing: they go through the program.
        return self.jvp(primals, parts, params) if mode.pushes else super().through(mode, primals, parts, params)

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        moving = [t for t in tangents if t is not None]
        if is_eager((*primals, *moving)):
            pushed: Pushed = super().through(TANGENTS, primals, tangents, params)
            return pushed
        active = tuple([t is not None for t in tangents])
        moves_out = [is_differentiable(aval) for aval in params["call"].out_avals]
        program = cached(params["call"], ("push of all outputs", active), lambda: _push_of_all(own_copy(params["call"]), active))
        rule = _rule_of_push(params["rule"], params["in_tree"], params["out_tree"], active, jaxpr_as_fun(program))
        n_out = len(moves_out)
        outs = self.primitive.bind(*primals, *moving, call=program, rule=rule, in_tree=tree_structure((0,) * len(program.in_avals)),
                                   out_tree=tree_structure([0] * len(program.out_avals)))
        found = iter(outs[n_out:])
        return list(outs[:n_out]), [next(found) if moves else None for moves in moves_out]


def _spread(moving: Sequence[Tangent], active: Sequence[Active]) -> list[jax.Array]:
    values = iter(moving)
    return [next(values) if moves else None for moves in active]


def _with_zeros(outs: Sequence[jax.Array], tangents: Sequence[Tangent]) -> list[jax.Array]:
    """Outputs, and then the tangents of all that are differentiable."""
    filled = [zeros.instantiate(t, jax.typeof(x)) for x, t in zip(outs, tangents, strict=True) if is_differentiable(jax.typeof(x))]
    return [*outs, *filled]


def _push_of_all(jaxpr: ClosedJaxpr, active: tuple[Active, ...]) -> Any:
    """The program of outputs and tangents, zeros among them: those of the rule have the same structure whatever moves."""
    push = pushforward_of(jaxpr, active, splice("custom_vmap"))

    def both(*flat: jax.Array) -> list[jax.Array]:
        return _with_zeros(*push(flat[: len(active)], _spread(flat[len(active):], active)))

    moving = [tangent_aval(aval) for aval, moves in zip(jaxpr.in_avals, active, strict=True) if moves]
    return stage(both, [*jaxpr.in_avals, *moving])


def _rule_of_push(rule: Callable[..., Any], in_tree: Any, out_tree: Any, active: tuple[Active, ...],
                  push: Callable[..., Any]) -> Callable[..., tuple[list[Any], list[bool]]]:
    n = len(active)

    def rule_of_push(axis_size: int, in_batched: Sequence[bool], *flat: jax.Array) -> tuple[list[Any], list[bool]]:
        if not any(in_batched[:n]):
            return _mapped(push, axis_size, in_batched, flat)
        moving_batched = [bool(b) for b in _spread(in_batched[n:], active)]
        batched = [p or t for p, t in zip(in_batched[:n], moving_batched, strict=True)]
        primals = [in_front(x, axis_size) if b and not own else x
                   for x, b, own in zip(flat[:n], batched, in_batched[:n], strict=True)]
        tangents = [in_front(t, axis_size) if t is not None and b and not own else t
                    for t, b, own in zip(_spread(flat[n:], active), batched, moving_batched, strict=True)]
        out_batched: list[bool] = []

        def by_rule(*operands: jax.Array) -> list[jax.Array]:
            out, which = rule(axis_size, list(tree_unflatten(in_tree, batched)), *tree_unflatten(in_tree, operands))
            outs, tree = tree_flatten(out)
            out_batched[:], which_tree = tree_flatten(which)
            if tree != out_tree or which_tree != out_tree:
                raise errors.vmap_rule_does_not_fit(out_tree, tree, which_tree)
            return outs

        outs, tangents_out = forward.push_through(by_rule, primals, tangents)
        moves = [b for x, b in zip(outs, out_batched, strict=True) if is_differentiable(jax.typeof(x))]
        return _with_zeros(outs, tangents_out), [*out_batched, *moves]

    return rule_of_push


def _mapped(push: Callable[..., Any], axis_size: int, in_batched: Sequence[bool],
            flat: Sequence[jax.Array]) -> tuple[list[Any], list[bool]]:
    """Results of a program under ``vmap``, and which of them differ from member to member."""
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
