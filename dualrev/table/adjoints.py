"""Rows stated by adjoints: linear operations, products, and operations whose result ``i`` is operand ``i``.

The push is the operation itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import jax
import numpy as np

from dualrev import errors
from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.sharding import as_cotangent
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent, Tangents
from dualrev.linear.pieces import Pieces, can_be_collected
from dualrev.linear.places import Box, Place
from dualrev.linear.products import contraction
from dualrev.options.settings import Active, Wide, widened
from dualrev.table.axes import Axes
from dualrev.table.operations import OpRow, Reader, Residuals, Site
from dualrev.table.rows import AllBut, Cost, Operand, aval_of

#: An adjoint ``(ct, x, y, ..., *, params)``: the cotangent of one operand, or of each, from that of the result (of each result).
Adjoint: TypeAlias = Callable[..., Tangent | Sequence[Tangent]]


#: The place ``(x, *, params)`` of the result (a list of places: of each result) among the entries of the first operand.
PartOf: TypeAlias = Callable[..., Place | list[Box]]

#: The axes ``(*operands, *, params)``, of operands as abstract values.
AxesOf: TypeAlias = Callable[..., Axes | None]


class LinearRow(OpRow):
    """An operation that is jointly linear in some operands: the push is the operation, the pull is its stated adjoint."""

    form = "linear"
    kind = "linear"

    def __init__(self, primitive: Primitive, adjoints: Sequence[Adjoint | None], together: bool = False,
                 fixed: tuple[int, ...] = (), cost: Cost = "work", linear_in: Iterable[int] | None = None, selects: Iterable[int] = (),
                 part: PartOf | None = None, axes: AxesOf | None = None):
        super().__init__(primitive)
        self.cost, self.selects = cost, frozenset(selects)
        self.axes_of = None if axes is None else Reader(axes)
        self.part = None if part is None else Reader(part)
        if linear_in is not None:
            self.linear_in = frozenset(linear_in)
        else:
            self.linear_in = AllBut(*fixed) if together else frozenset(i for i, a in enumerate(adjoints) if a is not None)
        self.together = together
        self.adjoints = [None if a is None else Reader(a, skip=1) for a in adjoints]
        self.fixed = fixed

    def axes(self, primals: Sequence[Operand], params: Params) -> Axes | None:
        return _axes(self.axes_of, primals, params)

    def check_operands(self, count: int) -> None:
        if not self.together and count < len(self.adjoints):
            raise errors.wrong_count(self, "adjoints", len(self.adjoints), count)

    def is_fixed(self, position: int) -> bool:
        """Whether the operation is not linear in this operand, such as an index."""
        if self.together:
            return position in self.fixed
        return position >= len(self.adjoints) or self.adjoints[position] is None

    def active_outs(self, active: tuple[Active, ...], outs: Sequence[Operand]) -> list[bool]:
        if all(self.is_fixed(i) for i, is_active in enumerate(active) if is_active):
            return [False] * len(outs)
        return super().active_outs(active, outs)

    def save(self, active: tuple[Active, ...], primals: Sequence[Operand], outs: Sequence[Operand], saved: Residuals) -> Residuals:
        return tuple([x for i, x in enumerate(primals) if self.is_fixed(i)])

    def operands(self, site: Site, residuals: Residuals) -> list[jax.Array | ShapedArray]:
        """Fixed operands as values, the others as abstract values."""
        values = iter(residuals)
        return [next(values) if self.is_fixed(i) else aval for i, aval in enumerate(site.in_avals)]

    def push(self, site: Site, residuals: Residuals, tangents: Tangents) -> Tangents:
        operands = self.operands(site, residuals)
        given = {i: t for i, t in zip(site.positions, tangents, strict=True) if t is not None and not self.is_fixed(i)}
        if not given:
            return (None,) * (len(site.out_avals) or 1)
        for i, operand in enumerate(operands):
            if not self.is_fixed(i):
                operands[i] = zeros.instantiate(given.get(i), operand)  # type: ignore[arg-type]  # an abstract value
        return tuple(self.bind(operands, site.params))  # type: ignore[arg-type]  # there is none left

    def places(self, active: tuple[Active, ...], avals: tuple[ShapedArray, ...], params: Params) -> Sequence[Place] | None:
        if self.part is None or active[0] is False or any(active[1:]) or not can_be_collected(avals[0]):
            return None
        found: Place | list[Box] = self.part.function(avals[0], **self.part.keywords(params))
        return found if isinstance(found, list) else [found]

    def pull_parts(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Pieces | None:
        assert site.places is not None  # which is why this is called
        if len(cotangents) > 1 and all(ct is not None for ct in cotangents):
            return None  # the adjoint makes one array of them
        aval = widened(site.in_avals[0], site.active[0])
        pieces = Pieces(aval)
        for place, ct in zip(site.places, cotangents, strict=True):
            if ct is not None:
                pieces.put(place, residuals, zeros.cast(ct, aval.dtype))
        return pieces

    def pull(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Tangents:
        operands = self.operands(site, residuals)
        if self.primitive.multiple_results:
            cotangents = tuple([zeros.instantiate(c, as_cotangent(aval)) for c, aval in zip(cotangents, site.out_avals, strict=True)])
        ct: Tangent | list[Tangent] = list(cotangents) if self.primitive.multiple_results else cotangents[0]
        if self.together:
            (adjoint,) = self.adjoints
            assert adjoint is not None  # the constructor of joint rows gives exactly one
            cts = adjoint.function(ct, *operands, **adjoint.keywords(site.params))
            linear_in = [i for i in range(len(operands)) if not self.is_fixed(i)]
            found = dict(zip(linear_in, cts, strict=True))
            return tuple([found.get(i) for i in site.positions])
        results: list[Tangent] = []
        for i in site.positions:
            adjoint, flag = self.adjoints[i], site.active[i]
            if adjoint is None:
                results.append(None)
            elif type(flag) is Wide:  # sums and conversions keep the wider dtype of the cotangent
                wide = [zeros.cast(c, flag.dtype) for c in cotangents]  # type: ignore[arg-type]  # none is None
                given = [widened(site.in_avals[i], flag) if k == i else x for k, x in enumerate(operands)]
                results.append(adjoint.function(wide if self.primitive.multiple_results else wide[0], *given,
                                                **adjoint.keywords(site.params)))
            else:
                results.append(adjoint.function(ct, *operands, **adjoint.keywords(site.params)))
        return tuple(results)


class BilinearRow(OpRow):
    """``out = x * y``, linear in each of two operands; others, such as indices, are fixed."""

    form = "bilinear"
    kind = "product"

    def __init__(self, primitive: Primitive, adjoints: Sequence[Adjoint | None], cost: Cost = "work", axes: AxesOf | None = None):
        super().__init__(primitive)
        self.cost = cost
        self.axes_of = None if axes is None else Reader(axes)
        self.adjoints = [None if a is None else Reader(a, skip=1) for a in adjoints]
        x, y = [i for i, a in enumerate(adjoints) if a is not None]
        self.partner = {x: y, y: x}
        self.linear_in = frozenset((x, y))

    def axes(self, primals: Sequence[Operand], params: Params) -> Axes | None:
        return _axes(self.axes_of, primals, params)

    def check_operands(self, count: int) -> None:
        if count != len(self.adjoints):
            raise errors.wrong_count(self, "adjoints", len(self.adjoints), count)

    def is_read(self, i: int, active: tuple[Active, ...]) -> Active:
        """Whether the linear map reads an operand: it is fixed, or the other factor is active."""
        return i not in self.partner or active[self.partner[i]]

    def save(self, active: tuple[Active, ...], primals: Sequence[Operand], outs: Sequence[Operand], saved: Residuals) -> Residuals:
        # A literal of the program has no shape, which adjoints read.
        return tuple([x if hasattr(x, "ndim") else np.asarray(x, aval_of(x).dtype)
                      for i, x in enumerate(primals) if self.is_read(i, active)])

    def operands(self, site: Site, residuals: Residuals) -> list[jax.Array | None]:
        """The operands that the linear map reads; None for the others."""
        values = iter(residuals)
        return [next(values) if self.is_read(i, site.active) else None for i in range(len(site.active))]

    def push(self, site: Site, residuals: Residuals, tangents: Tangents) -> Tangents:
        operands = self.operands(site, residuals)
        total = None
        for i, t in zip(site.positions, tangents, strict=True):
            if t is not None and i in self.partner:
                def times(t: jax.Array, other: jax.Array, i: int = i) -> jax.Array:
                    factors = {i: t, self.partner[i]: other}
                    (term,) = self.bind([factors.get(k, x) for k, x in enumerate(operands)], site.params)  # type: ignore[misc]
                    return term

                other = operands[self.partner[i]]
                total = zeros.add(total, contraction(times, t, other) if site.settings.zero_wins else times(t, other))  # type: ignore[arg-type]
        return (total,)

    def pull(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Tangents:
        (ct,) = cotangents
        operands = self.operands(site, residuals)
        results: list[Tangent] = []
        for i in site.positions:
            adjoint = self.adjoints[i]
            if adjoint is None:
                results.append(None)
                continue
            keywords, flag = adjoint.keywords(site.params), site.active[i]
            if type(flag) is Wide and "preferred_element_type" in keywords:
                keywords["preferred_element_type"] = flag.dtype
            aval = widened(site.in_avals[i], flag)

            def times(ct: jax.Array, other: jax.Array, i: int = i, aval: ShapedArray = aval, adjoint: Reader = adjoint,
                      keywords: Params = keywords) -> jax.Array:
                known = {i: aval, self.partner[i]: other}
                result: jax.Array = adjoint.function(ct, *[known.get(k, x) for k, x in enumerate(operands)], **keywords)
                return result

            other = operands[self.partner[i]]
            results.append(contraction(times, ct, other) if site.settings.zero_wins else times(ct, other))  # type: ignore[arg-type]
        return tuple(results)


def _axes(axes_of: Reader | None, primals: Sequence[Operand], params: Params) -> Axes | None:
    if axes_of is None:
        return None
    found: Axes | None = axes_of.function(*map(aval_of, primals), **axes_of.keywords(params))
    return found


class AlongsideRow(OpRow):
    """Output ``i`` is operand ``i``, placed or ordered otherwise: the operation maps tangents and cotangents likewise."""

    form = "alongside"
    kind = "linear"
    linear_in = AllBut()

    compiles = False

    def __init__(self, primitive: Primitive, params_of: Callable[..., Params] | None, cost: Cost = "work"):
        super().__init__(primitive)
        self.cost = cost
        self.params_of = params_of

    def active_outs(self, active: tuple[Active, ...], outs: Sequence[Operand]) -> list[bool]:
        return [bool(is_active) for is_active in active]

    def save(self, active: tuple[Active, ...], primals: Sequence[Operand], outs: Sequence[Operand], saved: Residuals) -> Residuals:
        return ()

    def carried(self, site: Site, given: Sequence[Tangent], back: bool) -> list[Tangent]:
        """The operation on tangents, or on cotangents if ``back``; ``given[k]`` is that of ``site.positions[k]``."""
        which = [i for i, t in zip(site.positions, given, strict=True) if t is not None]
        params = site.params
        if self.params_of is not None:
            params = self.params_of([site.in_avals[i] for i in which], which, back, **params)
        results = iter(self.bind([t for t in given if t is not None], params))
        return [None if t is None else next(results) for t in given]

    def push(self, site: Site, residuals: Residuals, tangents: Tangents) -> Tangents:
        found = dict(zip(site.positions, self.carried(site, tangents, False), strict=True))
        return tuple([found.get(i) for i in range(len(site.active))])

    def pull(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Tangents:
        return tuple(self.carried(site, [cotangents[i] for i in site.positions], True))
