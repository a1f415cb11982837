"""Rows stated by partial derivatives: operations applied entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_differentiable
from dualrev._jax.primitives import Params, Primitive
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent, Tangents
from dualrev.linear.products import combiner
from dualrev.options.settings import Active, Wide
from dualrev.table import engine
from dualrev.table.axes import Axes
from dualrev.table.operations import OpRow, Reader, Residuals, Site
from dualrev.table.rows import Cost, Kind, Operand, Row, aval_of

#: A partial derivative ``(x, y, ..., *, out, params)`` of an operation that works entry by entry.
Partial: TypeAlias = Callable[..., jax.Array]


def broadcast_entries(t: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """``t`` broadcast to a shape as elementwise operations do: scalars, and dimensions of size 1.

    It may be a literal of a program, which has no shape of its own.
    """
    given = jnp.shape(t)
    if given == shape or len(given) not in (0, len(shape)):  # the caller reports a wrong number of dimensions
        return t
    return lax.broadcast_in_dim(t, shape, tuple(range(len(given))))


def sum_broadcast(ct: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The adjoint of :func:`broadcast_entries`: the sum of a cotangent over broadcast dimensions."""
    if ct.shape == shape:
        return ct
    if not shape:
        return lax.reduce_sum(ct, tuple(range(ct.ndim)))
    axes = tuple([i for i, (n, m) in enumerate(zip(ct.shape, shape, strict=True)) if n != m])
    return lax.reshape(lax.reduce_sum(ct, axes), shape)


class Over:
    """A partial derivative given by its reciprocal (see :func:`over`)."""

    def __init__(self, function: Partial):
        self.function = function


class ElementwiseRow(OpRow):
    """``out = f(x, y, ...)`` entry by entry: ``t_out = Σ ∂f/∂xᵢ · tᵢ`` and ``ct_xᵢ = ∂f/∂xᵢ · ct``.

    The pull does not conjugate: the convention is that of the transpose, as in jax.
    """

    form = "elementwise"
    is_diagonal = True

    def __init__(self, primitive: Primitive, *partials: Partial | Over | complex | None, cost: Cost = "entrywise",
                 linear_in: Iterable[int] | None = None):
        super().__init__(primitive)
        self.stated = [Reader(p) if callable(p) else Reader(p.function) if isinstance(p, Over) else p for p in partials]
        self.is_over = [isinstance(p, Over) for p in partials]
        self.cost = cost
        self.kind, self.linear_in = ("diagonal", frozenset(linear_in)) if linear_in is not None else self._algebra()
        self.plans: dict[tuple[Active, ...], tuple[tuple[int, ...], bool]] = {}

    def check_operands(self, count: int) -> None:
        if count != len(self.stated):
            raise errors.wrong_count(self, "partials", len(self.stated), count)

    def _algebra(self) -> tuple[Kind, frozenset[int]]:
        """Kind and ``linear_in`` by signatures: ``f`` is linear in an operand if its partial reads neither the operand nor the output.

        Signatures do not distinguish ``x y`` from ``x y + x + y``, nor steps from constants: there, ``linear_in`` is declared.
        """
        reads = {i: p.positions if isinstance(p, Reader) else frozenset() for i, p in enumerate(self.stated)
                 if p is not None and not (isinstance(p, Reader) and p.reads_out)}
        linear = frozenset(i for i, read in reads.items() if i not in read)
        has_derivative = {i for i, p in enumerate(self.stated) if p is not None}
        if linear == has_derivative and not any(reads.values()):
            return "linear", linear
        if linear == has_derivative and len(linear) == 2 and not any(self.is_over):
            return "product", linear
        is_joint = not any(reads[i] & linear for i in linear)
        return "diagonal", linear if is_joint else frozenset()

    def plan(self, active: tuple[Active, ...]) -> tuple[tuple[int, ...], bool]:
        """Which operands the partials of active operands read, and whether they read the output."""
        try:
            return self.plans[active]
        except KeyError:
            needed = [p for p, is_active in zip(self.stated, active, strict=True) if is_active and isinstance(p, Reader)]
            plan = (tuple(i for i in range(len(active)) if any(p.reads(i) for p in needed)),
                    any(p.reads_out for p in needed))
            self.plans[active] = plan
            return plan

    def static_avals(self, active: tuple[Active, ...], primals: Sequence[Operand]) -> tuple[ShapedArray, ...]:
        # Shapes belong to the key where they differ: tangents are then broadcast, and cotangents summed.
        if self.is_users_own:
            return tuple([aval_of(x) for x in primals])
        if len(primals) > 1:
            shape = getattr(primals[0], "shape", ())
            for x in primals:
                if getattr(x, "shape", ()) != shape:
                    return tuple([aval_of(x) for x in primals])
        return ()

    def save(self, active: tuple[Active, ...], primals: Sequence[Operand], outs: Sequence[Operand], saved: Residuals) -> Residuals:
        positions, reads_out = self.plan(active)
        residuals = tuple([primals[i] for i in positions])
        return (*residuals, outs[0]) if reads_out else residuals

    def terms(self, site: Site, residuals: Residuals, given: Sequence[Tangent]) -> list[Tangent]:
        """``partialᵢ · givenᵢ`` for each active operand."""
        positions, _ = self.plan(site.active)
        operands: list[jax.Array | None] = [None] * len(site.active)
        for i, value in zip(positions, residuals, strict=False):
            operands[i] = value
        terms: list[Tangent] = []
        for i, t in zip(site.positions, given, strict=True):
            partial = self.stated[i]
            if t is None or partial is None:
                terms.append(None)
                continue
            if isinstance(partial, Reader):
                keywords = partial.keywords(site.params)
                if partial.reads_out:
                    keywords["out"] = residuals[-1]
                factor = partial.function(*operands, **keywords)
                # The partial of float16 operands may be in single precision.
                t_cast = zeros.cast(t, factor.dtype) if t.dtype == np.float16 and factor.dtype == np.float32 else t
                terms.append(zeros.cast(combiner(self.is_over[i], site.settings)(t_cast, factor), t.dtype))
            elif partial == 1:
                terms.append(t)
            elif partial == -1:
                terms.append(lax.neg(t))
            else:
                terms.append(lax.mul(t, lax.full_like(t, partial)))
        return terms

    def check_terms(self, site: Site, terms: Sequence[Tangent], shape: tuple[int, ...]) -> None:
        for i, term in zip(site.positions, terms, strict=True):
            if term is not None and term.shape != shape:
                raise errors.RuleError(f"the rule for {self.primitive} has a partial of shape {list(term.shape)} for operand {i}; "
                                       f"expected {list(shape)}, that of the output")

    def partials(self, primals: Sequence[jax.Array], params: Params, active: Sequence[Active] | None = None) -> list[Tangent]:
        wanted = [p is not None and is_differentiable(aval_of(x)) and (active is None or bool(active[i]))
                  for i, (p, x) in enumerate(zip(self.stated, primals, strict=True))]
        (out,) = self.bind(primals, params)
        found: list[Tangent] = []
        for i, partial in enumerate(self.stated):
            if not wanted[i]:
                found.append(None)
            elif isinstance(partial, Reader):
                keywords = partial.keywords(params)
                if partial.reads_out:
                    keywords["out"] = out
                factor = partial.function(*primals, **keywords)
                factor = lax.div(lax.full_like(factor, 1), factor) if self.is_over[i] else factor
                found.append(broadcast_entries(zeros.cast(factor, out.dtype), out.shape))
            else:
                found.append(lax.full_like(out, partial))  # type: ignore[arg-type]  # None is not wanted
        return found

    def axes(self, primals: Sequence[Operand], params: Params) -> Axes | None:
        shapes = [aval_of(x).shape for x in primals]
        shape = lax.broadcast_shapes(*shapes)
        operands = [[(a,) if n == shape[a] else None for a, n in enumerate(s)] for s in shapes]
        return Axes(operands, [[(a,) for a in range(len(shape))]]) if all(len(s) in (0, len(shape)) for s in shapes) else None

    def divisor(self, primals: Sequence[jax.Array], params: Params) -> tuple[int, jax.Array] | None:
        for i, (partial, is_over) in enumerate(zip(self.stated, self.is_over, strict=True)):
            # Linear in operand i, with a factor of 1 / g that does not depend on it.
            if is_over and i in self.linear_in and isinstance(partial, Reader) and not partial.reads_out and not partial.reads(i):
                return i, partial.function(*primals, **partial.keywords(params))
        return None

    def push(self, site: Site, residuals: Residuals, tangents: Tangents) -> Tangents:
        terms = self.terms(site, residuals, tangents)
        if site.in_avals:
            shape = lax.broadcast_shapes(*[a.shape for a in site.in_avals])
            terms = [None if term is None else broadcast_entries(term, shape) for term in terms]
            self.check_terms(site, terms, shape)
        elif tangents:
            self.check_terms(site, terms, next(t.shape for t in tangents if t is not None))
        total = None
        for term in terms:
            total = zeros.add(total, term)
        return (total,)

    def pull(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Tangents:
        (ct,) = cotangents
        cts = self.terms(site, residuals, (ct,) * len(site.positions))
        self.check_terms(site, cts, ct.shape)  # type: ignore[union-attr]
        if site.in_avals:
            for k, i in enumerate(site.positions):
                term, flag = cts[k], site.active[i]
                if term is not None:
                    cts[k] = sum_broadcast(zeros.cast(term, flag.dtype) if type(flag) is Wide else term, site.in_avals[i].shape)
        return tuple(cts)


def second_partials(row: Row, primals: Sequence[jax.Array], params: Params, active: Sequence[bool], q: int,
                    out: jax.Array) -> list[Tangent]:
    """``∂²f/∂x_p∂x_q`` for each operand ``p``, in the shape of the output; None where it is zero everywhere."""
    which: list[bool] = []
    spread = [broadcast_entries(x, out.shape) if is_active else x for x, is_active in zip(primals, active, strict=True)]

    def partials(*operands: jax.Array) -> list[jax.Array]:
        found = row.partials(operands, params, active)
        which[:] = [f is not None for f in found]
        return [f for f in found if f is not None]

    unit: list[Tangent] = [None] * len(primals)
    unit[q] = lax.full_like(spread[q], 1)
    _, found = engine.push_through(partials, spread, unit)
    seconds = iter(found)
    return [next(seconds) if is_stated else None for is_stated in which]
