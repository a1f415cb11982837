"""``lax.custom_linear_solve``: linear systems that the user solves.

``A x = b`` gives ``dx = A⁻¹ (db - dA x)``, by the user's own solver.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import jax
from jax import lax

from dualrev import errors
from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Params, primitive
from dualrev.calls.call_rows import MapRow, own_copy, splice
from dualrev.calls.linearization import linearization_of
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.table.rows import Operand, Taped, Unknown, aval_of, register

linear_solve_p = primitive("custom_linear_solve")


class SolutionMap(LinearMap):
    """``dx = A⁻¹ (db - dA x)``, by the user's own solver.

    ``operator`` is the map from tangents of the constants of the user's ``matvec`` to ``dA x``, or None where no constant is active.
    Constants of the solvers have no derivative: the solution is determined by ``A`` and ``b``.
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
        """The solution for a right-hand side."""
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
            t_product = self.operator.push(*t_operator)
            rhs = [t if m is None else zeros.add(t, lax.neg(m)) for t, m in zip(rhs, t_product, strict=True)]
        aux: Tangents = (None,) * self.problem.n_aux
        return (*self.solve(rhs, transposed=False), *aux) if any(t is not None for t in rhs) else (None,) * len(rhs) + aux

    def pull(self, *cotangents: Tangent) -> Tangents:
        cts: Sequence[Tangent] = cotangents[: len(self.problem.avals)]
        ct_operator: Sequence[Tangent] = [None] * self.problem.n_operator
        if any(ct is not None for ct in cts):
            cts = solved = self.solve(cts, transposed=True)
            if self.operator is not None:
                ct_operator = self.operator.pull(*[lax.neg(ct) for ct in solved])
        return self.problem.join(ct_operator, cts)


class Problem:
    """The static facts of a linear solve: its programs, the type of ``b``, and which operands are active."""

    def __init__(self, params: Params, avals: Sequence[ShapedArray], active: Sequence[Active]):
        self.lengths = params["const_lengths"]
        # A cached map lives as long as the original programs, so it must not keep them alive: it holds copies.
        self.jaxprs = type(params["jaxprs"])(*[None if j is None else own_copy(j) for j in params["jaxprs"]])
        self.avals = tuple(avals)
        self.active = tuple([bool(flag) for flag in active])
        self.n_aux = len(self.jaxprs.solve.out_avals) - len(self.avals)
        self.n_operator = sum(self.active[: self.lengths.matvec])

    def split(self, tangents: Sequence[Tangent]) -> tuple[list[Tangent], list[Tangent]]:
        """From the tangents of active operands: those of the operator, and one for each part of ``b``."""
        given = iter(tangents)
        of_operands = [next(given) if flag else None for flag in self.active]
        in_operator = [t for t, flag in zip(of_operands[: self.lengths.matvec], self.active, strict=False) if flag]
        return in_operator, of_operands[len(of_operands) - len(self.avals):]

    def join(self, in_operator: Sequence[Tangent], in_b: Sequence[Tangent]) -> Tangents:
        """Undo :meth:`split`, for cotangents."""
        n_rest = len(self.active) - self.lengths.matvec - len(self.avals)
        values = iter(in_operator)
        of_operator = [next(values) if flag else None for flag in self.active[: self.lengths.matvec]]
        return tuple([t for t, flag in zip([*of_operator, *[None] * n_rest, *in_b], self.active, strict=True) if flag])

    def _key(self) -> Hashable:
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
    is_active = bool(problem.n_operator) or any(active[n:])
    consts: list[jax.Array] = list(primals[:n])  # type: ignore[arg-type]  # known, or an error
    if is_linear:
        if any(active[:n]):
            raise errors.not_linear(linear_solve_p)
        outs: list[Operand] = [Unknown(a) for a in jaxprs.solve.out_avals]
        return outs, SolutionMap(consts, None, problem), [True] * len(outs)
    outs = list(linear_solve_p.bind(*primals, **params))
    operator = None
    if problem.n_operator:
        by_consts = (*problem.active[: lengths.matvec], *[False] * len(problem.avals))
        linearization = linearization_of(jaxprs.matvec, by_consts, False, splice("matvec"))
        _, operator, _ = linearization([*primals[: lengths.matvec], *outs[: len(problem.avals)]])
    return outs, SolutionMap(consts, operator, problem), [is_active] * len(problem.avals) + [False] * problem.n_aux


register(MapRow(linear_solve_p, ("jaxprs",), _solve_reverse))
