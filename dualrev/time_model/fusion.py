"""How a compiler cuts a program into kernels: a simulation of XLA's instruction fusion on a jaxpr.

Elementwise operations and moves are computed inside the kernels that read them, as often as they are read there; a value gets memory
and a kernel of its own where it leaves the program, where an operation that does not fuse reads or writes it, and where it is costly
and several kernels, or several entries of one kernel, need it.

Source: ``xla/service/cpu/cpu_instruction_fusion.cc`` and ``xla/service/instruction_fusion.cc``, simplified.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from dualrev._jax.avals import AbstractValue
from dualrev._jax.calls import cond_p, scan_layout, scan_p, while_p
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, Jaxpr, JaxprEqn, Var, is_literal
from dualrev.programs.jaxprs import SYMBOLIC_LENGTH
from dualrev.table.rows import rows
from dualrev.time_model.operations import ALIASES, GATHERS, INLINED, JOINS, MOVES_WITHIN, REDUCTIONS, SIMPLE, program_of

#: Steps that a loop of unknown length is taken to make.
UNKNOWN_STEPS = 100


def shape_of(aval: AbstractValue) -> tuple[int, ...]:
    """The lengths of the axes; a symbol counts as :data:`SYMBOLIC_LENGTH`."""
    return tuple([n if isinstance(n, int) else SYMBOLIC_LENGTH for n in getattr(aval, "shape", ())])


def size_of(aval: AbstractValue) -> int:
    return math.prod(shape_of(aval))


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
        return sum(12.0 + v.nbytes / max(self.steps, 1) for v in ends)


@dataclass
class Kernel:
    """One fused group: what it reads, writes and computes."""

    root: Value
    #: ``(operation, number of entries)``.
    work: list[tuple[Operation, float]] = field(default_factory=list)
    read: dict[Value, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> float:
        return self.root.nbytes + sum(count * v.itemsize for v, count in self.read.items())


@dataclass
class Program:
    """A jaxpr as kernels, calls and loops."""

    inputs: list[Value]
    outputs: list[Value | None]
    kernels: list[Kernel]
    #: Operations that do not fuse, loops and branches among them.
    calls: list[Operation]
    #: The values with memory, in the order in which they are written.
    stored: list[Value]

    @property
    def nbytes_touched(self) -> float:
        """The bytes that all kernels and calls read and write, as XLA's cost analysis counts them."""
        return sum(k.nbytes for k in self.kernels) + sum(
            sum(v.nbytes for v in {id(v): v for v in (*op.ins, *op.outs) if v is not None}.values()) for op in self.calls)


def kind_of(eqn: JaxprEqn) -> str:
    """``alias``, no work; ``entry``, elementwise; ``slice``, some entries of its operand; ``join``, entries of one operand or another;
    ``spread``, each entry of the operand many times; ``reduce``; ``loop``; ``branch``; ``call``, everything that does not fuse."""
    name = str(eqn.primitive)
    if name in ALIASES:
        return "alias"
    if name in ("broadcast_in_dim", "tile"):
        return "alias" if size_of(eqn.outvars[0].aval) == size_of(eqn.invars[0].aval) else "spread"
    if name == "convert_element_type":
        return "alias" if getattr(eqn.invars[0].aval, "dtype", None) == eqn.params["new_dtype"] else "entry"
    if name in GATHERS:
        return "slice"
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


class _Reader:
    """Collects the operations of a jaxpr, with the programs of calls in their place and equal operations once."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._known: dict[object, list[Value]] = {}

    def read(self, eqns: Sequence[JaxprEqn], env: dict[Var, Value | None], outvars: Sequence[Atom]) -> list[Value | None]:
        """The values of ``outvars``, given those of what the equations read."""
        def value(atom: Atom) -> Value | None:
            return None if is_literal(atom) else env[atom]

        for eqn in eqns:
            ins = [value(atom) for atom in eqn.invars]
            name = str(eqn.primitive)
            inner = program_of(eqn) if name in INLINED or getattr(rows.get(eqn.primitive), "cost", None) == "its program" else None
            if inner is not None:
                open_jaxpr: Jaxpr = getattr(inner, "jaxpr", inner)
                given = ins[len(ins) - len(open_jaxpr.invars):]
                within = self.read(open_jaxpr.eqns, _values(open_jaxpr, given), open_jaxpr.outvars)
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
                    op.steps, op.carries, op.held = _loop(eqn)
                    op.stacks = sum(scan_layout(eqn.params)) if eqn.primitive is scan_p else 0
                elif kind == "branch":
                    op.held = [program(branch) for branch in eqn.params["branches"]]
                self.operations.append(op)
                if key is not None:
                    self._known[key] = outs
            env.update(zip(eqn.outvars, outs, strict=True))
        return [value(atom) for atom in outvars]


def _values(body: Jaxpr, given: Sequence[Value | None]) -> dict[Var, Value | None]:
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


def _loop(eqn: JaxprEqn) -> tuple[int, int, list[Program]]:
    """The number of steps and of carries, and the programs that each step runs."""
    if eqn.primitive is scan_p:
        consts, carries = scan_layout(eqn.params)
        length = eqn.params["length"]
        steps = length if isinstance(length, int) else SYMBOLIC_LENGTH
        return steps, carries, [program(eqn.params["jaxpr"], (consts, carries))]
    body = eqn.params["body_jaxpr"]
    carries = len(eqn.outvars)
    return UNKNOWN_STEPS, carries, [program(body, (eqn.params["body_nconsts"], carries)), program(eqn.params["cond_jaxpr"])]


def program(jaxpr: ClosedJaxpr | Jaxpr, kept: tuple[int, int] | None = None) -> Program:
    """The kernels and calls of a jaxpr; with ``kept`` = (constants, carries), of the body of a loop."""
    body: Jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # type: ignore[arg-type]
    inputs = [Value(v.aval) for v in body.invars]
    return _program(inputs, body.eqns, _values(body, inputs), body.outvars, kept)


def program_of_equation(eqn: JaxprEqn) -> Program:
    """One equation as a program."""
    env: dict[Var, Value | None] = {v: Value(v.aval) for v in eqn.invars if not is_literal(v)}
    return _program([v for v in env.values() if v is not None], [eqn], env, eqn.outvars, None)


def _program(inputs: list[Value], eqns: Sequence[JaxprEqn], env: dict[Var, Value | None], outvars: Sequence[Atom],
             kept: tuple[int, int] | None) -> Program:
    reader = _Reader()
    outputs = reader.read(eqns, env, outvars)
    kernels, calls = _fuse(reader.operations, outputs, _copied(inputs, outputs, kept))
    return Program(inputs, outputs, kernels, calls, [v for op in reader.operations for v in op.outs if v.is_stored])


def _copied(inputs: list[Value], outputs: list[Value | None], kept: tuple[int, int] | None) -> list[Value]:
    """Outputs that are written although they have memory: an input that becomes another carry, or is stacked."""
    if kept is None:
        return []
    consts, carries = kept
    return [v for i, v in enumerate(outputs)
            if v is not None and (i >= carries or (v.maker is None and not (consts + i < len(inputs) and v is inputs[consts + i])))]


def _fuse(operations: list[Operation], outputs: Sequence[Value | None],
          copies: Sequence[Value]) -> tuple[list[Kernel], list[Operation]]:
    """The kernels in the order of the program, and the calls."""
    kernels: dict[Value, Kernel] = {}
    #: value -> root of a kernel -> [entries computed for readers of all, and of slices; reads without anything moved out of loops]
    needs: dict[Value, dict[Value, list[float]]] = {}
    for v in outputs:
        if v is not None and v.maker is not None:
            v.is_stored = True
    calls: list[Operation] = []

    def need(v: Value, root: Value, count: float, is_slice: bool, reads: float) -> None:
        counts = needs.setdefault(v, {}).setdefault(root, [0.0, 0.0, 0.0])
        counts[2] = max(counts[2], reads)
        if v.size == 1:
            counts[0] = 1.0  # the compiler moves it out of the kernel's loop
        elif is_slice:
            counts[1] += count
        else:
            counts[0] = max(counts[0], count)

    for op in reversed(operations):
        if op.kind in ("call", "loop", "branch"):
            if any(v.is_stored or v in needs for v in op.outs) or op.eqn.effects:
                calls.append(op)
                for v in (*op.ins, *op.outs):
                    if v is not None:
                        v.is_stored = True
            continue
        for out in op.outs:
            homes = needs.get(out, {})
            if not out.is_stored and not homes:
                continue
            if is_costly(op) and (len(homes) > 1 or any(reads > out.size for _, _, reads in homes.values())):
                out.is_stored = True
            if out.is_stored:
                kernels[out] = Kernel(out)
                counts = {out: (float(out.size), float(out.size))}
            else:
                counts = {root: (max(one + many, 1.0), reads) for root, (one, many, reads) in homes.items()}
            for root, (count, reads) in counts.items():
                kernel = kernels[root]
                if op.kind == "reduce":
                    inner = max((v.size for v in op.ins if v is not None), default=1)
                    count *= inner / max(out.size, 1)
                    reads = count
                kernel.work.append((op, count))
                for v in op.ins:
                    if v is not None:
                        each = min(count, v.size) if op.kind == "join" else count
                        need(v, root, each, op.kind == "slice", min(reads, v.size) if op.kind in ("join", "slice") else reads)
    for v, homes in needs.items():
        if v.is_stored:
            for root, (one, many, _) in homes.items():
                kernels[root].read[v] = min(one + many, float(v.size)) if v.size else 0.0
    for v in copies:
        if v.is_stored:
            kernels[Value(v.aval)] = Kernel(v, [], {v: float(v.size)})
    return list(kernels.values())[::-1], calls[::-1]


def is_costly(op: Operation) -> bool:
    """Whether an operation is not computed twice for the sake of fusion."""
    return op.kind == "reduce" or (op.kind == "entry" and op.name not in SIMPLE and op.name not in MOVES_WITHIN)
