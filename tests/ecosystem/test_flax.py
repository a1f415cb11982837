"""Flax: linen and nnx modules, lifted transforms, norms, attention, recurrent cells, training steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from uses import SINGLE, Uses, library

import dualrev as dr

flax = library("flax")
nn = library("flax.linen", "flax")
nnx = library("flax.nnx", "flax")
optax = library("optax")
Module: Any = nn.Module
NNXModule: Any = nnx.Module

use = Uses()
key = jax.random.key(0)
X = np.sin(np.arange(12.0)).reshape(4, 3)
Y = np.cos(np.arange(4.0)).reshape(4, 1)
FLOAT64 = {"param_dtype": jnp.float64}


def linen(module: Any, x: Any = X, **options: Any) -> Any:
    """Sum of squares of a module's output, by its parameters."""
    variables = module.init(key, x, **options)
    rest = {name: value for name, value in variables.items() if name != "params"}

    def loss(params: Any) -> Any:
        out = module.apply({"params": params, **rest}, x, mutable=list(rest), rngs={"dropout": key}, **options)[0]
        return jnp.sum(jnp.sin(out) ** 2)

    return loss, (variables["params"],)


@use("grad", "hvp", "vmap", "eager")
def linen_mlp() -> Any:
    return linen(nn.Sequential([nn.Dense(4, **FLOAT64), nn.silu, nn.LayerNorm(**FLOAT64), nn.Dense(2, **FLOAT64)]))


@use("grad", "jvp")
def linen_convolution_and_batch_norm() -> Any:
    class Net(Module):
        @nn.compact
        def __call__(self, x: Any, train: bool) -> Any:
            x = nn.Conv(3, (3, 3), **FLOAT64)(x)
            x = nn.BatchNorm(use_running_average=not train, **FLOAT64)(x)
            x = nn.avg_pool(nn.relu(x), (2, 2), (2, 2)) + nn.max_pool(x, (2, 2), (2, 2))
            x = nn.Dropout(0.3, deterministic=not train)(x)
            return nn.Dense(2, **FLOAT64)(x.reshape(x.shape[0], -1))

    return linen(Net(), np.sin(np.arange(64.0)).reshape(2, 4, 4, 2), train=True)


@use("grad", "jvp")
def linen_attention() -> Any:
    return linen(nn.Sequential([nn.Embed(6, 4, **FLOAT64), nn.SelfAttention(2, **FLOAT64)]), np.array([[0, 5, 2, 2]]))


@use("grad", "hvp")
def linen_scan_over_layers_with_remat() -> Any:
    class Layer(Module):
        @nn.compact
        def __call__(self, x: Any, _: Any) -> Any:
            return x + jnp.tanh(nn.Dense(3, **FLOAT64)(x)), None

    class Net(Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.scan(nn.remat(Layer, prevent_cse=False), variable_axes={"params": 0}, split_rngs={"params": True}, length=2)()(
                x, None
            )[0]

    return linen(Net())


@use("grad", "vmap")
def linen_recurrent() -> Any:
    return linen(nn.RNN(nn.GRUCell(3, **FLOAT64)), X[None])


@use("grad", "jvp")
def linen_spectral_norm_and_weight_norm() -> Any:
    return linen(nn.WeightNorm(nn.Dense(2, **FLOAT64), **FLOAT64))


def batch_norm(size: int, rngs: Any) -> Any:
    """A layer whose running averages are float64 too; flax makes them float32."""
    layer = nnx.BatchNorm(size, rngs=rngs, **FLOAT64)
    layer.mean, layer.var = nnx.BatchStat(jnp.zeros(size)), nnx.BatchStat(jnp.ones(size))
    return layer


def split(model: Any) -> Any:
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return params, lambda params: nnx.merge(graph, params, rest)


@use("grad", "hvp", "vmap")
def nnx_mlp() -> Any:
    rngs = nnx.Rngs(0)
    params, merged = split(
        nnx.Sequential(
            nnx.Linear(3, 4, rngs=rngs, **FLOAT64),
            nnx.gelu,
            nnx.RMSNorm(4, rngs=rngs, **FLOAT64),
            nnx.Linear(4, 1, rngs=rngs, **FLOAT64),
        )
    )
    return lambda params: jnp.mean((merged(params)(jnp.asarray(X)) - Y) ** 2), (params,)


@use("grad", "jvp", rtol=SINGLE)  # flax takes the softmax of attention in float32
def nnx_attention_and_convolution() -> Any:
    rngs = nnx.Rngs(0)
    params, merged = split(
        nnx.Sequential(nnx.Conv(3, 4, (2,), rngs=rngs, **FLOAT64), nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False, **FLOAT64))
    )
    return lambda params: jnp.sum(merged(params)(jnp.asarray(X)[None]) ** 2), (params,)


@use("grad")
def nnx_lora_and_layer_norm() -> Any:
    rngs = nnx.Rngs(0)
    layers = nnx.LoRALinear(3, 4, lora_rank=2, rngs=rngs, **FLOAT64), nnx.LayerNorm(4, rngs=rngs, **FLOAT64)
    params, merged = split(nnx.Sequential(*layers))
    return lambda params: jnp.sum(merged(params)(jnp.asarray(X)) ** 3), (params,)


@use.program
def nnx_training_step() -> Any:
    def run() -> Any:
        rngs = nnx.Rngs(0)
        model = nnx.Sequential(
            nnx.Linear(3, 4, rngs=rngs, **FLOAT64),
            nnx.relu,
            batch_norm(4, rngs),
            nnx.Dropout(0.2, rngs=rngs),
            nnx.Linear(4, 1, rngs=rngs, **FLOAT64),
        )
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.jit
        def step(model: Any, optimizer: Any) -> Any:
            loss, grads = nnx.value_and_grad(lambda model: jnp.mean((model(jnp.asarray(X)) - Y) ** 2))(model)
            optimizer.update(model, grads)
            return loss

        losses = [step(model, optimizer) for _ in range(2)]
        return losses, nnx.to_pure_dict(nnx.state(model, nnx.Param))

    return run


@use.program
def nnx_grad_with_auxiliary_output() -> Any:
    def run() -> Any:
        model = nnx.Linear(3, 1, rngs=nnx.Rngs(0), **FLOAT64)
        grads, aux = nnx.grad(lambda model, x: (jnp.sum(model(x) ** 2), model(x)), has_aux=True)(model, jnp.asarray(X))
        return nnx.to_pure_dict(grads), aux

    return run


@use.program
def nnx_custom_vjp() -> Any:
    def run() -> Any:
        class Scale(NNXModule):
            def __init__(self) -> None:
                self.a, self.b = nnx.Param(jnp.asarray(2.0)), nnx.Param(jnp.asarray(3.0))

        @nnx.custom_vjp
        def product(m: Any) -> Any:
            return jnp.sin(m.a[...]) * m.b[...]

        def forward(m: Any) -> Any:
            return product(m), (jnp.cos(m.a[...]), jnp.sin(m.a[...]), m)

        def backward(residuals: Any, ct: Any) -> Any:
            updates, out_ct = ct
            cos, sin, m = residuals
            (grads,) = updates
            grads = jax.tree.map(lambda x: x, grads)
            grads["a"][...] = cos * out_ct * m.b[...]
            grads["b"][...] = sin * out_ct
            return (grads,)

        product.defvjp(forward, backward)
        return nnx.to_pure_dict(nnx.grad(product)(Scale()))

    return run


@use.program
def linen_training_state() -> Any:
    def run() -> Any:
        train_state = library("flax.training.train_state", "flax")
        model = nn.Dense(1, **FLOAT64)
        state = train_state.TrainState.create(
            apply_fn=model.apply, params=model.init(key, X)["params"], tx=optax.sgd(0.1, momentum=0.9)
        )

        @jax.jit
        def step(state: Any) -> Any:
            grads = jax.grad(lambda params: jnp.mean((state.apply_fn({"params": params}, X) - Y) ** 2))(state.params)
            return state.apply_gradients(grads=grads)

        return step(step(state)).params

    return run


@use.program
def linen_lifted_value_and_grad() -> Any:
    class Net(Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            out, pull = nn.vjp(lambda m, x: m(x), nn.Dense(2, **FLOAT64), x)
            return out, pull(jnp.ones_like(out))

    def run() -> Any:
        return Net().apply(Net().init(key, jnp.asarray(X)), jnp.asarray(X))

    return run


test_use = use.derivatives_test()
test_installed = use.programs_test()


def _check_taps(loss: Any, params: Any, kernel: Any, plain: Any) -> None:
    """The taps ``"hidden"`` of a loss that sums the squares of a linear layer's output."""
    value, gradient, found = jax.jit(dr.taps(loss, "hidden", argnums=0))(params)
    np.testing.assert_allclose(value, plain(params), rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(jax.grad(plain)(params)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    hidden = found["hidden"]
    assert hidden.value.shape == hidden.cotangent.shape == (4, 5)
    np.testing.assert_allclose(hidden.cotangent, 2 * (hidden.value @ kernel) @ kernel.T, rtol=1e-5, atol=1e-7)


class TappedLinen(Module):
    """A module with a tap at its hidden layer, recomputed or not."""

    is_remat: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        dense = nn.remat(nn.Dense) if self.is_remat else nn.Dense
        h = dr.tap(nn.tanh(dense(5, **FLOAT64)(x)), "hidden")
        return nn.Dense(2, use_bias=False, name="last", **FLOAT64)(h)


@pytest.mark.parametrize("is_remat", [False, True])
def test_taps_in_linen(is_remat: bool) -> None:
    module = TappedLinen(is_remat)
    params = module.init(key, X)["params"]

    def loss(params: Any) -> Any:
        return jnp.sum(module.apply({"params": params}, X) ** 2)

    _check_taps(loss, params, params["last"]["kernel"], loss)


def test_taps_in_nnx() -> None:
    class Tapped(NNXModule):
        def __init__(self, rngs: Any):
            self.first = nnx.Linear(3, 5, rngs=rngs, **FLOAT64)
            self.second = nnx.Linear(5, 2, use_bias=False, rngs=rngs, **FLOAT64)

        def __call__(self, x: Any) -> Any:
            return self.second(dr.tap(nnx.tanh(self.first(x)), "hidden"))

    graph, params = nnx.split(Tapped(nnx.Rngs(0)))

    def loss(params: Any) -> Any:
        return jnp.sum(nnx.merge(graph, params)(X) ** 2)

    _check_taps(loss, params, params["second"]["kernel"][...], loss)


def test_taps_in_a_scanned_layer() -> None:
    class Block(Module):
        @nn.compact
        def __call__(self, x: Any, _: Any) -> Any:
            return dr.tap(nn.tanh(nn.Dense(3, **FLOAT64)(x)), "layer"), None

    module = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=6)()
    params = module.init(key, X, None)
    found = jax.jit(dr.taps(lambda params: jnp.sum(module.apply(params, X, None)[0])))(params)[1]["layer"]
    assert found.value.shape == found.cotangent.shape == (6, 4, 3)
    np.testing.assert_allclose(found.cotangent[-1], np.ones((4, 3)))
