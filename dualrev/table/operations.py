"""Rows of one operation: sites (one use of a primitive), residuals, and what the functions of a row read.

This module compiles pushes and pulls, keeps residuals and checks the results of rows, so that no row has to.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias

import jax

from dualrev import errors
from dualrev._jax.avals import ShapedArray, abstract_outputs, is_differentiable
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.traces import is_eager
from dualrev.linear.maps import LinearMap, Tangent, Tangents
from dualrev.linear.pieces import Pieces
from dualrev.linear.places import Place
from dualrev.options.settings import DEFAULT, Active, current, widened
from dualrev.table.rows import Operand, Row, Taped, Unknown, aval_of

#: The residuals of one operation: arrays, and pytrees of arrays whose structure the row alone knows.
Residuals: TypeAlias = tuple[Any, ...]

#: A push, a pull or a jvp at a site, compiled if the row allows it.
Compiled: TypeAlias = Callable[..., Any]

#: A function that states a row: its signature lists what it reads (:class:`Reader`).
Stated: TypeAlias = Callable[..., Any]

#: How many sites, with their compiled pushes and pulls, one row keeps; beyond, the oldest is dropped.
SITES_PER_ROW = 1024


class Site:
    """All that is static about one use of a primitive: which operands are active, parameters, shapes.

    Two calls with equal sites share compiled pushes and pulls.
    """

    __slots__ = ("__weakref__", "_compiled", "active", "in_avals", "key", "out_avals", "params", "places", "positions", "row",
                 "settings")

    def __init__(self, row: OpRow, active: tuple[Active, ...], params: Params, in_avals: tuple[ShapedArray, ...],
                 out_avals: tuple[ShapedArray, ...], key: Hashable):
        self.row = row
        self.active = active
        self.positions = tuple([i for i, is_active in enumerate(active) if is_active])
        self.params = params
        self.in_avals = in_avals
        self.out_avals = out_avals
        self.key = key
        self.settings = current.get()
        #: Where the results lie in the operand, for an operation that takes parts of one; else None.
        self.places = row.places(active, in_avals, params)
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, what: str) -> Compiled:
        try:
            return self._compiled[what]
        except KeyError:
            function = getattr(self, what)
            function = self._compiled[what] = jax.jit(function) if self.row.compiles else function
            return function

    def evaluate(self, *primals: jax.Array) -> list[jax.Array]:
        return self.row.bind(primals, self.params)

    def push(self, residuals: Residuals, tangents: Tangents) -> Tangents:
        return self.row.run("push", self, residuals, tangents)

    def pull(self, residuals: Residuals, cotangents: Tangents) -> Tangents:
        return self.row.run("pull", self, residuals, cotangents)

    def jvp(self, primals: tuple[jax.Array, ...], tangents: Tangents) -> tuple[list[jax.Array], Tangents]:
        outs, saved = self.row.evaluate(primals, self.params, self.active)
        residuals = self.row.save(self.active, primals, outs, saved)
        active_outs = self.row.active_outs(self.active, outs)
        if not any(active_outs):
            return outs, (None,) * len(outs)
        pushed = self.push(residuals, tuple([tangents[i] for i in self.positions]))
        # A linear operation with an integer output maps a tangent to an integer, which is no tangent.
        return outs, tuple([t if is_active else None for t, is_active in zip(pushed, active_outs, strict=True)])

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Site) and self.row is other.row and self.key is not None
                                 and self.key == other.key)

    def __hash__(self) -> int:
        return hash((id(self.row), self.key))


class OpMap(LinearMap):
    """The derivative of one operation: its site and its residuals."""

    __slots__ = ("residuals", "site")

    is_call = False

    def __init__(self, site: Site, residuals: Residuals):
        self.site = site
        self.residuals = residuals

    @property
    def name(self) -> str:  # type: ignore[override]
        return str(self.site.row.primitive)

    def singular_parts(self) -> Iterator[LinearMap]:
        if self.site.row.may_be_singular:
            yield self

    def is_singular(self) -> bool:
        return self.site.row.is_singular(self.residuals)

    def push(self, *tangents: Tangent) -> Tangents:
        if is_eager((*self.residuals, *tangents)):
            pushed: Tangents = self.site.compiled("push")(self.residuals, tangents)
            return pushed
        return self.site.push(self.residuals, tangents)

    def pull(self, *cotangents: Tangent) -> Tangents:
        if is_eager((*self.residuals, *cotangents)):
            pulled: Tangents = self.site.compiled("pull")(self.residuals, cotangents)
            return pulled
        return self.site.pull(self.residuals, cotangents)

    def pull_parts(self, *cotangents: Tangent) -> Sequence[Tangent | Pieces]:
        if self.site.places is not None and (found := self.site.row.pull_parts(self.site, self.residuals, cotangents)) is not None:
            return (found,)
        return self.pull(*cotangents)


jax.tree_util.register_pytree_node(OpMap, lambda m: ((m.residuals,), m.site), lambda site, r: OpMap(site, r[0]))


class Reader:
    """A function that states a row, with what it reads according to its signature."""

    __slots__ = ("function", "n_named", "params", "positions", "reads_out", "reads_saved", "variadic")

    def __init__(self, function: Stated, skip: int = 0):
        self.function = function
        names = list(inspect.signature(function).parameters.values())
        positional = [p for p in names if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][skip:]
        self.positions = frozenset(i for i, p in enumerate(positional) if not p.name.startswith("_"))
        self.variadic = any(p.kind is p.VAR_POSITIONAL and not p.name.startswith("_") for p in names)
        self.n_named = len(positional)
        keywords = [p.name for p in names if p.kind is p.KEYWORD_ONLY]
        self.reads_out = "out" in keywords
        self.reads_saved = "saved" in keywords
        self.params = tuple(name for name in keywords if name not in ("out", "saved"))

    def keywords(self, params: Params) -> Params:
        return {name: params[name] for name in self.params}

    def reads(self, position: int) -> bool:
        return position in self.positions or (self.variadic and position >= self.n_named)


class OpRow(Row):
    """A row whose derivative is stated by pushes and pulls of residuals."""

    #: Whether pushes and pulls read shapes and dtypes of operands, so that these belong to the key of a site.
    reads_avals = True
    #: Whether pushes and pulls divide by zero at some values: those where :meth:`is_singular` is true.
    may_be_singular = False
    #: Whether pushes and pulls of concrete values are compiled; not for an operation that places values on devices.
    compiles = True

    def evaluate(self, primals: Sequence[Operand], params: Params, active: tuple[Active, ...]) -> tuple[list[jax.Array], Residuals]:
        """The outputs, and further values that the row saves for its push."""
        return self.bind(primals, params), ()

    @abstractmethod
    def save(self, active: tuple[Active, ...], primals: Sequence[Operand], outs: Sequence[Operand], saved: Residuals) -> Residuals:
        """The residuals, given which operands are active."""

    @abstractmethod
    def push(self, site: Site, residuals: Residuals, tangents: Tangents) -> Tangents:
        ...

    @abstractmethod
    def pull(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Tangents:
        ...

    def places(self, active: tuple[Active, ...], avals: tuple[ShapedArray, ...], params: Params) -> Sequence[Place] | None:
        """For an operation whose results are parts of its first operand, the place of each; None for others."""
        return None

    def pull_parts(self, site: Site, residuals: Residuals, cotangents: Tangents) -> Pieces | None:
        """At a site with places, the cotangent of the first operand as pieces; None where an array is better."""
        return None

    def is_singular(self, residuals: Residuals) -> bool:
        """Whether pushes and pulls divide by zero at these residuals, whose values are known."""
        return False

    def active_outs(self, active: tuple[Active, ...], outs: Sequence[Operand]) -> list[bool]:
        return [is_differentiable(aval_of(out)) for out in outs]

    def __init__(self, primitive: Primitive):
        super().__init__(primitive)
        self.sites: dict[Hashable, Site] = {}
        #: Whether the operation itself is all that is evaluated, and may be compiled.
        self.binds = self.compiles and type(self).evaluate is OpRow.evaluate

    def run(self, direction: str, site: Site, residuals: Residuals, given: Tangents) -> Tangents:
        """A push or a pull.  Errors get a note that names the row; results of wrong types raise RuleError."""
        try:
            results: Tangents = getattr(self, direction)(site, residuals, given)
            if site.in_avals:
                self.check(direction, site, results)
            return results
        except Exception as error:
            note = f"in the rule for {self.primitive}, {self.where}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise

    def check(self, direction: str, site: Site, results: Tangents) -> None:
        """Check that cotangents have the types of the operands, and tangents of a user's row those of the outputs."""
        if direction == "pull":
            what, expected = "cotangent of operand", [(i, site.in_avals[i]) for i in site.positions]
            wide = [widened(site.in_avals[i], site.active[i]).dtype for i in site.positions]
        elif self.is_users_own:
            outs = abstract_outputs(self.primitive, site.in_avals, site.params)
            what, expected = "tangent of output", list(enumerate(outs))
        else:
            return
        for k, ((i, aval), t) in enumerate(zip(expected, results, strict=True)):
            if t is not None and (t.shape != aval.shape or t.dtype != aval.dtype) and is_differentiable(aval):
                if direction == "pull" and t.shape == aval.shape and t.dtype == wide[k]:
                    continue
                raise errors.RuleError(f"the rule for {self.primitive} gives a {what} {i} of type {t.dtype.name}{list(t.shape)}; "
                                       f"expected {aval.dtype.name}{list(aval.shape)}")

    def check_operands(self, count: int) -> None:
        """Raise RuleError if the row does not fit an operation with this number of operands."""

    def static_avals(self, active: tuple[Active, ...], primals: Sequence[Operand]) -> tuple[ShapedArray, ...]:
        return tuple([aval_of(x) for x in primals]) if self.reads_avals else ()

    def site(self, active: tuple[Active, ...], primals: Sequence[Operand], params: Params) -> Site:
        avals = self.static_avals(active, primals)
        try:
            key: Hashable = (active, avals, tuple(params.items()))
            if (settings := current.get()) is not DEFAULT:
                key = (key, settings)
            found = self.sites.get(key)
        except TypeError:  # a parameter cannot be hashed: a new site, compiled for this call
            return Site(self, active, params, avals, self._out_avals(avals, params), None)
        if found is None:
            if self.is_users_own:
                self.check_operands(len(active))
            if len(self.sites) >= SITES_PER_ROW:
                self.sites.pop(next(iter(self.sites)), None)
            found = self.sites[key] = Site(self, active, params, avals, self._out_avals(avals, params), key)
        return found

    def _out_avals(self, avals: tuple[ShapedArray, ...], params: Params) -> tuple[ShapedArray, ...]:
        return tuple(abstract_outputs(self.primitive, avals, params)) if self.primitive.multiple_results else ()

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
            params: Params) -> tuple[list[jax.Array], Sequence[Tangent]]:
        active = tuple([t is not None for t in tangents])
        site = self.site(active, primals, params)
        if is_eager((*primals, *tangents)):
            result: tuple[list[jax.Array], Tangents] = site.compiled("jvp")(tuple(primals), tuple(tangents))
            return result
        return site.jvp(tuple(primals), tuple(tangents))

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Taped:
        saved: Residuals = ()
        site = self.site(active, primals, params)
        if is_linear:
            outs: Sequence[Operand] = [Unknown(a) for a in abstract_outputs(self.primitive, [aval_of(x) for x in primals], params)]
        elif self.binds and self.cost != "moves" and site.key is not None and is_eager(primals):
            # Calling it takes half the time of binding the operation.  What only moves may give its operand back, which a compiled
            # operation would copy.
            outs = site.compiled("evaluate")(*primals)
        else:
            outs, saved = self.evaluate(primals, params, active)
        active_outs = self.active_outs(active, outs)
        if is_linear and not any(is_differentiable(aval_of(x)) for x, is_active in zip(primals, active, strict=True) if is_active):
            active_outs = [True] * len(outs)  # a program over integers can be linear too
        residuals = self.save(active, primals, outs, saved)
        if is_linear:
            for residual in residuals:
                if type(residual) is Unknown:
                    raise errors.not_linear(self.primitive)
            if not all(active_outs):
                raise errors.not_linear(self.primitive)
        return outs, OpMap(site, residuals), active_outs
