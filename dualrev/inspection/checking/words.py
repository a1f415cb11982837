"""Findings in words: what was expected, what came, which operation and line, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

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

SMOOTHER = "Move the point, or write the function without a decision there."
MASK = ("Nothing else was checked. Where a mask discards the result, mask the operand too: "
        "jnp.where(ok, f(jnp.where(ok, x, 1.0)), 0.0); or differentiate with zero_wins=True.")
RELAX = ("Nothing has to be done if this input is not meant to be trained; otherwise use a smooth relaxation, or a rule (dualrev.rule, "
         "jax.custom_jvp) for a straight-through estimate.")
REWRITE = ("Write the formula without the difference of nearly equal numbers, or without the overflow (expm1, log1p, logsumexp, a "
           "multiplied-out form), or compute it in float64.")


class Named(TypedDict):
    """What a finding says of an operation."""

    operation: str | None
    line: str | None


class Off(TypedDict):
    """What a finding says of a derivative."""

    mode: str
    order: int
    difference: float


def first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _of(operation: Operation | None) -> Named:
    return Named(operation=None, line=None) if operation is None else Named(operation=operation.name, line=operation.line or None)


def _off(m: Mismatch) -> Off:
    return Off(mode=m.mode, order=m.order, difference=m.difference)


def _compared(m: Mismatch) -> str:
    where = f" of {m.output}" if m.output else ""
    return f"{m.mode} mode, order {m.order}{where}: {m.expected}, {m.got} came"


# ------------------------------------------------------------------------------------------------ before any derivative


def not_deterministic(operation: Operation | None) -> Finding:
    text = "two evaluations of the function at one point give two results"
    if operation is not None:
        text += f"; the first operation that differs is {operation.where}"
    advice = "A derivative exists of a function of its arguments alone: pass random keys and state in, and seed what is random."
    return Finding("not deterministic", "wrong", text, advice, **_of(operation))


def no_outputs() -> Finding:
    text = "the function returns no floating-point or complex array, so that there is nothing to differentiate"
    return Finding("no derivative", "wrong", text, "Return a float: integers, booleans and random keys have no tangent.")


def blocked(name: str, block: Block, is_float: bool, has_floats: bool) -> Finding | None:
    """Of an input without derivative; None for an integer that is an index, say."""
    at = f" at {block.line}" if block.line else ""
    if is_float:
        text = (f"the derivative by {name} is zero everywhere: every path to the outputs passes an operation without derivative, the "
                f"first of which is {block.operation!r}{at}")
        return Finding("blocked", "warning", text, RELAX, input=name, operation=block.operation, line=block.line or None)
    if has_floats and not block.is_number:
        return None
    text = f"the input {name} is an integer, and so has no derivative"
    if block.is_number:
        text += f"; it becomes a floating-point number{at}, and changes the outputs"
    return Finding("integer input", "note" if has_floats else "wrong", text, f"If the derivative by {name} is wanted, pass a float.",
                   input=name, line=block.line or None)


def not_finite(operation: Operation | None) -> Finding:
    text = "the function is not finite at the point"
    if operation is not None:
        text += f": NaN or infinity first comes from {operation.where}"
    return Finding("not finite", "wrong", text, MASK, **_of(operation))


def no_slope(operation: Operation | None, mode: str) -> Finding:
    text = f"the {mode} derivative is not finite, though the function is"
    if operation is not None:
        text += f": the first operation whose derivative is not is {operation.where}"
    return Finding("not finite", "wrong", text, MASK, mode=mode, **_of(operation))


def no_derivative(modes: Sequence[str], error: Exception) -> Finding:
    """Modes that raise an error; that a function has the other mode alone may be meant, as by a gradient that is clipped."""
    which = " and ".join(modes) or "forward and reverse"
    advice = "Call dr.jvp or dr.vjp at this point for the whole message."
    if len(modes) == 1:
        advice += f" The {'reverse' if modes == ['forward'] else 'forward'} mode, which raises nothing, was compared with nothing."
    return Finding("no derivative", "warning" if modes == ["forward"] else "wrong", f"{which} mode raises {first_line(error)}", advice,
                   mode=which, order=1)


def no_second(error: Exception) -> Finding:
    return Finding("no derivative", "note", f"the second derivative raises {first_line(error)}", "First derivatives are not concerned.",
                   order=2)


# ------------------------------------------------------------------------------------------------------ wrong derivatives


def _rule_of(operation: Operation) -> str:
    """``the rule of 'f' at model.py:3 (loss), which is defined at rules.py:7``."""
    _, where = ruled_function(operation.eqn)
    return f"the rule of {operation.where}" + (f", which is defined at {where}," if where else "")


def custom_rule(found: custom_rules.Difference, surrogates: Severity) -> Finding:
    """A rule that differs from the derivative of the function that it is for."""
    on_purpose = found.why_on_purpose
    text = f"{_rule_of(found.operation)} differs from the derivative of its function by {found.relative:.2g} of its size"
    if on_purpose:
        text += f"; perhaps on purpose, as {on_purpose}"
    return Finding("custom rule", surrogates if on_purpose else "wrong", text,
                   f"Compare the rule with the derivative of what {found.operation.name!r} computes, or drop it.", mode=found.mode,
                   order=1, difference=found.relative, **_of(found.operation))


def with_input(finding: Finding, names: str) -> Finding:
    """A finding about a rule, with the inputs by which the whole is wrong."""
    if finding.kind != "custom rule" or finding.input is not None:
        return finding
    return replace(finding, input=names, text=f"by {names}: {finding.text}")


def culprit(found: Culprit, names: str, different: custom_rules.Difference | None, surrogates: Severity) -> Finding:
    """The operation that is to blame; ``different``: how its rule differs from its function, if it has one that does."""
    operation, m, named = found.operation, found.mismatch, _of(found.operation)
    row = rows.get(operation.eqn.primitive)
    if m is None:
        assert found.error is not None  # there is one of the two
        text = f"by {names}: the derivative of {operation.where} raises {first_line(found.error)}"
        return Finding("no derivative", "wrong", text, input=names, **named)
    if operation.eqn.primitive is primitive("stop_gradient"):
        text = (f"by {names}: {operation.where} holds constant what depends on the input, so that the derivative differs from that of "
                "the function")
        return Finding("stopped", "note", text, "Nothing has to be done if this is meant.", input=names, **named, **_off(m))
    if operation.eqn.primitive is primitive("random_gamma"):
        text = (f"by {names}: {operation.where} draws samples that jump where a proposal is accepted or not, so that finite "
                "differences tell nothing of its derivative, which is that at a fixed probability")
        return Finding("undecided", "note", text, input=names, **named, **_off(m))
    if operation.is_ruled:
        if different is not None:
            return with_input(custom_rule(different, surrogates), names)
        text = f"by {names}: {_rule_of(operation)} is wrong: {_compared(m)}"
        advice = f"Compare the rule with the derivative of what {operation.name!r} computes."
        return Finding("custom rule", "wrong", text, advice, input=names, **named, **_off(m))
    if operation.is_foreign:
        rule = "the registered transpose" if m.is_reverse_against_forward else "the registered JVP"
        rule = rule if row is None else f"the row at {row.where}"
        text = f"by {names}: {rule} of {whose(operation)}, met as {operation.where}, is wrong: {_compared(m)}"
        advice = "State the derivative with dualrev.rule, which overrides what is registered, and tell its authors."
        return Finding("foreign rule", "wrong", text, advice, input=names, **named, **_off(m))
    text = f"by {names}: the derivative of {operation.where} is wrong: {_compared(m)}"
    advice = f"This is an error of dualrev{f' ({row.where})' if row is not None else ''}: please report it."
    return Finding("derivative", "wrong", text, advice, input=names, **named, **_off(m))


def unlocated(m: Mismatch, names: str, at_point: Sequence[Decision], was_traced: bool) -> Finding:
    text = f"by {names}: the derivative is wrong: {_compared(m)}"
    if at_point:
        operation = at_point[0].operation
        text += (f"; {operation.where} is at its kink, where each operation chooses a slope of its own, and together they give one "
                 "that the function does not have")
        return Finding("non-smooth", "wrong", text, SMOOTHER, input=names, **_of(operation), **_off(m))
    text += "; each of its operations is right by itself" if was_traced else "; it can't be traced: operations were not looked at"
    return Finding("modes" if m.is_reverse_against_forward else "derivative", "wrong", text,
                   "Try other points and seeds; if it stays, please report it.", input=names, **_off(m))


def undecided(m: Mismatch, names: str) -> Finding:
    text = f"by {names}: finite differences do not converge ({_compared(m)}), so that nothing can be said"
    return Finding("undecided", "note", text, "The function may be noisy, oscillate, or be undefined on one side of the point.",
                   input=names, **_off(m))


# ------------------------------------------------------------------------------------------------- decisions and digits


def at_kink(d: Decision) -> Finding:
    text = (f"{d.operation.where} decides exactly at this point, where the function has a kink or a jump: the derivative is one of "
            "several")
    return Finding("non-smooth", "warning", text, SMOOTHER, difference=0.0, **_of(d.operation))


def harmless(d: Decision) -> Finding:
    text = f"{d.operation.where} decides exactly at this point; the function itself looks smooth there"
    return Finding("non-smooth", "note", text, difference=0.0, **_of(d.operation))


def near(d: Decision) -> Finding:
    text = (f"{d.operation.where} decides otherwise after a relative change of the inputs by {d.distance:.2g}: the derivative holds up "
            "to there")
    return Finding("non-smooth", "note", text, difference=d.distance, **_of(d.operation))


def kink_of_unknown_origin(m: Mismatch) -> Finding:
    return Finding("non-smooth", "warning", f"the derivatives on both sides of the point differ ({_compared(m)})", SMOOTHER, **_off(m))


def precision(found: Loss, dtypes: Sequence[str]) -> Finding:
    text = (f"the {found.what} (output {found.output}) loses its digits in {', '.join(dtypes)}: {found.got:.6g}, and "
            f"{found.expected:.6g} in float64, a relative error of {found.error:.2g}")
    if found.operation is not None:
        text += f"; the first operation that loses them is {found.operation.where}"
    return Finding("precision", "warning", text, REWRITE, difference=found.error, **_of(found.operation))
