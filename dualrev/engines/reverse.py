"""The reverse engine: a tape.

Each operation on a value that moves is evaluated and its linear map is written down; the finished :class:`Tape` pulls
cotangents back later (and can push tangents too, since its maps can).

The same trace transposes: given :class:`Unknown` inputs, a *linear* program is written down without being evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from operator import is_not
from typing import Any

import jax

from dualrev import errors
from dualrev._jax.avals import abstract_outputs, is_differentiable, typeof
from dualrev._jax.custom_rules import forget
from dualrev._jax.new_primitives import region_bound
from dualrev._jax.source_lines import source
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
from dualrev.engines.custom_derivatives import CustomVjp
from dualrev.linear.maps import LinearMap, Tangents, Tape
from dualrev.options.settings import Active, Wide, current, under
from dualrev.table import engine
from dualrev.table.rows import Expansion, Linearized, Pushed, Row, Split, Unknown, aval_of


class Taped(Tracer):
    """A primal value and the slot of its cotangent on the tape."""

    __slots__ = ("primal", "slot")

    def __init__(self, trace: TapeTrace, primal: Any, slot: int):
        super().__init__(trace, primal.aval if type(primal) is Unknown else typeof(primal))
        self.primal = primal
        self.slot = slot

    def to_concrete_value(self) -> Any:
        return None if type(self.primal) is Unknown else to_concrete_value(self.primal)

    def get_referent(self) -> Any:
        return self.primal.get_referent() if isinstance(self.primal, Tracer) else self

    def _contents(self) -> list[tuple[str, Any]]:
        return contents(self.aval, primal=self.primal, slot=self.slot)

    def _short_repr(self) -> str:
        value = f"a linear {self.aval}" if type(self.primal) is Unknown else self.primal
        return f"Taped({value}, slot {self.slot})"


class TapeTrace(EngineTrace):
    """Writes down the linear map of each operation as it happens."""

    mode_name = "reverse"

    def __init__(self, parent: Trace, is_linear: bool = False, is_whole: bool = False):
        super().__init__(parent)
        self.is_linear = is_linear
        self.is_whole = is_whole
        #: Whether the forward function of a user's custom_vjp is running, in a linear program.
        self.is_in_forward = False
        self.entries: list[tuple[LinearMap, tuple[int, ...], tuple[int | None, ...]]] = []
        self.sources: list[Any] = []
        self.n_slots = 0
        #: Slots whose cotangents accumulate in a dtype of their own.
        self.wide: dict[int, Wide] = {}
        #: The modes of the ``with`` blocks that are open, and the stretch in forward mode if the innermost one asks for it.
        self.modes: list[str] = []
        self.stretch: forward_stretch.Stretch | None = None

    def watch(self, primal: Any) -> Taped:
        slot = self.n_slots
        self.n_slots = slot + 1
        return Taped(self, primal, slot)

    def split(self, values: Sequence[Any]) -> tuple[list[Any], list[int | None], bool]:
        """Primals, slots (None for constants), and whether anything is watched."""
        primals: list[Any] = []
        slots: list[int | None] = []
        moves = False
        for x in values:
            if isinstance(x, Taped) and x._trace is self:
                primals.append(x.primal)
                slots.append(x.slot)
                moves = True
            else:
                primals.append(x)
                slots.append(None)
        return primals, slots, moves

    def write(self, linear_map: LinearMap, ins: tuple[int, ...], outs: tuple[int | None, ...]) -> None:
        self.entries.append((linear_map, ins, outs))
        self.sources.append(source())

    def record(self, outs: Sequence[Any], linear_map: LinearMap | None, active_outs: Sequence[bool],
               slots: Sequence[int | None]) -> list[Any]:
        if linear_map is None or not any(active_outs):
            return list(outs)
        results, out_slots = [], []
        for out, moves in zip(outs, active_outs, strict=True):
            taped = self.watch(out) if moves else out
            results.append(taped)
            out_slots.append(taped.slot if moves else None)
        self.write(linear_map, tuple([slot for slot in slots if slot is not None]), tuple(out_slots))
        return results

    def row_of(self, primitive: Any) -> Row:
        try:
            return super().row_of(primitive)
        except errors.MissingRuleError as error:
            if not self.is_linear:
                raise
            return MissingRow(primitive, error)

    def operate(self, row: Row, tracers: Sequence[Any], primals: Sequence[Any], marks: Sequence[Any],
                params: dict[str, Any]) -> Sequence[Any]:
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
        if not isinstance(result, tuple):
            if isinstance(result, Expansion) and (self.is_whole or result.plain is None):
                with set_current_trace(self):
                    return many(result.run(*tracers))
            result = self.split_poles(result) if isinstance(result, Split) and self.is_whole else result.plain  # type: ignore[assignment]
        outs, linear_map, active_outs = result  # type: ignore[misc]
        return self.record(outs, linear_map, active_outs, marks)

    def split_poles(self, found: Split) -> tuple[list[Any], LinearMap, Sequence[bool]]:
        """The linearization without poles, under the trace that primals are computed under once an eigenvalue has been split."""
        if not isinstance(self.parent, infinitesimal.InfinitesimalTrace):
            self.parent = infinitesimal.InfinitesimalTrace(self.parent)
        with set_current_trace(self.parent):
            split: tuple[list[Any], LinearMap, Sequence[bool]] = under(  # type: ignore[assignment]
                self.settings, found.linearize, self.parent.dual)
        return split

    def enter_or_leave(self, params: dict[str, Any]) -> Any:
        """The bound of a ``with`` block that asks for a mode; traces around this one learn of it too."""
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
        if self.stretch is not None:
            self.stretch.close()
            self.stretch = None

    def process_custom_vjp_call(self, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Sequence[Any], /, *,
                                out_trees: Any, symbolic_zeros: bool) -> list[Any]:
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
            if self.split(linear_map.residuals)[2]:  # its backward function reads what is linear: the function must do without
                forget(fwd)
                return list(fun.call_wrapped(*tracers))
        return self.record([Unknown(typeof(x)) for x in outs], linear_map, [True] * len(outs), slots)


TapeTrace.handlers = TapeTrace.handlers | {region_bound: lambda trace, _primitive, _tracers, params: trace.enter_or_leave(params)}


class MissingRow(Row):
    """Stands in a linear program for the row of a primitive that has none."""

    def __init__(self, primitive: Any, error: errors.MissingRuleError):
        super().__init__(primitive)
        self.error = error

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> Pushed:
        raise self.error

    def linearize(self, primals: Sequence[Any], active: tuple[Active, ...], params: dict[str, Any], is_linear: bool) -> Linearized:
        raise self.error


def not_linear(row: Row, primals: Sequence[Any], params: dict[str, Any],
               error: errors.DualrevError) -> tuple[list[Any], LinearMap, Sequence[bool]]:
    """In a linear program, what nothing linear depends on may be as it likes; a cotangent that arrives here raises."""
    outs: list[Any] = [Unknown(a) for a in abstract_outputs(row.primitive, [aval_of(x) for x in primals], params)]
    has_tangents = any(is_differentiable(out.aval) for out in outs)
    return outs, NonLinearMap(len(outs), has_tangents, type(error), error.template), [True] * len(outs)


class NonLinearMap(LinearMap):
    """Stands on the tape of a linear program for an operation that is not linear."""

    __slots__ = ("error", "has_tangents", "message", "n_out")

    name = "not linear"

    def __init__(self, n_out: int, has_tangents: bool, error: type[Exception], message: str):
        self.n_out = n_out
        self.has_tangents = has_tangents
        self.error = error
        self.message = message

    def push(self, *tangents: Any) -> Tangents:
        if self.has_tangents:
            raise self.error(self.message)
        return (None,) * self.n_out

    def pull(self, *cotangents: Any) -> Tangents:
        raise self.error(self.message)


jax.tree_util.register_pytree_node(
    NonLinearMap, lambda m: ((), (m.n_out, m.has_tangents, m.error, m.message)), lambda aux, _: NonLinearMap(*aux)
)


def linearize(fun: Callable[..., Sequence[Any]], primals: Sequence[Any], active: Sequence[Active],
              is_linear: bool = False, is_whole: bool = False) -> tuple[list[Any], Tape]:
    """``(outs, tape)`` of a flat function; the tape maps tangents of the active inputs to those of all outputs.

    An entry of ``active`` is True, False or :class:`~dualrev.options.settings.Wide`.
    With ``is_linear`` active primals are :class:`Unknown`, and so are the outputs that depend on them.
    ``is_whole``: the function is all that is differentiated, so that a cotangent of an output depends on nothing in it.
    """
    with take_current_trace() as parent:
        trace = TapeTrace(parent, is_linear, is_whole)
        with ensure_no_leaks(trace):
            try:
                inputs = [trace.watch(x) if moves else x for x, moves in zip(primals, active, strict=True)]
                in_slots = tuple([x.slot for x, moves in zip(inputs, active, strict=True) if moves])
                trace.wide = {x.slot: moves for x, moves in zip(inputs, active, strict=True) if type(moves) is Wide}
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


def transpose(fun: Callable[..., Sequence[Any]], avals: Sequence[Any]) -> Tape:
    """The tape of a linear flat function, found from the abstract values of its inputs alone."""
    outs, tape = linearize(fun, [Unknown(aval) for aval in avals], [True] * len(avals), is_linear=True)
    for out, slot in zip(outs, tape.out_slots, strict=True):
        if slot is None and not _is_zero(out):
            raise errors.not_linear("a constant output")
    return tape


def _is_zero(out: Any) -> bool:
    # An output that does not depend on the inputs is linear in them only if it is zero; a traced one is taken to be.
    value = None if isinstance(out, Tracer) else out
    return value is None or not bool(value.any() if hasattr(value, "any") else value)


engine.provide(linearize=linearize, transpose=transpose)
