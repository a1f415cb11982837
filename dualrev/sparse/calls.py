"""Operations that hold programs: calls, branches, linear solves; loops are in :mod:`dualrev.sparse.loops`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import jax

from dualrev._jax.avals import is_differentiable
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, stage
from dualrev._jax.sparse_programs import sparse_program
from dualrev.calls.call_rows import CallRow, RunRow
from dualrev.calls.region import RegionRow, whole
from dualrev.calls.user_reductions import UserOperationRow
from dualrev.sparse import loops
from dualrev.sparse.graph import Nodes
from dualrev.sparse.values import Value
from dualrev.table.pushforward import DefinedRow
from dualrev.table.rows import Row, Unknown

if TYPE_CHECKING:
    from dualrev.sparse.propagation import Propagation

#: ``(run, eqn, operands) -> results``: values, or nodes.
Call: TypeAlias = "Callable[[Propagation, JaxprEqn, Sequence[Value]], Sequence[Nodes | Value | None]]"


def plain_program(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The program of a call without a derivative rule of its own."""
    if eqn.primitive.name in ("call", "closed_call", "core_call", "core_closed_call"):
        found: ClosedJaxpr = eqn.params["call_jaxpr"]
        return found
    return None


def holds_program(row: Row) -> bool:
    """Whether :func:`held_program` may find one."""
    return (isinstance(row, (RunRow, RegionRow, UserOperationRow, DefinedRow)) or row.where.startswith("rules/sparse/")
            or (isinstance(row, CallRow) and row.cost == "its program"))


def held_program(row: Row, eqn: JaxprEqn, operands: Sequence[Value]) -> ClosedJaxpr | None:
    """The program that an operation runs once, or that defines it; None if there is none."""
    params = eqn.params
    if isinstance(row, RunRow):
        return row.jaxpr_of(params)
    if isinstance(row, CallRow) and row.cost == "its program":
        (program,) = row.owners(params)
        return program
    avals = [x.aval for x in operands]
    if isinstance(row, RegionRow):
        return whole(params, avals)
    if isinstance(row, UserOperationRow):
        row.check([x.nodes is not None for x in operands])
        return row.stand_in([Unknown(a) for a in avals], params)
    if isinstance(row, DefinedRow):
        return stage(row.function(params), avals)
    if row.where.startswith("rules/sparse/") and (found := sparse_program(eqn.primitive)) is not None:
        def on_arrays(*xs: jax.Array) -> list[jax.Array]:
            outs = found(*xs, **params)
            return list(outs) if eqn.primitive.multiple_results else [outs]

        return stage(on_arrays, avals)
    return None


def _branches(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | Value | None]:
    index, *args = operands
    branches = eqn.params["branches"]
    if index.is_known and eqn.params.get("branches_platforms") is None:
        chosen = min(max(int(index.known()), 0), len(branches) - 1)
        return run.run(branches[chosen], args)
    results = [run.run(branch, args) for branch in branches]
    return [run.graph.union(*[x.nodes for x in several]) for several in zip(*results, strict=True)]


def _linear_solve(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | Value | None]:
    """``dx = A⁻¹ (db - dA x)``: the solver's pattern on the union of ``b`` and of ``A x`` by the constants of ``A``."""
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    n = sum(lengths)
    avals = [v.aval for v in eqn.outvars]
    n_b = len(operands) - n
    in_matvec = operands[: lengths.matvec]
    right = [x.nodes for x in operands[n:]]
    is_nonlinear = any(x.nodes is not None for x in in_matvec)
    if is_nonlinear:
        of_a = run.run(jaxprs.matvec, [*in_matvec, *[Value(a) for a in avals[:n_b]]])  # type: ignore[arg-type]  # all are arrays
        right = [run.graph.union(p, x.nodes) for p, x in zip(right, of_a, strict=True)]
    start = lengths.matvec + lengths.vecmat
    consts = [run.residual(x) for x in operands[start: start + lengths.solve]]
    found = run.run(jaxprs.solve, [*consts, *[Value(a, p) for a, p in zip(avals, right, strict=False)]])  # type: ignore[arg-type]
    solution = [x.nodes if i < n_b and is_differentiable(x.aval) else None for i, x in enumerate(found)]
    return [run.graph.clique(p) for p in solution] if is_nonlinear else solution


def _shards(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | Value | None]:
    """On one device a shard is the whole array; on several, all entries together."""
    if eqn.params["mesh"].size == 1:
        return run.run(eqn.params["jaxpr"], operands)
    return run.dense(eqn, operands, "which device has which entries is not followed")


def _linear_call(run: Propagation, eqn: JaxprEqn, operands: Sequence[Value]) -> Sequence[Nodes | Value | None]:
    return run.run(eqn.params["callee"], operands)


CALLS: dict[str, Call] = {
    "cond": _branches,
    "custom_linear_solve": _linear_solve,
    "linear_call": _linear_call,
    "shard_map": _shards,
    "scan": loops.scan,
    "while": loops.while_loop,
}
