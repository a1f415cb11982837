"""The forms in which a row states the derivative of a primitive, once.

==================  ==============================================================================================
``zero``            flat almost everywhere: no tangent comes out
``elementwise``     one partial derivative for each operand, applied entry by entry
``linear``          the push is the operation itself; only its adjoint is stated
``bilinear``        linear in each of two operands; one adjoint for each
``pushforward``     J·v as a program over other primitives (:mod:`dualrev.table.pushforward`)
``call``            operations that hold a program of their own (:mod:`dualrev.calls.call_rows`)
==================  ==============================================================================================

Operands of a partial or an adjoint are positional; ``out`` and the primitive's parameters are keyword-only.  A function names
only what it reads, and a name that begins with ``_`` is a value not read: *the signature is the list of residuals*.  Both
modes, symbolic zeros, scalars that broadcast and low precision are handled here and never in a row.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from dualrev import errors
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.products import combiner, contraction
from dualrev.options.settings import Wide, widened
from dualrev.table.rows import OpRow, Reader, Row, Site, aval_of, register


def spread(t: Any, shape: tuple[int, ...]) -> Any:
    """A tangent broadcast as an elementwise operation broadcasts: scalars, and dimensions of size 1."""
    if t.shape == shape or t.ndim not in (0, len(shape)):  # the latter is a mistake for the caller to report
        return t
    return lax.broadcast_in_dim(t, shape, tuple(range(t.ndim)))


def gather_up(ct: Any, shape: tuple[int, ...]) -> Any:
    """The adjoint of :func:`spread`: a cotangent summed over what was broadcast."""
    if ct.shape == shape:
        return ct
    if not shape:
        return lax.reduce_sum(ct, tuple(range(ct.ndim)))
    axes = tuple([i for i, (n, m) in enumerate(zip(ct.shape, shape, strict=True)) if n != m])
    return lax.reshape(lax.reduce_sum(ct, axes), shape)


class Over:
    """A partial derivative given by its reciprocal (see :func:`over`)."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function


class ElementwiseRow(OpRow):
    """``out = f(x, y, ...)`` entry by entry: ``t_out = Σ ∂f/∂xᵢ · tᵢ`` and ``ct_xᵢ = ∂f/∂xᵢ · ct``.

    The pull does not conjugate: the convention is that of the transpose, as in jax.
    """

    form = "elementwise"

    def __init__(self, primitive: Any, *partials: Any):
        super().__init__(primitive)
        self.partials = [Reader(p) if callable(p) else Reader(p.function) if isinstance(p, Over) else p for p in partials]
        self.is_over = [isinstance(p, Over) for p in partials]
        self.plans: dict[tuple[bool, ...], tuple[tuple[int, ...], bool]] = {}

    def plan(self, active: tuple[bool, ...]) -> tuple[tuple[int, ...], bool]:
        """Which operands the moving partials read, and whether they read the output."""
        try:
            return self.plans[active]
        except KeyError:
            moving = [p for p, moves in zip(self.partials, active, strict=True) if moves and isinstance(p, Reader)]
            plan = (tuple(i for i in range(len(active)) if any(p.reads(i) for p in moving)),
                    any(p.reads_out for p in moving))
            self.plans[active] = plan
            return plan

    def static_avals(self, active: tuple[bool, ...], primals: Sequence[Any]) -> tuple[Any, ...]:
        # Only operands of different shapes are told apart: cotangents of what was spread are summed, and its tangents spread.
        if self.is_users_own:
            return tuple([aval_of(x) for x in primals])
        if len(primals) > 1:
            shape = getattr(primals[0], "shape", ())
            for x in primals:
                if getattr(x, "shape", ()) != shape:
                    return tuple([aval_of(x) for x in primals])
        return ()

    def save(self, active: tuple[bool, ...], primals: Sequence[Any], outs: Sequence[Any], saved: Tangents) -> Tangents:
        positions, reads_out = self.plan(active)
        residuals = tuple([primals[i] for i in positions])
        return (*residuals, outs[0]) if reads_out else residuals

    def terms(self, site: Site, residuals: Tangents, moving: Sequence[Any]) -> list[Any]:
        """``partialᵢ · movingᵢ`` for each moving operand."""
        positions, _ = self.plan(site.active)
        operands: list[Any] = [None] * len(site.active)
        for i, value in zip(positions, residuals, strict=False):
            operands[i] = value
        terms: list[Any] = []
        for i, t in zip(site.positions, moving, strict=True):
            partial = self.partials[i]
            if t is None or partial is None:
                terms.append(None)
                continue
            if isinstance(partial, Reader):
                keywords = partial.keywords(site.params)
                if partial.reads_out:
                    keywords["out"] = residuals[-1]
                factor = partial.function(*operands, **keywords)
                # A factor of float16 numbers may come in single precision.
                moved = zeros.cast(t, factor.dtype) if t.dtype == np.float16 and factor.dtype == np.float32 else t
                terms.append(zeros.cast(combiner(self.is_over[i], site.settings)(moved, factor), t.dtype))
            elif partial == 1:
                terms.append(t)
            elif partial == -1:
                terms.append(lax.neg(t))
            else:
                terms.append(lax.mul(t, lax.full_like(t, partial)))
        return terms

    def check_terms(self, site: Site, terms: Sequence[Any], shape: tuple[int, ...]) -> None:
        for i, term in zip(site.positions, terms, strict=True):
            if term is not None and term.shape != shape:
                raise errors.RuleError(f"the rule for {self.primitive} has a partial of shape {list(term.shape)} for operand {i}; "
                                       f"expected {list(shape)}, that of the output")

    def push(self, site: Site, residuals: Tangents, tangents: Tangents) -> Tangents:
        terms = self.terms(site, residuals, tangents)
        if site.in_avals:
            shape = lax.broadcast_shapes(*[a.shape for a in site.in_avals])
            terms = [None if term is None else spread(term, shape) for term in terms]
            self.check_terms(site, terms, shape)
        elif tangents:
            self.check_terms(site, terms, next(t.shape for t in tangents if t is not None))
        total = None
        for term in terms:
            total = zeros.add(total, term)
        return (total,)

    def pull(self, site: Site, residuals: Tangents, cotangents: Tangents) -> Tangents:
        (ct,) = cotangents
        cts = self.terms(site, residuals, (ct,) * len(site.positions))
        self.check_terms(site, cts, ct.shape)  # type: ignore[union-attr]  # a pull has a cotangent
        if site.in_avals:
            for k, i in enumerate(site.positions):
                if cts[k] is not None:
                    flag = site.active[i]
                    cts[k] = gather_up(zeros.cast(cts[k], flag.dtype) if type(flag) is Wide else cts[k], site.in_avals[i].shape)
        return tuple(cts)


class LinearRow(OpRow):
    """An operation that is linear in some operands, jointly: the push is the operation, the pull its stated adjoint."""

    form = "linear"

    def __init__(self, primitive: Any, adjoints: Sequence[Callable[..., Any] | None], together: bool,
                 fixed: tuple[int, ...]):
        super().__init__(primitive)
        self.together = together
        self.adjoints = [None if a is None else Reader(a, skip=1) for a in adjoints]
        self.fixed = fixed

    def is_fixed(self, position: int) -> bool:
        """Whether the operand is one, such as an index, that the operation is not linear in."""
        if self.together:
            return position in self.fixed
        return position >= len(self.adjoints) or self.adjoints[position] is None

    def active_outs(self, active: tuple[bool, ...], outs: Sequence[Any]) -> list[bool]:
        if all(self.is_fixed(i) for i, moves in enumerate(active) if moves):
            return [False] * len(outs)
        return super().active_outs(active, outs)

    def save(self, active: tuple[bool, ...], primals: Sequence[Any], outs: Sequence[Any], saved: Tangents) -> Tangents:
        return tuple([x for i, x in enumerate(primals) if self.is_fixed(i)])

    def operands(self, site: Site, residuals: Tangents) -> list[Any]:
        """Fixed operands as values, the others as abstract values."""
        values = iter(residuals)
        return [next(values) if self.is_fixed(i) else aval for i, aval in enumerate(site.in_avals)]

    def push(self, site: Site, residuals: Tangents, tangents: Tangents) -> Tangents:
        operands = self.operands(site, residuals)
        moving = {i: t for i, t in zip(site.positions, tangents, strict=True) if t is not None and not self.is_fixed(i)}
        if not moving:
            return (None,) * (len(site.out_avals) or 1)
        for i, operand in enumerate(operands):
            if not self.is_fixed(i):
                operands[i] = zeros.instantiate(moving.get(i), operand)
        return tuple(self.bind(operands, site.params))

    def pull(self, site: Site, residuals: Tangents, cotangents: Tangents) -> Tangents:
        operands = self.operands(site, residuals)
        if self.primitive.multiple_results:
            cotangents = tuple([zeros.instantiate(c, aval) for c, aval in zip(cotangents, site.out_avals, strict=True)])
        ct: Any = list(cotangents) if self.primitive.multiple_results else cotangents[0]
        if self.together:
            (adjoint,) = self.adjoints
            assert adjoint is not None  # the constructor of joint rows gives exactly one
            cts = adjoint.function(ct, *operands, **adjoint.keywords(site.params))
            moving = [i for i in range(len(operands)) if not self.is_fixed(i)]
            found = dict(zip(moving, cts, strict=True))
            return tuple([found.get(i) for i in site.positions])
        results: list[Any] = []
        for i in site.positions:
            adjoint, flag = self.adjoints[i], site.active[i]
            if adjoint is None:
                results.append(None)
            elif type(flag) is Wide:  # sums, and conversions of dtype, are made in the cotangent's own
                wide = [zeros.cast(c, flag.dtype) for c in cotangents]
                given = [widened(x, flag) if k == i else x for k, x in enumerate(operands)]
                results.append(adjoint.function(wide if self.primitive.multiple_results else wide[0], *given,
                                                **adjoint.keywords(site.params)))
            else:
                results.append(adjoint.function(ct, *operands, **adjoint.keywords(site.params)))
        return tuple(results)


class BilinearRow(OpRow):
    """``out = x * y`` for a product that is linear in each of two operands; others, such as indices, are fixed."""

    form = "bilinear"

    def __init__(self, primitive: Any, adjoints: Sequence[Callable[..., Any] | None]):
        super().__init__(primitive)
        self.adjoints = [None if a is None else Reader(a, skip=1) for a in adjoints]
        x, y = [i for i, a in enumerate(adjoints) if a is not None]
        self.partner = {x: y, y: x}

    def is_read(self, i: int, active: tuple[bool, ...]) -> bool:
        """Whether an operand is fixed, or its partner moves."""
        return i not in self.partner or active[self.partner[i]]

    def save(self, active: tuple[bool, ...], primals: Sequence[Any], outs: Sequence[Any], saved: Tangents) -> Tangents:
        # A number that stands in the program has no shape, which adjoints ask for.
        return tuple([x if hasattr(x, "ndim") else np.asarray(x, aval_of(x).dtype)  # type: ignore[misc]
                      for i, x in enumerate(primals) if self.is_read(i, active)])

    def operands(self, site: Site, residuals: Tangents) -> list[Any]:
        """Values of what is read, None for the rest."""
        values = iter(residuals)
        return [next(values) if self.is_read(i, site.active) else None for i in range(len(site.active))]

    def push(self, site: Site, residuals: Tangents, tangents: Tangents) -> Tangents:
        operands = self.operands(site, residuals)
        total = None
        for i, t in zip(site.positions, tangents, strict=True):
            if t is not None and i in self.partner:
                def times(t: Any, other: Any, i: int = i) -> Any:
                    moving = {i: t, self.partner[i]: other}
                    (term,) = self.bind([moving.get(k, x) for k, x in enumerate(operands)], site.params)
                    return term

                other = operands[self.partner[i]]
                total = zeros.add(total, contraction(times, t, other) if site.settings.zero_wins else times(t, other))
        return (total,)

    def pull(self, site: Site, residuals: Tangents, cotangents: Tangents) -> Tangents:
        (ct,) = cotangents
        operands = self.operands(site, residuals)
        results: list[Any] = []
        for i in site.positions:
            adjoint = self.adjoints[i]
            if adjoint is None:
                results.append(None)
                continue
            keywords, flag = adjoint.keywords(site.params), site.active[i]
            if type(flag) is Wide and "preferred_element_type" in keywords:
                keywords["preferred_element_type"] = flag.dtype
            aval = widened(site.in_avals[i], flag)

            def times(ct: Any, other: Any, i: int = i, aval: Any = aval, adjoint: Reader = adjoint,
                      keywords: dict[str, Any] = keywords) -> Any:
                known = {i: aval, self.partner[i]: other}
                return adjoint.function(ct, *[known.get(k, x) for k, x in enumerate(operands)], **keywords)

            other = operands[self.partner[i]]
            results.append(contraction(times, ct, other) if site.settings.zero_wins else times(ct, other))  # type: ignore[arg-type]
        return tuple(results)


class AlongsideRow(OpRow):
    """Output ``i`` is operand ``i``, and only the arrangement differs: what moves goes through the operation by itself."""

    form = "alongside"

    compiles = False

    def __init__(self, primitive: Any, params_of: Callable[..., dict[str, Any]] | None):
        super().__init__(primitive)
        self.params_of = params_of

    def active_outs(self, active: tuple[bool, ...], outs: Sequence[Any]) -> list[bool]:
        return list(active)

    def save(self, active: tuple[bool, ...], primals: Sequence[Any], outs: Sequence[Any], saved: Tangents) -> Tangents:
        return ()

    def through(self, site: Site, moving: Sequence[Any], back: bool) -> list[Any]:
        """``moving[k]`` belongs to operand and output ``site.positions[k]``."""
        which = [i for i, t in zip(site.positions, moving, strict=True) if t is not None]
        params = site.params
        if self.params_of is not None:
            params = self.params_of([site.in_avals[i] for i in which], which, back, **params)
        results = iter(self.bind([t for t in moving if t is not None], params))
        return [None if t is None else next(results) for t in moving]

    def push(self, site: Site, residuals: Tangents, tangents: Tangents) -> Tangents:
        found = dict(zip(site.positions, self.through(site, tangents, False), strict=True))
        return tuple([found.get(i) for i in range(len(site.active))])

    def pull(self, site: Site, residuals: Tangents, cotangents: Tangents) -> Tangents:
        return tuple(self.through(site, [cotangents[i] for i in site.positions], True))


class RefusingRow(Row):
    """An operation that what moves must not reach."""

    @abstractmethod
    def error(self) -> Exception:
        """What to raise when it does."""

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        raise self.error()

    def linearize(self, primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        raise self.error()


class ImpossibleRow(RefusingRow):
    """An operation whose derivative nobody can find from outside."""

    form = "no derivative"

    def __init__(self, primitive: Any, why: str, what_to_do: str):
        super().__init__(primitive)
        self.why = why
        self.what_to_do = what_to_do

    def error(self) -> Exception:
        return errors.no_derivative(self.primitive, self.why, self.what_to_do)


class KindRow(Row):
    """One row for real operands and one for complex ones."""

    form = "by kind"

    def __init__(self, primitive: Any, real: Row, complex_: Row):
        super().__init__(primitive)
        self.real = real
        self.complex = complex_

    def row(self, primals: Sequence[Any]) -> Row:
        return self.complex if aval_of(primals[0]).dtype.kind == "c" else self.real

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        return self.row(primals).jvp(primals, tangents, params)

    def linearize(self, primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        return self.row(primals).linearize(primals, active, params, is_linear)


# ------------------------------------------------------------------------------------------------------------- stating a row


def elementwise(primitive: Any, *partials: Callable[..., Any] | Over | complex | None) -> None:
    """State one partial derivative for each operand: a function of ``(x, y, ..., *, out, params)``, a constant, or None for 0."""
    register(ElementwiseRow(primitive, *partials))


def linear(primitive: Any, *adjoints: Callable[..., Any] | None) -> None:
    """State one adjoint ``(ct, x, y, ..., *, params)`` for each operand; None for an operand, such as an index or what decides a
    selection, that the operation is flat in, and none for such operands at the end.

    In an adjoint, operands that the operation is linear in are abstract values (shape and dtype), the others are values.
    """
    register(LinearRow(primitive, adjoints, together=False, fixed=()))


def linear_together(primitive: Any, adjoint: Callable[..., Any], fixed: tuple[int, ...] = ()) -> None:
    """As :func:`linear` for any number of operands: one adjoint returns a cotangent for each operand not in ``fixed``."""
    register(LinearRow(primitive, (adjoint,), together=True, fixed=fixed))


def bilinear(primitive: Any, *adjoints: Callable[..., Any] | None) -> None:
    """State an adjoint ``(ct, x, y, ..., *, params)`` for each of two operands, in which the one that is asked for is an abstract
    value; None for other operands, such as indices.
    """
    register(BilinearRow(primitive, adjoints))


def over(function: Callable[..., Any]) -> Over:
    """The partial derivative ``1 / function(...)``: tangents are divided by it, which rounds once where a product rounds twice."""
    return Over(function)


def alongside(primitive: Any, params_of: Callable[..., dict[str, Any]] | None = None) -> None:
    """State that output ``i`` is operand ``i``: tangents go through the operation as the operands do, and so do cotangents.

    ``params_of(operands that move, their positions, back, **params)`` gives the parameters for those alone, and for the way
    back if ``back``; without it, they are the same.
    """
    register(AlongsideRow(primitive, params_of))


def impossible(primitive: Any, why: str, what_to_do: str) -> None:
    """State that an operation has no derivative that could be found: why, and what the user can do."""
    register(ImpossibleRow(primitive, why, what_to_do))


def by_kind(real: Row, complex_: Row) -> None:
    """State the derivative of one primitive by one row for real operands and another for complex ones."""
    register(KindRow(real.primitive, real, complex_))
