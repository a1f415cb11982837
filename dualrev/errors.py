"""Every error of dualrev, and the words in which it speaks to the user.

An error says what was expected, what came, where in the user's code, and what to do, in the language of the call that the
user made (``grad``, ``jvp``, ...), whatever engine runs underneath.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from importlib import metadata
from typing import Protocol

import jax
import numpy as np

from dualrev._jax.avals import ShapedArray, float0
from dualrev._jax.libraries import distributions, is_of_jax, owner_of
from dualrev._jax.primitives import Primitive
from dualrev._jax.sharding import AxisName
from dualrev._jax.source_lines import user_frame
from dualrev._jax.trees import PyTreeDef

__all__ = [
    "CustomRuleError", "DerivativeError", "DualrevError", "InvalidValueError", "LoopTooLongError", "MissingRuleError",
    "MutableReferenceError", "NoDerivativeError", "NonFiniteError", "NonLinearError", "NonReplayableError", "OptionError",
    "PatternError", "RuleError", "TapError",
]

#: The name of the public function that is running, for messages raised far below it.
user_call: ContextVar[str] = ContextVar("user_call", default="a derivative")


#: Stands in a message for the name of the public function that is running when the error is raised.
CALL = "{the call}"


class DualrevError(Exception):
    """Base class of errors that only dualrev raises.

    A linearization that is kept meets an error once and raises it in later calls: it keeps the ``template``.

    >>> import dualrev as dr
    >>> try:
    ...     dr.taps(lambda x: x, "hidden")(1.0)
    ... except dr.errors.DualrevError as error:
    ...     print(type(error).__name__)
    TapError
    """

    def __init__(self, template: str):
        super().__init__(template.replace(CALL, user_call.get()))
        self.template = template


class MissingRuleError(DualrevError, NotImplementedError):
    """A differentiated function uses a primitive that has no row in the table.

    >>> import jax, dualrev.modes
    >>> dualrev.modes.row_of(jax.extend.core.Primitive("new"))
    Traceback (most recent call last):
        ...
    dualrev.errors.MissingRuleError: ...
    """


class NonLinearError(DualrevError, TypeError, NotImplementedError):
    """A function that must be linear reads the value of something it should be linear in.

    >>> import dualrev as dr
    >>> dr.linear_transpose(lambda x: x * x, 1.0)(1.0)
    Traceback (most recent call last):
        ...
    dualrev.errors.NonLinearError: ...
    """


class LoopTooLongError(DualrevError, RuntimeError):
    """A loop took more steps than it was allowed.

    >>> import jax, dualrev as dr
    >>> dr.grad(lambda x: jax.lax.while_loop(lambda s: s < 10.0, lambda s: 2.0 * s, x), max_steps=2)(1.0)
    Traceback (most recent call last):
        ...
    dualrev.errors.LoopTooLongError: ...
    """


class RuleError(DualrevError, TypeError):
    """A rule returned something that does not fit the operation it belongs to.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.implicit(jnp.sqrt, lambda x, a: (x * x - a,))(4.0)  # the residual is a tuple, the solution is not
    Traceback (most recent call last):
        ...
    dualrev.errors.RuleError: ...
    """


class CustomRuleError(RuleError, ValueError):
    """A rule that a user attached to a function, with jax's decorators, returned something that does not fit the function.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> f = jax.custom_vjp(jnp.sin)
    >>> f.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct[:1],))
    >>> dr.grad(lambda x: jnp.sum(f(x)))(jnp.ones(2))
    Traceback (most recent call last):
        ...
    dualrev.errors.CustomRuleError: ...
    """


class DoesNotFit(Exception):  # noqa: N818  (a signal)
    """What a rule returned has another type than it should; who knows the rule says which."""

    def __init__(self, given: ShapedArray | None, expected: ShapedArray | None):
        super().__init__()
        self.given = given
        self.expected = expected


class NoDerivativeError(DualrevError, ValueError, NotImplementedError):
    """An operation has no derivative that could be found, or none at this point.

    >>> import jax, dualrev as dr
    >>> dr.grad(lambda x: jax.pure_callback(lambda x: x, x, x))(1.0)
    Traceback (most recent call last):
        ...
    dualrev.errors.NoDerivativeError: ...
    """


class MutableReferenceError(DualrevError, TypeError):
    """A mutable reference is used in a way that has no derivative.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> ref = jax.new_ref(jnp.zeros(()))
    >>> def f(x):
    ...     ref[...] = x
    ...     return x
    >>> dr.grad(f)(1.0)
    Traceback (most recent call last):
        ...
    dualrev.errors.MutableReferenceError: ...
    """


class TapError(DualrevError, ValueError):
    """A tap is asked for that does not exist, or whose cotangent cannot be found where it stands.

    >>> import dualrev as dr
    >>> dr.taps(lambda x: x, "hidden")(1.0)
    Traceback (most recent call last):
        ...
    dualrev.errors.TapError: ...
    """


class InvalidValueError(DualrevError, FloatingPointError):
    """``jax_debug_nans`` or ``jax_debug_infs`` found an invalid value in a tangent or cotangent.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> with jax.debug_nans(True):
    ...     dr.grad(lambda x: 0.0 * jnp.sqrt(x))(0.0)
    Traceback (most recent call last):
        ...
    dualrev.errors.InvalidValueError: ...
    """

    #: The operation, the user's line, and what jax says.
    found: tuple[str, str, str] = ("", "", "")


class NonFiniteError(DualrevError, FloatingPointError):
    """A result inside ``with dr.finite():`` has a NaN or an infinity; ``report`` tells where it came from.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> with dr.finite():
    ...     dr.grad(jnp.sqrt)(0.0)
    Traceback (most recent call last):
        ...
    dualrev.errors.NonFiniteError: ...
    """

    def __init__(self, report: object):
        super().__init__(str(report))
        self.report = report


class OptionError(DualrevError, ValueError):
    """An option that was asked for can't be honoured in what is differentiated.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.jacobian(jnp.sin, engine="elimination", zero_wins=True)(1.0)
    Traceback (most recent call last):
        ...
    dualrev.errors.OptionError: ...
    """


class PatternError(DualrevError, ValueError):
    """A sparsity pattern that was given lacks an entry that is not zero.

    >>> import numpy as np, jax.numpy as jnp, dualrev as dr
    >>> dr.jacobian(lambda x: x[::-1], sparse=True, pattern=np.eye(2), check=True)(jnp.ones(2))
    Traceback (most recent call last):
        ...
    dualrev.errors.PatternError: ...
    """


class DerivativeError(AssertionError):
    """A derivative does not agree with finite differences, or its two modes do not agree with each other.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> f = jax.custom_jvp(jnp.sin)
    >>> _ = f.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), tangents[0]))  # without the factor cos(x)
    >>> dr.testing.check_grads(f, (1.0,), order=1)
    Traceback (most recent call last):
        ...
    dualrev.errors.DerivativeError: ...
    """


class NonReplayableError(DualrevError, NotImplementedError):
    """A checkpointed function has an effect that must not happen twice.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> from jax.experimental import io_callback
    >>> f = dr.checkpoint(lambda x: x * io_callback(lambda x: x, x, jax.lax.stop_gradient(x), ordered=True))
    >>> dr.grad(f)(jnp.float32(1.0))
    Traceback (most recent call last):
        ...
    dualrev.errors.NonReplayableError: ...
    """


def at_user_frame() -> str:
    frame = user_frame()
    return f" at {frame}" if frame else ""


def whose(primitive: Primitive) -> str:
    """``'name' of module (distribution and version)``, as far as that can be told."""
    module = owner_of(primitive)
    if module is None:
        return f"'{primitive}'"
    given = ", ".join(f"{name} {metadata.version(name)}" for name in distributions().get(module.split(".")[0], []))
    return f"'{primitive}' of {module}{given and f' ({given})'}"


def missing_rule(primitive: Primitive, mode: str, reason: str | None) -> MissingRuleError:
    """``reason``: why the table leaves the primitive out, where it does so on purpose."""
    name = str(primitive)
    why = "" if reason is None else f" It is left out on purpose: {reason}."
    module = owner_of(primitive)
    owner = register = ""
    if module is not None and is_of_jax(module):
        owner = " The primitive is jax's own."
    elif module is not None:
        owner = f" The primitive is {whose(primitive)}; no derivative is registered for it with jax."
        register = (f"    # or jax.interpreters.ad.primitive_jvps[{name}_p] = ...       "
                    "# with jax: dualrev reads it, as the primitive is not jax's\n")
    return MissingRuleError(
        f"Differentiation rule for '{name}' not implemented: {CALL}, in {mode} mode, met the primitive '{name}'"
        f"{at_user_frame()}, and the rule table has no row for it.{why}{owner} State its derivative once, for both modes and every "
        f"order:\n\n"
        f"    import dualrev\n"
        f"    dualrev.rule({name}_p, partials=[lambda x, *, out: ...])      # entry by entry: one partial for each operand\n"
        f"    # or dualrev.rule({name}_p, pushforward=lambda t, x: ...)     # J·v as a program; its adjoint is derived\n"
        f"    # or dualrev.rule({name}_p, adjoint=lambda ct, x: ...)        # a linear operation: its adjoint alone\n"
        f"    # or dualrev.rule({name}_p, bilinear=[lambda ct, x, y: ..., ...])   # a product: an adjoint for each factor\n"
        f"    # or dualrev.rule({name}_p, definition=lambda x: ...)         # what it computes, in terms of other operations\n"
        f"    # or @dualrev.rule(partials=[...]) above the function that uses it\n{register}\n"
        "In dualrev itself, the row belongs in dualrev/rules/, in the file of the family that the primitive belongs to."
    )


class Located(Protocol):
    """A row, as far as messages speak of it."""

    primitive: Primitive

    @property
    def where(self) -> str: ...


def wrong_count(row: Located, what: str, stated: int, operands: int) -> RuleError:
    return RuleError(f"The rule for '{row.primitive}' at {row.where} states {stated} {what}, but {CALL}{at_user_frame()} met the "
                     f"primitive with {operands} operands. State one for each operand, in their order; None for one without influence.")


def wrong_definition(row: Located, what: str) -> RuleError:
    return RuleError(f"The definition of '{row.primitive}' at {row.where} {what}. The program must return what the primitive does.")


def no_registered_jvp(primitive: Primitive) -> MissingRuleError:
    name = str(primitive)
    return MissingRuleError(
        f"Differentiation rule for '{name}' not implemented: {CALL} met {whose(primitive)}{at_user_frame()}, for which only "
        f"a transpose is registered with jax. Register its JVP too (jax.interpreters.ad.primitive_jvps[{name}_p], or "
        f"jax.interpreters.ad.deflinear2, which registers both), or state dualrev.rule({name}_p, adjoint=...)."
    )


def no_registered_transpose(primitive: Primitive) -> MissingRuleError:
    name = str(primitive)
    return MissingRuleError(
        f"Transpose rule (for reverse-mode differentiation) for '{name}' not implemented: {CALL} met {whose(primitive)}"
        f"{at_user_frame()} applied to a tangent, in a JVP rule. A JVP is registered with jax for it, and no transpose, so that only "
        f"forward mode can use it. Register the transpose (jax.interpreters.ad.primitive_transposes[{name}_p]), state "
        f"dualrev.rule({name}_p, adjoint=...), or use forward mode (engine='forward', jvp, jacfwd)."
    )


def not_honoured(option: str, what: str, why: str, what_to_do: str) -> OptionError:
    """``what``: the loop, or the part of the program, that the option can't be honoured for."""
    return OptionError(f"{CALL} was asked for {option}, which can't be done for the {what}{at_user_frame()}: {why}. {what_to_do}")


def check_finished(unfinished: jax.Array | np.ndarray | bool, max_steps: int) -> None:
    if unfinished:
        raise LoopTooLongError(
            f"A lax.while_loop went on after max_steps={max_steps} steps, while it was differentiated. Give a larger max_steps, or "
            "look for a condition that never becomes false: a comparison with NaN is one."
        )


#: For each function of a rule: how jax calls it, and what it should return.
_RULES = {
    "fwd": ("forward function", "custom_vjp", "Return the pair (out, residuals), where out is what the function returns."),
    "bwd": ("backward function", "custom_vjp", "Return a tuple with one cotangent for each argument, with the argument's structure, "
            "shapes and dtypes; None stands for an argument, or a part of one, whose cotangent is zero."),
    "jvp": ("JVP rule", "custom_jvp", "Return the pair (out, tangent of out), where the tangent has the structure, shapes and dtypes "
            "of out (float0 for integers); jnp.zeros_like(out) where it is zero."),
}


def rule_refused(kind: str, fun: str, rule: str, error: Exception) -> CustomRuleError:
    what, decorator, advice = _RULES[kind]
    return CustomRuleError(f"{error}\n{CALL} called the {what} {rule}, which is attached to the {decorator} function {fun}. {advice}")


def rule_does_not_fit(kind: str, fun: str, rule: str, found: DoesNotFit) -> CustomRuleError:
    what, decorator, advice = _RULES[kind]
    part, of = ("tangent", "output") if kind == "jvp" else ("cotangent", "argument")
    return CustomRuleError(
        f"the {what} {rule}, which is attached to the {decorator} function {fun}, returned a {part} of type {short(found.given)} for "
        f"an {of} whose {part}s have the type {short(found.expected)} ({CALL} asked for it{at_user_frame()}). {advice}"
    )


def short(aval: ShapedArray | None) -> str:
    """A type as people write it: ``float32[2,3]``."""
    if aval is None:
        return "(not an array)"
    return f"{'float0' if aval.dtype == float0 else aval.dtype.name}[{','.join(str(n) for n in aval.shape)}]"


def operand_does_not_fit(program: str, given: ShapedArray, expected: ShapedArray) -> RuleError:
    return RuleError(
        f"{CALL}{at_user_frame()}: the derivative program {program} takes a value of type {short(expected)} and was given one of type "
        f"{short(given)}. The rule that this tangent or cotangent comes from returned another dtype or shape than that of its "
        "operation: convert what it returns, for example with ct.astype(x.dtype)."
    )


def invalid_value(what: str, primitive: Primitive | str, line: str, error: Exception) -> InvalidValueError:
    """An error that names the operation and the user's line: the innermost ones that are known."""
    name, said = str(primitive), str(error).split(". Because", 1)[0]
    if isinstance(error, InvalidValueError):
        if error.found[1]:
            return error
        name, _, said = error.found
    raised = InvalidValueError(f"invalid value: {CALL} {what} '{name}'{line and f' at {line}'} (jax_debug_nans or jax_debug_infs is "
                               f"set; jax says: {said})")
    raised.found = name, line, said
    return raised


def transpose_does_not_fit(fun: str, found: DoesNotFit) -> RuleError:
    return RuleError(f"{CALL}{at_user_frame()}: the transpose that linear_call was given for the function {fun} returned a value of "
                     f"type {short(found.given)} for an argument of type {short(found.expected)}. Return one value for each linear "
                     "argument, of its shape and dtype.")


def vmap_rule_does_not_fit(expected: PyTreeDef, out: PyTreeDef, batched: PyTreeDef) -> RuleError:
    return RuleError(f"{CALL}{at_user_frame()}: the vmap rule of a custom_vmap function returns the pair (out, out_batched), both with "
                     f"the structure of what the function returns, {expected}; it returned {out} and {batched}.")


def jvp_not_linear(fun: str, jvp: str, error: DualrevError) -> NonLinearError:
    return NonLinearError(
        f"{CALL} needs the transpose of the JVP rule {jvp}, which is attached to the custom_jvp function {fun}, and the tangent that "
        f"it returns is not a linear function of the tangents that it is given: {error.template}"
    )


def bwd_not_transposed(fun: str, bwd: str, error: DualrevError) -> NonLinearError:
    return NonLinearError(
        f"{CALL} pushes tangents{at_user_frame()} through the custom_vjp function {fun}, which states only how cotangents are pulled. "
        f"Its push is the transpose of its backward function {bwd}, and that could not be transposed: {error.template}\n"
        "Pass custom_vjp_jvp='differentiate_primal' to push through the function itself, or use reverse mode alone (grad, vjp, jacrev, "
        "hessian with engine='reverse')."
    )


def groups_are_not_tracked() -> NotImplementedError:
    return NotImplementedError(
        f"{user_call.get()} met a pmax or pmin with axis_index_groups{at_user_frame()} under shard_map(check_vma=True), which takes "
        "the result to be the same on all devices though each group has its own. Pass check_vma=False to shard_map, or split the "
        "mesh axis into two and reduce over one of them."
    )


def devices_differ(what: str, aval: ShapedArray, axes: Sequence[AxisName]) -> NonLinearError:
    names = ", ".join(map(repr, axes))
    return NonLinearError(
        f"{user_call.get()} met a cond or switch under shard_map{at_user_frame()} whose index differs along the mesh axis {names}, "
        f"with the {what} {aval.dtype.name}{list(aval.shape)} that is typed as the same on all devices. Its cotangent would be a sum "
        f"over devices, of which some take another branch. Give the cond lax.pcast(x, ({names},), to='varying') for such an x."
    )


def not_linear(primitive: Primitive | str) -> NonLinearError:
    return NonLinearError(
        f"Transpose rule (for reverse-mode differentiation) for '{primitive}' not implemented: {CALL} needs a linear "
        f"function, and '{primitive}'{at_user_frame()} is not linear in its operands."
    )


def no_derivative(primitive: Primitive | str, why: str, what_to_do: str) -> NoDerivativeError:
    return NoDerivativeError(f"{why} {CALL} met '{primitive}'{at_user_frame()}. {what_to_do}")


def not_complex_linear(where: str) -> NoDerivativeError:
    """Elimination meets an operation on complex numbers whose local Jacobian is no complex matrix."""
    return NoDerivativeError(f"{CALL}: the derivative of {where} is not known to be linear over the complex numbers, and elimination "
                             "multiplies local Jacobians as complex matrices. Use engine='forward' or engine='reverse'.")


def depends_on_basis() -> NoDerivativeError:
    return NoDerivativeError(
        f"{CALL}: eigenvalues or singular values coincide, and the function depends on which basis of their eigenvectors "
        "(singular vectors) was chosen: it has no derivative here. Functions that do not depend on it, such as those of V f(w) Vᴴ, "
        "have one; otherwise perturb the matrix, or differentiate eigenvalues alone."
    )


def defective() -> NoDerivativeError:
    return NoDerivativeError(
        f"{CALL} met the eigenvalues of a matrix that is defective: to working precision its eigenvectors do not span the "
        "space, and at least one eigenvalue moves with a root of the perturbation, so that it has no derivative. Perturb the matrix, "
        "or use a function of it that needs no eigenvectors (jax.scipy.linalg.expm, jax.numpy.linalg.matrix_power, det, ...)."
    )


def cannot_be_replayed(effects: list[str], primitive: Primitive, line: str) -> NonReplayableError:
    return NonReplayableError(
        f"Effects not supported in partial-eval of `checkpoint`/`remat`: {', '.join(effects)}. {user_call.get()} met "
        f"'{primitive}'{line and f' at {line}'} inside a checkpointed function, whose pull evaluates it again. Move the operation "
        "out of the checkpoint, or use jax.debug.callback or jax.pure_callback instead."
    )


def singular_residual(solver: str, residual: str) -> NoDerivativeError:
    return NoDerivativeError(
        f"{CALL}: the derivative of the residual {residual} by what {solver} returned is singular, to working precision, so "
        "that the solution is no differentiable function of the arguments there: it may be a multiple root, or one of many. State a "
        "residual that determines the solution."
    )


def residual_does_not_fit(solver: str, residual: str, found: str, expected: str) -> RuleError:
    return RuleError(f"implicit: the residual {residual} must return what the solver {solver} returns, in structure, shapes and dtype; "
                     f"the residual has {found}, the solution has {expected}")


def no_transpose_solve() -> TypeError:
    return TypeError("transpose_solve required for backwards mode automatic differentiation of custom_linear_solve. "
                     f"({user_call.get()} asked for it{at_user_frame()}; pass transpose_solve=, or symmetric=True where that is so.)")


def custom_vjp_pushed() -> TypeError:
    return TypeError("can't apply forward-mode autodiff (jvp) to a custom_vjp function. "
                     f"({user_call.get()} was asked to, with custom_vjp_jvp='error'{at_user_frame()}; 'transpose', the default, pushes "
                     "along the transpose of the backward function.)")


def reference_cannot_enter(primitive: Primitive) -> MutableReferenceError:
    return MutableReferenceError(f"{user_call.get()} met '{primitive}'{at_user_frame()} on a mutable reference that the differentiated "
                                 "function made, and a reference cannot enter it. Pass its value (ref[...]) and write the result back.")


def reference_from_outside(primitive: Primitive) -> MutableReferenceError:
    return MutableReferenceError(f"{user_call.get()} met '{primitive}'{at_user_frame()}, which writes a value that is being "
                                 "differentiated into a mutable reference made outside the differentiated function. The derivative "
                                 "would be lost: make the reference inside the function, return the value instead, or write "
                                 "jax.lax.stop_gradient of it.")


def reference_not_followed(primitive: Primitive) -> MutableReferenceError:
    return MutableReferenceError(f"{user_call.get()} met '{primitive}'{at_user_frame()} on a mutable reference, and which entries a "
                                 "reference holds is not followed. Use arrays: x.at[i].set(y) in place of ref[i] = y.")


def reference_returned() -> MutableReferenceError:
    return MutableReferenceError(f"{user_call.get()}: the differentiated function returned a mutable reference. Return what it holds: "
                                 "ref[...] or jax.ref.freeze(ref).")


class calling:
    """``with calling("grad"):`` names the user's call in errors raised inside."""

    __slots__ = ("_name", "_token")

    def __init__(self, name: str):
        self._name = name

    def __enter__(self) -> None:
        self._token = user_call.set(self._name)

    def __exit__(self, *_: object) -> None:
        user_call.reset(self._token)
