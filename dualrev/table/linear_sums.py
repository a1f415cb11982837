"""Sums of equal linear operations: ``L(a) + L(b)`` is computed as ``L(a + b)``.

The cotangent of a value that several operations read is a sum.  Where the same linear operation made several of its terms, such as the
reduction of a broadcast's cotangent, one application to the sum of its operands is enough.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable

import numpy as np
from jax import lax

from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal
from dualrev._jax.primitives import Primitive, primitive
from dualrev.programs.partition import Graph
from dualrev.table.rows import Unknown, rows

#: The sums of two values.
ADDS: frozenset[Primitive | None] = frozenset((lax.add_p, primitive("add_any")))

#: A linear operation without the operand that it is applied to, and that operand.
Applied = tuple[Hashable, Var]


def factored(graph: Graph) -> Graph:
    """The program with equal linear operations applied to sums of their operands."""
    uses = Counter(atom for eqn in graph.eqns for atom in eqn.invars if not is_literal(atom))
    uses.update(atom for atom in graph.outvars if not is_literal(atom))
    makers: dict[Var, JaxprEqn] = {}
    applied: dict[Var, Applied | None] = {}
    eqns: list[JaxprEqn] = []

    def write(eqn: JaxprEqn) -> None:
        eqns.append(eqn)
        makers.update((v, eqn) for v in eqn.outvars)

    def application(atom: Atom) -> Applied | None:
        """The linear operation that made a value which nothing else reads."""
        if is_literal(atom) or uses[atom] != 1 or atom not in makers:
            return None
        if atom not in applied:
            applied[atom] = _application(makers[atom])
        return applied[atom]

    def terms(eqn: JaxprEqn) -> list[Atom]:
        """The terms of a sum, through the sums that nothing else reads."""
        found: list[Atom] = []
        pending = list(reversed(eqn.invars))
        while pending:
            atom = pending.pop()
            maker = None if is_literal(atom) or uses[atom] != 1 else makers.get(atom)
            if maker is not None and maker.primitive in ADDS:
                pending.extend(reversed(maker.invars))
            else:
                found.append(atom)
        return found

    def summed(atoms: list[Atom], add: JaxprEqn, out: Var | None = None) -> Atom:
        """The sum of values of one type, with equal linear operations applied once."""
        groups: dict[Hashable, list[Atom]] = {}
        for i, atom in enumerate(atoms):
            found = application(atom)
            groups.setdefault((found[0], found[1].aval) if found else i, []).append(atom)
        results: list[Atom] = []
        for group in groups.values():
            if len(group) == 1:
                results.append(group[0])
                continue
            operands = [application(atom)[1] for atom in group]  # type: ignore[index]  # each has one
            maker = makers[group[0]]  # type: ignore[index]
            operand = summed(list(operands), add)
            uses[operand] += 1  # type: ignore[index]
            result = Var(maker.outvars[0].aval)
            write(maker.replace(invars=[operand if x is operands[0] else x for x in maker.invars], outvars=[result]))
            uses[result] = 1
            results.append(result)
        total, *rest = results
        for k, x in enumerate(rest):
            result = out if out is not None and k == len(rest) - 1 else Var(total.aval)
            write(add.replace(invars=[total, x], outvars=[result]))
            uses[result] = uses[result] if result is out else 1
            total = result
        return total

    #: Sums that only another sum reads: they are written with the whole.
    parts = {atom for eqn in graph.eqns if eqn.primitive in ADDS for atom in eqn.invars if not is_literal(atom) and uses[atom] == 1}
    same: dict[Var, Atom] = {}
    for eqn in graph.eqns:
        if same:
            eqn = eqn.replace(invars=[x if is_literal(x) else same.get(x, x) for x in eqn.invars])
        if eqn.primitive not in ADDS or eqn.outvars[0] in parts:
            write(eqn)
            continue
        (out,) = eqn.outvars
        atoms = terms(eqn)
        keys = Counter(found[0] for atom in atoms if (found := application(atom)))
        if not keys or max(keys.values()) < 2:
            write(eqn)
            continue
        total = summed(atoms, eqn, out)
        if total is not out:
            same[out] = total
            uses[total] += uses[out] - 1  # type: ignore[index]
    outs = [x if is_literal(x) else same.get(x, x) for x in graph.outvars]
    return dataclasses.replace(graph, eqns=eqns, outvars=outs)


def _application(eqn: JaxprEqn) -> Applied | None:
    """An equation as a linear operation on one of its operands: what it is apart from this operand, and the operand."""
    row = rows.get(eqn.primitive)
    if row is None or len(eqn.outvars) != 1 or eqn.effects or eqn.primitive in ADDS:
        return None
    variables = [x for x in eqn.invars if not is_literal(x)]
    if row.kind != "linear" or len(variables) != 1:
        return None
    (operand,) = variables
    # A sum in a narrower dtype would lose digits.
    if operand.aval.dtype != eqn.outvars[0].aval.dtype:  # type: ignore[attr-defined]
        return None
    active = [x is operand for x in eqn.invars]
    row = row.choose([Unknown(x.aval) for x in eqn.invars], active, eqn.params)  # type: ignore[arg-type]  # all are arrays
    if any((i in row.linear_in) != is_active for i, is_active in enumerate(active)):
        return None
    literals = tuple([(str(x.aval), np.asarray(x.val).tobytes()) for x in eqn.invars if is_literal(x)])
    key = (eqn.primitive, tuple(eqn.params.items()), literals, eqn.outvars[0].aval, eqn.ctx)
    try:
        hash(key)
    except TypeError:  # a parameter cannot be hashed
        return None
    return key, operand
