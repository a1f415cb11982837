"""What the traces of all engines do alike: references, calls, custom rules, ``shard_map``, operations that nothing moves in.

An engine is a trace: jax hands it each operation of the function that runs.  What an engine does with one that it has to differentiate
is its :meth:`EngineTrace.operate`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from dualrev._jax.shard_maps import rebind_shard_map, stage_shard_map
from dualrev._jax.traces import Trace, Tracer, process, set_current_trace
from dualrev.engines import references
from dualrev.engines.custom_derivatives import CustomJvp, CustomVjp, UserRule
from dualrev.options.settings import current
from dualrev.table.rows import Row, row_of, rows

Handler = Callable[[Any, Any, Sequence[Any], dict[str, Any]], Any]


class EngineTrace(Trace):
    """A trace that differentiates: values that depend on the inputs are tracers of its own, with a mark each.

    The mark is what the engine keeps of the value beside its primal: a tangent, or a slot of a tape.
    """

    #: What errors call the engine.
    mode_name: str
    #: Operations that are not looked up in the table, and what handles them.
    handlers: dict[Any, Handler] = {}  # noqa: RUF012  (a constant of the class)

    def __init__(self, parent: Trace):
        super().__init__()
        self.requires_low = False  # operations that jax would expand before they arrive do arrive (since 0.11)
        self.parent = parent
        self.settings = current.get()
        self.has_references = False

    @abstractmethod
    def split(self, values: Sequence[Any]) -> tuple[list[Any], list[Any], bool]:
        """Primals, marks (None for constants), and whether anything depends on the inputs."""

    @abstractmethod
    def operate(self, row: Row, tracers: Sequence[Any], primals: Sequence[Any], marks: Sequence[Any],
                params: dict[str, Any]) -> Sequence[Any]:
        """The results of an operation that depends on the inputs."""

    @property
    def main(self) -> Any:
        """What tells the derivatives of nested calls apart, for libraries that look (Equinox's ``filter_jvp``)."""
        return self

    def stage_value(self, val: Any) -> Any:
        return val if isinstance(val, Tracer) and val._trace is self else self.parent.stage_value(val)

    def row_of(self, primitive: Any) -> Row:
        return row_of(primitive, self.mode_name)

    def process_primitive(self, primitive: Any, tracers: Sequence[Any], params: dict[str, Any], /) -> Any:
        handler = self.handlers.get(primitive)
        if handler is not None:
            return handler(self, primitive, tracers, params)
        if self.has_references and references.holds_box(self, tracers):
            return references.operate(self, primitive, tracers, params)
        primals, marks, moves = self.split(tracers)
        if not moves:
            return process(self.parent, primitive, primals, params)
        row = rows.get(primitive)
        results = self.operate(self.row_of(primitive) if row is None else row, tracers, primals, marks, params)
        return results if primitive.multiple_results else results[0]

    def process_call(self, primitive: Any, fun: Any, tracers: Sequence[Any], params: dict[str, Any], /) -> Any:
        with set_current_trace(self):
            return fun.call_wrapped(*tracers)

    def process_custom_jvp_call(self, primitive: Any, fun: Any, jvp: Any, tracers: Sequence[Any], /, *,
                                symbolic_zeros: bool) -> list[Any]:
        return self.process_user_rule(CustomJvp(primitive, fun, jvp, symbolic_zeros), tracers)

    def process_custom_vjp_call(self, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Sequence[Any], /, *,
                                out_trees: Any, symbolic_zeros: bool) -> list[Any]:
        return self.process_user_rule(CustomVjp(primitive, fun, fwd, bwd, out_trees, symbolic_zeros), tracers)

    def process_user_rule(self, rule: UserRule, tracers: Sequence[Any]) -> list[Any]:
        """A call of a function with a rule of the user's, which is a row for this call alone."""
        references.keep_out(self, rule.primitive, tracers)
        primals, marks, moves = self.split(tracers)
        if not moves:
            return list(process(self.parent, rule.primitive, primals, rule.call))
        return list(self.operate(rule, tracers, primals, marks, {}))

    def process_shard_map(self, primitive: Any, fun: Any, tracers: Sequence[Any], /, **settings: Any) -> Any:
        with set_current_trace(self.parent):
            operands, params, pack = stage_shard_map(fun, tracers, settings)
        primals, _, moves = self.split(operands)
        if not moves:
            with set_current_trace(self.parent):
                return pack(rebind_shard_map(params, primals))
        return pack(self.process_primitive(primitive, operands, params))


def make_reference(trace: EngineTrace, primitive: Any, tracers: Sequence[Any], params: dict[str, Any]) -> Any:
    trace.has_references = True
    return references.make(trace, primitive, tracers, params)


EngineTrace.handlers = dict.fromkeys(references.MAKERS, make_reference)


def many(results: Any) -> Sequence[Any]:
    """The results of an operation, of which one that has a single result gives that alone."""
    return results if isinstance(results, (list, tuple)) else [results]
