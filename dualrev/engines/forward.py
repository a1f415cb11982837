"""The forward engine: dual numbers.

Each value carries a tangent that is pushed through an operation at once and then forgotten: no tape, so memory does not grow
with the length of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dualrev import errors
from dualrev._jax.avals import is_differentiable, typeof
from dualrev._jax.shard_maps import rebind_shard_map, stage_shard_map
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
from dualrev.engines import custom_derivatives, references
from dualrev.linear import zeros
from dualrev.options.settings import current, under
from dualrev.table import engine
from dualrev.table.rows import Unfold, row_of


class Dual(Tracer):
    """A primal value and its tangent."""

    __slots__ = ("primal", "tangent")

    def __init__(self, trace: ForwardTrace, primal: Any, tangent: Any):
        super().__init__(trace, typeof(primal))
        self.primal = primal
        self.tangent = tangent

    def to_concrete_value(self) -> Any:
        return to_concrete_value(self.primal)

    def get_referent(self) -> Any:
        return self.primal.get_referent() if isinstance(self.primal, Tracer) else self

    def _contents(self) -> list[tuple[str, Any]]:
        return contents(self.aval, primal=self.primal, tangent=self.tangent)

    def _short_repr(self) -> str:
        return f"Dual({self.primal}, tangent={self.tangent})"


class ForwardTrace(Trace):
    """Pushes tangents through each operation as it happens."""

    def __init__(self, parent: Trace):
        super().__init__()
        self.requires_low = False  # operations that jax would expand before they arrive do arrive (since 0.11)
        self.parent = parent
        self.settings = current.get()
        self.has_references = False

    def dual(self, primal: Any, tangent: Any) -> Any:
        return primal if tangent is None else Dual(self, primal, tangent)

    def split(self, values: Sequence[Any]) -> tuple[list[Any], list[Any], bool]:
        """Primals, tangents, and whether any tangent is not zero."""
        primals, tangents, moves = [], [], False
        for x in values:
            if isinstance(x, Dual) and x._trace is self:
                primals.append(x.primal)
                tangents.append(x.tangent)
                moves = True
            else:
                primals.append(x)
                tangents.append(None)
        return primals, tangents, moves

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
        primals, tangents, moves = self.split(tracers)
        if not moves:
            return process(self.parent, primitive, primals, params)
        row = row_of(primitive, "forward")
        if row.chooses:
            row = row.choose(primals, [t is not None for t in tangents], params)
        with set_current_trace(self.parent):
            try:
                outs, tangents_out = under(self.settings, row.jvp, primals, tangents, params)
            except Unfold as program:
                with set_current_trace(self):
                    return program.run(*tracers)
        if primitive.multiple_results:
            return [self.dual(x, t) for x, t in zip(outs, tangents_out, strict=True)]
        return self.dual(outs[0], tangents_out[0])

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
        primals, tangents, moves = self.split(tracers)
        if not moves:
            return process(self.parent, primitive, primals, dict(subfuns=(fun, jvp), symbolic_zeros=symbolic_zeros))
        with set_current_trace(self.parent):
            outs, tangents_out = under(self.settings, custom_derivatives.call_jvp, fun, jvp, primals, tangents, symbolic_zeros)
        return [self.dual(x, t) for x, t in zip(outs, tangents_out, strict=True)]

    def process_custom_vjp_call(self, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Sequence[Any], /, *,
                                out_trees: Any, symbolic_zeros: bool) -> list[Any]:
        references.keep_out(self, primitive, tracers)
        primals, tangents, moves = self.split(tracers)
        if not moves:
            params = dict(subfuns=(fun, fwd, bwd), out_trees=out_trees, symbolic_zeros=symbolic_zeros)
            return process(self.parent, primitive, primals, params)
        policy = self.settings.custom_vjp_jvp
        if policy == "error":
            raise errors.custom_vjp_pushed()
        if policy == "differentiate_primal":
            with set_current_trace(self):
                return list(fun.call_wrapped(*tracers))
        active = [t is not None for t in tangents]
        with set_current_trace(self.parent):
            outs, linear_map = under(self.settings, custom_derivatives.call_fwd, fun, fwd, bwd, out_trees, primals, active,
                                     symbolic_zeros)
            tangents_out = under(self.settings, linear_map.push, *[t for t in tangents if t is not None])
        return [self.dual(x, t) for x, t in zip(outs, tangents_out, strict=True)]


def push_through(fun: Callable[..., Sequence[Any]], primals: Sequence[Any],
                 tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """``(outs, tangents out)`` of a flat function; a tangent of None is zero."""
    with take_current_trace() as parent:
        trace = ForwardTrace(parent)
        with ensure_no_leaks(trace):
            try:
                with set_current_trace(trace):
                    results = list(fun(*[trace.dual(x, t) for x, t in zip(primals, tangents, strict=True)]))
                references.check_results(trace, results)
                outs, tangents_out, _ = trace.split(results)
            finally:
                trace.invalidate()
            del trace, results
    return outs, [t if t is not None and is_differentiable(typeof(x)) else None
                  for x, t in zip(outs, tangents_out, strict=True)]


def zeros_like_outs(outs: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """Tangents with arrays in place of symbolic zeros."""
    return [zeros.zero_tangent(x) if t is None else t for x, t in zip(outs, tangents, strict=True)]


engine.provide(push_through=push_through)
