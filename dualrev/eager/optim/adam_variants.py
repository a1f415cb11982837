"""The updates of Adamax, NAdam and RAdam."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.optim.algorithms import turned, zeros
from dualrev.eager.optim.joined import entrywise
from dualrev.eager.optim.optimizer import Optimizer, Params, Settings, State, check_positive


def _check(lr: float | Tensor, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    for name, value in (("learning rate", lr), ("epsilon value", eps)):
        check_positive(name, value)
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
    check_positive("weight_decay value", weight_decay)


def _counted(state: State) -> tuple[jax.Array, jax.Array]:
    """The number of the step, and the same with the bits that powers of it need."""
    step = state["step"] + 1
    return step, step.astype(jnp.float64)


class Adamax(Optimizer):
    """Steps divided by a running maximum of the gradient."""

    pairs = ("betas",)

    def __init__(self, params: Params, lr: float | Tensor = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, *, maximize: bool = False):
        _check(lr, betas, eps, weight_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        return {"step": np.zeros((), np.float32), "exp_avg": zeros(p), "exp_inf": zeros(p)}

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        g, (b1, b2), (step, t) = turned(p, g, settings), settings["betas"], _counted(state)
        mean = state["exp_avg"] + (1 - b1) * (g - state["exp_avg"])
        largest = jnp.maximum(state["exp_inf"] * b2, abs(g) + settings["eps"])
        rate = (settings["lr"] / (1 - b1 ** t)).astype(p.dtype)
        return p - rate * mean / largest, {"step": step, "exp_avg": mean, "exp_inf": largest}


class NAdam(Optimizer):
    """As Adam, with Nesterov's momentum."""

    numbers = ("lr", "weight_decay", "momentum_decay")
    pairs = ("betas",)

    def __init__(self, params: Params, lr: float | Tensor = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False,
                 *, maximize: bool = False):
        _check(lr, betas, eps, weight_decay)
        check_positive("momentum_decay value", momentum_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay,
                                      decoupled_weight_decay=decoupled_weight_decay, maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        return {"step": np.zeros((), np.float32), "mu_product": np.ones((), np.float32), "exp_avg": zeros(p), "exp_avg_sq": zeros(p)}

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        s, lr = settings, settings["lr"]
        g, p = _decayed(p, g, s)
        (b1, b2), (step, t) = s["betas"], _counted(state)
        mu = b1 * (1 - 0.5 * 0.96 ** (t * s["momentum_decay"]))
        mu_next = b1 * (1 - 0.5 * 0.96 ** ((t + 1) * s["momentum_decay"]))
        product = state["mu_product"] * mu.astype(jnp.float32)
        mean, square = _moments(g, state, b1, b2)
        root = jnp.sqrt(square / (1 - b2 ** t).astype(p.dtype)) + s["eps"]
        now = (lr * (1 - mu) / (1 - product.astype(jnp.float64))).astype(p.dtype)
        ahead = (lr * mu_next / (1 - product.astype(jnp.float64) * mu_next)).astype(p.dtype)
        new = {"step": step, "mu_product": product, "exp_avg": mean, "exp_avg_sq": square}
        return p - now * g / root - ahead * mean / root, new


class RAdam(Optimizer):
    """As Adam, without the division by the root mean square as long as its variance is not known."""

    pairs = ("betas",)

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, decoupled_weight_decay: bool = False, *, maximize: bool = False):
        _check(lr, betas, eps, weight_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      decoupled_weight_decay=decoupled_weight_decay, maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        return {"step": np.zeros((), np.float32), "exp_avg": zeros(p), "exp_avg_sq": zeros(p)}

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        s = settings
        g, p = _decayed(p, g, s)
        (b1, b2), (step, t) = s["betas"], _counted(state)
        mean, square = _moments(g, state, b1, b2)
        unbiased = 1 - b2 ** t
        most = 2 / (1 - b2) - 1
        length = most - 2 * t * b2 ** t / unbiased
        known = length > 5
        safe = jnp.where(known, length, 6.0)
        rectified = jnp.sqrt((safe - 4) * (safe - 2) * most / ((most - 4) * (most - 2) * safe) * unbiased).astype(p.dtype)
        scale = jnp.where(known, rectified / (jnp.sqrt(square) + s["eps"]), 1)
        rate = (s["lr"] / (1 - b1 ** t)).astype(p.dtype)
        return p - rate * mean * scale, {"step": step, "exp_avg": mean, "exp_avg_sq": square}


def _decayed(p: jax.Array, g: jax.Array, s: Settings) -> tuple[jax.Array, jax.Array]:
    """The gradient and the parameter after weight decay, which belongs to one of them."""
    decoupled = s["decoupled_weight_decay"]
    g = turned(p, g, s, not decoupled)
    return g, p * (1 - s["lr"] * s["weight_decay"]) if decoupled and s["decays"] else p


def _moments(g: jax.Array, state: State, b1: float, b2: float) -> tuple[jax.Array, jax.Array]:
    mean = state["exp_avg"] + (1 - b1) * (g - state["exp_avg"])
    return mean, state["exp_avg_sq"] * b2 + (1 - b2) * g * g
