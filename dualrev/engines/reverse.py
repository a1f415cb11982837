"""The reverse engine: a tape.

Each operation on a value that moves is evaluated and its linear map is written down; the finished :class:`Tape` pulls
cotangents back later (and can push tangents too, since its maps can).

The same trace transposes: given :class:`Unknown` inputs, a *linear* program is written down without being evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from dualrev import errors
from dualrev._jax.avals import abstract_outputs, is_differentiable, typeof
from dualrev._jax.custom_rules import forget
from dualrev._jax.new_primitives import region_bound
from dualrev._jax.shard_maps import rebind_shard_map, stage_shard_map
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
from dualrev.engines import custom_derivatives, forward_stretch, infinitesimal, references
from dualrev.linear.maps import LinearMap, Tangents, Tape
from dualrev.options.settings import Wide, current, under
from dualrev.table import engine
from dualrev.table.rows import Split, Unfold, Unknown, aval_of, row_of


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


class TapeTrace(Trace):
    """Writes down the linear map of each operation as it happens."""

    def __init__(self, parent: Trace, is_linear: bool = False, is_whole: bool = False):
        super().__init__()
        self.requires_low = False  # operations that jax would expand before they arrive do arrive (since 0.11)
        self.parent = parent
        self.is_linear = is_linear
        self.is_whole = is_whole
        #: Whether the forward function of a user's custom_vjp is running, in a linear program.
        self.is_in_forward = False
        self.entries: list[tuple[LinearMap, tuple[int, ...], tuple[int | None, ...]]] = []
        self.sources: list[Any] = []
        self.n_slots = 0
        self.settings = current.get()
        self.has_references = False
        #: Slots whose cotangents accumulate in a dtype of their own.
        self.wide: dict[int, Wide] = {}
        #: The modes of the ``with`` blocks that are open, and the stretch in forward mode if the innermost one asks for it.
        self.modes: list[str] = []
        self.stretch: forward_stretch.Stretch | None = None

    def new_slot(self) -> int:
        slot = self.n_slots
        self.n_slots = slot + 1
        return slot

    def watch(self, primal: Any) -> Taped:
        return Taped(self, primal, self.new_slot())

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

    @property
    def main(self) -> Any:
        """What tells the derivatives of nested calls apart, for libraries that look (Equinox's ``filter_jvp``)."""
        return self

    def stage_value(self, val: Any) -> Any:
        return val if isinstance(val, Tracer) and val._trace is self else self.parent.stage_value(val)

    def process_primitive(self, primitive: Any, tracers: Sequence[Any], params: dict[str, Any], /) -> Any:
        if primitive in references.MAKERS:
            self.has_references = True
            return references.make(self, primitive, tracers, params)
        if self.has_references and references.holds_box(self, tracers):
            return references.operate(self, primitive, tracers, params)
        if primitive is region_bound:
            return self.enter_or_leave(params)
        primals, slots, moves = self.split(tracers)
        if not moves:
            return process(self.parent, primitive, primals, params)
        if self.stretch is not None:
            results = self.stretch.operate(tracers, lambda trace, values: _many(trace.process_primitive(primitive, values, params)))
            return results if primitive.multiple_results else results[0]
        active: tuple[Any, ...] = tuple([slot is not None for slot in slots])
        if self.wide:
            active = tuple([slot is not None and self.wide.get(slot, True) for slot in slots])
        with set_current_trace(self.parent):
            try:
                row = row_of(primitive, "reverse")
                if row.chooses:
                    row = row.choose(primals, active, params)
                outs, linear_map, active_outs = under(self.settings, row.linearize, primals, active, params, self.is_linear)
            except Unfold as program:
                if self.is_whole or program.plain is None:
                    with set_current_trace(self):
                        return program.run(*tracers)
                outs, linear_map, active_outs = program.plain
            except Split as poles:
                outs, linear_map, active_outs = poles.plain
                if self.is_whole:
                    splitter = self.infinitesimal()
                    with set_current_trace(splitter):
                        outs, linear_map, active_outs = under(self.settings, poles.linearize, splitter.dual)
            except (errors.NonLinearError, errors.MissingRuleError, errors.NoDerivativeError) as error:
                if not self.is_linear:
                    raise
                # What nothing linear depends on may be as it likes; a cotangent that arrives here raises.
                outs = [Unknown(a) for a in abstract_outputs(primitive, [aval_of(x) for x in primals], params)]
                has_tangents = any(is_differentiable(out.aval) for out in outs)
                linear_map, active_outs = NonLinearMap(len(outs), has_tangents, type(error), error.template), [True] * len(outs)
        results = self.record(outs, linear_map, active_outs, slots)
        return results if primitive.multiple_results else results[0]

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

    def infinitesimal(self) -> infinitesimal.InfinitesimalTrace:
        """The trace that primals are computed under once an eigenvalue has been split."""
        if not isinstance(self.parent, infinitesimal.InfinitesimalTrace):
            self.parent = infinitesimal.InfinitesimalTrace(self.parent)
        return self.parent

    def process_shard_map(self, primitive: Any, fun: Any, tracers: Sequence[Any], /, **settings: Any) -> Any:
        with set_current_trace(self.parent):
            operands, params, pack = stage_shard_map(fun, tracers, settings)
        primals, _, moves = self.split(operands)
        if not moves:
            with set_current_trace(self.parent):
                return pack(rebind_shard_map(params, primals))
        return pack(self.process_primitive(primitive, operands, params))

    def process_call(self, primitive: Any, fun: Any, tracers: Sequence[Any], params: dict[str, Any], /) -> Any:
        with set_current_trace(self):
            return fun.call_wrapped(*tracers)

    def process_custom_jvp_call(self, primitive: Any, fun: Any, jvp: Any, tracers: Sequence[Any], /, *,
                                symbolic_zeros: bool) -> list[Any]:
        references.keep_out(self, primitive, tracers)
        primals, slots, moves = self.split(tracers)
        if not moves:
            return process(self.parent, primitive, primals, dict(subfuns=(fun, jvp), symbolic_zeros=symbolic_zeros))
        if self.stretch is not None:
            return self.stretch.operate(tracers, lambda trace, values: trace.process_custom_jvp_call(
                primitive, fun, jvp, values, symbolic_zeros=symbolic_zeros))
        if self.is_linear:  # the function itself must be linear, whatever its rule says
            with set_current_trace(self):
                return list(fun.call_wrapped(*tracers))
        with set_current_trace(self.parent):
            outs, linear_map, active_outs = under(self.settings, custom_derivatives.linearize_jvp, fun, jvp, primals,
                                                  [s is not None for s in slots], symbolic_zeros)
        return self.record(outs, linear_map, active_outs, slots)

    def process_custom_vjp_call(self, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Sequence[Any], /, *,
                                out_trees: Any, symbolic_zeros: bool) -> list[Any]:
        references.keep_out(self, primitive, tracers)
        primals, slots, moves = self.split(tracers)
        if not moves:
            params = dict(subfuns=(fun, fwd, bwd), out_trees=out_trees, symbolic_zeros=symbolic_zeros)
            return process(self.parent, primitive, primals, params)
        if self.stretch is not None:
            return self.stretch.operate(tracers, lambda trace, values: trace.process_custom_vjp_call(
                primitive, fun, fwd, bwd, values, out_trees=out_trees, symbolic_zeros=symbolic_zeros))
        active = [s is not None for s in slots]
        if self.is_linear:
            with set_current_trace(self):
                if self.is_in_forward:  # forward functions often call the function itself
                    return list(fun.call_wrapped(*tracers))
                self.is_in_forward = True
                try:
                    outs, linear_map = custom_derivatives.call_fwd(fun, fwd, bwd, out_trees, tracers, active, symbolic_zeros)
                finally:
                    self.is_in_forward = False
                if self.split(linear_map.residuals)[2]:  # its backward function reads what is linear: the function must do without
                    forget(fwd)
                    return list(fun.call_wrapped(*tracers))
            return self.record([Unknown(typeof(x)) for x in outs], linear_map, [True] * len(outs), slots)
        with set_current_trace(self.parent):
            pusher: LinearMap | None = None
            if self.settings.custom_vjp_jvp == "differentiate_primal":
                _, pusher = under(self.settings, linearize, lambda *args: custom_derivatives.call_once_more(fun, args), primals, active)
            outs, linear_map = under(self.settings, custom_derivatives.call_fwd, fun, fwd, bwd, out_trees, primals, active,
                                     symbolic_zeros)
            linear_map.pusher = pusher
        return self.record(outs, linear_map, custom_derivatives.differentiable(outs), slots)


def _many(results: Any) -> Sequence[Any]:
    return results if isinstance(results, (list, tuple)) else [results]


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


def linearize(fun: Callable[..., Sequence[Any]], primals: Sequence[Any], active: Sequence[Any],
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
