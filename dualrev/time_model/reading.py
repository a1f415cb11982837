"""What a fusing compiler sees of a jaxpr: values, and operations by how they fuse; calls in their place, equal operations once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from dualrev._jax.avals import AbstractValue
from dualrev._jax.calls import cond_p, scan_layout, scan_p, while_p
from dualrev._jax.jaxprs import Atom, Jaxpr, JaxprEqn, Var, is_literal
from dualrev._jax.one_kernel import OneKernel
from dualrev.programs.jaxprs import SYMBOLIC_LENGTH
from dualrev.table.rows import rows
from dualrev.time_model.operations import ALIASES, GATHERS, INLINED, JOINS, MOVES_WITHIN, REDUCTIONS, SIMPLE, program_of

if TYPE_CHECKING:
    from dualrev.time_model.kernels import Program

#: Steps that a loop of unknown length is taken to make.
UNKNOWN_STEPS = 100


def shape_of(aval: AbstractValue) -> tuple[int, ...]:
    """The lengths of the axes; a symbol counts as :data:`SYMBOLIC_LENGTH`."""
    return tuple([n if isinstance(n, int) else SYMBOLIC_LENGTH for n in getattr(aval, "shape", ())])


def size_of(aval: AbstractValue) -> int:
    return math.prod(shape_of(aval))


def is_real(aval: AbstractValue) -> bool:
    """Whether an array is of real numbers in single or double precision."""
    return str(getattr(aval, "dtype", "")) in ("float32", "float64")


class Value:
    """An array of the program, under any of its names: a reshaped array is the same value."""

    __slots__ = ("aval", "is_stored", "itemsize", "maker", "size")

    def __init__(self, aval: AbstractValue, maker: Operation | None = None):
        self.aval = aval
        self.size = size_of(aval)
        self.itemsize = int(getattr(getattr(aval, "dtype", None), "itemsize", 8))
        self.maker = maker
        #: Whether it has memory of its own: an input, or what a kernel writes.
        self.is_stored = maker is None

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize


class Operation:
    """An equation; ``kind`` says how it fuses: see :func:`kind_of`."""

    __slots__ = ("carries", "eqn", "held", "ins", "kind", "name", "outs", "stacks", "steps")

    def __init__(self, eqn: JaxprEqn, kind: str, ins: list[Value | None]):
        self.eqn = eqn
        self.name = str(eqn.primitive)
        self.kind = kind
        self.ins = ins
        self.outs: list[Value] = []
        #: The programs of a loop or of branches; of a loop, the number of its steps and of its carries: other results are stacked.
        self.held: list[Program] = []
        self.steps = 1
        self.carries = 0
        #: The first operand that is a stack.
        self.stacks = 0

    @property
    def nbytes_stacked(self) -> float:
        """What reading and writing a step's part of the stacks adds to the bytes that XLA counts: the parts again, and their places."""
        if not self.stacks:
            return 0.0
        ends = [v for v in (*self.ins[self.stacks:], *self.outs[self.carries:]) if v is not None]
        return sum(8.0 + v.nbytes / max(self.steps, 1) for v in ends)


def kind_of(eqn: JaxprEqn) -> str:
    """``alias``, no work; ``entry``, elementwise; ``slice``, some entries of its operand; ``join``, entries of one operand or another;
    ``spread``, each entry of the operand many times; ``update``, one window of the operand, in place;
    ``reduce``; ``loop``; ``branch``; ``whole``, a program that is one kernel, loops in it included; ``call``, everything that does
    not fuse."""
    name = str(eqn.primitive)
    if is_whole(eqn):
        return "whole"
    if name in ALIASES:
        return "alias"
    if name in ("broadcast_in_dim", "tile"):
        return "alias" if size_of(eqn.outvars[0].aval) == size_of(eqn.invars[0].aval) else "spread"
    if name == "convert_element_type":
        return "alias" if getattr(eqn.invars[0].aval, "dtype", None) == eqn.params["new_dtype"] else "entry"
    if name in GATHERS:
        return "slice"
    if name == "dynamic_update_slice" or (name.startswith("scatter") and is_one_window(eqn)):
        return "update"
    if name in JOINS:
        return "join"
    if name in REDUCTIONS:
        return "reduce"
    if eqn.primitive is scan_p or eqn.primitive is while_p:
        return "loop"
    if eqn.primitive is cond_p:
        return "branch"
    row = rows.get(eqn.primitive)
    if name in SIMPLE or name in MOVES_WITHIN or (row is not None and row.cost in ("entrywise", "moves")):
        return "entry"
    return "call"


def is_whole(eqn: JaxprEqn) -> bool:
    """Whether a CPU runs the program of an equation as one kernel."""
    return isinstance(eqn.primitive, OneKernel) and eqn.primitive.is_wanted(eqn.params["jaxpr"])


def is_one_window(eqn: JaxprEqn) -> bool:
    """Whether a gather or scatter is of one window, which the compiler makes a slice or the update of one."""
    indices = shape_of(eqn.invars[1].aval)
    return math.prod(indices[:-1]) == 1


#: Cuts a program into kernels; with ``(constants, carries)``, that of a loop's step.
Cut: TypeAlias = Callable[..., "Program"]


class Reader:
    """Collects the operations of a jaxpr, with the programs of calls in their place and equal operations once."""

    def __init__(self, cut: Cut) -> None:
        self.operations: list[Operation] = []
        self._cut = cut
        self._known: dict[object, list[Value]] = {}

    def read(self, eqns: Sequence[JaxprEqn], env: dict[Var, Value | None], outvars: Sequence[Atom]) -> list[Value | None]:
        """The values of ``outvars``, given those of what the equations read."""
        def value(atom: Atom) -> Value | None:
            return None if is_literal(atom) else env[atom]

        for eqn in eqns:
            ins = [value(atom) for atom in eqn.invars]
            name = str(eqn.primitive)
            inner = program_of(eqn) if name in INLINED or getattr(rows.get(eqn.primitive), "cost", None) == "its program" else None
            if inner is not None and not is_whole(eqn):
                open_jaxpr: Jaxpr = getattr(inner, "jaxpr", inner)
                given = ins[len(ins) - len(open_jaxpr.invars):]
                within = self.read(open_jaxpr.eqns, values_of(open_jaxpr, given), open_jaxpr.outvars)
                env.update(zip(eqn.outvars, within, strict=True))
                continue
            kind = kind_of(eqn)
            if kind == "alias" and len(eqn.invars) >= len(eqn.outvars):
                env.update(zip(eqn.outvars, ins, strict=False))
                continue
            key = _key(eqn, ins)
            outs = self._known.get(key) if key is not None else None
            if outs is None:
                op = Operation(eqn, kind, ins)
                op.outs = outs = [Value(v.aval, op) for v in eqn.outvars]
                if kind == "loop":
                    self._read_loop(op)
                elif kind == "branch":
                    op.held = [self._cut(branch) for branch in eqn.params["branches"]]
                elif kind == "whole":
                    op.held = [self._cut(eqn.params["jaxpr"])]
                self.operations.append(op)
                if key is not None:
                    self._known[key] = outs
            env.update(zip(eqn.outvars, outs, strict=True))
        return [value(atom) for atom in outvars]

    def _read_loop(self, op: Operation) -> None:
        """The number of steps and of carries, and the programs that each step runs."""
        eqn = op.eqn
        if eqn.primitive is scan_p:
            consts, op.carries = scan_layout(eqn.params)
            length = eqn.params["length"]
            op.steps = length if isinstance(length, int) else SYMBOLIC_LENGTH
            op.stacks = consts + op.carries
            op.held = [self._cut(eqn.params["jaxpr"], (consts, op.carries))]
        else:
            op.carries = len(eqn.outvars)
            op.steps = UNKNOWN_STEPS
            op.held = [self._cut(eqn.params["body_jaxpr"], (eqn.params["body_nconsts"], op.carries)),
                       self._cut(eqn.params["cond_jaxpr"])]


def values_of(body: Jaxpr, given: Sequence[Value | None]) -> dict[Var, Value | None]:
    env: dict[Var, Value | None] = dict(zip(body.invars, given, strict=True))
    env.update((v, Value(v.aval)) for v in body.constvars)
    return env


def _key(eqn: JaxprEqn, ins: list[Value | None]) -> object:
    """Equal for equations that compute the same; None where that is not known."""
    if eqn.effects:
        return None
    numbers = [a.val if is_literal(a) else None for a in eqn.invars]
    atoms = [id(v) if v is not None else repr(x) for v, x in zip(ins, numbers, strict=True)]
    if any(v is None and x is None for v, x in zip(ins, numbers, strict=True)):
        return None
    key = (eqn.primitive, *atoms, *eqn.params.items())
    try:
        hash(key)
    except TypeError:
        return None
    return key
