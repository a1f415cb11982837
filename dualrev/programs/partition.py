"""Splitting a traced program in two: what is evaluated once, and what is evaluated again when its results are needed.

Some results of a program are needed only later.  The *saved* values cut its graph: the first part computes them together with the
results that are needed at once, the second computes the other results from them and from the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax

from dualrev._jax.calls import has_explicit_layout, jit_p
from dualrev._jax.checkpoints import name_p, remat_p
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, DebugInfo, Jaxpr, JaxprEqn, Var, is_literal
from dualrev._jax.library_functions import library_function
from dualrev._jax.references import uses_references
from dualrev.programs.jaxprs import behind


@dataclass(frozen=True)
class Graph:
    """The equations of a program, with those of its calls inlined."""

    invars: Sequence[Var]
    outvars: Sequence[Atom]
    eqns: list[JaxprEqn]
    consts: dict[Var, jax.Array]
    debug_info: DebugInfo

    def computing(self, outvars: Sequence[Atom]) -> ClosedJaxpr:
        """A closed jaxpr that computes these of the graph's values, and does what has an effect, but nothing more."""
        return self.program(behind(self.eqns, outvars, has_effects=True), self.invars, outvars)

    def program(self, eqns: Sequence[JaxprEqn], invars: Sequence[Var], outvars: Sequence[Atom]) -> ClosedJaxpr:
        """A closed jaxpr of some of the equations, which read nothing but ``invars``, one another and constants."""
        read = {atom for eqn in eqns for atom in eqn.invars if not is_literal(atom)} | {v for v in outvars if not is_literal(v)}
        constvars = [v for v in self.consts if v in read]
        effects = frozenset().union(*[eqn.effects for eqn in eqns])
        info = self.debug_info._replace(arg_names=None, result_paths=None)
        body = Jaxpr(constvars, list(invars), list(outvars), list(eqns), effects, info)
        return ClosedJaxpr(body, [self.consts[v] for v in constvars])


def _called(eqn: JaxprEqn, checkpoints: bool) -> ClosedJaxpr | Jaxpr | None:
    """The program of a call that may be inlined: one without settings or a barrier of its own."""
    if eqn.primitive is jit_p:
        is_whole = has_explicit_layout(eqn.params) or library_function(eqn.params) is not None
        return None if is_whole else eqn.params["jaxpr"]
    if checkpoints and eqn.primitive is remat_p:
        return None if eqn.params["differentiated"] else eqn.params["jaxpr"]
    return None


def graph_of(jaxpr: ClosedJaxpr, checkpoints: bool = True) -> Graph:
    """The equations of a closed jaxpr, with those of the ``jit`` calls in it and, if it is asked for, of the ``checkpoint`` calls."""
    body = jaxpr.jaxpr
    consts = dict(zip(body.constvars, jaxpr.consts, strict=True))
    eqns: list[JaxprEqn] = []

    def splice(body: Jaxpr, env: dict[Var, Atom], is_call: bool) -> list[Atom]:
        def now(atom: Atom) -> Atom:
            return atom if is_literal(atom) else env.get(atom, atom)

        for eqn in body.eqns:
            invars = [now(atom) for atom in eqn.invars]
            inner = _called(eqn, checkpoints)
            if inner is not None:
                open_jaxpr: Jaxpr = getattr(inner, "jaxpr", inner)  # type: ignore[arg-type]
                held = {v: Var(v.aval) for v in open_jaxpr.constvars}
                consts.update(zip(held.values(), getattr(inner, "consts", ()), strict=True))
                outs = splice(open_jaxpr, {**held, **dict(zip(open_jaxpr.invars, invars, strict=True))}, True)
                env.update(zip(eqn.outvars, outs, strict=True))
                continue
            if is_call:  # the same program may be called twice
                env.update((v, Var(v.aval)) for v in eqn.outvars)
            eqns.append(eqn.replace(invars=invars, outvars=[now(v) for v in eqn.outvars]))  # type: ignore[misc]
        return [now(atom) for atom in body.outvars]

    outvars = splice(body, {}, False)
    return Graph(list(body.invars), outvars, eqns, consts, body.debug_info)


def graph_with_calls(jaxpr: ClosedJaxpr) -> Graph:
    """The equations of a closed jaxpr, calls among them."""
    body = jaxpr.jaxpr
    return Graph(list(body.invars), list(body.outvars), list(body.eqns), dict(zip(body.constvars, jaxpr.consts, strict=True)),
                 body.debug_info)


#: The values to save, given a graph and the values that are wanted later; inputs and constants need no saving.
Choice: TypeAlias = Callable[[Graph, set[Var]], set[Var]]


def eqns_within(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[JaxprEqn]:
    """The equations of a jaxpr and of every program that they hold."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        yield from held_eqns(eqn)


def held_eqns(eqn: JaxprEqn) -> Iterator[JaxprEqn]:
    """The equations of the programs that an equation holds."""
    for value in eqn.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from eqns_within(inner)


def chosen_by(saves: Callable[[JaxprEqn], bool]) -> Choice:
    """Save the results of each equation of which ``saves(eqn)`` holds, where anything reads them."""
    def choose(graph: Graph, wanted: set[Var]) -> set[Var]:
        saved: set[Var] = set()
        needed = set(wanted)
        for eqn in reversed(graph.eqns):
            read = [v for v in eqn.outvars if v in needed]
            if read and (eqn.effects or saves(eqn)):
                saved.update(read)
            elif read:
                needed.update(atom for atom in eqn.invars if not is_literal(atom))
        # Naming a value again costs nothing.
        return saved - {v for eqn in graph.eqns if eqn.primitive is name_p and eqn.invars[0] in saved for v in eqn.outvars}

    return choose


@dataclass(frozen=True)
class Partition:
    """The two parts of a program.

    ``first`` computes the results wanted at once and then the saved values that are none of them.  What is held in between is
    ``("in", i)``, an input; ``("out", j)``, a result; or ``("saved", k)``.  ``second`` computes from those that it ``reads`` what is
    not held, and ``where`` says for each value wanted later which it is: ``("held", i)`` or ``("again", j)``.
    """

    first: ClosedJaxpr
    second: ClosedJaxpr
    held: list[tuple[str, int]]
    reads: list[int]
    where: list[tuple[str, int]]
    #: The equation that each saved value comes from.
    makers: list[JaxprEqn]


def partition(graph: Graph, n_out: int, later: Sequence[Atom], choose: Choice, observers: bool = True) -> Partition:
    """Split a program whose first ``n_out`` results are wanted at once, and the atoms ``later`` afterwards.

    ``observers``: whether the second part repeats the equations that only observe a value, such as a print.  What is read from a
    mutable reference is saved, whatever ``choose`` says: the reference may hold something else by the time of the second part.
    """
    outs = graph.outvars[:n_out]
    given = {*graph.invars, *graph.consts}
    wanted = {atom for atom in later if not is_literal(atom)}
    saved = choose(graph, wanted) - given
    saved |= _read_from_references(behind(graph.eqns, wanted, given | saved))

    again = behind(graph.eqns, wanted, given | saved)
    read = {atom for eqn in again for atom in eqn.invars if not is_literal(atom)}
    maker = {v: eqn for eqn in graph.eqns for v in eqn.outvars}
    held_vars = [v for v in (*graph.invars, *(v for v in maker if v in saved)) if v in read or v in wanted]
    if observers:
        again = _with_observers(graph, again, {*held_vars, *graph.consts}, choose)

    read = {atom for eqn in again for atom in eqn.invars if not is_literal(atom)}
    held_at = {v: i for i, v in enumerate(held_vars)}
    in_at = {v: i for i, v in enumerate(graph.invars)}
    out_at = {v: j for j, v in reversed(list(enumerate(outs))) if not is_literal(v)}
    extra = [v for v in held_vars if v not in in_at and v not in out_at]
    extra_at = {v: k for k, v in enumerate(extra)}
    held = [("in", in_at[v]) if v in in_at else ("out", out_at[v]) if v in out_at else ("saved", extra_at[v]) for v in held_vars]
    reads = [i for i, v in enumerate(held_vars) if v in read]

    computed = list(dict.fromkeys(atom if not is_literal(atom) else id(atom) for atom in later
                                  if is_literal(atom) or atom not in held_at))
    atoms = {atom if not is_literal(atom) else id(atom): atom for atom in later}
    at = {key: j for j, key in enumerate(computed)}
    where = [("held", held_at[atom]) if not is_literal(atom) and atom in held_at
             else ("again", at[id(atom) if is_literal(atom) else atom]) for atom in later]
    second = graph.program(again, [held_vars[i] for i in reads], [atoms[key] for key in computed])
    return Partition(graph.computing([*outs, *extra]), second, held, reads, where, [maker[v] for v in extra])


def _read_from_references(eqns: Sequence[JaxprEqn]) -> set[Var]:
    """The results of the equations that read or write mutable references."""
    return {v for eqn in eqns if uses_references(eqn) for v in eqn.outvars}


def _with_observers(graph: Graph, eqns: Sequence[JaxprEqn], known: set[Var], choose: Choice) -> list[JaxprEqn]:
    """The equations, and those that only observe a value which can be computed again from what is held.

    As in jax, a print prints again.
    """
    kept = {id(eqn) for eqn in eqns}
    for observer in graph.eqns:
        seen = {atom for atom in observer.invars if not is_literal(atom)}
        if not observer.effects or observer.outvars or uses_references(observer) or not choose(graph, seen) <= known:
            continue
        closure = [*behind(graph.eqns, seen, known), observer]
        read = {atom for eqn in closure for atom in eqn.invars if not is_literal(atom)} - known
        if not read.intersection(graph.invars):
            kept.update(map(id, closure))
    return [eqn for eqn in graph.eqns if id(eqn) in kept]
