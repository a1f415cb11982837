"""e3nn: spherical harmonics, tensor products, gates, equivariant layers, rotations, signals on the sphere."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

e3nn = library("e3nn_jax", "e3nn-jax")

use = Uses()
random = np.random.RandomState(0)
XYZ = random.randn(3, 3)
key = jax.random.key(0)


def total(x: Any) -> Any:
    x = x.array if isinstance(x, e3nn.IrrepsArray) else x
    return jnp.sum(jnp.sin(x + jnp.arange(float(x.shape[-1]))) ** 2)


@use("grad", "hvp", "vmap", "eager")
def spherical_harmonics() -> Any:
    return lambda x: total(e3nn.spherical_harmonics("0e + 1o + 2e + 3o", x, True)), (XYZ,)


@use("grad", "hessian")
def spherical_harmonics_not_normalized_at_the_origin() -> Any:
    return lambda x: total(e3nn.spherical_harmonics([0, 1, 2, 3], e3nn.IrrepsArray("1o", x), False)), (np.zeros((1, 3)),)


@use("jvp", "jacfwd")  # a loop whose bounds are traced: jax has no reverse mode for it
def spherical_harmonics_by_legendre() -> Any:
    return lambda x: total(e3nn.spherical_harmonics("4e + 5o", x, True, algorithm=("legendre", "sparse"))), (XYZ[:2],)


@use("grad", "hvp")
def tensor_products() -> Any:
    def fun(x: Any) -> Any:
        x = e3nn.IrrepsArray("0e + 1o", jnp.concatenate([x, x[:, :1]], 1))
        return total(e3nn.tensor_product(x, x)) + total(e3nn.tensor_square(x)) + total(e3nn.elementwise_tensor_product(x, x))

    return fun, (XYZ,)


@use("grad", "jvp")
def gates_norms_and_activations() -> Any:
    def fun(x: Any) -> Any:
        gated = e3nn.gate(
            e3nn.IrrepsArray("0e + 0e + 1o", jnp.concatenate([x, x[:, :2]], 1)), even_act=jax.nn.gelu, even_gate_act=jax.nn.sigmoid
        )
        vectors = e3nn.IrrepsArray("1o", x)
        return (
            total(gated)
            + total(e3nn.norm(vectors))
            + total(e3nn.norm_activation(vectors, [jnp.tanh]))
            + total(e3nn.cross(vectors, vectors[::-1]))
        )

    return fun, (XYZ,)


@use("grad", "hvp")
def equivariant_layers_of_haiku() -> Any:
    hk = library("haiku", "dm-haiku")

    def function(x: Any) -> Any:
        x = e3nn.haiku.Linear("2x0e + 1o + 2e")(e3nn.tensor_product(x, x))
        return e3nn.haiku.Linear("0e")(e3nn.scalar_activation(x, [jnp.tanh, None]))

    net = hk.without_apply_rng(hk.transform(function))
    params = net.init(key, e3nn.IrrepsArray("1o", jnp.asarray(XYZ)))
    return lambda params: total(net.apply(params, e3nn.IrrepsArray("1o", jnp.asarray(XYZ)))), (params,)


@use("grad", "jvp")
def message_passing_with_radial_functions() -> Any:
    sources, targets = np.array([0, 0, 1, 2]), np.array([1, 2, 0, 1])

    def fun(x: Any) -> Any:
        edges = x[sources] - x[targets]
        length = jnp.linalg.norm(edges, axis=1)
        radial = e3nn.bessel(length, 3, 4.0) * e3nn.poly_envelope(3, 1, 4.0)(length)[:, None]
        weights = e3nn.soft_one_hot_linspace(length, start=0.0, end=4.0, number=3, basis="smooth_finite", cutoff=True)
        messages = e3nn.spherical_harmonics("0e + 1o", edges, True) * jnp.sum(radial * weights, 1, keepdims=True)
        return total(e3nn.scatter_sum(messages, dst=targets, output_size=3))

    return fun, (XYZ,)


@use("grad", "jvp", "vmap")
def rotations() -> Any:
    def fun(angles: Any) -> Any:
        rotated = e3nn.IrrepsArray("0e + 1o + 2e", jnp.arange(9.0)).transform_by_angles(*angles)
        quaternion = e3nn.angles_to_quaternion(*angles)
        return (
            total(rotated)
            + total(e3nn.quaternion_to_matrix(quaternion))
            + total(e3nn.matrix_to_axis_angle(e3nn.angles_to_matrix(*angles))[0])
        )

    return fun, (np.array([0.3, 0.8, -0.4]),)


@use("grad")
def signals_on_the_sphere() -> Any:
    def fun(x: Any) -> Any:
        signal = e3nn.to_s2grid(e3nn.IrrepsArray("0e + 1o + 2e", x), 6, 7, quadrature="gausslegendre", p_val=1, p_arg=-1)
        return total(e3nn.from_s2grid(signal.apply(jnp.tanh), "0e + 1o + 2e"))

    return fun, (random.randn(9),)


@use.program
def equivariant_gradient() -> Any:
    """The library's own gradient, which gives irreps; it calls jax's."""
    return lambda: (
        e3nn.grad(lambda x: e3nn.norm(e3nn.spherical_harmonics("1o", x, False)))(e3nn.IrrepsArray("1o", jnp.asarray(XYZ[0]))).array
    )


@use.program
def training_step_of_flax_layers() -> Any:
    def run() -> Any:
        layer = e3nn.flax.Linear("0e + 1o")
        x = e3nn.IrrepsArray("2x0e + 2x1o", jnp.arange(8.0))
        params = layer.init(key, x)
        return jax.jit(jax.value_and_grad(lambda params: total(layer.apply(params, x))))(params)

    return run


test_use = use.derivatives_test()
test_installed = use.programs_test()
