"""Propagation: the nodes of each value of a program, equation by equation, from what rows say of their operations.

=============  ======================================================================================================================
kind of row    the nodes of a result
=============  ======================================================================================================================
``zero``       none
``diagonal``   the union of the operands', entry by entry, but for entries where a partial derivative is known to be zero
``linear``     where the operation reads each entry from (:mod:`dualrev.sparse.structures`); the predicate of a selection adds none
``product``    those of both operands; where one is known, its zeros are read
``program``    those of the program that gives ``J·v``, from the nodes of the operands for those of the tangents
``call``       those of the program that it holds (:mod:`dualrev.sparse.calls`)
=============  ======================================================================================================================

Nodes of second derivatives: an operation that is nonlinear in operands makes their entries interact
(:meth:`~dualrev.sparse.graph.Graph.clique`, :meth:`~dualrev.sparse.graph.Graph.pair`).  A program for ``J·v`` is linear in ``v``, and
the derivative of ``J(x) v`` with respect to ``x`` is the second derivative; so its operands and their tangents both have nodes there.

Where nothing better is known every entry of a result depends on every entry of the operands.  This is sound, and it is reported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax
import numpy as np

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_differentiable, is_reference, tangent_aval
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, JaxprEqn, is_literal, stage
from dualrev._jax.primitives import Primitive
from dualrev.engines.forward import push_through
from dualrev.programs.jaxprs import behind
from dualrev.sparse import alternatives, calls, elementwise, loops, ranges
from dualrev.sparse.graph import Graph, Nodes
from dualrev.sparse.structural_zeros import zero_entries
from dualrev.sparse.structures import STRUCTURES, moved
from dualrev.sparse.values import Later, Value, constant
from dualrev.table.exclusions import BY_ENGINES
from dualrev.table.rows import Row, Unknown, row_of


class Propagation:
    """The evaluation of programs on values with nodes.

    ``is_local``: the numbers of the inputs are known, and hold for the pattern that is wanted.
    """

    def __init__(self, graph: Graph, is_local: bool = False):
        self.graph = graph
        self.is_local = is_local
        #: Where exactness was lost: the operation and why, and how often.
        self.lost: Counter[str] = Counter()
        self._pushed: list[Primitive] = []
        #: How many more equations steps of loops may evaluate one by one.
        self.remaining = loops.EQUATIONS

    # ------------------------------------------------------------------------------------------------------------- programs

    def run(self, program: ClosedJaxpr, args: Sequence[Value]) -> list[Value]:
        """The outputs of a program."""
        body = getattr(program, "jaxpr", program)
        env: dict[Atom, Value] = dict(zip(body.invars, args, strict=True))
        for var, x in zip(body.constvars, getattr(program, "consts", ()), strict=True):
            env[var] = constant(x, var.aval)

        def read(atom: Atom) -> Value:
            return constant(atom.val, atom.aval) if is_literal(atom) else env[atom]  # type: ignore[arg-type]

        for eqn in behind(body.eqns, body.outvars):
            env.update(zip(eqn.outvars, self.operate(eqn, [read(x) for x in eqn.invars]), strict=True))
        return [read(x) for x in body.outvars]

    def operate(self, eqn: JaxprEqn, operands: Sequence[Value]) -> list[Value]:
        """The results of one equation."""
        outs = [Value(v.aval) for v in eqn.outvars]  # type: ignore[arg-type]  # all are arrays
        if str(eqn.primitive) == "jit" and ranges.may_tell(operands):
            return self.run(eqn.params["jaxpr"], operands)
        if all(x.is_known for x in operands) and not eqn.effects:
            later = Later(eqn, operands)
            for i, out in enumerate(outs):
                out.number = (later, i)
        else:
            followed = alternatives.followed(eqn, operands)
            for i, out in enumerate(outs):
                out.alternatives = followed[i] if followed else alternatives.chosen(eqn)
            outs[0].range = ranges.found_range(eqn, operands) if len(outs) == 1 else None
            if (number := ranges.decided(outs[0].range if outs else None, outs[0].aval.dtype)) is not None:
                outs[0].number = number
        if any(x.nodes is not None for x in operands):
            found = self._united(eqn, operands) or self._nodes(eqn, operands)
            for i, (out, new) in enumerate(zip(outs, found, strict=True)):
                if isinstance(new, Value):
                    outs[i] = new
                elif is_differentiable(out.aval) and new is not None and new.any():
                    out.nodes = new
                    out.zero = zero_entries(eqn, operands)
        return outs

    def _united(self, eqn: JaxprEqn, operands: Sequence[Value]) -> list[Nodes | None] | None:
        """The nodes of the results of an operation at places that follow from a choice: those for any number that it can have."""
        if str(eqn.primitive) not in STRUCTURES or alternatives.source_of(operands) is None:
            return None
        each = [self._nodes(eqn, case) for case in alternatives.fixed(operands)]
        united: list[Nodes | None] = []
        for found in zip(*each, strict=True):
            if any(isinstance(x, Value) for x in found):
                return None
            united.append(self.graph.union(*found))
        return united

    def _nodes(self, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | Value | None]:
        primitive, params = eqn.primitive, eqn.params
        name = str(primitive)
        if any(map(is_reference, [*[x.aval for x in operands], *[v.aval for v in eqn.outvars]])):
            raise errors.reference_not_followed(primitive)
        if name in BY_ENGINES:
            inner = calls.plain_program(eqn)
            return self.run(inner, operands) if inner is not None else self.pushed(eqn, operands)
        active = [x.nodes is not None for x in operands]
        row = row_of(primitive, "sparsity")
        if row.chooses:
            row = row.choose([Unknown(x.aval) for x in operands], active, params)
        ways = ways_of(row, name)
        for way in ways:
            found = self._by(way, row, eqn, operands)
            if found is not None:
                return found
        raise AssertionError(f"no way of {ways} gave the nodes of {name}")

    def _by(self, way: Way, row: Row, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | Value | None] | None:
        """The nodes of the results in one way; None if it does not apply to these operands."""
        name = str(eqn.primitive)
        match way:
            case "none":
                return [None] * len(eqn.outvars)
            case "places" if name in STRUCTURES:
                found = STRUCTURES[name](self, eqn, operands)
                return found if found is None or isinstance(found, list) else [found]
            case "places":
                return self._linear(row, eqn, operands)
            case "entries":
                shape = eqn.outvars[0].aval.shape  # type: ignore[attr-defined]  # an array
                return [elementwise.nodes(self, row, eqn.params, operands, shape)]
            case "program" if name in calls.CALLS:
                return calls.CALLS[name](self, eqn, operands)
            case "program":
                program = calls.held_program(row, eqn, operands)
                return None if program is None else self.run(program, operands)
            case "push":
                return self.pushed(eqn, operands)
        return self.dense(eqn, operands, "which entries it reads is not known")

    def _linear(self, row: Row, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | None] | None:
        shapes = [v.aval.shape for v in eqn.outvars]  # type: ignore[attr-defined]
        if row.form == "alongside" and shapes == [x.aval.shape for x in operands]:
            return [x.nodes for x in operands]
        if _is_collective(row) and [math.prod(s) for s in shapes] == [x.aval.size for x in operands]:
            return [None if x.nodes is None else x.nodes.reshape(s) for x, s in zip(operands, shapes, strict=True)]
        if row.cost == "entrywise" and len(shapes) == 1:
            return [self.graph.union(*[spread(x.nodes, shapes[0]) for x in operands])]
        return moved(eqn, operands) if row.cost == "moves" else None

    # ------------------------------------------------------------------------------------------------------------ fallbacks

    def pushed(self, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | Value | None]:
        """By the program of the operation's push: ``J·v``, with the nodes of the operands for those of ``v``."""
        depth = self._pushed.count(eqn.primitive)
        if depth > 1:
            return self.dense(eqn, operands, "its derivative refers to itself")
        active = [x.nodes is not None and is_differentiable(x.aval) for x in operands]
        try:
            program, which = push_program(eqn, [x.aval for x in operands], active)
        except errors.NonLinearError:
            if eqn.primitive.name not in BY_ENGINES:
                raise
            return self.dense(eqn, operands, "the rule of the user gives no push")  # which has a pull all the same
        tangents = [Value(tangent_aval(x.aval), x.nodes) for x, flag in zip(operands, active, strict=True) if flag]
        # A push that reads the operation's own result evaluates the operation, for whose pattern operands are residuals without nodes.
        with_second = self.graph.second and not depth
        primals = [Value(x.aval, x.nodes, x.number if self.is_local else None, x.zero) if with_second and x.nodes is not None
                   else self.residual(x) for x in operands]
        self._pushed.append(eqn.primitive)
        try:
            found = iter(self.run(program, [*primals, *tangents]))
        finally:
            self._pushed.pop()
        nodes = [next(found).nodes if flag else None for flag in which]
        return nodes if with_second else [self.graph.clique(p) for p in nodes]

    def residual(self, x: Value) -> Value:
        """An operand as a residual of a linear program.

        The number of an active operand is known at one point only; a second derivative does not vanish where a first one does.
        """
        return Value(x.aval, None, x.number if x.nodes is None or (self.is_local and not self.graph.second) else None, x.zero)

    def dense(self, eqn: JaxprEqn, operands: Sequence[Value], why: str) -> list[Nodes | None]:
        """All entries of the operands, for each entry of the results."""
        self.lost[f"{eqn.primitive}: {why}"] += 1
        every = self.graph.union_rows(np.concatenate([x.nodes.ravel() for x in operands if x.nodes is not None])[None])
        every = self.graph.clique(every)[0]  # type: ignore[index]  # there is an active operand
        return [np.broadcast_to(every, v.aval.shape) for v in eqn.outvars]  # type: ignore[attr-defined]


#: How the nodes of an operation's results are found: there are none; entry by entry; by the places that it reads; by the program that
#: it holds or stands for; by its push; all entries of all operands.
Way: TypeAlias = Literal["none", "entries", "places", "program", "push", "all entries"]


def ways_of(row: Row, name: str) -> tuple[Way, ...]:
    """The ways to find the nodes of an operation's results, in the order in which they are tried."""
    if row.kind == "zero":
        return ("none",)
    first: tuple[Way, ...] = ("places",) if name in STRUCTURES else ()
    if row.is_diagonal or (row.kind == "product" and row.cost == "entrywise"):
        return (*first, "entries")
    if name in calls.CALLS or calls.holds_program(row):
        first = (*first, "program")
        if row.kind == "call":
            return first
    if row.kind == "linear" and name not in STRUCTURES and (row.form == "alongside" or row.cost in ("entrywise", "moves")
                                                            or _is_collective(row)):
        first = (*first, "places")
    return (*first, "push") if row.kind in ("program", "call") else (*first, "all entries")


def _is_collective(row: Row) -> bool:
    """Whether an operation combines devices.  Programs are followed on one device only, where each is the identity."""
    return row.where.startswith("rules/collective.py")


def spread(nodes: Nodes | None, shape: tuple[int, ...]) -> Nodes | None:
    """Nodes broadcast to a shape as elementwise operations do."""
    return nodes if nodes is None or nodes.shape == shape else np.broadcast_to(nodes, shape)


def push_program(eqn: JaxprEqn, avals: Sequence[ShapedArray], active: Sequence[bool]) -> tuple[ClosedJaxpr, list[bool]]:
    """The program ``(operands, tangents of active ones) -> tangents of the results that have one``, and which have."""
    which: list[bool] = []

    def program(*flat: jax.Array) -> list[jax.Array]:
        primals, given = flat[: len(avals)], iter(flat[len(avals):])
        tangents = [next(given) if flag else None for flag in active]

        def operation(*xs: jax.Array) -> list[jax.Array]:
            outs = eqn.primitive.bind(*xs, **eqn.primitive.get_bind_params(eqn.params))
            return list(outs) if eqn.primitive.multiple_results else [outs]

        _, found = push_through(operation, primals, tangents)
        which[:] = [t is not None for t in found]
        return [t for t in found if t is not None]

    staged = stage(program, [*avals, *[tangent_aval(a) for a, flag in zip(avals, active, strict=True) if flag]])
    return staged, which

