"""Step 3, the cases: where the rule is tried, and against what.

A case is a function that uses the operation, and the arguments at which it is differentiated.  Each is checked in three ways:
against finite differences, which know nothing of the rule; by the identity ⟨c, J t⟩ = ⟨Jᵀ c, t⟩, which ties the two modes; and against
the sum of the definition, which jax differentiates by rules of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr
from dualrev.testing import check_grads
from papers.ops import row  # noqa: F401  (states the derivative)
from papers.ops.circular import circular

Product = Callable[[jax.Array, jax.Array], jax.Array]


def by_the_definition(x: jax.Array, y: jax.Array) -> jax.Array:
    """``Σᵢ x[i] y[k - i]`` as it is written: n² operations that jax knows."""
    n = x.shape[-1]
    k, i = np.arange(n)[:, None], np.arange(n)
    return jnp.sum(jnp.expand_dims(x, -2) * y[..., (k - i) % n], -1)


class Case(NamedTuple):
    """One way to use the operation: ``use(product)`` is a function of the arguments."""

    what: str
    use: Callable[[Product], Callable[..., Any]]
    args: tuple[jax.Array, ...]


def cases() -> list[Case]:
    draw = np.random.default_rng(0)
    x, y, *many = jnp.asarray(draw.normal(size=(5, 8)) / 2)
    return [
        Case("two vectors", lambda product: product, (x, y)),
        Case("an odd length", lambda product: product, (x[:5], y[:5])),
        Case("a batch", lambda product: product, (jnp.stack(many), jnp.stack(many[::-1]))),
        Case("a vector with itself", lambda product: lambda x: product(x, jnp.sin(x)), (x,)),
        Case("mapped", lambda product: jax.vmap(product), (jnp.stack(many), jnp.stack(many[::-1]))),
        Case("mapped in one operand", lambda product: jax.vmap(product, (None, 1), 1), (x, jnp.stack(many, 1))),
        Case("in a loop", lambda product: lambda x, y: jax.lax.fori_loop(0, 3, lambda _, c: jnp.tanh(product(c, y)), x), (x, y)),
        Case("compiled", lambda product: jax.jit(product), (x, y)),
    ]


def check(case: Case) -> float:
    """The largest difference from jax's derivatives of the definition, of order 1 and 2; an error where a check fails."""
    f, plain = case.use(circular), case.use(by_the_definition)
    check_grads(f, case.args, order=2)
    every = tuple(range(len(case.args)))

    def loss(g: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: jnp.sum(g(*args) ** 3)

    expected = [jax.grad(loss(plain), every)(*case.args), jax.jvp(plain, case.args, case.args)[1],
                jax.jvp(jax.grad(loss(plain), every), case.args, case.args)[1]]
    difference = 0.0
    for grad, jvp in ((dr.grad, dr.jvp), (jax.grad, jax.jvp)):  # jax knows the primitive too, from the same statement
        found = [grad(loss(f), every)(*case.args), jvp(f, case.args, case.args)[1],
                 jvp(grad(loss(f), every), case.args, case.args)[1]]
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            difference = max(difference, float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))))
    return difference
