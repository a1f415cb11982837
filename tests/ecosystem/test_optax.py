"""Optax: losses with their custom rules, projections, perturbations, second-order diagonals, unrolled and line-searching optimizers."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

optax = library("optax")

use = Uses()
random = np.random.RandomState(0)
LOGITS = random.randn(4, 3)
LABELS = np.array([0, 2, 1, 2])
ONE_HOT = np.eye(3)[LABELS]
POINT = np.array([0.9, -0.4, 1.7, 0.2])


@use("grad", "hvp", "vmap", "eager")
def losses_of_classification() -> Any:
    def fun(x: Any) -> Any:
        return sum(
            jnp.sum(loss)
            for loss in (
                optax.softmax_cross_entropy(x, ONE_HOT),
                optax.softmax_cross_entropy_with_integer_labels(x, LABELS),
                optax.safe_softmax_cross_entropy(x, ONE_HOT),
                optax.sigmoid_binary_cross_entropy(x, ONE_HOT),
                optax.sigmoid_focal_loss(x, ONE_HOT),
                optax.losses.poly_loss_cross_entropy(x, ONE_HOT),
                optax.losses.multiclass_hinge_loss(x, LABELS),
                optax.losses.multiclass_perceptron_loss(x, LABELS),
            )
        )

    return fun, (LOGITS,)


@use("grad", "jvp", "hvp")
def losses_of_regression_and_of_distributions() -> Any:
    def fun(x: Any) -> Any:
        p = jax.nn.softmax(x)
        return sum(
            jnp.sum(loss)
            for loss in (
                optax.l2_loss(x, ONE_HOT),
                optax.huber_loss(x, ONE_HOT),
                optax.log_cosh(x, ONE_HOT),
                optax.cosine_distance(x, ONE_HOT + 0.1),
                optax.kl_divergence(jnp.log(p), ONE_HOT),
                optax.losses.generalized_kl_divergence(jnp.log(p), ONE_HOT),
                optax.losses.dice_loss(x, ONE_HOT),
                optax.losses.triplet_margin_loss(x, x + 0.1 * ONE_HOT, x[::-1]),
                optax.losses.ntxent(x, LABELS),
            )
        )

    return fun, (LOGITS,)


@use("grad", "vmap")
def sparsemax_loss() -> Any:
    return (
        lambda x: (
            jnp.sum(optax.losses.multiclass_sparsemax_loss(x, LABELS)) + jnp.sum(optax.losses.sparsemax_loss(x[:, 0], LABELS > 0))
        ),
        (LOGITS,),
    )


@use("grad", "jvp")
def ctc_loss() -> Any:
    logits = random.randn(2, 5, 4)
    return lambda x: jnp.sum(optax.ctc_loss(x, np.zeros((2, 5)), np.array([[1, 2], [3, 3]]), np.array([[0.0, 0.0], [0.0, 1.0]]))), (
        logits,
    )


@use("grad", "vmap")
def fenchel_young_loss() -> Any:
    loss = optax.losses.make_fenchel_young_loss(jax.nn.logsumexp)
    return lambda x: jnp.sum(jax.vmap(loss)(x, ONE_HOT)), (LOGITS,)


@use("jacrev", "jacfwd", "vjp")
def projections() -> Any:
    def fun(x: Any) -> Any:
        p = optax.projections
        return jnp.stack(
            [
                p.projection_simplex(x),
                p.projection_l1_ball(x, 1.2),
                p.projection_l2_ball(x, 0.7),
                p.projection_linf_ball(x, 0.5),
                p.projection_l1_sphere(x, 1.1),
                p.projection_l2_sphere(x, 0.7),
                p.projection_box(x, -0.3, 1.0),
                p.projection_halfspace(x, jnp.ones(4), 0.6),
                p.projection_hyperplane(x, jnp.arange(4.0), 0.6),
                p.projection_non_negative(x),
            ]
        )

    return fun, (POINT,)


@use("grad", "jvp")
def perturbed_argmax() -> Any:
    perturbed = optax.perturbations.make_perturbed_fun(lambda x: jax.nn.one_hot(jnp.argmax(x), 4), num_samples=20, sigma=0.5)
    return lambda x: jnp.sum(perturbed(jax.random.key(0), x) ** 2), (POINT,)


@use("grad", "hvp")
def unrolled_adam() -> Any:
    """The loss after three steps, by the hyperparameters and the start."""

    def fun(start: Any) -> Any:
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(start["rate"], b1=0.8, weight_decay=0.01))
        x = start["x"]
        state = optimizer.init(x)
        for _ in range(3):
            updates, state = optimizer.update(2 * jnp.sin(x), state, x)
            x = optax.apply_updates(x, updates)
        return jnp.sum(x**2)

    return fun, ({"rate": jnp.asarray(0.1), "x": POINT},)


@use("grad")
def schedules_and_global_norm() -> Any:
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, 2, 10)
    return lambda x: jnp.sum(jax.vmap(schedule)(2.0 + jnp.abs(x))) + optax.global_norm({"a": x, "b": x**2}), (POINT,)


@use.program
def second_order_diagonals() -> Any:
    def loss(params: Any, inputs: Any, targets: Any) -> Any:
        return jnp.mean((jnp.tanh(inputs @ params) - targets) ** 2)

    params, x, y = jnp.asarray(LOGITS[0]), jnp.asarray(LOGITS), jnp.asarray(LABELS, jnp.float64)

    def run() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what optax 0.2.9 leaves out, and people have
            return (
                optax.second_order.hvp(loss, jnp.ones(3), params, x, y),
                optax.second_order.hessian_diag(loss, params, x, y),
                optax.second_order.fisher_diag(loss, params, x, y),
            )

    return run


@use.program
def lbfgs_with_line_search() -> Any:
    def run() -> Any:
        def loss(x: Any) -> Any:
            return jnp.sum(jnp.cosh(x - 0.3)) + x[0] * x[1]

        optimizer = optax.lbfgs()
        value_and_grad = optax.value_and_grad_from_state(loss)

        def step(carry: Any, _: Any) -> Any:
            x, state = carry
            value, grad = value_and_grad(x, state=state)
            updates, state = optimizer.update(grad, state, x, value=value, grad=grad, value_fn=loss)
            return (optax.apply_updates(x, updates), state), value

        x = jnp.asarray(POINT)
        return jax.lax.scan(step, (x, optimizer.init(x)), None, length=2)[1]

    return run


@use.program
def a_training_step_in_jit() -> Any:
    def run() -> Any:
        optimizer = optax.adam(0.1)

        @jax.jit
        def step(x: Any) -> Any:
            value, grads = jax.value_and_grad(lambda x: jnp.mean(optax.softmax_cross_entropy(x, ONE_HOT)))(x)
            return value, optax.apply_updates(x, optimizer.update(grads, optimizer.init(x), x)[0])

        return step(jnp.asarray(LOGITS))

    return run


test_use = use.derivatives_test()
test_installed = use.programs_test()
