"""Reverse mode that keeps samples of what it would keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import is_differentiable, typeof
from dualrev._jax.jaxprs import stage
from dualrev._jax.trees import PyTree
from dualrev.estimators.directions import checked_key
from dualrev.estimators.sampled_programs import Keys, Sampling, Value, evaluate
from dualrev.functional import checks
from dualrev.functional.api import vjp
from dualrev.functional.results import Pullback
from dualrev.programs.functions import as_arrays


def randomized_vjp(fun: Callable[..., PyTree], *, one_in: int, least: int = 256) -> Callable[..., tuple[PyTree, Pullback]]:
    r"""A pull that keeps a random sample of what :func:`dualrev.vjp` keeps, and is without bias.

    A pull sums products of local derivatives along the paths of the program.  Each local derivative :math:`D` that depends on values
    made on the way (the factor of an operation entry by entry, the other factor of a product or convolution) is replaced by
    :math:`\tilde D` with :math:`\mathbb E\, \tilde D = D`, independently for each operation and each step of a loop: of each
    :math:`s` neighbouring entries one is kept, :math:`s` times as large.  So

    .. math:: \mathbb E\, \tilde J^T u = J^T u, \qquad \operatorname{Var}\, (\tilde J^T u)_i = (s^m - 1)\, (J^T u)_i^2

    where the variance is that of :math:`m` operations entry by entry, one after the other; a product :math:`y = x W` has
    :math:`\operatorname{Var}\, \bar W_{ij} = (s - 1) \sum_b (x_{bi}\, \bar y_{bj})^2`, where :math:`s` divides the rows of :math:`x`.

    The value is exact.  Inputs of ``fun`` are there anyway and are not sampled, nor is what an operation of another kind keeps
    (reductions such as a maximum, solves, rules of the user's, checkpoints).  Loops and branches are gone into.

    Args:
      fun: function of arrays, or of pytrees of them.
      one_in: :math:`s`: how many entries one is kept of; 1 keeps all.
      least: arrays of fewer entries are kept whole, as little is saved and much is lost.

    Returns:
      A function of a random key and the arguments, which returns ``(value, pull)`` as :func:`dualrev.vjp` does.  A pull with the same
      key is the same; for another sample, take another key.

    Raises:
      ValueError, TypeError: ``one_in`` or ``least`` is not a positive integer; arguments that are not arrays.
      NotImplementedError: the estimate is differentiated again.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> def f(x):
    ...     return jnp.sum(jnp.exp(jnp.sin(x)))
    >>> x = jnp.ones(10_000, "float32")
    >>> value, pull = dr.estimators.randomized_vjp(f, one_in=10)(jax.random.key(0), x)
    >>> pull.residuals().nbytes, dr.vjp(f, x)[1].residuals().nbytes      # a place that is picked takes a byte
    (10000, 80000)
    >>> (gradient,) = pull(1.0)
    >>> abs(float(jnp.sum(gradient) / jnp.sum(dr.grad(f)(x))) - 1) < 0.3
    True

    Source: [OktayEtAl2021, sec. 3], path sampling.
    """
    call = "randomized_vjp"
    sampling = Sampling(checks.check_count(call, "one_in", one_in), checks.check_count(call, "least", least))
    checks.check_callable(fun)

    def estimate(key: jax.Array, *primals: PyTree) -> tuple[PyTree, Pullback]:
        key = checked_key(key, call)

        def with_samples(*args: PyTree) -> PyTree:
            flat, tree = tree_flatten(args)
            flat = as_arrays(flat)
            trees: list[Any] = []

            def flat_fun(*values: jax.Array) -> list[jax.Array]:
                outs, out_tree = tree_flatten(fun(*tree_unflatten(tree, values)))
                trees.append(out_tree)
                return as_arrays(outs)

            program = stage(flat_fun, [typeof(x) for x in flat])
            given = [Value(x, is_differentiable(typeof(x)), True) for x in flat]
            return tree_unflatten(trees[0], [v.array for v in evaluate(program, given, Keys(key), sampling)])

        with errors.calling(call):
            return vjp(with_samples, *primals)

    return estimate
