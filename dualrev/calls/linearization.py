"""The derivative of a whole program as a program: evaluated with residuals, pulled and pushed, each traced once and reused.

A :class:`Linearization` is the program that evaluates a function and computes the residuals of its tape, with the pulls and pushes that
read them; a :class:`StagedMap` is its linear map at one point.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import compress, repeat
from operator import is_not
from typing import Any, TypeAlias

import jax

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_differentiable, tangent_aval
from dualrev._jax.jaxprs import ClosedJaxpr, FlatFunction, jaxpr_as_fun, jaxpr_out_avals, stage
from dualrev._jax.sharding import as_cotangent
from dualrev._jax.source_lines import at_no_line
from dualrev._jax.traces import Tracer
from dualrev.calls.derived_programs import Program, Wrapper, cached, setting_apart
from dualrev.calls.entry_by_entry import entries_together
from dualrev.engines import reverse
from dualrev.linear.maps import LinearMap, Tangents, Tape
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, current
from dualrev.programs.common_subexpressions import merged, merged_graph
from dualrev.programs.entries.single_windows import with_slices
from dualrev.programs.partition import graph_with_calls
from dualrev.table.linear_sums import factored
from dualrev.table.rows import Operand, Unknown, aval_of

#: Where a residual comes from: ("in", i), ("out", j) or ("new", k).
Source: TypeAlias = tuple[str, int]

#: For each mask of nonzero vectors, the program of a push or pull, and which of its results are nonzero.
Masked: TypeAlias = dict[tuple[bool, ...], tuple["Program", tuple[bool, ...]]]


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
            avals = [as_cotangent(self._vector_aval(a)) for a, m in zip(self.out_avals, mask, strict=True) if m]
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

        with at_no_line():
            jaxpr = stage(apply, [*residual_avals, *avals])
        if direction == "pull":
            jaxpr = simplified(jaxpr)
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


def refuse_splitting(linearization: Linearization, what: str) -> None:
    """Raise OptionError where repeated eigenvalues are to be split inside a program that runs as one operation."""
    if linearization.may_have_poles and current.get().split_repeated:
        raise errors.not_honoured(
            "split_repeated=True", what, "eigenvectors or singular vectors in it are differentiated within it, and what is computed "
            "from them outside does not know that they are split", "Leave split_repeated out, which is right where no eigenvalue is "
            "repeated and where eigenvalues alone are used; or write the steps out in Python.")


def simplified(jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    """A pull in which equal operations run once, and equal linear operations once on the sum of their operands."""
    graph = factored(merged_graph(graph_with_calls(jaxpr)))
    return graph.computing(graph.outvars)


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


def linearization_of(jaxpr: ClosedJaxpr, active: tuple[Active, ...], is_linear: bool, wrapper: Wrapper,
                     is_step: bool = False) -> Linearization:
    """The linearization of a closed jaxpr, traced once.

    ``is_step``: it is a step of a loop, which may become one kernel: operations on entries are then not computed together.
    """
    settings = current.get()
    # Most requests repeat the latest one, and comparing is cheaper than hashing.
    if (recent := wrapper.recent) is not None and setting_apart.get() is None:
        of, flags, linear, under, held = recent
        if of() is jaxpr and flags == active and linear is is_linear and under is settings and (found := held()) is not None:
            return found
    key = ("linearize", active, is_linear, is_step, wrapper)
    prepared = with_slices if is_step else entries_together
    made = cached(jaxpr, key, lambda: Linearization(
        jaxpr_as_fun(prepared(merged(jaxpr))), list(jaxpr.in_avals), active, is_linear, wrapper))
    wrapper.recent = weakref.ref(jaxpr), active, is_linear, settings, weakref.ref(made)
    return made


