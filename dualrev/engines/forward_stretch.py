"""A stretch of a tape that is in forward mode: between the bounds of a ``with`` block.

Each value computed there carries its tangents in the basis of all values that came in from outside and that it depends on; nothing
is taped.  At the end of the stretch, what is still alive gets an entry on the tape: its Jacobian by those values.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jax import lax

from dualrev._jax.avals import tangent_aval, typeof
from dualrev._jax.traces import set_current_trace
from dualrev.engines import forward
from dualrev.linear.basis import count, matrix, push_all, units
from dualrev.linear.zeros import zeros_of
from dualrev.options.settings import under
from dualrev.table.rows import Row

if TYPE_CHECKING:
    from dualrev.engines.reverse import TapeTrace

class Stretch:
    """Values of a tape that are pushed through operations, and what they depend on."""

    def __init__(self, trace: TapeTrace):
        self.trace = trace
        #: The values that came in, by slot, in the order in which they came.
        self.inputs: dict[int, Any] = {}
        #: For each slot, the inputs that it depends on, and its tangents in their basis.
        self.moving: dict[int, tuple[tuple[int, ...], Any]] = {}
        #: What was computed here and somebody still holds.
        self.alive: dict[int, weakref.ref[Any]] = {}

    def operate(self, row: Row, tracers: Sequence[Any], params: dict[str, Any]) -> list[Any]:
        """An operation on values of the tape."""
        trace = self.trace
        primals, slots, _ = trace.split(tracers)
        first = next(i for i, slot in enumerate(slots) if slot is not None)
        with set_current_trace(trace.parent):
            for primal, slot in zip(primals, slots, strict=True):
                if slot is not None and slot not in self.moving:
                    self.inputs[slot] = tangent_aval(typeof(primal))
                    self.moving[slot] = (slot,), units(self.inputs[slot])
            needed = {source for slot in slots if slot is not None for source in self.moving[slot][0]}
            basis = tuple([source for source in self.inputs if source in needed])
            tangents = [None if slot is None else self._in_basis(slot, basis) for slot in slots]

            def push(ts: Sequence[Any]) -> tuple[list[Any], list[Any]]:
                def run(*values: Any) -> Sequence[Any]:
                    inner: forward.ForwardTrace = values[first]._trace
                    return inner.operate(row, values, *inner.split(values)[:2], params)

                return forward.push_through(run, primals, ts)

            outs, moved = under(trace.settings, push_all, push, tangents)
        return [out if t is None else self._watch(out, basis, t) for out, t in zip(outs, moved, strict=True)]

    def _watch(self, out: Any, basis: tuple[int, ...], tangents: Any) -> Any:
        taped = self.trace.watch(out)
        slot, moving = taped.slot, self.moving
        moving[slot] = basis, tangents
        self.alive[slot] = weakref.ref(taped, lambda _: moving.pop(slot, None))
        return taped

    def _in_basis(self, slot: int, basis: tuple[int, ...]) -> Any:
        """The tangents of a value in a basis of more inputs, with zeros for those that it does not depend on."""
        own, tangents = self.moving[slot]
        if own == basis:
            return tangents
        parts: list[Any] = []
        start = 0
        for source in basis:
            n = count(self.inputs[source])
            if source in own:
                parts.append(lax.slice_in_dim(tangents, start, start + n))
                start += n
            else:
                aval = tangent_aval(typeof(tangents))
                parts.append(zeros_of(aval.update(shape=(n, *aval.shape[1:]))))
        return lax.concatenate(parts, 0)

    def close(self) -> None:
        """Write what is alive onto the tape; each value has an entry of its own, so that those that nothing reads can go."""
        with set_current_trace(self.trace.parent):
            for slot, held in self.alive.items():
                if held() is not None:
                    basis, tangents = self.moving[slot]
                    jacobian = matrix([tangents], [self.inputs[source] for source in basis])
                    self.trace.write(jacobian, basis, (slot,))
