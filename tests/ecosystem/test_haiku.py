"""Haiku: transformed functions with parameters and state, recurrent networks, its own scan, remat and gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

hk = library("haiku", "dm-haiku")

use = Uses()
key = jax.random.key(0)
X = np.sin(np.arange(12.0)).reshape(4, 3)


def transformed(function: Any, x: Any = X) -> Any:
    """Sum over a transformed function's output, by its parameters."""
    net = hk.transform_with_state(function)
    params, state = net.init(key, x)
    return lambda params: jnp.sum(jnp.sin(net.apply(params, state, key, x)[0]) ** 2), (params,)


@use("grad", "hvp", "vmap", "eager")
def mlp() -> Any:
    return transformed(lambda x: hk.nets.MLP([4, 2], activation=jax.nn.softplus)(x))


@use("grad", "jvp", "vmap")
def unrolled_lstm() -> Any:
    def function(x: Any) -> Any:
        core = hk.DeepRNN([hk.LSTM(3), jnp.tanh, hk.GRU(2)])
        return hk.dynamic_unroll(core, x, core.initial_state(None))[0]

    return transformed(function)


@use("grad", "jvp")
def convolution_and_batch_norm() -> Any:
    def function(x: Any) -> Any:
        x = hk.BatchNorm(True, True, 0.9)(hk.Conv2D(3, 3)(x), True)
        return hk.Linear(2)(hk.Flatten()(jax.nn.relu(hk.max_pool(x, 2, 2, "SAME"))))

    return transformed(function, np.sin(np.arange(32.0)).reshape(1, 4, 4, 2))


@use("grad", "hvp")
def attention_norm_and_dropout() -> Any:
    def function(x: Any) -> Any:
        x = hk.Linear(4)(x)
        x = x + hk.MultiHeadAttention(2, 2, w_init=hk.initializers.VarianceScaling(1.0))(x, x, x)
        return hk.dropout(hk.next_rng_key(), 0.3, hk.LayerNorm(-1, True, True)(x))

    return transformed(function)


@use("grad", "hvp")
def layer_stack_with_remat() -> Any:
    def function(x: Any) -> Any:
        layer = hk.Linear(3)
        return hk.experimental.layer_stack(2)(lambda x: x + jnp.tanh(hk.remat(hk.Linear(3))(x)))(layer(x))

    return transformed(function)


@use("grad", "jvp")
def scan_cond_and_while_inside_a_module() -> Any:
    def function(x: Any) -> Any:
        linear = hk.Linear(3)
        linear(x[0])
        h, _ = hk.scan(lambda c, x: (jnp.tanh(linear(c) + x), None), jnp.zeros(3), x)
        h = hk.cond(h[0] > 5, lambda h: h, lambda h: linear(h) ** 2, h)
        return hk.fori_loop(0, 2, lambda i, h: h * 0.5 + jnp.sin(h), h)

    return transformed(function)


@use("grad")
def vector_quantizer_with_straight_through_estimator() -> Any:
    def function(x: Any) -> Any:
        # The quantizer's argmin is piecewise constant; its straight-through estimator is a stop_gradient.
        return hk.nets.VectorQuantizer(2, 3, 0.25, dtype=jnp.float64)(hk.Linear(2)(x), is_training=True)["quantize"]

    return transformed(function)


@use.program
def grad_inside_a_transformed_function() -> Any:
    def run() -> Any:
        def function(x: Any) -> Any:
            linear = hk.Linear(1)
            linear(x)
            return hk.grad(lambda x: jnp.sum(linear(x) ** 3))(x)

        net = hk.transform(function)
        return net.apply(net.init(key, jnp.asarray(X)), key, jnp.asarray(X))

    return run


@use.program
def value_and_grad_with_state() -> Any:
    def run() -> Any:
        net = hk.transform_with_state(lambda x: hk.Linear(1)(hk.BatchNorm(True, True, 0.9)(x, True)))
        params, state = net.init(key, jnp.asarray(X))

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            def loss(params: Any) -> Any:
                out, new = net.apply(params, state, key, jnp.asarray(X))
                return jnp.mean(out**2), new

            (value, state_out), grads = jax.value_and_grad(loss, has_aux=True)(params)
            return value, state_out, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

        return step(params, state)

    return run


test_use = use.derivatives_test()
test_installed = use.programs_test()
