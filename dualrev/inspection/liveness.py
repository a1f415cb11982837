"""Which bytes a program holds while each of its parts runs, once it is compiled: liveness analysis on the values that get memory.

A value has memory from the part that writes it until the last part that reads it; inputs, constants and results until the end.  Which
values get memory at all is what :mod:`dualrev.time_model.fusion` says: what is computed inside the kernel that reads it has none.
An entrywise kernel writes in place of what nothing reads later; a step of a loop writes in place of what it carries and stacks.
Compilers order parts anew, and pad arrays: the numbers are estimates.

Source: [AhoEtAl2007, ch. 9.2.5].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn
from dualrev.programs.jaxprs import nbytes_of
from dualrev.time_model.fusion import program
from dualrev.time_model.kernels import Kernel, Program
from dualrev.time_model.reading import Operation, Value


@dataclass(frozen=True)
class Moment:
    """A part of a program: the equation whose result it writes, and the bytes that are held while it runs, its own included."""

    eqn: JaxprEqn
    nbytes: int


@dataclass
class _Part:
    """What a kernel or a call reads and writes; ``within`` is what a call holds of its own."""

    op: Operation
    read: Sequence[Value]
    written: Sequence[Value]
    within: float = 0.0
    #: The values in whose memory it may write, where nothing reads them later.
    reused: Sequence[Value] = ()


def live_bytes(jaxpr: ClosedJaxpr) -> list[Moment]:
    """The bytes that a compiled program holds at each of its parts, in the order of the program: arguments, results and temporaries.

    A loop or a branch is one part, with the most that its programs hold.

    >>> import jax, jax.numpy as jnp
    >>> jaxpr = jax.make_jaxpr(lambda a, x: a @ (a @ (a @ x)))(jnp.ones((8, 8), "float32"), jnp.ones(8, "float32"))
    >>> [moment.nbytes for moment in live_bytes(jaxpr)]  # a and x; one vector more, then two
    [320, 352, 352]
    """
    constants = sum([nbytes_of(v.aval) for v in jaxpr.jaxpr.constvars])
    return [Moment(eqn, round(constants + nbytes)) for eqn, nbytes in _moments(program(jaxpr), is_step=False)]


def peak_bytes(jaxpr: ClosedJaxpr) -> int:
    """The most bytes that a compiled program holds at once: arguments, results and temporaries."""
    ends = sum([nbytes_of(v.aval) for v in (*jaxpr.jaxpr.constvars, *jaxpr.jaxpr.invars)])
    return max([moment.nbytes for moment in live_bytes(jaxpr)], default=ends)


def _moments(found: Program, is_step: bool) -> list[tuple[JaxprEqn, float]]:
    """For each part, its equation and the bytes; of a step of a loop, without what it reads from outside and writes in place."""
    parts = _parts(found)
    outputs = {v for v in found.outputs if v is not None}
    last: dict[Value, float] = {}
    for i, part in enumerate(parts):
        last.update((v, i) for v in (*part.read, *part.written))
    last.update((v, math.inf) for v in outputs)
    held = 0.0 if is_step else float(sum([v.nbytes for v in set(found.inputs)]))
    moments = []
    for i, part in enumerate(parts):
        written = [v for v in part.written if not (is_step and v in outputs)]
        reused = [v for v in part.reused if v.maker is not None and last.get(v) == i and [v.nbytes] == [w.nbytes for w in written]]
        operand = reused[0] if reused else None
        held += sum([v.nbytes for v in written]) - (operand.nbytes if operand is not None else 0)
        moments.append((part.op.eqn, held + part.within))
        for v in {*part.read, *part.written}:
            if last.get(v) == i and v.maker is not None and v is not operand:
                held -= v.nbytes
    return moments


def _parts(found: Program) -> list[_Part]:
    """Kernels and calls in the order of what they write."""
    kernels = {kernel.root: kernel for kernel in found.kernels}
    parts: list[_Part] = []
    seen: set[int] = set()
    for v in found.stored:
        op = v.maker
        assert op is not None  # it is written
        if v in kernels and op not in found.calls:
            kernel = kernels[v]
            window_of = [u for u in op.ins[:1] if u is not None] if kernel.window is not None else []
            reused = window_of or (list(kernel.read) if _is_entrywise(kernel) else [])
            parts.append(_Part(op, [*kernel.read, *window_of], [v], 0.0, reused))
        elif id(op) not in seen:
            seen.add(id(op))
            within = [max([nbytes for _, nbytes in _moments(held, is_step=True)], default=0.0) for held in op.held]
            parts.append(_Part(op, [v for v in op.ins if v is not None], op.outs, max(within, default=0.0)))
    return parts


def _is_entrywise(kernel: Kernel) -> bool:
    return not kernel.is_library and all(op.kind == "entry" for op, _ in kernel.work)
