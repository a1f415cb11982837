"""Live bytes at each operation of forward and pull, in the order in which they are written: a value lives from its operation to its
last use.

A value that is another name of the same memory (a reshape), or that a compiler makes where it is read (a broadcast), takes none.
Compiled functions stand in their place.  A loop or branch is one operation, with the peak of its program on top of its results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualrev._jax.calls import cond_p
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, JaxprEqn, Var, is_literal
from dualrev._jax.source_lines import line_of
from dualrev.programs.jaxprs import nbytes_of
from dualrev.table.rows import rows
from dualrev.time_model.operations import ALIASES, INLINED, program_of


@dataclass(frozen=True)
class Step:
    """One operation: the bytes that live while it runs, and where the user called it."""

    live: int
    operation: str
    line: str


@dataclass(frozen=True)
class Kept:
    """An array that forward makes and the pull reads: ``start`` is the step that makes it, ``end`` the last one that reads it."""

    nbytes: int
    type: str
    operation: str
    line: str
    start: int
    end: int


@dataclass(frozen=True)
class Life:
    """The steps of forward, up to ``boundary``, and of the pull; ``before``: the bytes of inputs and constants, which live throughout.

    ``kept``: what forward makes and the pull reads, and does not return anyway; the largest first.
    """

    steps: tuple[Step, ...]
    boundary: int
    before: int
    kept: tuple[Kept, ...]


def life_of(forward: ClosedJaxpr, pull: ClosedJaxpr, n_values: int) -> Life:
    """Forward returns ``n_values`` values and then what the pull takes first; the other inputs of the pull are cotangents."""
    walk = _Walk()
    results = walk.read(forward.jaxpr, walk.inputs(forward.jaxpr), "")
    boundary = len(walk.operations)
    values, residuals = results[:n_values], results[n_values:]
    body = pull.jaxpr
    env = walk.given(body, residuals)
    # A new buffer starts with the next operation, which is the first of the pull.
    env |= {v: walk.new(v, boundary, "cotangent", "") for v in body.invars[len(residuals):]}
    env |= {v: walk.new(v, -1, "constant", "") for v in body.constvars}
    cotangents = walk.read(body, env, "")
    held = {id(m) for m in (*values, *cotangents)}
    live, before = walk.live(held)
    steps = tuple([Step(n, name, line) for n, (name, line, _) in zip(live, walk.operations, strict=True)])
    once = {id(m): m for m in residuals if m is not None and id(m) not in held}
    kept = [Kept(m.nbytes, m.type, m.operation, m.line, m.start, m.end) for m in once.values() if m.start >= 0 and m.end >= boundary]
    return Life(steps, boundary, before, tuple(sorted(kept, key=lambda m: -m.nbytes)))


class _Memory:
    """A buffer: ``start`` is the operation that makes it, -1 for an input, and ``end`` the last one so far that reads it."""

    __slots__ = ("end", "line", "nbytes", "operation", "start", "type")

    def __init__(self, nbytes: int, type_: str, start: int, operation: str, line: str):
        self.nbytes, self.type, self.start, self.end = nbytes, type_, start, start
        self.operation, self.line = operation, line


class _Walk:
    """Reads programs one after the other."""

    def __init__(self) -> None:
        self.memories: list[_Memory] = []
        #: Name, line, and the bytes that it needs beside operands and results.
        self.operations: list[tuple[str, str, int]] = []

    def new(self, v: Var, start: int, operation: str, line: str) -> _Memory:
        dtype, shape = getattr(v.aval, "dtype", ""), getattr(v.aval, "shape", ())
        self.memories.append(_Memory(nbytes_of(v.aval), f"{dtype}[{', '.join(map(str, shape))}]", start, operation, line))
        return self.memories[-1]

    def inputs(self, body: Jaxpr) -> dict[Var, _Memory | None]:
        return {v: self.new(v, -1, "input", "") for v in (*body.constvars, *body.invars)}

    def given(self, body: Jaxpr, values: Sequence[_Memory | None]) -> dict[Var, _Memory | None]:
        return dict(zip(body.invars, values, strict=False))

    def read(self, body: Jaxpr, env: dict[Var, _Memory | None], line: str) -> list[_Memory | None]:
        """Walk the equations; the memory of the results comes back, None for a number that stands in the program."""
        for eqn in body.eqns:
            own = line_of(eqn.source_info) or line
            ins = [None if is_literal(a) else env[a] for a in eqn.invars]
            name = str(eqn.primitive)
            inner = self._inlined(eqn)
            if inner is not None:
                within = self.given(inner, ins[len(ins) - len(inner.invars):])
                within |= {v: self.new(v, -1, "constant", own) for v in inner.constvars}
                env.update(zip(eqn.outvars, self.read(inner, within, own), strict=True))
            elif (name in ALIASES or name == "broadcast_in_dim") and len(ins) >= len(eqn.outvars):
                env.update(zip(eqn.outvars, ins, strict=False))
            else:
                at = len(self.operations)
                for memory in ins:
                    if memory is not None:
                        memory.end = max(memory.end, at)
                self.operations.append((name, own, _inside(eqn)))
                env.update({v: self.new(v, at, name, own) for v in eqn.outvars})
        return [None if is_literal(a) else env[a] for a in body.outvars]

    @staticmethod
    def _inlined(eqn: JaxprEqn) -> Jaxpr | None:
        """The program that stands in the place of a call; a shard of a mesh has shapes of its own."""
        name = str(eqn.primitive)
        is_call = name in INLINED or getattr(rows.get(eqn.primitive), "cost", None) == "its program"
        found = program_of(eqn) if is_call and "mesh" not in eqn.params else None
        body: Jaxpr | None = getattr(found, "jaxpr", found)
        return body

    def live(self, held: set[int]) -> tuple[list[int], int]:
        """``(bytes at each operation, bytes of the inputs)``; ``held`` are the buffers, by identity, that live to the end."""
        n = len(self.operations)
        change = [0] * (n + 1)
        for m in self.memories:
            if m.start >= 0:
                change[min(m.start, n)] += m.nbytes
                change[n if id(m) in held else min(m.end + 1, n)] -= m.nbytes
        before = now = sum(m.nbytes for m in self.memories if m.start < 0)
        found = []
        for k, (_, _, extra) in enumerate(self.operations):
            now += change[k]
            found.append(now + extra)
        return found, before


def _inside(eqn: JaxprEqn) -> int:
    """The bytes that the programs of a loop, a branch or another call need beside operands and results."""
    found = 0
    for value in eqn.params.values():
        for program in value if isinstance(value, (tuple, list)) else [value]:
            if program is not None and (hasattr(program, "eqns") or hasattr(program, "jaxpr")):
                body: Jaxpr = getattr(program, "jaxpr", program)  # type: ignore[assignment]  # two classes in 0.10, one since 0.11
                walk = _Walk()
                results = walk.read(body, walk.inputs(body), "")
                live, before = walk.live({id(m) for m in results})
                found = max(found, max(live, default=before) - before)
    found *= int(getattr(eqn.params.get("mesh"), "size", 1))
    # What a branch returns is the result of the operation; a step of a loop has its own.
    return max(0, found - sum(nbytes_of(v.aval) for v in eqn.outvars)) if eqn.primitive is cond_p else found
