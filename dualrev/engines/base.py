"""What the traces of all engines do alike: constants, references, calls, rules of users, ``shard_map``.

jax hands a trace each operation of the function that runs.  :meth:`EngineTrace.process_primitive` sorts operations: one whose operands
are all constants goes to the trace outside; one with an active operand is looked up in the table, and the engine's own
:meth:`EngineTrace.operate` differentiates it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

from dualrev._jax.custom_rules import WrappedFun
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.shard_maps import rebind_shard_map, stage_shard_map
from dualrev._jax.source_lines import Direction, Marking
from dualrev._jax.traces import Trace, Tracer, is_staged_at_last, process, set_current_trace
from dualrev.engines import references
from dualrev.engines.custom_derivatives import CustomJvp, CustomVjp, OutTrees, UserRule
from dualrev.options.settings import current
from dualrev.table.rows import Row, row_of, rows

#: What an operation returns: one array, or several.
Results: TypeAlias = jax.Array | Sequence[jax.Array]

#: Handles an operation of a trace: ``handler(trace, primitive, operands, params)``.
Handler: TypeAlias = Callable[[Any, Primitive, Sequence[jax.Array], Params], Any]


class EngineTrace(Trace):
    """A trace that differentiates.  A value that depends on the inputs, an *active* value, is a tracer: a primal with a mark.

    The mark is what the engine keeps for the value: a tangent (forward), or a slot on the tape (reverse).  A constant has none.
    """

    #: The name of the engine in error messages.
    mode_name: str
    #: The word for what it does to an operation, in the marks of equations.
    direction: Direction = "push"
    #: Operations that are not looked up in the table, and their handlers.
    handlers: dict[Primitive, Handler] = {}  # noqa: RUF012  (a constant of the class)

    def __init__(self, parent: Trace):
        super().__init__()
        self.requires_low = False  # operations that jax would expand before they arrive do arrive (since 0.11)
        self.parent = parent
        self.settings = current.get()
        self.has_references = False
        #: Whether operations become equations of a program: those that derivatives add get marks.
        self.is_staged = is_staged_at_last(parent)

    @abstractmethod
    def split(self, values: Sequence[jax.Array]) -> tuple[list[Any], list[Any], bool]:
        """Primals, marks (None for constants), and whether any value is active."""

    @abstractmethod
    def operate(self, row: Row, tracers: Sequence[jax.Array], primals: Sequence[Any], marks: Sequence[Any],
                params: Params) -> Sequence[jax.Array]:
        """The results of an operation that has an active operand."""

    def operate_marked(self, row: Row, *args: Any) -> Sequence[jax.Array]:
        """As :meth:`operate`, where equations are traced: those of an operation's derivative get a mark."""
        if not row.is_operation or row.kind == "call":
            return self.operate(row, *args)
        with Marking(self.direction, True) as marking:
            marking.at(str(row.primitive), None)
            return self.operate(row, *args)

    @property
    def main(self) -> object:
        """What tells the derivatives of nested calls apart, for libraries that look (Equinox's ``filter_jvp``)."""
        return self

    def stage_value(self, val: object) -> object:
        return val if isinstance(val, Tracer) and val._trace is self else self.parent.stage_value(val)

    def row_of(self, primitive: Primitive) -> Row:
        return row_of(primitive, self.mode_name)

    def process_primitive(self, primitive: Primitive, tracers: Sequence[jax.Array], params: Params, /) -> Any:
        """The results of any operation, whether it has to be differentiated or not."""
        handler = self.handlers.get(primitive)
        if handler is not None:
            return handler(self, primitive, tracers, params)
        if self.has_references and references.holds_box(self, tracers):
            return references.operate(self, primitive, tracers, params)
        primals, marks, is_active = self.split(tracers)
        if not is_active:
            return process(self.parent, primitive, primals, params)
        row = rows.get(primitive)
        operate = self.operate_marked if self.is_staged else self.operate
        results = operate(self.row_of(primitive) if row is None else row, tracers, primals, marks, params)
        return results if primitive.multiple_results else results[0]

    def process_call(self, primitive: Primitive, fun: WrappedFun, tracers: Sequence[jax.Array], params: Params, /) -> list[jax.Array]:
        with set_current_trace(self):
            return fun.call_wrapped(*tracers)  # type: ignore[no-any-return]

    def process_custom_jvp_call(self, primitive: Primitive, fun: WrappedFun, jvp: WrappedFun, tracers: Sequence[jax.Array], /, *,
                                symbolic_zeros: bool) -> list[jax.Array]:
        return self.process_user_rule(CustomJvp(primitive, fun, jvp, symbolic_zeros), tracers)

    def process_custom_vjp_call(self, primitive: Primitive, fun: WrappedFun, fwd: WrappedFun, bwd: WrappedFun,
                                tracers: Sequence[jax.Array], /, *, out_trees: OutTrees, symbolic_zeros: bool) -> list[jax.Array]:
        return self.process_user_rule(CustomVjp(primitive, fun, fwd, bwd, out_trees, symbolic_zeros), tracers)

    def process_user_rule(self, rule: UserRule, tracers: Sequence[jax.Array]) -> list[jax.Array]:
        """The results of a function that has a rule of the user's: the rule is the row of this one call."""
        references.keep_out(self, rule.primitive, tracers)
        primals, marks, is_active = self.split(tracers)
        if not is_active:
            return list(process(self.parent, rule.primitive, primals, rule.call))
        return list(self.operate(rule, tracers, primals, marks, {}))

    def process_shard_map(self, primitive: Primitive, fun: Callable[..., Any], tracers: Sequence[jax.Array], /,
                          **settings: Any) -> Any:
        with set_current_trace(self.parent):
            operands, params, pack = stage_shard_map(fun, tracers, settings)
        primals, _, is_active = self.split(operands)
        if not is_active:
            with set_current_trace(self.parent):
                return pack(rebind_shard_map(params, primals))
        return pack(self.process_primitive(primitive, operands, params))


def make_reference(trace: EngineTrace, primitive: Primitive, tracers: Sequence[jax.Array], params: Params) -> references.Box:
    """The handler of operations that make a mutable reference."""
    trace.has_references = True
    return references.make(trace, primitive, tracers, params)


EngineTrace.handlers = dict.fromkeys(references.MAKERS, make_reference)


def many(results: Results) -> Sequence[jax.Array]:
    """The results as a sequence, also of an operation that returns one array."""
    return results if isinstance(results, (list, tuple)) else [results]  # type: ignore[list-item]
