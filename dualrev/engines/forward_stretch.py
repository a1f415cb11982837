"""A stretch of a tape that is in forward mode: the operations inside a ``with`` block.

The *inputs* of a stretch are the values of the tape that its operations read from outside.  Each value computed inside carries its
Jacobian with respect to the inputs that it depends on; operations are not recorded.  At the end of the stretch each value that is still
referenced gets one entry on the tape: its Jacobian.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
from jax import lax

from dualrev._jax.avals import ShapedArray, tangent_aval, typeof
from dualrev._jax.primitives import Params
from dualrev._jax.traces import set_current_trace
from dualrev.engines import forward
from dualrev.engines.parts import Dual
from dualrev.linear.basis import count, matrix, push_all, units
from dualrev.linear.zeros import Tangent, zeros_of
from dualrev.options.settings import under
from dualrev.table.rows import Row

if TYPE_CHECKING:
    from dualrev.engines.reverse import Taped, TapeTrace


class Stretch:
    """The values computed in forward mode, with their Jacobians."""

    def __init__(self, trace: TapeTrace):
        self.trace = trace
        #: The abstract value of each input, by its slot, in the order in which they were first read.
        self.inputs: dict[int, ShapedArray] = {}
        #: For each slot, the inputs that it depends on, and its tangents in their basis.
        self.tangents: dict[int, tuple[tuple[int, ...], jax.Array]] = {}
        #: The values computed here; a dead reference is one that nothing holds any more.
        self.alive: dict[int, weakref.ref[Taped]] = {}

    def operate(self, row: Row, tracers: Sequence[jax.Array], params: Params) -> list[jax.Array]:
        """The results of an operation, with their tangents in the basis of all inputs that any operand depends on."""
        trace = self.trace
        primals, slots, _ = trace.split(tracers)
        first = next(i for i, slot in enumerate(slots) if slot is not None)
        with set_current_trace(trace.parent):
            for primal, slot in zip(primals, slots, strict=True):
                if slot is not None and slot not in self.tangents:
                    self.inputs[slot] = tangent_aval(typeof(primal))
                    self.tangents[slot] = (slot,), units(self.inputs[slot])
            needed = {source for slot in slots if slot is not None for source in self.tangents[slot][0]}
            basis = tuple([source for source in self.inputs if source in needed])
            tangents = [None if slot is None else self._in_basis(slot, basis) for slot in slots]

            def push(ts: Sequence[Tangent]) -> tuple[list[jax.Array], list[Tangent]]:
                def run(*values: Dual) -> Sequence[jax.Array]:
                    inner: forward.ForwardTrace = values[first]._trace
                    return inner.operate(row, values, *inner.split(values)[:2], params)

                return forward.push_through(run, primals, ts)  # type: ignore[arg-type]  # no stretch is in a linear program

            outs, outs_t = under(trace.settings, push_all, push, tangents)
        return [out if t is None else self._watch(out, basis, t) for out, t in zip(outs, outs_t, strict=True)]

    def _watch(self, out: jax.Array, basis: tuple[int, ...], tangents: jax.Array) -> Taped:
        taped = self.trace.watch(out)
        slot, held = taped.slot, self.tangents
        held[slot] = basis, tangents
        self.alive[slot] = weakref.ref(taped, lambda _: held.pop(slot, None))
        return taped

    def _in_basis(self, slot: int, basis: tuple[int, ...]) -> jax.Array:
        """The tangents of a value in a larger basis, with zeros for the inputs that it does not depend on."""
        own, tangents = self.tangents[slot]
        if own == basis:
            return tangents
        parts: list[jax.Array] = []
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
        """Write the Jacobian of each live value onto the tape, in an entry of its own: unread ones are pruned later."""
        with set_current_trace(self.trace.parent):
            for slot, held in self.alive.items():
                if held() is not None:
                    basis, tangents = self.tangents[slot]
                    jacobian = matrix([tangents], [self.inputs[source] for source in basis])
                    self.trace.write(jacobian, basis, (slot,))
