"""A whole program under a mode that goes forward, traced once and reused: values and parts in one program."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence

import jax

from dualrev import errors
from dualrev._jax.avals import ShapedArray
from dualrev._jax.invalid_values import INVALID_VALUE
from dualrev._jax.jaxprs import ClosedJaxpr, FlatFunction, Jaxpr, jaxpr_as_fun, stage
from dualrev._jax.source_lines import line_of, user_frame
from dualrev._jax.traces import is_eager
from dualrev.calls.derived_programs import Program, Wrapper, cached, setting_apart
from dualrev.engines.forward import TANGENTS
from dualrev.engines.parts import evaluate
from dualrev.options.settings import current
from dualrev.programs.common_subexpressions import merged
from dualrev.programs.jaxprs import first_invalid
from dualrev.table.mode import Mode, Parts
from dualrev.table.rows import rows


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
        self.out_avals = list(jaxpr.out_avals[: self.n_out])
        in_like, out_like = [*range(n_in), *mode.are_like(structure)], [*range(self.n_out), *mode.are_like(self.structure)]
        self.program = Program(jaxpr, wrapper, f"push_{wrapper.name}", in_like, out_like)

    def __call__(self, primals: Sequence[jax.Array], parts: Sequence[Parts]) -> tuple[list[jax.Array], list[Parts]]:
        return self.on(primals, self.mode.flatten(parts)[0])

    def parts_out(self) -> list[Parts]:
        """The parts of the results, abstract."""
        return self.mode.unflatten(self.structure, self.mode.avals(self.structure, self.out_avals))  # type: ignore[arg-type]  # abstract

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


def common_parts(mode: Mode, several: Sequence[Parts], aval: ShapedArray) -> Parts:
    """Abstract parts of a structure that can hold each of these; None if there are none."""
    found = [p for p in several if p is not None]
    return mode.common(found, aval) if found else None


def carried_parts(mode: Mode, derive: Callable[[list[Parts]], Pushforward], init: Sequence[Parts],
                  avals: Sequence[ShapedArray]) -> tuple[Pushforward, list[Parts]]:
    """The push of the body of a loop, and the abstract parts of its carries: a structure that each step returns if it is given it.

    ``derive`` makes the push from the abstract parts of the carries.
    """
    carried = [common_parts(mode, [p], aval) for p, aval in zip(init, avals, strict=True)]
    while True:
        push = derive(carried)
        pairs = zip(carried, push.parts_out(), avals, strict=False)
        found = [common_parts(mode, [before, after], aval) for before, after, aval in pairs]
        if mode.flatten(found)[1] == mode.flatten(carried)[1]:
            return push, carried
        carried = found


def pushforward_of(jaxpr: ClosedJaxpr, structure: Hashable, wrapper: Wrapper, mode: Mode = TANGENTS) -> Pushforward:
    """A closed jaxpr under a forward mode, traced once; ``structure`` is that of the parts of its inputs."""
    settings = current.get()
    if (recent := wrapper.recent_push) is not None and setting_apart.get() is None:
        of, asked, under_mode, under, held = recent
        if (under_mode is mode and of() is jaxpr and asked == structure and under is settings and (found := held()) is not None):
            return found
    made = cached(jaxpr, (mode, structure, wrapper), lambda: Pushforward(
        jaxpr_as_fun(merged(jaxpr)), list(jaxpr.in_avals), structure, wrapper, mode))
    wrapper.recent_push = weakref.ref(jaxpr), structure, mode, settings, weakref.ref(made)
    return made
