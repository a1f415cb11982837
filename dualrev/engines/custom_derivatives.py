"""The derivative rules that users attach with ``jax.custom_jvp`` and ``jax.custom_vjp``.

They reach an engine through its trace's ``process_custom_*`` hooks, as flat functions.  A call with such a rule has a row of its own
(:class:`CustomJvp`, :class:`CustomVjp`), which every mode reads like a row of the table.  A JVP rule states the push; the pull is its
transpose.  A VJP rule states the pull; the push is its transpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import jax
import numpy as np
from jax import lax

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_differentiable, tangent_aval, typeof
from dualrev._jax.custom_rules import SymbolicZero, WrappedFun, call_bwd, forget, is_symbolic_zero
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.source_lines import defined_at, own_lines
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTreeDef
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, CustomVjpJvp, current
from dualrev.table import engine
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Expansion, Linearized, Operand, Pushed, Row

T = TypeVar("T")

#: The structures of the outputs and of the residuals that a forward function returned, and for each residual the operand that it is
#: (None: another array).
OutTrees: TypeAlias = Callable[[], tuple[PyTreeDef, PyTreeDef, Sequence[int | None]]]

#: ``push(primals, tangents) -> (outs, tangents of outs)``.
Push: TypeAlias = Callable[[Sequence[jax.Array], Sequence[Tangent]], tuple[list[jax.Array], Sequence[Tangent]]]


def differentiable(outs: Sequence[jax.Array]) -> list[bool]:
    """Which outputs have tangents."""
    return [is_differentiable(typeof(out)) for out in outs]


def _to_rule(t: Tangent, aval: ShapedArray, symbolic_zeros: bool) -> jax.Array | SymbolicZero:
    """A tangent or cotangent as a user's rule expects it."""
    if t is not None:
        return t
    return SymbolicZero(tangent_aval(aval)) if symbolic_zeros else zeros.zeros_of(tangent_aval(aval))


def from_rule(t: Tangent | SymbolicZero, aval: ShapedArray) -> Tangent:
    """A tangent or cotangent that a user's rule returned for a value of ``aval``, as an array; None where it is zero."""
    if t is None or is_symbolic_zero(t) or not is_differentiable(aval):
        return None
    given, expected = typeof(t), tangent_aval(aval)
    if given.dtype == expected.dtype:
        return t if isinstance(t, (jax.Array, Tracer)) else lax.convert_element_type(t, expected.dtype)
    is_number = _is_a(given, np.number)
    if not is_number or (_is_a(given, np.complexfloating) and not _is_a(expected, np.complexfloating)):
        raise errors.DoesNotFit(given, expected)
    # Another format of numbers is accepted: a rule may compute in mixed precision, or return a Python int.
    return lax.convert_element_type(t, expected.dtype)


def _is_a(aval: ShapedArray, kind: type) -> bool:
    return bool(jax.dtypes.issubdtype(aval.dtype, kind))


def call_rule(kind: str, fun: str, rule: WrappedFun, call: Callable[..., list[T]], *args: object) -> list[T]:
    """Call a user's rule.  Where jax refuses what the rule returns, the error names the line at which the rule is defined."""
    try:
        with own_lines(rule):
            return call(*args)
    except (TypeError, ValueError) as error:
        if str(error).startswith("Custom ") and not isinstance(error, errors.CustomRuleError):
            raise errors.rule_refused(kind, fun, defined_at(rule), error) from error
        raise


def call_jvp(fun: WrappedFun, jvp: WrappedFun, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
             symbolic_zeros: bool) -> tuple[list[jax.Array], list[Tangent]]:
    """``(outs, tangents of outs)`` from a user's JVP rule."""
    given = [_to_rule(t, typeof(x), symbolic_zeros) for x, t in zip(primals, tangents, strict=True)]
    results: list[jax.Array] = list(call_rule("jvp", defined_at(fun), jvp, jvp.call_wrapped, *primals, *given))
    half = len(results) // 2
    outs = results[:half]
    try:
        return outs, [from_rule(t, typeof(x)) for x, t in zip(outs, results[half:], strict=True)]
    except errors.DoesNotFit as found:
        raise errors.rule_does_not_fit("jvp", defined_at(fun), defined_at(jvp), found) from None


def linearize_push(push: Push, primals: Sequence[Operand], active: Sequence[Active]) -> tuple[list[Operand], LinearMap, list[bool]]:
    """Outputs, linear map and active outputs of a push, which is linear in tangents: its tape is recorded with tangents unknown.

    The primals are values: an operation of a linear program has no use for its push.
    """
    outs: list[Operand] = []
    which: list[bool] = []
    avals = [tangent_aval(typeof(x)) for x, flag in zip(primals, active, strict=True) if flag]

    def flat(*tangents: jax.Array) -> list[jax.Array]:
        given = iter(tangents)
        all_tangents = [next(given) if flag else None for flag in active]
        primals_out, tangents_out = push(primals, all_tangents)  # type: ignore[arg-type]
        outs.extend(primals_out)
        which.extend(t is not None for t in tangents_out)
        return [t for t in tangents_out if t is not None]

    tape = engine.transpose(flat, avals)
    slots = iter(tape.out_slots)
    tape.out_slots = tuple([next(slots) if is_active else None for is_active in which])
    return outs, tape, [slot is not None for slot in tape.out_slots]


class AdjointMap(LinearMap):
    """The linear map of a user's VJP rule: residuals and the backward function."""

    __slots__ = ("active", "bwd", "fun", "in_avals", "out_avals", "policy", "pusher", "residuals", "symbolic_zeros")

    name = "custom_vjp_call"

    def __init__(self, residuals: Sequence[jax.Array], fun: str, bwd: WrappedFun, active: tuple[Active, ...],
                 in_avals: tuple[ShapedArray, ...], out_avals: tuple[ShapedArray, ...], symbolic_zeros: bool, policy: CustomVjpJvp):
        self.residuals = residuals
        self.policy = policy
        #: The map that pushes, where that is not the transpose of the backward function.
        self.pusher: LinearMap | None = None
        #: The line at which the function is defined, for messages.
        self.fun = fun
        self.bwd = bwd
        self.active = active
        self.in_avals = in_avals
        self.out_avals = out_avals
        self.symbolic_zeros = symbolic_zeros

    def pull(self, *cotangents: Tangent) -> Tangents:
        given = [_to_rule(ct, aval, self.symbolic_zeros) for ct, aval in zip(cotangents, self.out_avals, strict=True)]
        cts = call_rule("bwd", self.fun, self.bwd, call_bwd, self.bwd, self.residuals, given)
        try:
            return tuple([from_rule(ct, aval) for ct, aval, flag in zip(cts, self.in_avals, self.active, strict=True) if flag])
        except errors.DoesNotFit as found:
            raise errors.rule_does_not_fit("bwd", self.fun, defined_at(self.bwd), found) from None

    def push(self, *tangents: Tangent) -> Tangents:
        if self.policy == "error":
            raise errors.custom_vjp_pushed()
        if self.pusher is not None:
            return self.pusher.push(*tangents)
        with_tangents = [i for i, aval in enumerate(self.out_avals) if is_differentiable(aval)]

        def pull(*cts: Tangent) -> list[jax.Array]:
            given: list[Tangent] = [None] * len(self.out_avals)
            for i, ct in zip(with_tangents, cts, strict=True):
                given[i] = ct
            pulled = self.pull(*given)
            avals = [aval for aval, flag in zip(self.in_avals, self.active, strict=True) if flag]
            return [zeros.instantiate(ct, aval) for ct, aval in zip(pulled, avals, strict=True)]

        try:
            tape = engine.transpose(pull, [tangent_aval(self.out_avals[i]) for i in with_tangents])
            pushed = tape.pull(*tangents)
        except (errors.NonLinearError, errors.MissingRuleError, errors.NoDerivativeError) as error:
            raise errors.bwd_not_transposed(self.fun, defined_at(self.bwd), error) from error
        found = dict(zip(with_tangents, pushed, strict=True))
        return tuple([found.get(i) for i in range(len(self.out_avals))])


jax.tree_util.register_pytree_node(
    AdjointMap,
    lambda m: ((m.residuals, m.pusher), (m.fun, m.bwd, m.active, m.in_avals, m.out_avals, m.symbolic_zeros, m.policy)),
    lambda aux, children: _restored(AdjointMap(children[0], *aux), children[1]),
)


def _restored(linear_map: AdjointMap, pusher: LinearMap | None) -> AdjointMap:
    linear_map.pusher = pusher
    return linear_map


class UserRule(Row):
    """The row of one call of a function that has a rule of the user's."""

    form = "the user's"
    where = "a rule of the user's"
    is_operation = False

    def __init__(self, primitive: Primitive, fun: WrappedFun, call: Params):
        self.primitive = primitive
        self.fun = fun
        #: The parameters with which the call is bound where no operand is active.
        self.call = call
        self._used: list[WrappedFun] = []

    def functions(self) -> list[WrappedFun]:
        """The function and those that state its rule."""
        return [value for value in vars(self).values() if isinstance(value, WrappedFun)]

    def _again(self, function: WrappedFun) -> WrappedFun:
        """A wrapped function of the call, ready to run: a second run must not find what the first one stored of results."""
        if any(f is function for f in self._used):
            forget(function)
        else:
            self._used.append(function)
        if any(f is not self.fun for f in self._used):
            forget(self.fun)  # jax expects either the function or its rule to be called, not both
        return function

    def bind(self, primals: Sequence[Operand], params: Params) -> list[jax.Array]:
        with own_lines(self.fun):
            outs = list(self._again(self.fun).call_wrapped(*primals))
        if len(self._used) > 1:  # the rule has run before
            forget(self.fun)
        return outs


class CustomJvp(UserRule):
    """A call of a function that has a JVP rule."""

    def __init__(self, primitive: Primitive, fun: WrappedFun, rule: WrappedFun, symbolic_zeros: bool):
        super().__init__(primitive, fun, dict(subfuns=(fun, rule), symbolic_zeros=symbolic_zeros))
        self.rule = rule
        self.symbolic_zeros = symbolic_zeros

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[jax.Array], list[Tangent]]:
        return call_jvp(self.fun, self._again(self.rule), primals, tangents, self.symbolic_zeros)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        if is_linear:  # the function itself must be linear, whatever its rule states
            return Expansion(None, self.fun.call_wrapped)
        try:
            return linearize_push(lambda xs, ts: self.jvp(xs, ts, params), primals, [bool(flag) for flag in active])
        except errors.NonLinearError as error:
            raise errors.jvp_not_linear(defined_at(self.fun), defined_at(self.rule), error) from error


class CustomVjp(UserRule):
    """A call of a function that has a VJP rule."""

    def __init__(self, primitive: Primitive, fun: WrappedFun, fwd: WrappedFun, bwd: WrappedFun, out_trees: OutTrees,
                 symbolic_zeros: bool):
        super().__init__(primitive, fun, dict(subfuns=(fun, fwd, bwd), out_trees=out_trees, symbolic_zeros=symbolic_zeros))
        self.fwd = fwd
        self.bwd = bwd
        self.out_trees = out_trees
        self.symbolic_zeros = symbolic_zeros

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        if current.get().custom_vjp_jvp == "differentiate_primal":
            return Expansion(None, self.fun.call_wrapped)
        return super().through(mode, primals, parts, params)

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        policy = current.get().custom_vjp_jvp
        if policy == "error":
            raise errors.custom_vjp_pushed()
        if policy == "differentiate_primal":
            return Expansion(None, self.fun.call_wrapped)
        outs, linear_map = self.forward(primals, [t is not None for t in tangents])
        return outs, linear_map.push(*[t for t in tangents if t is not None])

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        flags = [bool(flag) for flag in active]
        pusher: LinearMap | None = None
        if current.get().custom_vjp_jvp == "differentiate_primal":
            _, pusher = engine.linearize(lambda *args: self.bind(args, params), primals, flags)
        # A linear program does not come here: its trace calls the forward function itself.
        outs, linear_map = self.forward(primals, flags)  # type: ignore[arg-type]
        linear_map.pusher = pusher
        return outs, linear_map, differentiable(outs)

    def forward(self, primals: Sequence[jax.Array], active: Sequence[Active]) -> tuple[list[jax.Array], AdjointMap]:
        """Outputs and linear map, by the rule's forward function; a residual that is an operand is not copied."""
        flags = [part for x, flag in zip(primals, active, strict=True) for part in (x, bool(flag))]
        results: list[jax.Array] = list(call_rule("fwd", defined_at(self.fun), self.fwd, self._again(self.fwd).call_wrapped, *flags))
        _, residual_tree, forwarded = self.out_trees()
        n_new = residual_tree.num_leaves - sum(source is not None for source in forwarded)
        new, outs = iter(results[:n_new]), results[n_new:]
        residuals = [next(new) if source is None else primals[source] for source in forwarded]
        in_avals = tuple([typeof(x) for x in primals])
        out_avals = tuple([typeof(x) for x in outs])
        return outs, AdjointMap(residuals, defined_at(self.fun), self.bwd, tuple(active), in_avals, out_avals, self.symbolic_zeros,
                                current.get().custom_vjp_jvp)
