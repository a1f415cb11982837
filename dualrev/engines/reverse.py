"""The reverse engine: a tape.

An operation on an active value is evaluated, and its linear map is recorded.  The finished :class:`Tape` pulls cotangents back, from
the last entry to the first; it pushes tangents too, since each of its maps does.

The same trace transposes a *linear* program: its inputs are :class:`Unknown`, and operations on them are recorded without being
evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import is_not

import jax
import numpy as np

from dualrev import errors
from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.custom_rules import WrappedFun, forget
from dualrev._jax.jaxprs import FlatFunction
from dualrev._jax.new_primitives import region_bound
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.source_lines import SourceInfo, source
from dualrev._jax.traces import (
    Trace,
    Tracer,
    contents,
    ensure_no_leaks,
    process,
    set_current_trace,
    take_current_trace,
    to_concrete_value,
)
from dualrev.engines import forward_stretch, infinitesimal, references
from dualrev.engines.base import EngineTrace, many
from dualrev.engines.custom_derivatives import CustomVjp, OutTrees
from dualrev.engines.not_linear import MissingRow, not_linear
from dualrev.engines.retracing import source_of_call
from dualrev.linear.maps import Entry, LinearMap, Tape
from dualrev.linear.zeros import zeros_of
from dualrev.options.settings import Active, Wide, current, under
from dualrev.table import engine
from dualrev.table.rows import Expansion, Operand, Row, Split, Unknown


class Taped(Tracer):  # type: ignore[type-arg]
    """An active value: its primal, and the slot of its cotangent on the tape."""

    __slots__ = ("primal", "slot")

    def __init__(self, trace: TapeTrace, primal: Operand, slot: int):
        super().__init__(trace, primal.aval if type(primal) is Unknown or isinstance(primal, Tracer) else typeof(primal))
        self.primal = primal
        self.slot = slot

    def to_concrete_value(self) -> np.ndarray | None:
        return None if type(self.primal) is Unknown else to_concrete_value(self.primal)

    def get_referent(self) -> object:
        return self.primal.get_referent() if isinstance(self.primal, Tracer) else self

    def _contents(self) -> list[tuple[str, object]]:
        return contents(self.aval, primal=self.primal, slot=self.slot)

    def _short_repr(self) -> str:
        value = f"a linear {self.aval}" if type(self.primal) is Unknown else self.primal
        return f"Taped({value}, slot {self.slot})"


class TapeTrace(EngineTrace):
    """Records the linear map of each operation that has an active operand.

    ``is_linear``: the program is linear in its inputs, which are :class:`Unknown`.  ``is_whole``: the program is all that is
    differentiated, so that no cotangent that arrives depends on it.
    """

    mode_name = "reverse"
    direction = "linearize"

    def __init__(self, parent: Trace, is_linear: bool = False, is_whole: bool = False):
        super().__init__(parent)
        self.is_linear = is_linear
        self.is_whole = is_whole
        #: Whether the forward function of a user's custom_vjp is running, in a linear program.
        self.is_in_forward = False
        self.entries: list[Entry] = []
        #: For each entry, where in the user's program the operation stands.
        self.sources: list[SourceInfo | None] = []
        self.n_slots = 0
        #: The slots whose cotangents accumulate in a wider dtype.
        self.wide: dict[int, Wide] = {}
        #: The modes of the open ``with`` blocks, innermost last; and the stretch in forward mode, where the innermost asks for one.
        self.modes: list[str] = []
        self.stretch: forward_stretch.Stretch | None = None

    def watch(self, primal: Operand) -> Taped:
        """An active value with a new slot."""
        slot = self.n_slots
        self.n_slots = slot + 1
        return Taped(self, primal, slot)

    def split(self, values: Sequence[jax.Array]) -> tuple[list[Operand], list[int | None], bool]:
        """Primals, slots (None for constants), and whether any value is active."""
        primals: list[Operand] = []
        slots: list[int | None] = []
        is_active = False
        for x in values:
            if isinstance(x, Taped) and x._trace is self:
                primals.append(x.primal)
                slots.append(x.slot)
                is_active = True
            else:
                primals.append(x)
                slots.append(None)
        return primals, slots, is_active

    def write(self, linear_map: LinearMap, ins: tuple[int, ...], outs: tuple[int | None, ...]) -> None:
        """Append an entry to the tape: a map from the slots ``ins`` to the slots ``outs``."""
        self.entries.append((linear_map, ins, outs))
        self.sources.append(source())

    def record(self, outs: Sequence[Operand], linear_map: LinearMap | None, active_outs: Sequence[bool],
               slots: Sequence[int | None]) -> list[jax.Array]:
        """The results of an operation whose operands have ``slots``: active ones get slots of their own, and the map an entry."""
        results: list[jax.Array] = list(outs)  # type: ignore[arg-type]  # those that are unknown are active: tracers from here on
        if linear_map is None or not any(active_outs):
            return results
        out_slots: list[int | None] = []
        for i, is_active in enumerate(active_outs):
            if not is_active:
                out_slots.append(None)
                continue
            results[i] = taped = self.watch(outs[i])
            aval: ShapedArray = taped.aval  # type: ignore[assignment]  # all active values are arrays
            if 0 in aval.shape:  # it depends on nothing: a zero cotangent on its way would be NaN at a pole
                results[i] = self.without_entries(aval) if type(outs[i]) is Unknown else outs[i]  # type: ignore[assignment]
                out_slots.append(None)
            else:
                out_slots.append(taped.slot)
        if out_slots.count(None) == len(out_slots):
            return results
        # As write(), in place: a call of Python's less for each operation.
        self.entries.append((linear_map, tuple([slot for slot in slots if slot is not None]), tuple(out_slots)))
        self.sources.append(source())
        return results

    def without_entries(self, aval: ShapedArray) -> jax.Array:
        with set_current_trace(self.parent):
            return zeros_of(aval)

    def row_of(self, primitive: Primitive) -> Row:
        try:
            return super().row_of(primitive)
        except errors.MissingRuleError as error:
            if not self.is_linear:
                raise
            return MissingRow(primitive, error)

    def operate(self, row: Row, tracers: Sequence[jax.Array], primals: Sequence[Operand], marks: Sequence[int | None],
                params: Params) -> Sequence[jax.Array]:
        if self.stretch is not None:
            return self.stretch.operate(row, tracers, params)
        active: tuple[Active, ...] = tuple(map(is_not, marks, repeat(None)))
        if self.wide:
            active = tuple([slot is not None and self.wide.get(slot, True) for slot in marks])
        with set_current_trace(self.parent):
            try:
                if row.chooses:
                    row = row.choose(primals, active, params)
                if current.get() is self.settings:
                    result = row.linearize(primals, active, params, self.is_linear)
                else:
                    result = under(self.settings, row.linearize, primals, active, params, self.is_linear)
            except (errors.NonLinearError, errors.MissingRuleError, errors.NoDerivativeError) as error:
                if not self.is_linear:
                    raise
                result = not_linear(row, primals, params, error)
        if isinstance(result, tuple):
            outs, linear_map, active_outs = result
        elif isinstance(result, Expansion) and (self.is_whole or result.plain is None):
            with set_current_trace(self):  # a program in the operation's place
                return many(result.run(*tracers))
        elif isinstance(result, Split) and self.is_whole:
            outs, linear_map, active_outs = self.split_poles(result)
        else:
            assert result.plain is not None  # an expansion without it was run
            outs, linear_map, active_outs = result.plain
        results = self.record(outs, linear_map, active_outs, marks)
        if linear_map is not None and row.kind in ("call", "program") and self.entries and self.entries[-1][0] is linear_map:
            self.sources[-1] = source_of_call(self.sources[-1], row, primals, active, params, self.settings)
        return results

    def split_poles(self, found: Split) -> tuple[Sequence[Operand], LinearMap | None, Sequence[bool]]:
        """The linearization with repeated eigenvalues split by an infinitesimal: from here on primals are computed under its trace."""
        if not isinstance(self.parent, infinitesimal.InfinitesimalTrace):
            self.parent = infinitesimal.InfinitesimalTrace(self.parent)
        with set_current_trace(self.parent):
            split: tuple[Sequence[Operand], LinearMap | None, Sequence[bool]] = under(self.settings, found.linearize, self.parent.dual)
        return split

    def enter_or_leave(self, params: Params) -> list[jax.Array]:
        """Enter or leave a ``with`` block that asks for a mode, and tell the trace outside."""
        if params["enters"]:
            self.modes.append(params["mode"])
        else:
            self.modes.pop()
        self.close_stretch()
        process(self.parent, region_bound, (), params)
        if not self.is_linear and self.modes and self.modes[-1] == "forward":
            self.stretch = forward_stretch.Stretch(self)
        return []

    def close_stretch(self) -> None:
        """End the stretch in forward mode, if there is one: its Jacobians go onto the tape."""
        if self.stretch is not None:
            self.stretch.close()
            self.stretch = None

    def process_custom_vjp_call(self, primitive: Primitive, fun: WrappedFun, fwd: WrappedFun, bwd: WrappedFun,
                                tracers: Sequence[jax.Array], /, *, out_trees: OutTrees, symbolic_zeros: bool) -> list[jax.Array]:
        """In a linear program, the transpose is the user's backward function; elsewhere, the rule is a row as others are."""
        if not (self.is_linear and self.split(tracers)[2]):
            return super().process_custom_vjp_call(primitive, fun, fwd, bwd, tracers, out_trees=out_trees,
                                                   symbolic_zeros=symbolic_zeros)
        references.keep_out(self, primitive, tracers)
        slots = self.split(tracers)[1]
        with set_current_trace(self):
            if self.is_in_forward:  # forward functions often call the function itself
                return list(fun.call_wrapped(*tracers))
            self.is_in_forward = True
            rule = CustomVjp(primitive, fun, fwd, bwd, out_trees, symbolic_zeros)
            try:
                outs, linear_map = rule.forward(tracers, [s is not None for s in slots])
            finally:
                self.is_in_forward = False
            if self.split(linear_map.residuals)[2]:  # the backward function would read values that are unknown here: ignore the rule
                forget(fwd)
                return list(fun.call_wrapped(*tracers))
        return self.record([Unknown(typeof(x)) for x in outs], linear_map, [True] * len(outs), slots)


TapeTrace.handlers = TapeTrace.handlers | {region_bound: lambda trace, _primitive, _tracers, params: trace.enter_or_leave(params)}


def linearize(fun: FlatFunction, primals: Sequence[Operand], active: Sequence[Active],
              is_linear: bool = False, is_whole: bool = False) -> tuple[list[Operand], Tape]:
    """``(outs, tape)`` of a flat function; the tape maps tangents of the active inputs to tangents of all outputs.

    An entry of ``active`` is True, False or :class:`~dualrev.options.settings.Wide`.  With ``is_linear`` the active primals are
    :class:`Unknown`, and so are the outputs that depend on them.  ``is_whole``: see :class:`TapeTrace`.
    """
    with take_current_trace() as parent:
        trace = TapeTrace(parent, is_linear, is_whole)
        with ensure_no_leaks(trace):
            try:
                inputs = [trace.watch(x) if flag else x for x, flag in zip(primals, active, strict=True)]
                in_slots = tuple([x.slot for x in inputs if isinstance(x, Taped) and x._trace is trace])
                trace.wide = {slot: flag for slot, flag in zip(in_slots, filter(None, active), strict=True) if type(flag) is Wide}
                with set_current_trace(trace):
                    results = list(fun(*inputs))
                references.check_results(trace, results)
                outs, out_slots, _ = trace.split(results)
                trace.close_stretch()
            finally:
                trace.invalidate()
            wide = tuple([(slot, flag.dtype) for slot, flag in trace.wide.items()])
            tape = Tape(trace.entries, trace.n_slots, in_slots, tuple(out_slots), wide, trace.sources).pruned()
            if isinstance(trace.parent, infinitesimal.InfinitesimalTrace) and trace.parent is not parent:
                outs, tape = infinitesimal.settle(trace.parent, outs, tape)
                trace.parent.invalidate()
            del trace, inputs, results
    return outs, tape


def transpose(fun: FlatFunction, avals: Sequence[ShapedArray]) -> Tape:
    """The tape of a linear flat function, recorded from the abstract values of its inputs alone."""
    outs, tape = linearize(fun, [Unknown(aval) for aval in avals], [True] * len(avals), is_linear=True)
    for out, slot in zip(outs, tape.out_slots, strict=True):
        if slot is None and not _is_zero(out):
            raise errors.not_linear("a constant output")
    return tape


def _is_zero(out: Operand) -> bool:
    # An output that does not depend on the inputs is linear in them only if it is zero; a traced one is assumed to be zero.
    value = None if isinstance(out, Tracer) else out
    return value is None or not bool(value.any() if hasattr(value, "any") else value)


engine.provide(linearize=linearize, transpose=transpose)
