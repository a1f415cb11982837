"""Derivatives at repeated eigenvalues: a tape whose values are split by an infinitesimal.

A function of a matrix through its eigenvectors and eigenvalues may be smooth where eigenvalues coincide, while the map from the
matrix to the eigenvectors is not: its derivative has the poles ``1/(wⱼ - wᵢ)``.  No rule that reads the cotangents of ``V`` and ``w``
alone can be right there.  At the identity, ``f = tr(M V diag(w) Vᵀ)`` and ``f = tr(M V diag(1) Vᵀ)`` give the same cotangents if ``M``
has a zero diagonal, yet the gradient of the one is ``M`` and that of the other is zero: what matters is how the cotangent of ``V``
changes when the eigenvalues move apart.

So the eigenvalues are separated by an infinitesimal: ``w + ε ρ``, where ``ε`` is the tangent direction of a forward trace.  All values
computed from them, residuals included, have an ``ε`` part; so have the cotangents of a pull, and the poles multiply these ``ε`` parts
(:mod:`dualrev.rules.linalg.ratio`).  Nothing is perturbed numerically; the gradient is the exact limit.

A push runs with tangents multiplied by ``ε``, so that a pole gives a finite tangent, and its result is the ``ε`` part of the outputs.
Their finite part, times ``1/ε``, is infinite unless the function does not depend on the choice of eigenvectors: then it is zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax import lax

from dualrev._jax.traces import Trace
from dualrev._jax.trees import PyTreeDef
from dualrev.engines.forward import Dual, ForwardTrace, push_through
from dualrev.linear.maps import LinearMap, Tangents, Tape
from dualrev.linear.poles import size, without_pole
from dualrev.linear.zeros import Tangent
from dualrev.table.rows import Operand


class InfinitesimalTrace(ForwardTrace):
    """A forward trace whose tangents are ``ε`` parts; a value without one stays concrete, as if this trace were not there."""

    is_infinitesimal = True

    def __init__(self, parent: Trace):
        super().__init__(parent)


class SplitMap(LinearMap):
    """A tape some of whose residuals have ``ε`` parts."""

    __slots__ = ("leaves", "parts", "positions", "treedef")

    name = "split tape"

    def __init__(self, leaves: Sequence[jax.Array], parts: Sequence[jax.Array], positions: tuple[int, ...], treedef: PyTreeDef):
        self.leaves = leaves  # residuals of the tape
        self.parts = parts  # the ε parts of the leaves at ``positions``
        self.positions = positions
        self.treedef = treedef

    def inner_maps(self) -> list[LinearMap]:
        return [self.tape_of(self.leaves)]

    def tape_of(self, leaves: Sequence[jax.Array]) -> Tape:
        """The tape with these residuals."""
        tape: Tape = jax.tree_util.tree_unflatten(self.treedef, leaves)
        return tape

    def run(self, direction: str, given: Sequence[Tangent],
            given_parts: Sequence[Tangent]) -> tuple[list[jax.Array], list[Tangent], list[bool]]:
        """The nonzero results of a push or a pull, their ``ε`` parts, and which results are nonzero."""
        n = len(self.leaves)
        found = dict(zip(self.positions, self.parts, strict=True))
        parts = [found.get(i) for i in range(n)]
        which: list[bool] = []

        def run_tape(*flat: jax.Array) -> list[jax.Array]:
            values = iter(flat[n:])
            found = getattr(self.tape_of(flat[:n]), direction)(*[None if x is None else next(values) for x in given])
            which[:] = [x is not None for x in found]
            return [x for x in found if x is not None]

        outs, outs_parts = push_through(run_tape, [*self.leaves, *[x for x in given if x is not None]],
                                        [*parts, *[p for x, p in zip(given, given_parts, strict=True) if x is not None]])
        return outs, outs_parts, which

    def push(self, *tangents: Tangent) -> Tangents:
        zeros = [None if t is None else lax.full_like(t, 0) for t in tangents]
        poles, parts, which = self.run("push", zeros, tangents)
        given = sum([size(t) for t in tangents if t is not None])
        filled = [lax.full_like(pole, 0) if part is None else part for pole, part in zip(poles, parts, strict=True)]
        results = iter([without_pole(part, pole, size(part) + given) for pole, part in zip(poles, filled, strict=True)])
        return tuple([next(results) if w else None for w in which])

    def pull(self, *cotangents: Tangent) -> Tangents:
        outs, _, which = self.run("pull", cotangents, [None] * len(cotangents))
        results = iter(outs)
        return tuple([next(results) if w else None for w in which])


jax.tree_util.register_pytree_node(SplitMap, lambda m: ((m.leaves, m.parts), (m.positions, m.treedef)),
                                   lambda aux, children: SplitMap(*children, *aux))


def settle(trace: InfinitesimalTrace, outs: Sequence[Operand], tape: Tape) -> tuple[list[Operand], Tape]:
    """Values and a tape that were made under ``trace``, for use outside it: residuals and their ``ε`` parts become separate arrays."""
    outs = [x.primal if isinstance(x, Dual) and x._trace is trace else x for x in outs]
    leaves, treedef = jax.tree_util.tree_flatten(tape)
    primals, parts, _ = trace.split(leaves)
    positions = tuple([i for i, part in enumerate(parts) if part is not None])
    if not positions:
        return outs, jax.tree_util.tree_unflatten(treedef, primals)
    split = SplitMap(primals, [parts[i] for i in positions], positions, treedef)
    n_in, n_out = len(tape.in_slots), len(tape.out_slots)
    results = tuple([None if slot is None else n_in + i for i, slot in enumerate(tape.out_slots)])
    return outs, Tape([(split, tuple(range(n_in)), results)], n_in + n_out, tuple(range(n_in)), results)
