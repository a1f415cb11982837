"""Findings in words: what was expected, what came, which operation and line, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dualrev._jax.primitives import primitive
from dualrev.inspection.checking import custom_rules
from dualrev.inspection.checking.decisions import Decision
from dualrev.inspection.checking.dependence import Block
from dualrev.inspection.checking.derivatives import Mismatch
from dualrev.inspection.checking.locating import Culprit
from dualrev.inspection.checking.operations import Operation, ruled_function, whose
from dualrev.inspection.checking.precision import Loss
from dualrev.inspection.checking.report import Finding, Severity
from dualrev.table.rows import rows


def first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _where(operation: Operation | None) -> str:
    return "" if operation is None else f" at {operation.where}"


def _compared(m: Mismatch) -> str:
    where = f" of {m.output}" if m.output else ""
    return f"{m.mode} mode, order {m.order}{where}: {m.expected}, {m.got} came"


def not_deterministic(operation: Operation | None) -> Finding:
    return Finding("not deterministic", "wrong", "two evaluations of the function at one point give two results"
                   + (f"; the first operation that differs is {operation.where}" if operation else ""),
                   "A derivative exists of a function of its arguments alone: pass random keys and state in, and seed what is random.",
                   operation=operation and operation.name, line=operation and operation.line)


def no_outputs() -> Finding:
    return Finding("no derivative", "wrong", "the function returns no floating-point or complex array, so there is nothing to differentiate",
                   "Return a float: integers, booleans and random keys have no tangent.")


def blocked(name: str, block: Block, is_float: bool, has_floats: bool) -> Finding | None:
    at = f"{block.operation!r}{' at ' + block.line if block.line else ''}"
    if is_float:
        advice = ("Nothing has to be done if this input is not meant to be trained; otherwise use a smooth relaxation, or a rule "
                  "(dualrev.rule, jax.custom_jvp) for a straight-through estimate.")
        return Finding("blocked", "warning", f"the derivative by {name} is zero everywhere: every path to the outputs passes an operation "
                       f"without derivative, the first of which is {at}", advice, input=name, operation=block.operation,
                       line=block.line or None)
    if block.operation is None and not block.is_number and has_floats:
        return None  # an index
    if has_floats and not block.is_number:
        return None
    text = f"the input {name} is an integer, and so has no derivative"
    if block.is_number:
        text += f"; it becomes a floating-point number{' at ' + block.line if block.line else ''}, and changes the outputs"
    return Finding("integer input", "note" if has_floats else "wrong", text, f"If the derivative by {name} is wanted, pass a float.",
                   input=name, line=block.line or None)


def not_finite(operation: Operation | None, mode: str | None) -> Finding:
    if mode is None:
        text = "the function is not finite at the point" + (f": NaN or infinity first comes from {operation.where}" if operation else "")
        advice = "Nothing else was checked. Move the point, or mask the operand before the operation, not its result."
    else:
        text = f"the {mode} derivative is not finite, though the function is" + (
            f": the derivative of {operation.where} is the first that is not" if operation else "")
        advice = ("Nothing else was checked. Where a mask discards the result, mask the operand too: "
                  "jnp.where(ok, f(jnp.where(ok, x, 1.0)), 0.0); or differentiate with zero_wins=True.")
    return Finding("not finite", "wrong", text, advice, mode=mode, operation=operation and operation.name, line=operation and operation.line)


def no_derivative(modes: str, error: Exception) -> Finding:
    return Finding("no derivative", "wrong", f"{modes} mode raises {first_line(error)}", "See the error of dr.jvp or dr.vjp at this point.",
                   mode=modes, order=1)


def no_second(error: Exception) -> Finding:
    return Finding("no derivative", "note", f"the second derivative raises {first_line(error)}", "First derivatives are not concerned.",
                   order=2)


def custom_rule(found: custom_rules.Difference, surrogates: Severity) -> Finding:
    """A rule that differs from the derivative of the function that it is for."""
    name, where = ruled_function(found.operation.eqn)
    on_purpose = found.why_on_purpose
    text = (f"the rule of {found.operation.where}{' (defined at ' + where + ')' if where else ''} differs from the derivative of its "
            f"function by {found.relative:.2g} of its size" + (f"; perhaps on purpose, as {on_purpose}" if on_purpose else ""))
    return Finding("custom rule", surrogates if on_purpose else "wrong", text,
                   f"Compare the rule with dr.jvp of what {name!r} computes, or drop it.", mode=found.mode, order=1,
                   operation=name, line=found.operation.line or None, difference=found.relative)


def with_input(finding: Finding, names: str) -> Finding:
    """A finding about a rule, with the inputs by which the whole is wrong."""
    if finding.kind != "custom rule" or finding.input is not None:
        return finding
    return replace(finding, input=names, text=f"by {names}: {finding.text}")


def culprit(found: Culprit, names: str, precision: float, seed: int, surrogates: Severity) -> Finding:
    operation, m = found.operation, found.mismatch
    common = dict(input=names, operation=operation.name, line=operation.line or None)
    if m is None:
        assert found.error is not None  # there is one of the two
        return Finding("no derivative", "wrong", f"by {names}: the derivative of {operation.where} raises {first_line(found.error)}",
                       **common)  # type: ignore[arg-type]
    what = dict(common, mode=m.mode, order=m.order, difference=m.difference)
    if operation.eqn.primitive is primitive("stop_gradient"):
        return Finding("stopped", "note", f"by {names}: {operation.where} holds a value constant that does depend on the input, so that the "
                       "derivative differs from that of the function", "Nothing has to be done if this is meant.",
                       **what)  # type: ignore[arg-type]
    if operation.is_ruled:
        different = custom_rules.difference(operation, seed, precision)
        if different is not None and m.order == 1:
            return with_input(custom_rule(different, surrogates), names)
        name, where = ruled_function(operation.eqn)
        return Finding("custom rule", "wrong", f"by {names}: the rule of {operation.where}{' (defined at ' + where + ')' if where else ''} "
                       f"is wrong: {_compared(m)}", f"Compare the rule with the derivative of what {name!r} computes.",
                       **what)  # type: ignore[arg-type]
    row = rows.get(operation.eqn.primitive)
    if operation.is_foreign:
        which = "the row" if row is not None else "the registered transpose" if m.is_reverse_against_forward else "the registered JVP"
        place = f" at {row.where}" if row is not None else ""
        return Finding("foreign rule", "wrong", f"by {names}: {which} of {whose(operation)}{place}, met at {operation.where}, is wrong: "
                       f"{_compared(m)}", "State the derivative with dualrev.rule, which overrides what is registered, and tell its authors.",
                       **what)  # type: ignore[arg-type]
    return Finding("derivative", "wrong", f"by {names}: the derivative of {operation.where} is wrong: {_compared(m)}",
                   f"This is an error of dualrev{f' ({row.where})' if row is not None else ''}: please report it.",
                   **what)  # type: ignore[arg-type]


def unlocated(m: Mismatch, names: str, at_point: Sequence[Decision], was_traced: bool) -> Finding:
    text = f"by {names}: the derivative is wrong: {_compared(m)}"
    if at_point:
        d = at_point[0].operation
        return Finding("non-smooth", "wrong", f"{text}; {d.where} is at its kink, where each operation chooses a slope of its own, and "
                       "together they give one that the function does not have", "Write the function without a decision at this point, "
                       "or move the point.", input=names, mode=m.mode, order=m.order, operation=d.name, line=d.line or None,
                       difference=m.difference)
    why = "each of its operations is right by itself" if was_traced else "its operations were not looked at, as it can't be traced"
    return Finding("modes" if m.is_reverse_against_forward else "derivative", "wrong", f"{text}; {why}", "Try other points and seeds; if it "
                   "stays, please report it.", input=names, mode=m.mode, order=m.order, difference=m.difference)


def undecided(m: Mismatch, names: str) -> Finding:
    return Finding("undecided", "note", f"by {names}: finite differences do not converge ({_compared(m)}), so that nothing can be said",
                   "The function may be noisy, oscillate, or be undefined on one side of the point.", input=names, mode=m.mode,
                   order=m.order, difference=m.difference)


def at_kink(d: Decision) -> Finding:
    return Finding("non-smooth", "warning", f"{d.operation.where} decides exactly at this point, where the function has a kink or a jump: "
                   "the derivative is one of several", "Move the point, or use a smooth function.", operation=d.operation.name,
                   line=d.operation.line or None, difference=0.0)


def harmless(d: Decision) -> Finding:
    return Finding("non-smooth", "note", f"{d.operation.where} decides exactly at this point; the function itself looks smooth there",
                   operation=d.operation.name, line=d.operation.line or None, difference=0.0)


def near(d: Decision) -> Finding:
    return Finding("non-smooth", "note", f"{d.operation.where} decides otherwise after a relative change of the inputs by {d.distance:.2g}: "
                   "the derivative holds up to there", operation=d.operation.name, line=d.operation.line or None, difference=d.distance)


def kink_of_unknown_origin(m: Mismatch) -> Finding:
    return Finding("non-smooth", "warning", f"the derivatives on both sides of the point differ ({_compared(m)})", mode=m.mode,
                   order=m.order, difference=m.difference)


def precision(found: Loss, dtypes: Sequence[str]) -> Finding:
    operation = found.operation
    text = (f"the {found.what} (output {found.output}) loses its digits in {', '.join(dtypes)}: {found.got:.6g}, and {found.expected:.6g} in "
            f"float64, a relative error of {found.error:.2g}" + (f"; the first operation that loses them is {operation.where}" if operation
                                                                 else ""))
    return Finding("precision", "warning", text, "Write the formula without the difference of nearly equal numbers or the overflow "
                   "(expm1, log1p, logsumexp, a multiplied-out form), or compute it in float64.", operation=operation and operation.name,
                   line=operation.line or None if operation else None, difference=found.error)
