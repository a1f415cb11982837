"""Second derivatives along many directions at once: Laplacians and diagonals of Hessians, in one evaluation.

Each value ``y`` carries its derivatives along ``k`` directions, ``J``, and the sum of its second derivatives along them, ``S``.  The
chain rule of order 2 maps them through an operation ``f``:

    ``J_y[i] = Df[J[i]]``        ``S_y = Df[S] + Σ_i D²f[J[i], J[i]]``

So a Laplacian takes ``k + 2`` values in place of each, where nested pushes take ``2 k + 1`` [DangelEtAl2025, eq. 6; LiEtAl2024].  Both
terms are read from the row of the operation:

========================  ==============================================================================================
kind of the row           ``Σ_i D²f[J[i], J[i]]``
========================  ==============================================================================================
``linear``                0
``product``               ``2 Σ_i f(J_x[i], J_y[i])``
``diagonal``              ``Σ_pq ∂²f/∂x_p∂x_q · Σ_i J_p[i] J_q[i]``: the second partials are the push of the row's partials, and the sum
                          over the directions is taken before the product with them
any other                 ``Σ_i`` of the push of the row's own push
========================  ==============================================================================================

The derivatives are one array with the directions along its first axis.  Those along the unit vectors of the inputs are kept in blocks
for as long as a program has structure (:mod:`dualrev.engines.direction_blocks`): a network applied to each of ``n`` particles takes as
many values as one particle has inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Params
from dualrev.engines import block_rules, block_structures
from dualrev.engines.custom_derivatives import UserRule
from dualrev.engines.direction_blocks import Along, Blocks, added, inner, scaled, stacked
from dualrev.engines.rules_by_entry import by_entry
from dualrev.linear import zeros
from dualrev.linear.basis import along_each
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import current
from dualrev.table.mode import Carried, Mode
from dualrev.table.partials import broadcast_entries, second_partials
from dualrev.table.rows import Row

#: The parts of a value: derivatives along all directions, and their second derivatives.
Pair: TypeAlias = tuple[Along, Tangent]

#: The terms of an operation: outputs, their derivatives along all directions, and their second derivatives.
Terms: TypeAlias = tuple[list[jax.Array], Sequence[Along], Sequence[Tangent]]


class Composite:
    """The parts of ``g(x)``, entry by entry, as those of ``x`` with ``g'`` and ``g''`` in its shape; :meth:`SecondDerivatives.ready`
    multiplies.

    A chain of operations entry by entry, such as ``x σ(x)``, so takes one product with the derivatives along all directions.
    """

    __slots__ = ("base", "first", "pair", "second")

    def __init__(self, base: Pair, first: Tangent, second: Tangent):
        self.base, self.first, self.second = base, first, second
        self.pair: Pair | None = None


@dataclass(frozen=True)
class SecondDerivatives(Mode):
    """Derivatives along ``k`` directions and, if ``is_summed``, the sum of the second derivatives along them; else all of these.

    The sum takes the last ``n_minus`` directions with a negative sign.
    """

    k: int
    is_summed: bool = True
    n_minus: int = 0

    name = "Laplacian"

    @property
    def leading(self) -> tuple[int, int]:
        return (1, 0) if self.is_summed else (1, 1)

    def zero(self, aval: ShapedArray) -> Pair:
        first = zeros.zeros_of(aval.update(shape=(self.k, *aval.shape)))
        return first, zeros.zeros_of(aval) if self.is_summed else first

    def row(self, row: Row, primals: Sequence[jax.Array], parts: Sequence[Pair | Composite | None], params: Params) -> Carried:
        if isinstance(row, UserRule) and not current.get().zero_wins:
            row = by_entry(row, primals, [p is not None for p in parts]) or row
        if row.is_diagonal and not current.get().zero_wins and (found := self._composed(row, primals, parts, params)) is not None:
            return found
        pairs = [self.pair(p) for p in parts]
        J: list[Along] = [None if p is None else p[0] for p in pairs]
        S: list[Tangent] = [None if p is None else p[1] for p in pairs]
        if any(isinstance(j, Blocks) for j in J) and not self._keeps_blocks(row, primals, J, params):
            J = [stacked(j) if isinstance(j, Blocks) else j for j in J]
        outs, J_out, S_out = self._rule(row)(row, primals, J, S, params)
        return outs, [None if j is None and s is None else (j, s) for j, s in zip(J_out, S_out, strict=True)]

    def keeps_structure(self, parts: Sequence[Pair | Composite | None]) -> bool:
        return any(isinstance((p.base if isinstance(p, Composite) else p)[0], Blocks) for p in parts if p is not None)

    def ready(self, parts: Pair | Composite | None) -> Pair | None:
        return self.pair(parts)

    def uniform(self, parts: Pair | Composite | None) -> Pair | None:
        found = self.pair(parts)
        return (stacked(found[0]), found[1]) if found is not None and isinstance(found[0], Blocks) else found

    def common(self, several: Sequence[Pair], aval: ShapedArray) -> Pair:
        first, second = self.full(aval)
        blocks = [j for j, _ in several if j is not None]
        if not blocks or not all(isinstance(j, Blocks) for j in blocks):
            return first, second
        found = block_structures.common(blocks, aval)  # type: ignore[arg-type]  # all of them are in blocks
        return first if found is None else found, second

    def fill(self, parts: Pair | None, aval: ShapedArray, like: Pair | None = None) -> Pair:
        J, S = (None, None) if parts is None else parts
        if like is None or not isinstance(like[0], Blocks):
            zero = self.zero(aval)
            return stacked(J) if isinstance(J, Blocks) else zero[0] if J is None else J, zero[1] if S is None else S
        assert J is None or isinstance(J, Blocks)  # as the structure is one that holds them
        return block_structures.held(J, like[0]), zeros.zeros_of(aval) if S is None else S

    def slices(self, parts: Pair | None) -> Pair | None:
        if parts is None or not isinstance(parts[0], Blocks):
            return super().slices(parts)  # type: ignore[no-any-return]
        return block_structures.slices(parts[0]), super().slices((None, parts[1]))[1]

    def stacked(self, parts: Pair | None) -> Pair | None:
        if parts is None or not isinstance(parts[0], Blocks):
            return super().stacked(parts)  # type: ignore[no-any-return]
        return block_structures.stacked(parts[0]), super().stacked((None, parts[1]))[1]

    def pair(self, parts: Pair | Composite | None) -> Pair | None:
        """The parts of a value, with what was left for later."""
        if not isinstance(parts, Composite):
            return parts
        if parts.pair is None:
            J, S = parts.base
            J_out: Along = None
            S_out: Tangent = None
            if parts.first is not None:
                J_out = None if J is None else scaled(parts.first, J)
                S_out = None if S is None else scaled(parts.first, S)
            if parts.second is not None and J is not None:
                S_out = zeros.add(S_out, scaled(parts.second, self._summed(J, J)))
            parts.pair = J_out, S_out
        return parts.pair

    def _composed(self, row: Row, primals: Sequence[jax.Array], parts: Sequence[Pair | Composite | None],
                  params: Params) -> Carried | None:
        """The result of an operation entry by entry whose active operands are functions of one value; None if they are not."""
        composites = [None if p is None else p if isinstance(p, Composite) else Composite(p, lax.full_like(x, 1), None)
                      for p, x in zip(parts, primals, strict=True)]
        active = [c for c in composites if c is not None]
        if any(c.base is not active[0].base for c in active):
            return None
        outs = row.bind(primals, params)
        (out,) = outs
        if any(c is not None and (x.shape, x.dtype) != (out.shape, out.dtype) for c, x in zip(composites, primals, strict=True)):
            return None
        one = SecondDerivatives(1, is_summed=False)  # along x itself, in which there are no leading axes
        firsts: list[Along] = [None if c is None else c.first for c in composites]
        seconds: list[Tangent] = [None if c is None else c.second for c in composites]
        _, (first,), (second,) = one._by_partials(row, primals, firsts, seconds, params, out)
        assert not isinstance(first, Blocks)  # in place of derivatives stand those of one function
        return outs, [None if first is None and second is None else Composite(active[0].base, first, second)]

    def _keeps_blocks(self, row: Row, primals: Sequence[jax.Array], J: Sequence[Along], params: Params) -> bool:
        """Whether all derivatives are in blocks, and the row says what becomes of the axes."""
        return (all(j is None or isinstance(j, Blocks) for j in J) and row.kind in ("linear", "product", "diagonal")
                and row.axes(primals, params) is not None)

    def _rule(self, row: Row) -> Callable[[Row, Sequence[jax.Array], list[Along], list[Tangent], Params], Terms]:
        if row.kind == "linear":
            return self._linear
        if row.kind == "product":
            return self._product
        if row.kind == "diagonal" and not current.get().zero_wins:
            return self._diagonal
        return self._any

    def total(self, x: jax.Array) -> jax.Array:
        """The sum over the directions, with their signs; ``x`` itself where there is no sum."""
        if not self.is_summed:
            return x
        if not self.n_minus:
            return jnp.sum(x, 0)
        return lax.sub(jnp.sum(x[: self.k - self.n_minus], 0), jnp.sum(x[self.k - self.n_minus:], 0))

    def _summed(self, u: jax.Array | Blocks, v: jax.Array | Blocks) -> jax.Array:
        """The products of derivatives of two values, entry by entry, summed over the directions."""
        if isinstance(u, Blocks) and isinstance(v, Blocks):
            axes = range(u.aval.ndim)
            found = inner(u, v, lax.mul, (axes, axes), {a: a for a in axes})
            return zeros.zeros_of(u.aval) if found is None else found
        return self.total(lax.mul(u, v))  # type: ignore[arg-type]  # both are arrays, as :meth:`row` sees to

    def push(self, row: Row, primals: Sequence[jax.Array], J: list[Along], S: list[Tangent],
             params: Params) -> tuple[list[Along], list[Tangent]]:
        """``Df`` of all directions and of the second derivatives."""
        def first(tangents: list[Tangent]) -> list[Tangent]:
            return row.first(primals, tangents, params)

        moved: list[Along]
        if all(t is None for t in J):
            moved = [None] * len(first(S)) if self.is_summed else [None] * len(along_each(first, S))
        elif any(isinstance(t, Blocks) for t in J):
            moved = block_rules.pushed(row, primals, J, params)  # type: ignore[arg-type]  # all of them are in blocks
        else:
            moved = along_each(first, J)
        if all(t is None for t in S):
            return moved, [None] * len(moved)
        return moved, first(S) if self.is_summed else along_each(first, S)

    def _linear(self, row: Row, primals: Sequence[jax.Array], J: list[Along], S: list[Tangent], params: Params) -> Terms:
        return row.bind(primals, params), *self.push(row, primals, J, S, params)

    def _product(self, row: Row, primals: Sequence[jax.Array], J: list[Along], S: list[Tangent], params: Params) -> Terms:
        outs = row.bind(primals, params)
        J_out, S_out = self.push(row, primals, J, S, params)
        x, y = sorted(row.linear_in)  # type: ignore[arg-type]  # of a product it is a set of two
        if J[x] is None or J[y] is None:
            return outs, J_out, S_out

        if isinstance(J[x], Blocks):
            cross = block_rules.crossed(row, primals, J, params)  # type: ignore[arg-type]  # all of them are in blocks
            return outs, J_out, [zeros.add(S_out[0], None if cross is None else lax.add(cross, cross))]

        def times(u: jax.Array, v: jax.Array) -> list[Tangent]:
            factors = {x: u, y: v}
            found = row.bind([factors.get(i, operand) for i, operand in enumerate(primals)], params)
            return [None if t is None else z for z, t in zip(found, J_out, strict=True)]

        crossed = along_each(times, J[x], J[y])
        twice = [None if c is None else self.total(lax.add(c, c)) for c in crossed]
        return outs, J_out, [zeros.add(s, c) for s, c in zip(S_out, twice, strict=True)]

    def _diagonal(self, row: Row, primals: Sequence[jax.Array], J: list[Along], S: list[Tangent], params: Params) -> Terms:
        (out,) = row.bind(primals, params)
        J = [j.map(lambda array, n: self._spread(array, out, n)) if isinstance(j, Blocks) else None if j is None else
             self._spread(j, out, 1) for j in J]
        S = [None if s is None else self._spread(s, out, 0 if self.is_summed else 1) for s in S]
        return self._by_partials(row, primals, J, S, params, out)

    def _by_partials(self, row: Row, primals: Sequence[jax.Array], J: list[Along], S: list[Tangent], params: Params,
                     out: jax.Array) -> Terms:
        active = [j is not None for j in J]
        terms: list[jax.Array | Blocks] = []
        S_out: Tangent = None
        for f, j, s in zip(row.partials(primals, params, active), J, S, strict=True):
            if f is not None:
                if j is not None:
                    terms.append(scaled(f, j))
                S_out = zeros.add(S_out, None if s is None else scaled(f, s))
        for q, j_q in enumerate(J):
            if j_q is None or row.kind == "linear":
                continue
            for p, f_pq in enumerate(second_partials(row, primals, params, active, q, out)):
                j = J[p]
                if p <= q and f_pq is not None and j is not None:
                    bent = self._summed(j, j_q)
                    S_out = zeros.add(S_out, scaled(f_pq, bent if p == q else lax.add(bent, bent)))
        return [out], [added(terms)], [S_out]

    def _spread(self, t: jax.Array, out: jax.Array, n: int) -> jax.Array:
        """Derivatives of an operand, broadcast to the shape of the output, behind ``n`` leading axes."""
        t = zeros.cast(t, out.dtype)
        shape = t.shape[:n] + out.shape
        if t.shape == shape:
            return t
        return broadcast_entries(lax.reshape(t, (*t.shape[:n], *[1] * (len(shape) - t.ndim), *t.shape[n:])), shape)

    def _any(self, row: Row, primals: Sequence[jax.Array], J: list[Along], S: list[Tangent], params: Params) -> Terms:
        outs = row.bind(primals, params)
        if row.kind == "zero":
            return outs, [None] * len(outs), [None] * len(outs)
        J_out: list[Tangent] = [None] * len(outs)
        S_out: list[Tangent] = [None] * len(outs)
        if any(j is not None for j in J):
            J_out, bent = along_each(lambda ts: row.first_and_second(primals, ts, params), J)
            S_out = [None if b is None else self.total(b) for b in bent]
        if any(s is not None for s in S):
            _, moved = self.push(row, primals, [None] * len(J), S, params)
            S_out = [zeros.add(s, m) for s, m in zip(S_out, moved, strict=True)]
        return outs, J_out, S_out
