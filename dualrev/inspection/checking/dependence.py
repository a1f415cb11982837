"""Which inputs the outputs depend on without a derivative, and the first operation that blocks it.

A value depends on an input along paths.  A path is blocked by an operation whose derivative is zero by definition (rounding,
comparison, ``argmax``, ``stop_gradient``) or whose result is an integer.  An input is blocked where all paths to all outputs are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dualrev._jax.avals import is_differentiable
from dualrev._jax.calls import cond_p, scan_layout, scan_p, while_p
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, JaxprEqn, is_literal, open_and_closed
from dualrev._jax.source_lines import line_of
from dualrev.inspection.checking.operations import name_of, program_of
from dualrev.table.rows import Unknown, rows


@dataclass(frozen=True)
class Block:
    """What blocks the derivative: an operation and its line; ``operation`` is None for an input that is an integer."""

    operation: str | None
    line: str
    #: Whether an integer has become a floating-point number since.
    is_number: bool = False


#: For each input that a value depends on: what blocks the derivative on all paths, or None where one is open.
Paths: TypeAlias = dict[int, Block | None]

_INTEGER = Block(None, "")


def blocked(program: ClosedJaxpr) -> dict[int, Block]:
    """The inputs that outputs depend on, and that none of them has a derivative by."""
    body, _ = open_and_closed(program)
    outs = _through(program, [{i: None if is_differentiable(v.aval) else _INTEGER} for i, v in enumerate(body.invars)])
    joined = _joined(outs)
    return {i: block for i, block in joined.items() if block is not None}


def _joined(all_paths: Iterable[Paths]) -> Paths:
    found: Paths = {}
    for paths in all_paths:
        for i, block in paths.items():
            known = found.get(i, block)
            found[i] = None if known is None or block is None else block if block.is_number and not known.is_number else known
    return found


def _without(paths: Paths, eqn: JaxprEqn) -> Paths:
    """The paths behind an operation that has no derivative."""
    block = Block(name_of(eqn), line_of(eqn.source_info))
    return {i: block if known is None else known for i, known in paths.items()}


def _through(jaxpr: ClosedJaxpr | Jaxpr, ins: Sequence[Paths]) -> list[Paths]:
    body, _ = open_and_closed(jaxpr)
    env: dict[object, Paths] = {v: {} for v in body.constvars}
    env.update(zip(body.invars, ins, strict=True))
    for eqn in body.eqns:
        operands = [{} if is_literal(a) else env[a] for a in eqn.invars]
        env.update(zip(eqn.outvars, _behind(eqn, operands), strict=True))
    return [{} if is_literal(a) else env[a] for a in body.outvars]


def _behind(eqn: JaxprEqn, operands: Sequence[Paths]) -> list[Paths]:
    if eqn.primitive is cond_p:
        index, rest = operands[0], operands[1:]
        branches = [_through(branch, rest) for branch in eqn.params["branches"]]
        return [_joined([*alternatives, index]) for alternatives in zip(*branches, strict=True)]
    if eqn.primitive is scan_p:
        n_consts, n_carry = scan_layout(eqn.params)
        consts, carry, xs = operands[:n_consts], list(operands[n_consts: n_consts + n_carry]), operands[n_consts + n_carry:]
        while True:
            outs = _through(eqn.params["jaxpr"], [*consts, *carry, *xs])
            after = [_joined(both) for both in zip(carry, outs[:n_carry], strict=True)]
            if after == carry:
                return [*carry, *outs[n_carry:]]
            carry = after
    if eqn.primitive is while_p:
        n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        cond_consts, body_consts, carry = operands[:n], operands[n: n + m], list(operands[n + m:])
        while True:
            (goes,) = _through(eqn.params["cond_jaxpr"], [*cond_consts, *carry])
            outs = _through(eqn.params["body_jaxpr"], [*body_consts, *carry])
            after = [_joined([*both, goes]) for both in zip(carry, outs, strict=True)]
            if after == carry:
                return carry
            carry = after
    program = program_of(eqn)
    row = rows.get(eqn.primitive)
    if program is not None and not eqn.params.keys() & {"num_consts", "symbolic_zeros"}:
        return _through(program, operands)
    joined = _joined(operands)
    if row is not None and row.chooses:
        avals = [v.aval for v in eqn.invars]
        row = row.choose([Unknown(a) for a in avals], [is_differentiable(a) for a in avals], eqn.params)  # type: ignore[arg-type]
    has_none = row is not None and row.kind == "zero"
    behind = []
    for v in eqn.outvars:
        if has_none or not is_differentiable(v.aval):
            paths = _without(joined, eqn)
        else:
            paths = {i: Block(b.operation, b.line or line_of(eqn.source_info), True) if b is not None and b.operation is None else b
                     for i, b in joined.items()} if str(eqn.primitive) == "convert_element_type" else joined
        behind.append(paths)
    return behind
