"""Checkpoints whose derivative is found by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dualrev import errors
from dualrev._jax.avals import is_differentiable, typeof
from dualrev._jax.jaxprs import hoisted, jaxpr_as_fun, stage
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTree
from dualrev.estimators.directions import checked_key
from dualrev.estimators.once import first_order_only
from dualrev.functional import checks
from dualrev.functional.api import jvp
from dualrev.functional.checkpointing import checkpoint
from dualrev.functional.ruled_functions import Statement, with_rule
from dualrev.linear import zeros

_CALL = "stochastic_checkpoint"
_once = first_order_only(_CALL)


def stochastic_checkpoint(fun: Callable[..., PyTree], *, keep: float) -> Callable[..., PyTree]:
    r"""The same function, with an unbiased derivative that is computed with probability ``keep`` only, from its stored arguments.

    .. math:: \tilde J = \frac bp J, \qquad b = 1 \text{ with probability } p, \text{ else } 0; \qquad \mathbb E\, \tilde J = J, \qquad
              \operatorname{Var}\, (\tilde J^T u)_i = \left(\frac1p - 1\right) (J^T u)_i^2

    The value is exact.  Reverse mode stores the arguments, as :func:`dualrev.checkpoint` does, evaluates the function again where
    :math:`b = 1`, and does nothing where :math:`b = 0`: on average a pull takes :math:`p` of the time.  Independent keys make
    independent samples, so that products of Jacobians along a path are without bias too.  The variance of a chain
    :math:`x_{t+1} = x_t + h(x_t)` is small where the whole step is not given but ``h`` alone, whose Jacobian is small:

    .. math:: \prod_t \left((1 + h'_t)^2 + (\tfrac1p - 1) h_t'^2\right) - \prod_t (1 + h'_t)^2

    for one entry.  With the whole step of a recurrence given, it is truncation at random places: cotangents stop there with probability
    :math:`1 - p` and are :math:`1 / p` times as large otherwise.

    Args:
      fun: function of arrays or pytrees of them.
      keep: :math:`p`, the probability that the derivative is computed, above 0 and at most 1.

    Returns:
      A function of a random key and the arguments of ``fun``, with its value.  Under ``vmap`` with a key for each entry both branches
      are computed, so that no time is saved.

    Raises:
      ValueError: ``keep`` is not above 0 and at most 1.
      TypeError: the first argument is not a random key, or another one is not an array.
      NotImplementedError: the estimate is differentiated again.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> def f(key, x, keep):                          # residual steps: the derivatives of some of the second parts are found
    ...     h = dr.estimators.stochastic_checkpoint(lambda x: 0.1 * jnp.sin(x), keep=keep)
    ...     def step(x, key):
    ...         return x + h(key, x), None
    ...     return jax.lax.scan(step, x, jax.random.split(key, 10))[0]
    >>> keys = jax.random.split(jax.random.key(0), 2000)
    >>> found = jax.vmap(dr.grad(lambda x, key: f(key, x, 0.5)), (None, 0))(1.0, keys)
    >>> exact = dr.grad(lambda x: f(keys[0], x, 1.0))(1.0)
    >>> abs(float(jnp.mean(found)) - float(exact)) < 0.02, round(float(jnp.std(found)), 1)
    (True, 0.1)

    Source: checkpoints [ChenEtAl2016]; random truncation without bias [TallecOllivier2017].
    """
    checks.check_callable(fun)
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise ValueError(f"{_CALL}: keep must be a chance above 0 and at most 1; got {keep!r}")

    ruled = _with_chance(fun, keep)

    def estimate(key: jax.Array, *args: PyTree) -> PyTree:
        with errors.calling(_CALL):
            coin = jax.random.bernoulli(checked_key(key, _CALL), keep)
            of_all, captured = _with_captured(fun, args)
            return _with_chance(of_all, keep)(coin, captured, *args) if captured else ruled(coin, *args)

    return estimate


def _with_captured(fun: Callable[..., PyTree], args: tuple[PyTree, ...]) -> tuple[Callable[..., PyTree], list[jax.Array]]:
    """``fun`` as a function of what it closes over that is being traced, and of its arguments; and what that is, or nothing."""
    leaves, tree = jax.tree_util.tree_flatten(args)
    out_tree: Any = None

    def flat(*given: jax.Array) -> list[jax.Array]:
        nonlocal out_tree
        outs, out_tree = jax.tree_util.tree_flatten(fun(*jax.tree_util.tree_unflatten(tree, given)))
        return outs

    program, consts = hoisted(stage(flat, [typeof(x) for x in leaves]))
    if not any(isinstance(x, Tracer) for x in consts):
        return fun, []
    run = jaxpr_as_fun(program)
    return lambda captured, *args: jax.tree_util.tree_unflatten(out_tree, run(*captured, *jax.tree_util.tree_leaves(args))), consts


def _with_chance(fun: Callable[..., PyTree], keep: float) -> Callable[..., PyTree]:
    """``(coin, *args) -> fun(*args)``, whose derivative is divided by ``keep`` where the coin says so and 0 elsewhere."""
    def push(ts: Any, coin: jax.Array, *args: PyTree) -> PyTree:
        leaves, tree = jax.tree_util.tree_flatten(args)
        active = [i for i, x in enumerate(leaves) if is_differentiable(typeof(x))]
        filled = [jax.tree.map(zeros.zero_tangent, x) if t is None else t for t, x in zip(ts[1:], args, strict=True)]
        tangents = jax.tree_util.tree_leaves(filled)

        def along(*given: jax.Array) -> list[jax.Array]:
            full = list(leaves)
            for i, x in zip(active, given, strict=True):
                full[i] = x
            return [out for out in jax.tree_util.tree_leaves(fun(*jax.tree_util.tree_unflatten(tree, full)))
                    if is_differentiable(typeof(out))]

        def by_chance(coin: jax.Array, primals: list[jax.Array], tangents: list[jax.Array]) -> list[jax.Array]:
            def found(primals: list[jax.Array], tangents: list[jax.Array]) -> list[jax.Array]:
                _, moved = jvp(along, tuple(primals), tuple(tangents))
                return [t * jnp.asarray(1 / keep, t.dtype) for t in moved]

            def left_out(primals: list[jax.Array], tangents: list[jax.Array]) -> list[jax.Array]:
                return [jnp.zeros(t.shape, t.dtype) for t in jax.eval_shape(found, primals, tangents)]

            chosen: list[jax.Array] = lax.cond(coin, found, left_out, primals, tangents)
            return chosen

        moved = iter(by_chance(coin, [_once(leaves[i]) for i in active], [tangents[i] for i in active]))
        out = jax.eval_shape(fun, *args)
        return jax.tree.map(lambda x: next(moved) if is_differentiable(x) else None, out)

    return checkpoint(with_rule(lambda coin, *args: fun(*args), Statement("pushforward", push), ()))
