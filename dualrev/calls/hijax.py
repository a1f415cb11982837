"""Operations that expand into others (``jax.experimental.hijax``): the derivative is the one that the operation's class states, or else
that of the expansion.

One of jax's has a derivative of its own: ``custom_root`` (since jax 0.12) expands into its solver, but the derivative is that of the
equation.  Where ``f(p, x(p)) = 0``, ``∂ₓf·dx = -∂ₚf·dp``, which the user's ``tangent_solve`` solves for ``dx``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_structure, tree_unflatten

from dualrev import errors
from dualrev._jax import high_primitives
from dualrev._jax.avals import typeof
from dualrev._jax.custom_rules import wrapped
from dualrev._jax.jaxprs import FlatFunction
from dualrev._jax.library_functions import is_custom_root
from dualrev._jax.primitives import Params, Primitive, primitive
from dualrev.engines import custom_derivatives, forward
from dualrev.engines.custom_derivatives import AdjointMap, CustomVjp
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, current
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


class HighVjp(CustomVjp):
    """An operation whose class states ``vjp_fwd`` and how cotangents are pulled."""

    def __init__(self, primitive: Primitive, operation: Any):
        self.primitive, self.operation = primitive, operation
        self.fun = wrapped(high_primitives.expand(operation), type(operation).__name__)
        self._used = []

    def bind(self, primals: Sequence[Operand], params: Params) -> list[jax.Array]:
        return list(self.primitive.bind(*primals, _prim=self.operation))

    def forward(self, primals: Sequence[jax.Array], active: Sequence[Active]) -> tuple[list[jax.Array], AdjointMap]:
        operation, flags = self.operation, tuple([bool(flag) for flag in active])
        outs, residuals = high_primitives.evaluate_with_residuals(operation, "vjp_fwd", primals, flags)
        leaves, tree = tree_flatten(residuals)

        def bwd(*flat: Any) -> list[Any]:
            return high_primitives.pull(operation, tree_unflatten(tree, flat[: len(leaves)]), flat[len(leaves):], flags)

        in_avals, out_avals = (tuple([typeof(x) for x in values]) for values in (primals, outs))
        name = type(operation).__name__
        return outs, AdjointMap(leaves, name, wrapped(bwd, f"{name}.vjp_bwd"), flags, in_avals, out_avals, True,
                                current.get().custom_vjp_jvp)


class HighRow(Row):
    """A primitive whose parameters hold the operation.

    Where the class of the operation states a derivative, that is the rule, as a user's; the derivative of others is that of their
    expansion, but for ``custom_root``.
    """

    def _expand(self, params: Params) -> FlatFunction:
        return lambda *args: self.primitive.to_lojax(*args, **params)

    def _push(self, params: Params) -> custom_derivatives.Push | None:
        """The push that an operation states."""
        operation = params["_prim"]
        if is_custom_root(operation):
            return lambda primals, tangents: _push_root(operation, lambda *args: self.bind(args, params), primals, tangents)
        if high_primitives.states(operation, "jvp", "lin") and not high_primitives.is_custom_vjp(operation):
            return lambda primals, tangents: _checked(operation, *high_primitives.push(operation, primals, tangents))
        return None

    def _pull(self, params: Params) -> HighVjp | None:
        """The row of an operation that states how cotangents are pulled."""
        operation = params["_prim"]
        return HighVjp(self.primitive, operation) if high_primitives.states(operation, "vjp_fwd") else None

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        if self._push(params) is not None:
            return super().through(mode, primals, parts, params)
        if (pull := self._pull(params)) is not None:
            return pull.through(mode, primals, parts, {})
        return Expansion(None, self._expand(params))

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        if (push := self._push(params)) is not None:
            return push(primals, tangents)
        if (pull := self._pull(params)) is not None:
            return pull.jvp(primals, tangents, {})
        return Expansion(None, self._expand(params))

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        if not is_linear and (pull := self._pull(params)) is not None:
            return pull.linearize(primals, active, {}, is_linear)
        if not is_linear and (push := self._push(params)) is not None:
            return custom_derivatives.linearize_push(push, primals, active)
        return Expansion(None, self._expand(params))


def _checked(operation: Any, outs: list[jax.Array], tangents: list[Any]) -> tuple[list[jax.Array], list[Tangent]]:
    """The results of a push, with tangents of the types that they must have."""
    try:
        return outs, [custom_derivatives.from_rule(t, typeof(x)) for x, t in zip(outs, tangents, strict=True)]
    except errors.DoesNotFit as found:
        name = type(operation).__name__
        raise errors.rule_does_not_fit("jvp", name, f"{name}.jvp", found) from None


if (high := primitive("call_hi_primitive")) is not None:
    register(HighRow(high))
