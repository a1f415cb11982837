"""``lax.custom_linear_solve``: linear systems that the user solves.

``A x = b`` gives ``dx = A⁻¹ (db - dA x)``, by the user's own solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from dualrev import errors
from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Params, primitive
from dualrev.calls.call_rows import MapRow, own_copy, splice
from dualrev.calls.staging import linearization_of
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.table.rows import Operand, Taped, Unknown, aval_of, register

linear_solve_p = primitive("custom_linear_solve")


class SolutionMap(LinearMap):
    """``dx = A⁻¹ (db - dA x)``, by the user's own solver.

    ``operator`` is the map from tangents of what the user's ``matvec`` closes over to ``dA x``, or None where none of it moves.  What
    the programs that solve close over has no derivative of its own: they compute nothing that ``A`` does not determine.
    """

    __slots__ = ("consts", "operator", "problem")

    name = "custom_linear_solve"

    def __init__(self, consts: Sequence[jax.Array], operator: LinearMap | None, problem: Problem):
        self.consts = consts
        self.operator = operator
        self.problem = problem

    def inner_maps(self) -> list[LinearMap]:
        return [] if self.operator is None else [self.operator]

    def solve(self, rhs: Sequence[Tangent], transposed: bool) -> list[jax.Array]:
        """The solution for this right-hand side, in which None is zero."""
        lengths, jaxprs = self.problem.lengths, self.problem.jaxprs
        values = iter(self.consts)
        groups = type(lengths)(*[[next(values) for _ in range(n)] for n in lengths])
        if transposed:
            if jaxprs.transpose_solve is None:
                raise errors.no_transpose_solve()
            lengths, jaxprs, groups = lengths.transpose(), jaxprs.transpose(), groups.transpose()
        full = [zeros.instantiate(t, aval) for t, aval in zip(rhs, self.problem.avals, strict=True)]
        consts = [x for group in groups for x in group]
        return list(linear_solve_p.bind(*consts, *full, const_lengths=lengths, jaxprs=jaxprs))[: len(full)]

    def push(self, *tangents: Tangent) -> Tangents:
        t_operator, rhs = self.problem.split(tangents)
        if self.operator is not None and any(t is not None for t in t_operator):
            moved = self.operator.push(*t_operator)
            rhs = [t if m is None else zeros.add(t, lax.neg(m)) for t, m in zip(rhs, moved, strict=True)]
        aux = (None,) * self.problem.n_aux
        return (*self.solve(rhs, transposed=False), *aux) if any(t is not None for t in rhs) else (None,) * len(rhs) + aux

    def pull(self, *cotangents: Tangent) -> Tangents:
        cts: Sequence[Tangent] = cotangents[: len(self.problem.avals)]
        ct_operator: Sequence[Tangent] = [None] * self.problem.n_operator
        if any(ct is not None for ct in cts):
            cts = self.solve(cts, transposed=True)
            if self.operator is not None:
                ct_operator = self.operator.pull(*[lax.neg(ct) for ct in cts])
        return self.problem.join(ct_operator, cts)


class Problem:
    """What is static about a linear solve: its programs, the type of ``b``, and which operands move."""

    def __init__(self, params: Params, avals: Sequence[ShapedArray], active: Sequence[Active]):
        self.lengths = params["const_lengths"]
        # A map may be kept for as long as the original programs live, so it holds copies.
        self.jaxprs = type(params["jaxprs"])(*[None if j is None else own_copy(j) for j in params["jaxprs"]])
        self.avals = tuple(avals)
        self.active = tuple([bool(moves) for moves in active])
        self.n_aux = len(self.jaxprs.solve.out_avals) - len(self.avals)
        self.n_operator = sum(self.active[: self.lengths.matvec])

    def split(self, moving: Sequence[Tangent]) -> tuple[list[jax.Array], list[jax.Array]]:
        """From values for what moves: those for the operator, and one for each part of ``b``."""
        given = iter(moving)
        spread = [next(given) if moves else None for moves in self.active]
        in_operator = [t for t, moves in zip(spread[: self.lengths.matvec], self.active, strict=False) if moves]
        return in_operator, spread[len(spread) - len(self.avals):]

    def join(self, in_operator: Sequence[Tangent], in_b: Sequence[Tangent]) -> tuple[Any, ...]:
        """Undo :meth:`split`."""
        n_rest = len(self.active) - self.lengths.matvec - len(self.avals)
        values = iter(in_operator)
        spread = [next(values) if moves else None for moves in self.active[: self.lengths.matvec]]
        return tuple([t for t, moves in zip([*spread, *[None] * n_rest, *in_b], self.active, strict=True) if moves])

    def _key(self) -> Any:
        return (self.lengths, tuple(map(id, self.jaxprs)), self.avals, self.active)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


jax.tree_util.register_pytree_node(SolutionMap, lambda m: ((m.consts, m.operator), m.problem),
                                   lambda problem, children: SolutionMap(*children, problem))


def _solve_reverse(primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                   is_linear: bool) -> Taped:
    lengths, jaxprs = params["const_lengths"], params["jaxprs"]
    n = sum(lengths)
    problem = Problem(params, [aval_of(x) for x in primals[n:]], active)
    moves = bool(problem.n_operator) or any(active[n:])
    if is_linear:
        if any(active[:n]):
            raise errors.not_linear(linear_solve_p)
        outs: list[jax.Array] = [Unknown(a) for a in jaxprs.solve.out_avals]
        return outs, SolutionMap(list(primals[:n]), None, problem), [True] * len(outs)
    outs = list(linear_solve_p.bind(*primals, **params))
    operator = None
    if problem.n_operator:
        by_consts = (*problem.active[: lengths.matvec], *[False] * len(problem.avals))
        linearization = linearization_of(jaxprs.matvec, by_consts, False, splice("matvec"))
        _, operator, _ = linearization([*primals[: lengths.matvec], *outs[: len(problem.avals)]])
    return outs, SolutionMap(list(primals[:n]), operator, problem), [moves] * len(problem.avals) + [False] * problem.n_aux


register(MapRow(linear_solve_p, ("jaxprs",), _solve_reverse))
