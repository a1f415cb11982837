"""jax's operations that expand into others: the derivative is that of the expansion.

One of them has a derivative of its own: ``custom_root`` (since jax 0.12) expands into its solver, but the derivative is that of the
equation.  Where ``f(p, x(p)) = 0``, ``∂ₓf·dx = -∂ₚf·dp``, which the user's ``tangent_solve`` solves for ``dx``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.tree_util import tree_leaves, tree_map, tree_structure, tree_unflatten

from dualrev._jax.avals import typeof
from dualrev._jax.jaxprs import FlatFunction
from dualrev._jax.library_functions import is_custom_root
from dualrev._jax.primitives import Params, primitive
from dualrev.engines import custom_derivatives, forward
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Expansion, Linearized, Operand, Pushed, Row, register


def _push_root(root: Any, evaluate: Callable[..., list[jax.Array]], primals: Sequence[jax.Array],
               tangents: Sequence[Tangent]) -> tuple[list[jax.Array], list[Tangent]]:
    """Outputs and tangents of ``custom_root``; ``root`` is the object, private to jax, that holds the user's functions."""
    sizes = [len(tree_leaves(avals)) for avals in root.in_avals]
    start = sizes[0] + sizes[1]
    *_, tangent_consts = tree_unflatten(root.in_tree, primals)
    structure = tree_structure(root.in_avals[2])
    outs = evaluate(*primals)
    solution = tree_unflatten(root.out_tree, outs)
    x = solution[0] if root.has_aux else solution
    _, f_t = forward.push_through(lambda *p: tree_leaves(root.f(tree_unflatten(structure, p), x)),
                                    primals[start: start + sizes[2]], tangents[start: start + sizes[2]])
    if all(t is None for t in f_t):
        return outs, [None] * len(outs)
    rhs = [zeros.instantiate(t, typeof(leaf)) for t, leaf in zip(f_t, tree_leaves(x), strict=True)]
    x_t = tree_leaves(tree_map(lax.neg, root.tangent_solve(tangent_consts, x, tree_unflatten(tree_structure(x), rhs))))
    return outs, [*x_t, *[None] * (len(outs) - len(x_t))]


class HighRow(Row):
    """A primitive whose parameters hold the operation; the primitive expands it."""

    def _expand(self, params: Params) -> FlatFunction:
        return lambda *args: self.primitive.to_lojax(*args, **params)

    def _own_push(self, params: Params) -> custom_derivatives.Push | None:
        """The push of an operation that has a derivative of its own."""
        operation = params["_prim"]
        if not is_custom_root(operation):
            return None
        return lambda primals, tangents: _push_root(operation, lambda *args: self.bind(args, params), primals, tangents)

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        if self._own_push(params) is None:
            return Expansion(None, self._expand(params))
        return super().through(mode, primals, parts, params)

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        push = self._own_push(params)
        if push is None:
            return Expansion(None, self._expand(params))
        return push(primals, tangents)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        push = self._own_push(params)
        if push is None or is_linear:
            return Expansion(None, self._expand(params))
        return custom_derivatives.linearize_push(push, primals, active)


if (high := primitive("call_hi_primitive")) is not None:
    register(HighRow(high))
