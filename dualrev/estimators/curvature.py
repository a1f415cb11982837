"""Estimates of a Hessian, as products of two vectors, from one reverse pass that collects the curvature of each operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import typeof
from dualrev._jax.jaxprs import stage
from dualrev._jax.trees import PyTree
from dualrev.estimators.curvature_sites import Value, Visit, evaluate, factors_of
from dualrev.estimators.directions import check_real, checked_key
from dualrev.functional import checks
from dualrev.functional.api import vjp
from dualrev.programs.functions import as_arrays

#: The diagonal of the Hessian, or the two vectors of each sample.
Estimate = Literal["diagonal", "factors"]


def curvature_propagation(fun: Callable[[PyTree], jax.Array], *, samples: int = 1,
                          of: Estimate = "diagonal") -> Callable[[jax.Array, PyTree], tuple[jax.Array, PyTree]]:
    r"""An unbiased estimate of a Hessian, or of its diagonal, by reverse mode: each operation adds its own curvature by random signs.

    With :math:`J_e` for the derivative of the operands of operation :math:`e` by the inputs, and :math:`M_e` for its second derivative
    weighted by the cotangents of its results, the Hessian is a sum over the operations that are not linear.  Let
    :math:`\mathbb E\, l_e r_e^T = M_e`, independently for each, from random signs :math:`v_e`: :math:`l_e = s_e v_e` and
    :math:`r_e = M_e v_e / s_e`, with the number :math:`s_e > 0` by which both are of one length.  Then

    .. math:: H = \sum_e J_e^T M_e J_e = \mathbb E\, t u^T, \qquad t = \sum_e J_e^T l_e, \qquad u = \sum_e J_e^T r_e

    at the cost of two pulls for each sample beside the gradient.  With :math:`t = A v`, :math:`u = B v` for all signs :math:`v`
    together, the variance of :math:`t_i u_i` is :math:`\sum_{k < l} (A_{ik} B_{il} + A_{il} B_{ik})^2`; for operations entry by entry
    in one layer, :math:`f = \sum_k \varphi_k((W x)_k)`, this is :math:`4 \sum_{k<l} W_{ki}^2 W_{li}^2 \max(m_k m_l, 0)` with
    :math:`m = \varphi''`: two entries of opposite curvature add nothing.

    The operations in each step of a scan count one by one; a loop of unknown length, a branch, a checkpoint and a rule of the
    user's are one operation each.

    Args:
      fun: real scalar function of one argument, a pytree of real arrays.
      samples: :math:`k`, over which the mean is taken.
      of: ``"diagonal"``, the mean of :math:`t_i u_i`, or ``"factors"``, all :math:`t` and :math:`u`, whose products have the mean
        :math:`H`.

    Returns:
      A function of a random key and the argument, which returns ``(value, diagonal)``, a tree like the argument; or
      ``(value, (t, u))``, two trees like it with an axis of samples in front.

    Raises:
      ValueError: ``samples`` is less than 1, or ``of`` is neither.
      TypeError: an input is not real, or the output is not a real scalar.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> estimate = dr.estimators.curvature_propagation(lambda x: jnp.sum(x ** 3))
    >>> value, diagonal = estimate(jax.random.key(0), jnp.array([1.0, 2.0]))
    >>> [round(float(d), 4) for d in diagonal]  # the operation works entry by entry on the input: there is no error
    [6.0, 12.0]

    Source: [MartensEtAl2012], the variant with real vectors.
    """
    call = "curvature_propagation"
    k = checks.check_count(call, "samples", samples)
    checks.check_callable(fun)
    if of not in get_args(Estimate):
        raise ValueError(f"{call}: of must be one of {', '.join(map(repr, get_args(Estimate)))}; got {of!r}")

    def estimate(key: jax.Array, x: PyTree) -> tuple[jax.Array, PyTree]:
        key = checked_key(key, call)
        check_real(x, call)
        with errors.calling(call):
            flat, tree = tree_flatten(x)
            flat = as_arrays(flat)
            program = stage(lambda *values: as_arrays([_scalar(fun(tree_unflatten(tree, values)), call)]), [typeof(v) for v in flat])
            first = Visit()
            jax.eval_shape(lambda *values: evaluate(program, [Value(v, True) for v in values], first)[0].array, *flat)
            zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), [site.increments for site in first.sites])

            def with_operands(values: list[jax.Array], increments: PyTree) -> tuple[tuple[jax.Array, PyTree], PyTree]:
                visit = Visit(increments)
                (out,) = evaluate(program, [Value(v, True) for v in values], visit)
                return (out.array, visit.active), visit.others

            (value, active), pull, others = vjp(with_operands, flat, zeros, has_aux=True)
            nothing = jax.tree.map(jnp.zeros_like, active)
            _, cotangents = pull((jnp.ones_like(value), nothing))

            def sample(key: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
                left, right = factors_of(first.sites, (active, others), cotangents, key)
                return pull((jnp.zeros_like(value), left))[0], pull((jnp.zeros_like(value), right))[0]

            t, u = jax.vmap(sample)(jax.random.split(key, k))
            if of == "factors":
                return value, (tree_unflatten(tree, t), tree_unflatten(tree, u))
            return value, tree_unflatten(tree, [jnp.mean(a * b, 0) for a, b in zip(t, u, strict=True)])

    return estimate


def _scalar(value: Any, call: str) -> Any:
    if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(f"{call} takes a function with a real scalar output; got shape {jnp.shape(value)} of dtype "
                        f"{jnp.result_type(value).name}")
    return value
