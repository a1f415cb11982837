"""``intercept``: a cotangent is changed on its way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
from jax import lax
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ShapedArray, cotangent_aval, is_differentiable, tangent_aval, typeof
from dualrev._jax.custom_rules import SymbolicZero, bind_custom_jvp, bind_identity
from dualrev._jax.jaxprs import ClosedJaxpr, hoisted, jaxpr_as_fun, stage
from dualrev._jax.trees import PyTree
from dualrev.functional import checks
from dualrev.inspection.taps.cotangents import Linear
from dualrev.linear import zeros
from dualrev.programs.functions import as_arrays

Value = TypeVar("Value")


def intercept(x: Value, fn: Callable[[Value], Value]) -> Value:
    r"""Return a value as it is, and change its cotangent by a function of your own.

    :math:`y = x`, and the pull is :math:`\bar x = \mathit{fn}(\bar y)`.  ``dr.cotangents`` has ``clip``, ``scale`` and ``stop`` ready.

    ``fn`` may close over values, which may be traced, and are held constant.  Under ``vmap`` it gets the cotangent of one example.
    It is traced when ``intercept`` is called, so that it cannot branch on values.  Higher derivatives differentiate ``fn``.

    In forward mode, ``cotangents.scale`` and ``stop`` change tangents alike.  Another ``fn`` that is linear is pushed through by its
    transpose (by ``dualrev``; jax has no push of it); one that is not linear has no push, which is an error.

    Args:
      x: an array, a number, or a pytree of them.
      fn: function of a cotangent with the structure, shapes and dtypes of ``x`` (float0 for integers), which returns another.

    Returns:
      ``x``.

    Raises:
      TypeError: ``fn`` is not a function; leaves of ``x`` that are no arrays.
      RuleError: ``fn`` returns another structure, shape or dtype.
      NonLinearError: in forward mode, when ``fn`` is not linear.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> def f(x):
    ...     return jnp.sum(dr.intercept(x, lambda ct: jnp.sign(ct)) ** 2)
    >>> dr.grad(f)(jnp.array([3.0, -4.0])).tolist()
    [1.0, -1.0]

    Source: [GriewankWalther2008, ch. 3].
    """
    if not callable(fn):
        raise TypeError(f"intercept: expected a function of a cotangent, such as dr.cotangents.clip(norm=1.0); got {fn!r}")
    with errors.calling("intercept"):
        checks.check_leaves(x, "values")
    leaves, tree = tree_flatten(x)
    flat = as_arrays(leaves)
    which = [i for i, leaf in enumerate(flat) if is_differentiable(typeof(leaf))]
    if not which:
        return x
    given = [flat[i] for i in which]
    outs = _linear(fn, given) if isinstance(fn, Linear) else _any(fn, given, which, [typeof(leaf) for leaf in flat], tree)
    for i, out in zip(which, outs, strict=True):
        flat[i] = out
    result: Value = tree_unflatten(tree, flat)
    return result


def _linear(change: Linear, given: Sequence[jax.Array]) -> list[jax.Array]:
    """The values, with a derivative that multiplies by a number."""
    n = len(given)
    program, consts = _staged(lambda *ts: [change.changed(t) for t in ts], [tangent_aval(typeof(x)) for x in given])
    run = jaxpr_as_fun(program)
    k = len(consts)

    def jvp(*operands: jax.Array | SymbolicZero) -> list[jax.Array | SymbolicZero]:
        primals, tangents = operands[k: k + n], operands[2 * k + n:]
        avals = [tangent_aval(typeof(x)) for x in primals]
        given = [zeros.zeros_of(a) if isinstance(t, SymbolicZero) else t for t, a in zip(tangents, avals, strict=True)]
        moved = run(*operands[:k], *given)
        return [*primals, *[t if isinstance(t, SymbolicZero) else m for t, m in zip(tangents, moved, strict=True)]]

    return bind_custom_jvp(lambda *operands: list(operands[k:]), jvp, [*map(lax.stop_gradient, consts), *given])


def _any(fn: Callable[[PyTree], PyTree], given: Sequence[jax.Array], which: Sequence[int], avals: Sequence[ShapedArray],
         tree: jax.tree_util.PyTreeDef) -> list[jax.Array]:
    """The values, with a derivative whose pull is ``fn``."""
    name = f"intercept(value, {checks.name_of(fn)})"

    def on_leaves(*cts: jax.Array) -> list[jax.Array]:
        found = dict(zip(which, cts, strict=True))
        ct = tree_unflatten(tree, [found[i] if i in found else zeros.zeros_of(tangent_aval(a)) for i, a in enumerate(avals)])
        return _checked(name, fn(ct), which, avals, tree)

    program, consts = _staged(on_leaves, [cotangent_aval(tangent_aval(avals[i])) for i in which])
    run = jaxpr_as_fun(program)
    return bind_identity(name, lambda residuals, cts: run(*residuals, *cts), [*map(lax.stop_gradient, consts)], given)


def _staged(fun: Callable[..., Sequence[jax.Array]], avals: Sequence[ShapedArray]) -> tuple[ClosedJaxpr, list[jax.Array]]:
    """A function of cotangents as a program, and the values that it closes over, which become operands."""
    return hoisted(stage(fun, [a.update(weak_type=False) for a in avals]))


def _checked(name: str, changed: PyTree, which: Sequence[int], avals: Sequence[ShapedArray],
             tree: jax.tree_util.PyTreeDef) -> list[jax.Array]:
    leaves, found = tree_flatten(changed)
    if found != tree:
        raise errors.RuleError(f"{name} must return a cotangent with the structure that it is given, {tree}; it returned {found}")
    results = []
    for i in which:
        aval, (ct,) = tangent_aval(avals[i]), as_arrays([leaves[i]])
        given = typeof(ct)
        if given.shape != aval.shape or given.dtype != aval.dtype:
            raise errors.RuleError(f"{name} must return a cotangent of the type that it is given, {aval.dtype.name}{list(aval.shape)}; "
                                   f"it returned {given.dtype.name}{list(given.shape)}")
        results.append(ct)
    return results
