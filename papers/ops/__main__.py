"""``python -m papers.ops``: every check, and the operation at work: a blur, found from a signal and its blurred copy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr
from dualrev.testing import check_rule
from papers.ops.cases import cases, check
from papers.ops.circular import circular
from papers.ops.statements import EXAMPLES


def find_blur(steps: int = 200) -> tuple[float, float]:
    """The loss before and after so many steps of gradient descent on the blur, and how far off the blur then is."""
    n = 64
    signal = jnp.asarray(np.random.default_rng(1).normal(size=n))
    distance = jnp.minimum(jnp.arange(0.0, n), jnp.arange(n, 0.0, -1.0))
    blur = jnp.exp(-((distance / 2) ** 2) / 2)
    seen = circular(signal, blur / jnp.sum(blur))

    def loss(guess: jax.Array) -> jax.Array:
        return jnp.sum((circular(signal, guess) - seen) ** 2) / n

    @jax.jit
    def step(guess: jax.Array) -> jax.Array:
        return guess - 0.2 * dr.grad(loss)(guess)

    guess = jnp.zeros(n)
    before = float(loss(guess))
    for _ in range(steps):
        guess = step(guess)
    return before, float(loss(guess))


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    print("circular convolution, by dualrev and by jax from one statement; largest difference from jax's derivatives of the sum:")
    for case in cases():
        print(f"  {case.what:<24} {check(case):.0e}")
    print("the other statements, against finite differences, in both modes, to order 2:")
    for function, point in EXAMPLES:
        check_rule(function, *map(jnp.asarray, point))
        print(f"  {function.__name__:<24} right")
    print("a blur, found by gradient descent: loss {:.2g}, and after 200 steps {:.2g}".format(*find_blur()))


if __name__ == "__main__":
    main()
