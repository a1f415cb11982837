"""The kernels of a compiled program: what each reads, writes and computes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dualrev.time_model.fusion_rules import is_within_rows
from dualrev.time_model.reading import Operation, Value, is_one_window, shape_of


@dataclass
class Kernel:
    """One fused group: what it reads, writes and computes."""

    root: Value
    #: ``(operation, number of entries)``.
    work: list[tuple[Operation, float]] = field(default_factory=list)
    read: dict[Value, float] = field(default_factory=dict)
    #: The entries that it writes, where they are not all of its root.
    window: float | None = None
    #: Whether a library computes it.
    is_library: bool = False
    #: What it reads across rows: how many entries.
    across: dict[Value, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> float:
        written = self.root.nbytes if self.window is None else self.window * self.root.itemsize
        return written + sum([count * v.itemsize for v, count in self.read.items()])

    def is_scalar(self, row: int) -> bool:
        """Whether it works on one entry at a time: entries come from here or there, by index, or are fewer than ``row`` on the last
        axis."""
        if self.is_library:
            return False
        shape = shape_of(self.root.aval)
        for i, (op, _) in enumerate(self.work):
            if i and op.kind == "join" and is_within_rows(op):  # a join at the root is a loop for each part
                return True
            if op.name == "gather" and not is_one_window(op.eqn):
                return True
            if op.kind == "reduce":
                shape = max(shape, shape_of(op.eqn.invars[0].aval), key=math.prod)
        return not shape or shape[-1] < row


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
    def width(self) -> int:
        """About how many parts can start at once: what reads inputs only, and the copies of what fills the stacks of loops."""
        inputs = set(self.inputs)
        ready = sum([inputs.issuperset(k.read) for k in self.kernels])
        shapes: set[tuple[int, ...]] = set()
        stacks = 0
        for op in self.calls:
            if op.kind == "loop":
                shapes.update([shape_of(v.aval) for v in op.outs[op.carries:]])
                stacks += len(op.outs) - op.carries
                ready += 1 + sum([v in inputs for v in op.ins[op.stacks - op.carries:op.stacks]])
            elif inputs.issuperset([v for v in op.ins if v is not None]):
                ready += 1
        return max(ready + len(shapes), stacks + len(self.calls))

    @property
    def nbytes_touched(self) -> float:
        """The bytes that all kernels and calls read and write, as XLA's cost analysis counts them."""
        return sum([k.nbytes for k in self.kernels]) + sum([
            sum([v.nbytes for v in {id(v): v for v in (*op.ins, *op.outs) if v is not None}.values()]) for op in self.calls])
