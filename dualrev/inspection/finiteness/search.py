"""The search for the operation that made a NaN or an infinity: from the result back, along what is to blame.

At each operation on the way :func:`~dualrev.inspection.finiteness.entries.blamed` tells whether its operands are to blame, or it made
the value itself.  One that holds a program is then taken apart: a call, the branch that was taken, the step of a loop.  A NaN that is
made and thrown away, as in a branch that ``where`` does not choose, is never met.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from dualrev._jax.avals import typeof
from dualrev._jax.calls import cond_p, scan_layout, scan_p, while_p
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, JaxprEqn, is_literal, stage
from dualrev._jax.shard_maps import without_axes
from dualrev._jax.source_lines import scope_of
from dualrev.inspection.finiteness import shards
from dualrev.inspection.finiteness.entries import Entry, Kind, blamed, first_bad, is_bad
from dualrev.inspection.finiteness.evaluated import Evaluated, closed, program_of
from dualrev.inspection.finiteness.loops import Loop
from dualrev.inspection.finiteness.origins import Arrived, Found, Origin, Place


def search(jaxpr: ClosedJaxpr, args: Sequence[jax.Array], result: int, entry: Entry, kind: Kind) -> list[Found]:
    """What a bad entry of a result of a program is due to: numbers that were given first, then operations in the order of running.

    Where infinities made a NaN, what made the infinities is among them.
    """
    evaluated = Evaluated(jaxpr, args)
    found = follow(evaluated, evaluated.outvars[result], entry, kind, Place())
    arrived = [x for x in found if isinstance(x, Arrived)]
    return [*arrived, *sorted((x for x in found if isinstance(x, Origin)), key=lambda x: x.place.order)]


def follow(evaluated: Evaluated, atom: Atom, entry: Entry, kind: Kind, place: Place) -> list[Found]:
    """What a bad entry of a value in a program is due to: operations of the program, and operands that brought it."""
    found: list[Found] = []
    todo: list[tuple[Atom, Entry, Kind]] = [(atom, entry, kind)]
    seen: set[tuple[Atom, Kind]] = set()
    while todo:
        atom, entry, kind = todo.pop()
        if is_literal(atom) or (atom not in evaluated.makers and atom not in evaluated.invars):
            found.append(Origin(None, place.at(-1), kind, 0, entry, evaluated.jaxpr, (), evaluated.value(atom)))
            continue
        if (atom, kind) in seen:
            continue
        seen.add((atom, kind))
        if atom in evaluated.invars:
            found.append(Arrived(evaluated.invars[atom], entry, kind))
            continue
        position, result = evaluated.makers[atom]
        eqn = evaluated.jaxpr.eqns[position]
        here = place.at(position)
        if any(not is_literal(v) and v not in evaluated.values for v in eqn.invars):  # a mutable reference: it has no value to look at
            found.append(Origin(eqn, here, kind, result, entry, evaluated.jaxpr, (), evaluated.value(atom)))
            continue
        view = evaluated.view(eqn, evaluated.operands(eqn), entry, evaluated.value(atom))
        here = here.on(view.shard)
        due = [Arrived(i, at, kind) for i, at in blamed(view.run, view.operands, result, view.entry, kind)]
        if not due:
            inside = enter(view.eqn, view.operands, result, view.entry, kind, here, view.maps)
            if inside is None:
                due = [Arrived(i, at, "inf") for i, at in blamed(view.run, view.operands, result, view.entry, kind, "inf")
                       ] if kind == "nan" else []
                local = entry[len(entry) - view.out.ndim:]
                found.append(Origin(eqn, here, kind, result, local, evaluated.jaxpr, view.shown, view.out, bool(due)))
            else:
                found += [x for x in inside if isinstance(x, Origin)]
                due = [x for x in inside if isinstance(x, Arrived)]
        todo += [(eqn.invars[x.index], (*view.lead, *x.entry), x.kind) for x in due]
    return found


def enter(eqn: JaxprEqn, operands: Sequence[jax.Array], result: int, entry: Entry, kind: Kind, place: Place,
          maps: shards.Maps = ()) -> list[Found] | None:
    """The same within the program that an operation holds; None where it holds none, or what it holds does not tell.

    ``maps``: the ``shard_map`` operations around it, where shards meet in it: operands are stacked then.
    """
    inner = place.inside(eqn)
    if eqn.primitive.name == "shard_map":
        return _on_shards(eqn, operands, result, entry, kind, inner, maps)
    if maps and eqn.primitive in (scan_p, while_p):
        one = shards.as_one_while(eqn, maps) if eqn.primitive is while_p else shards.as_one_loop(eqn, *scan_layout(eqn.params), maps)
        return _within(stage(one, [typeof(x) for x in operands]), operands, range(len(operands)), result, entry, kind, inner)
    if eqn.primitive in (scan_p, while_p):
        return _through_loop(Loop(eqn, operands), result, entry, kind, inner)
    if eqn.primitive is cond_p:
        branches = eqn.params["branches"]
        index = np.asarray(operands[0])[entry[:len(maps)]]
        taken = int(np.clip(int(index), 0, len(branches) - 1))
        return _within(closed(branches[taken]), operands, range(1, len(operands)), result, entry, kind, inner, maps)
    if eqn.primitive.name == "custom_linear_solve":
        lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
        first = lengths.matvec + lengths.vecmat
        places = [*range(first, first + lengths.solve), *range(sum(lengths), len(operands))]
        return _within(closed(jaxprs.solve), operands, places, result, entry, kind, inner, maps)
    program = program_of(eqn)
    return None if program is None else _within(program, operands, range(len(operands)), result, entry, kind, inner, maps)


def _on_shards(eqn: JaxprEqn, operands: Sequence[jax.Array], result: int, entry: Entry, kind: Kind, place: Place,
               maps: shards.Maps) -> list[Found] | None:
    """The same in a program that runs on shards."""
    params = eqn.params
    parts = shards.split(maps, params, operands)
    evaluated = shards.OnShards(closed(without_axes(params["jaxpr"])), parts, (*maps, params))
    atom = evaluated.outvars[result]
    at = shards.shard_of_result(maps, params, params["out_specs"][result], evaluated.value(atom), entry, kind)
    if at is None:
        return None
    found: list[Found] = []
    for x in follow(evaluated, atom, at, kind, place):
        if isinstance(x, Arrived):
            local = parts[x.index].shape[len(maps) + 1:]
            x = Arrived(x.index, shards.entry_of_operand(maps, params, params["in_specs"][x.index], local, x.entry), x.kind)
        found.append(x)
    return found


def _within(program: ClosedJaxpr, operands: Sequence[jax.Array], places: Sequence[int], result: int, entry: Entry, kind: Kind,
            place: Place, maps: shards.Maps = ()) -> list[Found] | None:
    """The same in a program whose operands are those at ``places``; None where it gives another number when it runs by itself."""
    given = [operands[i] for i in places]
    evaluated = shards.OnShards(program, given, maps) if maps else Evaluated(program, given)
    atom = evaluated.outvars[result]
    if not is_bad(evaluated.value(atom), entry, kind):
        return None
    found = follow(evaluated, atom, entry, kind, place)
    return [Arrived(places[x.index], x.entry, x.kind) if isinstance(x, Arrived) else x for x in found]


def _through_loop(loop: Loop, result: int, entry: Entry, kind: Kind, place: Place) -> list[Found] | None:
    """From the step that gave a result back to the steps in which it was made; None where running the steps does not tell."""
    first, end = len(loop.consts), len(loop.consts) + loop.n_state
    if result < loop.n_state:
        step = loop.length - 1
    else:
        step, entry = loop.number(entry[0]), entry[1:]  # numbering is its own inverse
    if step < 0:
        return [Arrived(loop.first_state + result, entry, kind)]
    found: list[Found] = []
    todo = [(step, result, entry, kind)]
    seen: set[tuple[int, int, Kind]] = set()
    while todo:
        step, result, entry, kind = todo.pop()
        if (step, result, kind) in seen:
            continue
        seen.add((step, result, kind))
        inputs = loop.inputs(step, loop.state_before(step))
        out = loop.run(inputs)[result]
        if not is_bad(out, entry, kind):
            now = first_bad(out, kind)
            if now is None:
                return None
            entry = now
        due = [Arrived(i, at, kind) for i, at in blamed(loop.run, inputs, result, entry, kind)]
        if not due:
            inside = _within(loop.body, inputs, range(len(inputs)), result, entry, kind, _at_step(loop, step, inputs, place))
            if inside is None:
                return None
            found += [x for x in inside if isinstance(x, Origin)]
            due = [x for x in inside if isinstance(x, Arrived)]
        found += [Arrived(*loop.operand(x.index, x.entry, step), x.kind) for x in due if not first <= x.index < end]
        for x in [x for x in due if first <= x.index < end][:1]:
            before = loop.last_good(x.index - first, x.kind, step - 1) if step > 0 else -1
            if before >= 0:
                todo.append((before, x.index - first, x.entry, x.kind))
                continue
            start = loop.start[x.index - first]
            at = x.entry if is_bad(start, x.entry, x.kind) else first_bad(start, x.kind)
            if at is None:
                return None
            found.append(Arrived(loop.first_state + x.index - first, at, x.kind))
    return found


def _at_step(loop: Loop, step: int, inputs: Sequence[jax.Array], place: Place) -> Place:
    """The place of a step: its number is that of the user's loop, also where the loop is one of ours over blocks of steps."""
    scopes = {scope_of(eqn.source_info): eqn for eqn in loop.body.eqns}
    if not {"first", "step"} & set(scopes):
        return place.step(step, loop.number(step))
    evaluated = Evaluated(loop.body, inputs)
    # Under vmap there is one number for each example: they are equal, but for those that are done.
    numbers = {name: int(np.max(np.asarray(evaluated.value(eqn.outvars[0])))) for name, eqn in scopes.items() if name}
    return place.block(step, numbers["first"]) if "first" in numbers else place.step(step, numbers["step"])
