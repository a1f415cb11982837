"""Derivatives of whole programs, traced once and reused.

A :class:`Program` is a traced flat function.  On concrete values it runs compiled; under a trace it is bound as one ``jit`` call, or
inlined.  A :class:`Linearization` is the program that evaluates a function and computes the residuals of its tape, with the pulls and
pushes that read them.  A :class:`Pushforward` is the program that evaluates values and parts together.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import compress, repeat
from operator import is_not
from typing import Any, TypeAlias, TypeVar

import jax

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_differentiable, tangent_aval
from dualrev._jax.calls import bind_jit, has_explicit_layout, inlined, is_inlined
from dualrev._jax.invalid_values import INVALID_VALUE
from dualrev._jax.jaxprs import ClosedJaxpr, FlatFunction, Jaxpr, jaxpr_as_fun, jaxpr_out_avals, stage
from dualrev._jax.primitives import Params
from dualrev._jax.source_lines import line_of, user_frame
from dualrev._jax.traces import Tracer, is_batching, is_eager
from dualrev.engines import reverse
from dualrev.engines.forward import TANGENTS
from dualrev.engines.parts import evaluate
from dualrev.linear.maps import LinearMap, Tangents, Tape
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import DEFAULT, Active, Settings, current
from dualrev.programs.jaxprs import check_operands, first_invalid, replayer, runner
from dualrev.table.mode import Mode, Parts
from dualrev.table.rows import Operand, Unknown, aval_of, rows

#: The number of derivative programs in the cache; each is also dropped with the program that it was derived from.
PROGRAMS_KEPT = 2048

#: The latest request for a linearization, and the result: the jaxpr, active inputs, ``is_linear``, settings, and the linearization.
Recent: TypeAlias = tuple[weakref.ref[ClosedJaxpr], tuple[Active, ...], bool, Settings, "weakref.ref[Linearization]"]

#: The latest request for a push, and the result: the jaxpr, the structure of parts, the mode, settings, and the push.
RecentPush: TypeAlias = tuple[weakref.ref[ClosedJaxpr], Hashable, Mode, Settings, "weakref.ref[Pushforward]"]

#: Where a residual comes from: ("in", i), ("out", j) or ("new", k).
Source: TypeAlias = tuple[str, int]

#: For each mask of nonzero vectors, the program of a push or pull, and which of its results are nonzero.
Masked: TypeAlias = dict[tuple[bool, ...], tuple["Program", tuple[bool, ...]]]

T = TypeVar("T")


class Wrapper:
    """How a program is bound under a trace: with the settings of the ``jit`` call that it replaces, or inlined (``like`` is None)."""

    __slots__ = ("_hash", "inline", "is_plain", "key", "like", "name", "recent", "recent_push")

    def __init__(self, name: str, like: Params | None):
        self.name = name
        self.like = like
        self.key = (name, None if like is None else tuple(like.items()))
        self._hash = hash(self.key)
        #: The parameter ``inline`` of the call that this is the wrapper of.
        self.inline: object = None
        #: The latest requests for a linearization and a push of the jaxpr that is bound so.
        self.recent: Recent | None = None
        self.recent_push: RecentPush | None = None
        #: Whether a plain ``jax.jit`` does the same on concrete values.
        self.is_plain = like is None or not has_explicit_layout(like)

    def fits(self, params: Params) -> bool:
        """Whether a ``jit`` call has these settings."""
        return all(params[name] is value or params[name] == value for name, value in self.key[1] or ())

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Wrapper) and self.key == other.key)

    def __hash__(self) -> int:
        return self._hash


class Program:
    """A closed jaxpr to be called with flat values.

    ``in_like`` and ``out_like``: for each operand and result, the operand or result of the original call whose layout it shares.
    """

    __slots__ = ("_compiled", "_replay", "in_like", "jaxpr", "name", "out_like", "wrapper")

    def __init__(self, jaxpr: ClosedJaxpr, wrapper: Wrapper, name: str, in_like: Sequence[int | None], out_like: Sequence[int | None]):
        self.jaxpr = jaxpr
        self.wrapper = wrapper
        self.name = name
        self.in_like = in_like
        self.out_like = out_like
        self._compiled: Callable[..., list[jax.Array]] | None = None
        self._replay: Callable[..., list[jax.Array]] | None = None

    def __call__(self, args: Sequence[jax.Array]) -> list[jax.Array]:
        like = self.wrapper.like
        if self.wrapper.is_plain and is_eager(args):
            if self._compiled is None:
                run = runner(self.jaxpr, self.name)

                def program(*args: jax.Array) -> list[jax.Array]:
                    return run(*args)

                program.__name__ = self.name
                self._compiled = jax.jit(program)
            return self._compiled(*args)
        check_operands(self.jaxpr, args, self.name)
        if like is None:
            if is_batching():  # one call for vmap to look up, whose batched program it has cached
                return bind_jit(inlined(), self.jaxpr, args, self.name, [None] * len(args), [None] * len(self.jaxpr.out_avals))
            if self._replay is None:
                self._replay = replayer(self.jaxpr)
            return self._replay(*args)
        return bind_jit(like, self.jaxpr, args, self.name, self.in_like, self.out_like)


class Linearization:
    """A function's evaluation with the residuals of its tape, and the tape's pulls and pushes, each traced once.

    ``is_linear``: the active inputs are unknown, and so are the outputs that depend on them.
    ``linearizer(fun, primals, active, is_linear)`` gives the outputs and the tape: by default, the reverse engine.
    """

    def __init__(self, fun: FlatFunction, in_avals: Sequence[ShapedArray], active: tuple[Active, ...], is_linear: bool,
                 wrapper: Wrapper, linearizer: Callable[..., tuple[Sequence[Operand], Tape]] = reverse.linearize):
        self.active = active
        self.is_linear = is_linear
        self.wrapper = wrapper
        self.in_avals = tuple(in_avals)
        self.known = [not (is_linear and flag) for flag in active]
        #: The source of each leaf of the tape, or ("constant", value).
        self.sources: list[tuple[str, Any]] = []
        self.pulls: Masked = {}
        self.pushes: Masked = {}
        #: What loops over the function derive from it: sums of cotangents, values that are the same at all steps.
        self.plans: dict[Hashable, Any] = {}
        self._reached: dict[tuple[bool, ...], tuple[bool, ...]] = {}

        def evaluate(*known: jax.Array) -> list[jax.Array]:
            values = iter(known)
            args = [next(values) if k else Unknown(aval) for k, aval in zip(self.known, in_avals, strict=True)]
            outs, tape = linearizer(fun, args, active, is_linear)
            self.out_avals = tuple([aval_of(x) for x in outs])
            self.known_outs = [type(x) is not Unknown for x in outs]
            self.active_outs = tuple([slot is not None for slot in tape.out_slots])
            self.may_have_poles = any(True for _ in tape.singular_parts())
            leaves, self.treedef = jax.tree_util.tree_flatten(tape)
            self.tape_sources = tape.sources
            new = self._classify(leaves, args, outs)
            return [*(x for x in outs if not isinstance(x, Unknown)), *new]

        known_avals = [aval for aval, k in zip(in_avals, self.known, strict=True) if k]
        jaxpr = stage(evaluate, known_avals)
        #: The sources of the residuals, without constants and duplicates, in the order in which maps keep them.
        self.residual_sources: list[Source] = list(dict.fromkeys((kind, where) for kind, where in self.sources if kind != "constant"))
        in_like = [i for i, k in enumerate(self.known) if k]
        out_like: list[int | None] = [j for j, k in enumerate(self.known_outs) if k]
        n_new = len(jaxpr_out_avals(jaxpr)) - len(out_like)
        self.n_new = n_new
        self.new_avals = jaxpr_out_avals(jaxpr)[len(out_like):]
        self.program = Program(jaxpr, wrapper, wrapper.name, in_like, [*out_like, *[None] * n_new])

    def _classify(self, leaves: Sequence[jax.Array], args: Sequence[Operand], outs: Sequence[Operand]) -> list[jax.Array]:
        """Fill ``sources``, and return the new residuals: leaves that are no input, output, constant or duplicate."""
        seen: dict[int, Source] = {}
        # In a linear program, the branches of a conditional may differ in which outputs are known.
        for kind, values in (("in", args), ("out", () if self.is_linear else outs)):
            for i, x in enumerate(values):
                if isinstance(x, Tracer):
                    seen.setdefault(id(x), (kind, i))
        new: list[jax.Array] = []
        for leaf in leaves:
            if not isinstance(leaf, Tracer):
                self.sources.append(("constant", leaf))
            else:
                if id(leaf) not in seen:
                    seen[id(leaf)] = ("new", len(new))
                    new.append(leaf)
                self.sources.append(seen[id(leaf)])
        return new

    def residual_avals(self) -> list[ShapedArray]:
        pools = {"in": self.in_avals, "out": self.out_avals, "new": self.new_avals}
        return [pools[kind][where] for kind, where in self.residual_sources]

    def evaluate(self, known: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        """``(known outputs, new residuals)`` from the known inputs."""
        results = self.program(known)
        split = len(results) - self.n_new
        return results[:split], results[split:]

    def all_outs(self, known_outs: Sequence[jax.Array]) -> list[Operand]:
        """All outputs, from those that are known."""
        if not self.is_linear:
            return list(known_outs)
        values = iter(known_outs)
        return [next(values) if k else Unknown(a) for k, a in zip(self.known_outs, self.out_avals, strict=True)]

    def __call__(self, primals: Sequence[Operand]) -> tuple[Sequence[Operand], StagedMap, tuple[bool, ...]]:
        """Outputs, linear map and active outputs."""
        if self.is_linear:
            known_outs, new = self.evaluate([x for x, k in zip(primals, self.known, strict=True) if k])  # type: ignore[misc]
            outs: Sequence[Operand] = self.all_outs(known_outs)
        else:
            results = self.program(primals)  # type: ignore[arg-type]
            split = len(results) - self.n_new
            outs, new = results[:split], results[split:]
        pools: dict[str, Sequence[Any]] = {"in": primals, "out": outs, "new": new}
        residuals = [pools[kind][where] for kind, where in self.residual_sources]
        return outs, StagedMap(self, residuals), self.active_outs

    def tape(self, residuals: Sequence[jax.Array | None]) -> Tape:
        """The tape with these residuals."""
        found = dict(zip(self.residual_sources, residuals, strict=True))
        leaves = [x if kind == "constant" else found[(kind, x)] for kind, x in self.sources]
        tape: Tape = jax.tree_util.tree_unflatten(self.treedef, leaves)
        tape.sources = self.tape_sources
        return tape

    def example(self) -> Tape:
        """The tape with None for its residuals: its structure."""
        return self.tape([None] * len(self.residual_sources))

    def reached(self, cotangents: Sequence[bool]) -> tuple[bool, ...]:
        """Which results of a pull may be nonzero, given which cotangents are; without tracing the pull."""
        mask = tuple(cotangents)
        if mask not in self._reached:
            self._reached[mask] = tuple(self.example().reached(mask, sum(map(bool, self.active))))
        return self._reached[mask]

    def _applying(self, direction: str, mask: tuple[bool, ...]) -> tuple[Program, tuple[bool, ...]]:
        """The program of a pull (push) where the cotangents (tangents) in ``mask`` are nonzero, and which results are nonzero."""
        cache = self.pulls if direction == "pull" else self.pushes
        if mask in cache:
            return cache[mask]
        if direction == "pull":
            avals = [self._vector_aval(a) for a, m in zip(self.out_avals, mask, strict=True) if m]
        else:
            active_avals = [a for a, flag in zip(self.in_avals, self.active, strict=True) if flag]
            avals = [self._vector_aval(a) for a, m in zip(active_avals, mask, strict=True) if m]
        residual_avals = self.residual_avals()
        which: list[bool] = []

        def apply(*flat: jax.Array) -> list[jax.Array]:
            tape = self.tape(flat[: len(residual_avals)])
            values = iter(flat[len(residual_avals):])
            results = getattr(tape, direction)(*[next(values) if m else None for m in mask])
            which[:] = [r is not None for r in results]
            return [r for r in results if r is not None]

        jaxpr = stage(apply, [*residual_avals, *avals])
        name = f"{direction}_{self.wrapper.name}"
        n_out = len(jaxpr_out_avals(jaxpr))
        program = Program(jaxpr, self.wrapper, name, [None] * (len(residual_avals) + len(avals)), [None] * n_out)
        cache[mask] = (program, tuple(which))
        return cache[mask]

    def _vector_aval(self, aval: ShapedArray) -> ShapedArray:
        # The vectors of a linear program over the integers are integers.
        return aval if self.is_linear and not is_differentiable(aval) else tangent_aval(aval)

    def apply(self, direction: str, residuals: Sequence[jax.Array], vectors: Tangents) -> Tangents:
        """A push of tangents or a pull of cotangents, with these residuals."""
        mask = tuple(map(is_not, vectors, repeat(None)))
        found = (self.pulls if direction == "pull" else self.pushes).get(mask)
        program, which = self._applying(direction, mask) if found is None else found
        results = program([*residuals, *(vectors if all(mask) else compress(vectors, mask))])
        if all(which):
            return tuple(results)
        values = iter(results)
        return tuple([next(values) if w else None for w in which])

    def program_of(self, direction: str, mask: Sequence[bool]) -> Program:
        """The program of a pull or push: it takes residuals, then nonzero cotangents or tangents."""
        return self._applying(direction, tuple(mask))[0]

    def results_of(self, direction: str, mask: Sequence[bool]) -> tuple[bool, ...]:
        """Which results of a pull or push are not the symbolic zero."""
        return self._applying(direction, tuple(mask))[1]


class StagedMap(LinearMap):
    """The linear map of a staged function at one point: its residuals, and the linearization that reads them."""

    __slots__ = ("linearization", "residuals")

    def __init__(self, linearization: Linearization, residuals: Sequence[jax.Array]):
        self.linearization = linearization
        self.residuals = residuals

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.linearization.wrapper.name

    def inner_maps(self) -> list[LinearMap]:
        return [self.linearization.example()]

    def tape(self) -> Tape:
        return self.linearization.tape(self.residuals)

    def singular_parts(self) -> Iterator[LinearMap]:
        return self.tape().singular_parts()

    def unstaged(self) -> Tape:
        return self.tape()

    def push(self, *tangents: Tangent) -> Tangents:
        return self.linearization.apply("push", self.residuals, tangents)

    def pull(self, *cotangents: Tangent) -> Tangents:
        return self.linearization.apply("pull", self.residuals, cotangents)

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        return self.linearization.reached(cotangents)


jax.tree_util.register_pytree_node(
    StagedMap, lambda m: (m.residuals, m.linearization), lambda linearization, r: StagedMap(linearization, r)
)


def may_refuse(jaxpr: ClosedJaxpr | Jaxpr) -> bool:
    """Whether the row of an operation of the program, or of a program that it calls, refuses some values."""
    for eqn in jaxpr.eqns:
        row, inner = rows.get(eqn.primitive), eqn.params.get("jaxpr")
        if (row is not None and row.may_refuse) or (inner is not None and may_refuse(getattr(inner, "jaxpr", inner))):
            return True
    return False


class Pushforward:
    """A function under a forward mode: one program for values and parts.

    ``structure`` is the static structure of the parts of the inputs (:meth:`~dualrev.table.mode.Mode.flatten`): for tangents, which
    are nonzero.
    """

    def __init__(self, fun: FlatFunction, in_avals: Sequence[ShapedArray], structure: Hashable, wrapper: Wrapper,
                 mode: Mode = TANGENTS):
        self.mode = mode
        n_in = len(in_avals)

        def push(*flat: jax.Array) -> list[jax.Array]:
            outs, parts_out = evaluate(mode, fun, flat[:n_in], mode.unflatten(structure, flat[n_in:]))
            self.active_outs = tuple([p is not None for p in parts_out])
            leaves, self.structure = mode.flatten(parts_out)
            return [*outs, *leaves]

        jaxpr = stage(push, [*in_avals, *mode.avals(structure, in_avals)])
        self.may_refuse = may_refuse(jaxpr)
        self.n_out = len(self.active_outs)
        in_like, out_like = [*range(n_in), *mode.are_like(structure)], [*range(self.n_out), *mode.are_like(self.structure)]
        self.program = Program(jaxpr, wrapper, f"push_{wrapper.name}", in_like, out_like)

    def __call__(self, primals: Sequence[jax.Array], parts: Sequence[Parts]) -> tuple[list[jax.Array], list[Parts]]:
        return self.on(primals, self.mode.flatten(parts)[0])

    def on(self, primals: Sequence[jax.Array], leaves: Sequence[jax.Array]) -> tuple[list[jax.Array], list[Parts]]:
        """Values and parts, from values and the arrays of their parts."""
        args = [*primals, *leaves]
        try:
            results = self.program(args)
        except INVALID_VALUE as error:
            eqn = first_invalid(self.program.jaxpr, args) if is_eager(args) else None
            if eqn is None:
                raise
            line = line_of(eqn.source_info) or user_frame()
            raise errors.invalid_value("pushed tangents through", eqn.primitive, line, error) from error
        return results[: self.n_out], self.mode.unflatten(self.structure, results[self.n_out:])


# ------------------------------------------------------------------------------------------------------------------- cache

#: A program that others are derived from.
Owner: TypeAlias = ClosedJaxpr | Jaxpr

#: For each owner, by key: the other owners, and the value.
_cache: weakref.WeakKeyDictionary[Owner, dict[Hashable, tuple[tuple[weakref.ref[Owner], ...], Any]]] = weakref.WeakKeyDictionary()
_order: deque[tuple[weakref.ref[Owner], Hashable]] = deque()


def cached(owners: Owner | tuple[Owner, ...], key: Hashable, make: Callable[[], T]) -> T:
    """``make()``, kept for as long as the owners live and it is among the newest ``PROGRAMS_KEPT``.

    Neither the key nor the value may refer to an owner, or neither would ever be freed.
    """
    first, *others = owners if isinstance(owners, tuple) else (owners,)
    held = _cache.setdefault(first, {})
    if others:
        key = (key, *map(id, others))
    if (settings := current.get()) is not DEFAULT:
        key = (key, settings)
    found = held.get(key)
    if found is not None:
        references, value = found
        if all(reference() is other for reference, other in zip(references, others, strict=True)):
            return value
    value = make()
    held[key] = (tuple(map(weakref.ref, others)), value)
    _order.append((weakref.ref(first), key))
    if len(_order) > PROGRAMS_KEPT:
        reference, old_key = _order.popleft()
        old_owner = reference()
        if old_owner is not None and old_owner in _cache:
            _cache[old_owner].pop(old_key, None)
    return value


_last_wrapper: weakref.WeakKeyDictionary[ClosedJaxpr, Wrapper] = weakref.WeakKeyDictionary()


def wrapper_of(params: Params) -> Wrapper:
    """The wrapper of a ``jit`` call: that of the latest call of the same jaxpr if it fits, since comparing is cheaper than hashing."""
    found = _last_wrapper.get(params["jaxpr"])
    if found is None or not (found.inline is params["inline"] and found.name == params["name"] if found.like is None
                             else found.fits(params)):
        # Without the jaxpr: a value that is cached for as long as the jaxpr lives must not keep it alive.
        settings = {name: value for name, value in params.items() if name != "jaxpr"}
        found = _last_wrapper[params["jaxpr"]] = Wrapper(params["name"], None if is_inlined(params) else settings)
        found.inline = params["inline"]
    return found


def linearization_of(jaxpr: ClosedJaxpr, active: tuple[Active, ...], is_linear: bool, wrapper: Wrapper) -> Linearization:
    """The linearization of a closed jaxpr, traced once."""
    settings = current.get()
    if (recent := wrapper.recent) is not None:  # most requests repeat the latest one, and comparing is cheaper than hashing
        of, flags, linear, under, held = recent
        if of() is jaxpr and flags == active and linear is is_linear and under is settings and (found := held()) is not None:
            return found
    key = ("linearize", active, is_linear, wrapper)
    made = cached(jaxpr, key, lambda: Linearization(
        jaxpr_as_fun(jaxpr), list(jaxpr.in_avals), active, is_linear, wrapper))
    wrapper.recent = weakref.ref(jaxpr), active, is_linear, settings, weakref.ref(made)
    return made


def pushforward_of(jaxpr: ClosedJaxpr, structure: Hashable, wrapper: Wrapper, mode: Mode = TANGENTS) -> Pushforward:
    """A closed jaxpr under a forward mode, traced once; ``structure`` is that of the parts of its inputs."""
    settings = current.get()
    if (recent := wrapper.recent_push) is not None:
        of, asked, under_mode, under, held = recent
        if (under_mode is mode and of() is jaxpr and asked == structure and under is settings and (found := held()) is not None):
            return found
    made = cached(jaxpr, (mode, structure, wrapper), lambda: Pushforward(
        jaxpr_as_fun(jaxpr), list(jaxpr.in_avals), structure, wrapper, mode))
    wrapper.recent_push = weakref.ref(jaxpr), structure, mode, settings, weakref.ref(made)
    return made
