"""How a compiler cuts a program into kernels: a simulation of XLA's instruction fusion on a jaxpr.

Elementwise operations and moves are computed inside the kernels that read them, as often as they are read there; a value gets memory
and a kernel of its own where it leaves the program, where an operation that does not fuse reads or writes it, where it is costly
and several kernels, or several entries of one kernel, need it, where a long axis of it is reduced: such a reduction sums windows
of ``WINDOW`` entries first, which reads memory; and where it is put together along its last axis.  A library (YNNPACK) sums many
entries, with the arithmetic that leads to them; what it can't compute has memory.

Source: ``xla/service/cpu/cpu_instruction_fusion.cc``, ``xla/service/instruction_fusion.cc``, ``tree_reduction_rewriter.cc``,
``ynn_support.cc`` and ``copy_insertion.cc``, simplified.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dualrev._jax.jaxprs import Atom, ClosedJaxpr, Jaxpr, JaxprEqn, Var, is_literal
from dualrev.time_model.fusion_rules import (
    WINDOW,
    is_costly,
    is_long_join,
    is_of_library,
    is_windowed,
    is_within_library,
)
from dualrev.time_model.kernels import Kernel, Program
from dualrev.time_model.nests import Nest, is_across, nest_of_root, nests_of_operands, times_of
from dualrev.time_model.reading import Operation, Reader, Value, shape_of, size_of, values_of


def program(jaxpr: ClosedJaxpr | Jaxpr, kept: tuple[int, int] | None = None) -> Program:
    """The kernels and calls of a jaxpr; with ``kept`` = (constants, carries), of the body of a loop."""
    body: Jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # type: ignore[arg-type]
    inputs = [Value(v.aval) for v in body.invars]
    return _program(inputs, body.eqns, values_of(body, inputs), body.outvars, kept)


def program_of_equation(eqn: JaxprEqn) -> Program:
    """One equation as a program."""
    env: dict[Var, Value | None] = {v: Value(v.aval) for v in eqn.invars if not is_literal(v)}
    return _program([v for v in env.values() if v is not None], [eqn], env, eqn.outvars, None)


def _program(inputs: list[Value], eqns: Sequence[JaxprEqn], env: dict[Var, Value | None], outvars: Sequence[Atom],
             kept: tuple[int, int] | None) -> Program:
    reader = Reader(program)
    outputs = reader.read(eqns, env, outvars)
    if kept is not None:
        reader.operations = _varying(reader.operations, inputs[:kept[0]])
    kernels, calls = _fuse(reader.operations, outputs)
    if kept is not None:
        for kernel in kernels:  # what stays in a loop is laid out as it is read
            kernel.across.clear()
        kernels += _copies(inputs, outputs, kernels, calls, *kept)
    return Program(inputs, outputs, kernels, calls, [v for op in reader.operations for v in op.outs if v.is_stored])


def _varying(operations: list[Operation], consts: list[Value]) -> list[Operation]:
    """The operations of a step that are not the same in each: the compiler moves the others out of the loop, unless they make arrays
    larger than those that they read."""
    known = set(consts)
    varying = []
    for op in operations:
        read = [v for v in op.ins if v is not None]
        if read and op.kind != "call" and not op.held and known.issuperset(read) and op.outs[0].size <= max([v.size for v in read]):
            for v in op.outs:
                v.maker, v.is_stored = None, True
                known.add(v)
        else:
            varying.append(op)
    return varying


def _copies(inputs: list[Value], outputs: list[Value | None], kernels: Sequence[Kernel], calls: Sequence[Operation], consts: int,
            carries: int) -> list[Kernel]:
    """The copies that a step of a loop makes: of a stacked result that something else reads or a call wrote; of a carry that is needed
    after its successor is written, or that becomes another carry."""
    found: list[Kernel] = []
    readers: dict[Value, list[Kernel]] = {}
    for kernel in kernels:
        for v in kernel.read:
            readers.setdefault(v, []).append(kernel)
    called = {v for op in calls for v in (*op.ins, *op.outs) if v is not None}
    leaving = {v for v in outputs if v is not None}

    def copy(v: Value) -> None:
        found.append(Kernel(Value(v.aval), [], {v: float(v.size)}))

    for i, out in enumerate(outputs):
        if out is None:
            continue
        if i >= carries:
            if out.maker is None or out in called or out in readers or out in outputs[:i]:
                copy(out)
            continue
        old = inputs[consts + i] if consts + i < len(inputs) else None
        if out is old or old is None:
            continue
        if out.maker is None:
            copy(out)
        elif any(k.root in leaving and (k.root is not out or any(op.kind not in ("entry", "spread") for op, _ in k.work))
                 for k in readers.get(old, ())):
            copy(old)
    return found


def _windows(op: Operation) -> list[Kernel]:
    """The first kernels of a reduction: each sums windows of what the one before has left, until no axis is long."""
    axes = op.eqn.params["axes"]
    shape = shape_of(op.eqn.invars[0].aval)
    operand = op.ins[0]
    found: list[Kernel] = []
    while any(shape[i] > WINDOW for i in axes):
        count = float(math.prod(shape))
        shape = tuple([-(-n // WINDOW) if i in axes else n for i, n in enumerate(shape)])
        root = Value(op.outs[0].aval, op)
        root.size = math.prod(shape)
        found.append(Kernel(root, [(op, count)], {operand: count} if operand is not None else {}))
        operand = root
    return found


def _copy_of_operand(op: Operation, kernels: dict[Value, Kernel], readers: dict[Value, int]) -> None:
    """What is written in place is written into a copy where the operand is read later, or belongs to the caller."""
    operand = op.ins[0]
    if operand is not None and (operand.maker is None or readers.get(operand, 0)):
        kernels[Value(op.outs[0].aval)] = Kernel(op.outs[0], [], {operand: float(operand.size)})


def _update(op: Operation, kernels: dict[Value, Kernel], readers: dict[Value, int], need: Callable[..., None]) -> None:
    """A window is written in place."""
    (out,) = op.outs
    operand, update = op.ins[0], op.ins[2 if op.name.startswith("scatter") else 1]
    size = float(size_of(op.eqn.invars[2 if op.name.startswith("scatter") else 1].aval))
    out.is_stored = True
    kernel = kernels[out] = Kernel(out, [(op, size)])
    _copy_of_operand(op, kernels, readers)
    if operand is not None:
        operand.is_stored = True
        readers[operand] = readers.get(operand, 0) + 1
    if update is not None:
        readers[update] = readers.get(update, 0) + 1
        need(update, out, size, False, size)
    kernel.window = size


def _fuse(operations: list[Operation], outputs: Sequence[Value | None]) -> tuple[list[Kernel], list[Operation]]:
    """The kernels in the order of the program, and the calls."""
    kernels: dict[Value, Kernel] = {}
    #: value -> root of a kernel -> [entries computed for readers of all, and of slices; reads without anything moved out of loops]
    needs: dict[Value, dict[Value, list[float]]] = {}
    nests: dict[tuple[Value, Value], Nest] = {}
    for v in outputs:
        if v is not None and v.maker is not None:
            v.is_stored = True
    calls: list[Operation] = []
    readers: dict[Value, int] = {}

    def need(v: Value, root: Value, count: float, is_slice: bool, reads: float, nest: Nest = None) -> None:
        counts = needs.setdefault(v, {}).setdefault(root, [0.0, 0.0, 0.0])
        counts[2] = max(counts[2], reads)
        if nests.setdefault((v, root), nest) != nest:
            nests[v, root] = None
        count = min(count, times_of(nest, count))
        if v.size == 1:
            counts[0] = 1.0  # the compiler moves it out of the kernel's loop
        elif is_slice:
            counts[1] += count
        else:
            counts[0] = max(counts[0], count)

    for op in reversed(operations):
        if op.kind in ("call", "loop", "branch", "whole"):
            if any(v.is_stored or v in needs for v in op.outs) or op.eqn.effects:
                calls.append(op)
                if op.name.startswith("scatter"):
                    _copy_of_operand(op, kernels, readers)
                for v in (*op.ins, *op.outs):
                    if v is not None:
                        v.is_stored = True
                readers.update({v: readers.get(v, 0) + 1 for v in op.ins if v is not None})
            continue
        if op.kind == "update":
            (out,) = op.outs
            if out.is_stored or out in needs:
                _update(op, kernels, readers, need)
            continue
        windows, is_join = is_windowed(op), is_long_join(op)
        for out in op.outs:
            homes = needs.get(out, {})
            if not out.is_stored and not homes:
                continue
            if any(kernels[root].is_library for root in homes):
                out.is_stored |= len(homes) > 1 or not (is_within_library(op) or is_of_library(op))
            elif is_of_library(op):
                out.is_stored = True
            elif op.kind == "join":
                out.is_stored |= readers.get(out, 0) > 1 or is_long_join(op)
            elif is_costly(op) and (len(homes) > 1 or any(reads > out.size for _, _, reads in homes.values())):
                out.is_stored = True
            if out.is_stored:
                kernels[out] = Kernel(out, is_library=is_of_library(op))
                counts = {out: (float(out.size), float(out.size))}
            else:
                counts = {root: (max(one + many, 1.0), reads) for root, (one, many, reads) in homes.items()}
            if out.is_stored:
                nests[out, out] = None if op.kind == "reduce" and windows else nest_of_root(shape_of(out.aval))
            if windows:
                levels = _windows(op)
                kernels.update((kernel.root, kernel) for kernel in reversed(levels))
                last = levels[-1].root
                for v in op.ins:
                    if v is not None:
                        v.is_stored = True
                for root, (count, _) in counts.items():
                    kernels[root].work.append((op, count * last.size / max(out.size, 1)))
                    kernels[root].read[last] = float(last.size)
                continue
            for root, (count, reads) in counts.items():
                kernel = kernels[root]
                if kernel.is_library:  # each of its operations is computed once
                    count = reads = float(out.size)
                if op.kind == "reduce":
                    inner = max((v.size for v in op.ins if v is not None), default=1)
                    count *= inner / max(out.size, 1)
                    reads = count
                kernel.work.append((op, count))
                nest = None if kernel.is_library else nests.get((out, root))
                for v, inner_nest in zip(op.ins, nests_of_operands(op, nest), strict=True):
                    if v is not None:
                        if is_join:
                            v.is_stored = True
                        each = min(count, v.size) if op.kind == "join" else count
                        readers[v] = readers.get(v, 0) + 1
                        need(v, root, each, op.kind == "slice", min(reads, v.size) if op.kind in ("join", "slice") else reads,
                             inner_nest)
    for v, homes in needs.items():
        if v.is_stored:
            for root, (one, many, _) in homes.items():
                kernels[root].read[v] = min(one + many, float(v.size)) if v.size else 0.0
                if root in outputs and is_across(nests[v, root], v):
                    kernels[root].across[v] = one + many
    return list(kernels.values())[::-1], calls[::-1]
