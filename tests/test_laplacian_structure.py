"""Laplacians keep the structure of networks of particles through loops, branches, checkpoints and rules of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from test_laplacian import PARTICLES, V1, V2, hessians, products, same

import dualrev


def start(x: Any) -> Any:
    return jnp.tanh(x @ V1)


def layer(h: Any) -> Any:
    return jnp.sin(h @ V2 @ V2.T)


@jax.custom_jvp
def squared(x: Any) -> Any:
    return x**2


squared.defjvp(lambda primals, tangents: (squared(*primals), 2.0 * primals[0] * tangents[0]))


@jax.custom_vjp
def cubed(x: Any) -> Any:
    return x**3


cubed.defvjp(lambda x: (cubed(x), x), lambda x, ct: (3.0 * x**2 * ct,))


@jax.custom_jvp
def running(x: Any) -> Any:
    return jnp.cumsum(x**2, 0)


running.defjvp(lambda primals, tangents: (running(*primals), jnp.cumsum(2.0 * primals[0] * tangents[0], 0)))


@jax.custom_jvp
def backwards(x: Any) -> Any:
    return jnp.sin(x[::-1])


backwards.defjvp(lambda primals, tangents: (backwards(*primals), jnp.cos(primals[0][::-1]) * tangents[0][::-1]))


@jax.custom_jvp
def weighted(x: Any, w: Any) -> Any:
    return jnp.sum(x**2) * w


weighted.defjvp(lambda p, t: (weighted(*p), 2.0 * jnp.sum(p[0] * t[0]) * p[1] + jnp.sum(p[0] ** 2) * t[1]))


def loop(h: Any) -> Any:
    return lax.scan(lambda c, _: (layer(c), None), h, None, length=2)[0]


#: Parts of a network that act on each particle by itself.
EACH: dict[str, Callable[[Any], Any]] = {
    "scan": loop,
    "while": lambda h: lax.while_loop(lambda s: s[1] < 2, lambda s: (layer(s[0]), s[1] + 1), (h, 0))[0],
    "scan that starts at zero": lambda h: lax.scan(lambda c, _: (layer(c) + h, None), jnp.zeros_like(h), None, length=2)[0],
    "stacked results": lambda h: jnp.sum(lax.scan(lambda c, _: (layer(c), jnp.sin(c) * h), h, None, length=2)[1] ** 2, 0),
    "slices": lambda h: lax.scan(lambda c, y: (layer(c) * y, None), h, jnp.stack([h, h**2]))[0],
    "cond": lambda h: lax.cond(jnp.sum(h) > 100, jnp.cos, layer, h),
    "cond within scan": lambda h: lax.scan(lambda c, i: (lax.cond(i > 0, layer, jnp.cos, c), None), h, jnp.arange(2))[0],
    "checkpoint": jax.checkpoint(layer),
    "relu": lambda h: jax.nn.relu(layer(h)) ** 2,
    "softplus": lambda h: jax.nn.softplus(h @ V2) @ V2.T,
    "log_sigmoid": lambda h: jax.nn.log_sigmoid(h),
    "custom_jvp": lambda h: squared(h) * h,
    "custom_vjp": lambda h: cubed(jnp.sin(h)),
    "custom_jvp within scan": lambda h: lax.scan(lambda c, _: (squared(layer(c)), None), h, None, length=2)[0],
}

#: Programs whose structure is another at another place, or is lost.
MIXING: dict[str, Callable[[Any], Any]] = {
    "carry that grows": lambda x: lax.scan(lambda h, _: (layer(h) + h[:1] * h, None), start(x), None, length=3)[0],
    "carry that loses it": lambda x: lax.scan(lambda h, _: (jnp.cumsum(layer(h), 0), None), start(x), None, length=2)[0],
    "carries that are exchanged": lambda x: lax.scan(
        lambda s, _: ((s[1], layer(s[0]) * s[1]), s[0]), (start(x), x[0, 0] * jnp.ones((3, 4))), None, length=3),
    "slices of particles": lambda x: lax.scan(lambda c, h: (c + h * jnp.roll(h, 1), h * c), jnp.zeros(4), start(x)),
    "branches that differ": lambda x: lax.switch(1, [jnp.cos, lambda h: h[::-1] ** 2, lambda h: jnp.ones_like(h)], start(x)) ** 2,
    "one branch with pairs": lambda x: lax.cond(x[0, 0] < 9, lambda h: h @ h.T, lambda h: jnp.zeros((3, 3)), start(x)),
    "rule of neighbours": lambda x: running(start(x)) * start(x),
    "rule that reverses": lambda x: backwards(start(x)) * start(x),
    "rule of two operands": lambda x: weighted(start(x), x[0, 0]),
    "rule with a number": lambda x: jnp.logaddexp(start(x), jnp.sin(x[0, 0])),
    "rule of two arrays": lambda x: jnp.logaddexp(start(x), layer(start(x))) ** 2,
}


def trace_of_hessian(f: Any) -> Any:
    second = jnp.reshape(hessians(f, PARTICLES), (-1, PARTICLES.size, PARTICLES.size))
    return jnp.sum(jnp.trace(second, axis1=1, axis2=2))


def total(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: sum(jnp.sum(y * jnp.cos(y)) for y in jax.tree.leaves(f(x)))


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in ("scan", "relu", "cond within scan") else pytest.mark.thorough) for name in EACH])
def test_the_cost_is_linear_in_the_number_of_particles(name: str) -> None:
    f = total(lambda x: EACH[name](start(x)))
    value, found = jax.jit(dualrev.laplacian(f))(PARTICLES)
    same(value, f(PARTICLES))
    known = total(lambda x: jnp.sin(start(x)) ** 3) if name == "custom_vjp" else f  # jax pushes through no custom_vjp
    same(found, trace_of_hessian(known), 1e-8)
    few, many = (products(f, jnp.ones((n, 2))) for n in (8, 40))
    assert many == 5 * few


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in ("carry that grows", "rule that reverses") else pytest.mark.thorough) for name in MIXING])
def test_structures_that_change(name: str) -> None:
    f = total(MIXING[name])
    expected = trace_of_hessian(f)
    for wrap in (jax.jit, lambda g: g):
        value, found = wrap(dualrev.laplacian(f))(PARTICLES)
        same(value, f(PARTICLES))
        same(found, expected, 1e-8)


@pytest.mark.thorough
def test_gradients_of_laplacians() -> None:
    def f(w: Any) -> Any:
        return dualrev.laplacian(total(lambda x: loop(jax.nn.softplus(start(x) * w))))(PARTICLES)[1]

    w = jnp.array(0.7)
    step = 1e-5
    np.testing.assert_allclose(dualrev.grad(f)(w), (f(w + step) - f(w - step)) / (2 * step), rtol=1e-6)
