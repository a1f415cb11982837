"""Equinox: modules, filtered transforms, its own custom rules, and its loops."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from uses import Uses, library

import dualrev as dr

eqx = library("equinox")
eqxi = library("equinox.internal")

Module: Any = eqx.Module

use = Uses()
key = jax.random.key(0)
X = np.linspace(-1.0, 1.0, 12).reshape(4, 3)
Y = np.sin(X[:, :1])


def split(model: Any) -> Any:
    return eqx.partition(model, eqx.is_inexact_array)


@use("grad", "hvp", "jvp", "vmap", "eager")
def mlp() -> Any:
    params, static = split(eqx.nn.MLP(3, 1, 5, 2, activation=jax.nn.softplus, key=key))

    def loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean((jax.vmap(eqx.combine(params, static))(x) - y) ** 2)

    return loss, (params, X, Y)


@use("grad", "jvp")
def convolution_norm_and_dropout() -> Any:
    keys = jax.random.split(key, 3)
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv1d(2, 4, 3, key=keys[0]),
            eqx.nn.GroupNorm(2, 4),
            eqx.nn.Lambda(jax.nn.gelu),
            eqx.nn.Dropout(0.5),
            eqx.nn.AvgPool1d(2, stride=2),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(12, 3, key=keys[1]),
        ]
    )
    params, static = split(model)
    return lambda params, x: jnp.sum(eqx.combine(params, static)(x, key=keys[2]) ** 2), (params, np.sin(np.arange(16.0)).reshape(2, 8))


@use("grad", "hvp")
def recurrent_cells_in_scan() -> Any:
    params, static = split((eqx.nn.GRUCell(3, 4, key=key), eqx.nn.LSTMCell(4, 2, key=key)))

    def loss(params: Any, xs: Any) -> Any:
        gru, lstm = eqx.combine(params, static)

        def step(carry: Any, x: Any) -> Any:
            h, state = carry
            h = gru(x, h)
            state = lstm(h, state)
            return (h, state), state[0]

        return jnp.sum(jax.lax.scan(step, (jnp.zeros(4), (jnp.zeros(2), jnp.zeros(2))), xs)[1] ** 2)

    return loss, (params, X)


@use("grad", "jvp")
def attention_and_layer_norm() -> Any:
    params, static = split((eqx.nn.MultiheadAttention(2, 4, key=key), eqx.nn.LayerNorm(4), eqx.nn.Embedding(5, 4, key=key)))

    def loss(params: Any, tokens: Any) -> Any:
        attention, norm, embedding = eqx.combine(params, static)
        x = jax.vmap(embedding)(tokens)
        return jnp.sum(jax.vmap(norm)(attention(x, x, x, mask=jnp.tril(jnp.ones((4, 4), bool)))) ** 3)

    return loss, (params, np.array([0, 3, 1, 4]))


@use("grad", "vmap", "eager")
def filter_custom_vjp() -> Any:
    @eqx.filter_custom_vjp
    def clipped(x: Any, other: Any) -> Any:
        return x["a"] ** 2 * other

    def forward(perturbed: Any, x: Any, other: Any) -> Any:
        return clipped(x, other), (x["a"], other)

    def backward(residuals: Any, ct: Any, perturbed: Any, x: Any, other: Any) -> Any:
        a, other = residuals
        return {"a": jnp.clip(ct * 2 * a * other, -1.0, 1.0), "b": None}

    clipped.def_fwd(forward)
    clipped.def_bwd(backward)
    return lambda a, other: jnp.sum(jnp.sin(clipped({"a": a, "b": 3}, other))), (X, 1.5)


@use("grad", "jvp", "hessian")
def filter_custom_jvp() -> Any:
    @eqx.filter_custom_jvp
    def softplus(x: Any, scale: Any) -> Any:
        return jnp.log1p(jnp.exp(x * scale))

    @softplus.def_jvp
    def rule(primals: Any, tangents: Any) -> Any:
        (x, scale), (t, _) = primals, tangents
        return softplus(x, scale), t * scale * jax.nn.sigmoid(x * scale)

    return lambda x: jnp.sum(softplus(x, 2.0) ** 2), (np.array([0.3, -1.0]),)


@use("grad", "jvp")
def filter_checkpoint() -> Any:
    params, static = split(eqx.nn.MLP(3, 3, 4, 1, activation=jnp.tanh, key=key))
    return lambda params, x: jnp.sum(eqx.filter_checkpoint(lambda m, x: m(m(x)))(eqx.combine(params, static), x)), (params, X[0])


def newton(kind: str, **options: Any) -> Any:
    def root(a: Any) -> Any:
        def step(carry: Any) -> Any:
            x, i = carry
            return 0.5 * (x + a / x), i + 1

        x, _ = eqxi.while_loop(lambda carry: carry[1] < 5, step, (jnp.ones_like(a), 0), kind=kind, **options)
        return jnp.sum(x**3)

    return root, (np.array([2.0, 3.0]),)


@use("grad", "vmap", "eager")
def while_loop_checkpointed() -> Any:
    return newton("checkpointed", checkpoints=3)


@use("grad", "vmap")
def while_loop_checkpointed_with_a_maximum() -> Any:
    return newton("checkpointed", max_steps=8)


@use("grad", "jvp", "hessian")
def while_loop_bounded() -> Any:
    return newton("bounded", max_steps=8)


@use("jvp", "jacfwd")
def while_loop_lax() -> Any:
    return newton("lax")


@use("grad", "jvp")
def scan_checkpointed() -> Any:
    def fun(a: Any) -> Any:
        return jnp.sum(eqxi.scan(lambda c, x: (jnp.sin(c * a) + x, c), a, X[:, 0], kind="lax")[0])

    return fun, (np.array([0.5, 1.5]),)


@use("grad", "vmap")
def scan_with_buffers() -> Any:
    def fun(a: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            return carry.at[0].set(jnp.sin(carry[0] * a) + x), None

        out, _ = eqxi.scan(step, jnp.stack([a, a**2]), X[:, 0], kind="checkpointed", buffers=lambda c: c, checkpoints=2)
        return jnp.sum(out**2)

    return fun, (np.array(0.7),)


@use("grad", "jvp", "hvp", "vmap")
def noinline() -> Any:
    return lambda x: jnp.sum(eqxi.noinline(lambda x: jnp.sin(x) * x)(x) ** 2), (X[0],)


@use("grad", "vmap", "eager")
def nondifferentiable_backward_and_error_if() -> Any:
    def fun(x: Any) -> Any:
        x = eqx.error_if(x, jnp.any(x > 10), "too large")
        return jnp.sum(jnp.exp(x)) + jnp.sum(eqxi.nondifferentiable_backward(jax.lax.stop_gradient(x)))

    return fun, (X[0],)


@use("grad", "jvp")
def spectral_and_weight_norm() -> Any:
    params, static = split(eqx.nn.WeightNorm(eqx.nn.Linear(3, 2, key=key)))
    return lambda params, x: jnp.sum(eqx.combine(params, static)(x) ** 2), (params, X[0])


@use.program
def filter_grad_of_a_model() -> Any:
    @eqx.filter_grad
    def loss(model: Any, x: Any, y: Any) -> Any:
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    return lambda: loss(eqx.nn.MLP(3, 1, 4, 1, key=key), X, Y)


@use.program
def filter_jit_of_filter_value_and_grad() -> Any:
    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def loss(model: Any, x: Any, y: Any) -> Any:
        out = jax.vmap(model)(x)
        return jnp.mean((out - y) ** 2), out

    return lambda: loss(eqx.nn.MLP(3, 1, 4, 1, key=key), X, Y)


@use.program
def filter_vmap_of_filter_grad() -> Any:
    model = eqx.filter_vmap(lambda k: eqx.nn.Linear(3, 1, key=k))(jax.random.split(key, 2))
    return lambda: eqx.filter_vmap(eqx.filter_grad(lambda m, x: m(x)[0] ** 2), in_axes=(eqx.if_array(0), None))(
        model, jnp.asarray(X[0])
    )


@use.program
def filter_jvp_of_a_function() -> Any:
    return lambda: eqx.filter_jvp(jnp.sin, (1.0,), (2.0,))


@use.program
def filter_jvp_with_a_tangent_of_none() -> Any:
    def fun(x: Any, y: Any) -> Any:
        return x * y, y + 1.0

    return lambda: eqx.filter_jvp(fun, (jnp.asarray(2.0), jnp.asarray(3.0)), (jnp.asarray(1.0), None))


@use.program
def filter_vjp_of_a_model() -> Any:
    def run() -> Any:
        out, pull = eqx.filter_vjp(lambda m, x: m(x), eqx.nn.Linear(3, 2, key=key), jnp.asarray(X[0]))
        return out, pull(jnp.array([1.0, -2.0]))

    return run


@use.program
def filter_hessian_and_jacobians() -> Any:
    x = jnp.asarray(X[0])
    return lambda: (
        eqx.filter_hessian(lambda x: jnp.sum(jnp.sin(x) ** 3))(x),
        eqx.filter_jacfwd(jnp.cos)(x),
        eqx.filter_jacrev(jnp.tanh)(x),
    )


@use.program
def filter_closure_convert_and_linearize() -> Any:
    return lambda: eqx.filter_closure_convert(lambda x: eqx.filter_grad(lambda x: jnp.sum(x**3))(x), jnp.ones(2))(jnp.array([1.0, 2.0]))


test_use = use.derivatives_test()
test_installed = use.programs_test()


class Tapped(Module):
    """A module with a tap at its hidden layer."""

    first: Any
    second: Any

    def __call__(self, x: Any) -> Any:
        return self.second(dr.tap(jax.nn.tanh(self.first(x)), "hidden"))


@pytest.mark.parametrize("compiled", [eqx.filter_jit, lambda f: f])
def test_taps_in_a_module(compiled: Any) -> None:
    keys = jax.random.split(key)
    model = Tapped(eqx.nn.Linear(3, 5, key=keys[0]), eqx.nn.Linear(5, 1, key=keys[1]))

    def loss(model: Any, x: Any, y: Any) -> Any:
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    value, gradient, found = compiled(dr.taps(loss, "hidden", argnums=0, non_float="none"))(model, X, Y)
    expected = eqx.filter_grad(loss)(model, X, Y)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    hidden = jax.nn.tanh(jax.vmap(model.first)(X))
    np.testing.assert_allclose(found["hidden"].value, hidden, rtol=1e-6)
    out = jax.vmap(model.second)(hidden)
    np.testing.assert_allclose(found["hidden"].cotangent, (2 * (out - Y) / 4) @ model.second.weight, rtol=1e-6)
    np.testing.assert_allclose(value, jnp.mean((out - Y) ** 2), rtol=1e-6)
