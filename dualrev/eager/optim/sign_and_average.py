"""The updates of Adadelta, Rprop and ASGD."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.dtypes import float64, get_default_dtype
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.optim.algorithms import turned, zeros
from dualrev.eager.optim.joined import entrywise
from dualrev.eager.optim.optimizer import Optimizer, Params, Settings, State, check_positive


class Adadelta(Optimizer):
    """Steps scaled by the ratio of running root mean squares, of steps and of gradients."""

    numbers = ("lr", "weight_decay", "rho", "eps")

    def __init__(self, params: Params, lr: float | Tensor = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0, *,
                 maximize: bool = False):
        check_positive("learning rate", lr)
        if not 0 <= rho <= 1:
            raise ValueError(f"Invalid rho value: {rho}")
        check_positive("epsilon value", eps)
        check_positive("weight_decay value", weight_decay)
        super().__init__(params, dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        return {"step": np.zeros((), np.float32), "square_avg": zeros(p), "acc_delta": zeros(p)}

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        g, rho, eps = turned(p, g, settings), settings["rho"], settings["eps"]
        square = state["square_avg"] * rho + (1 - rho) * g * g
        delta = jnp.sqrt(state["acc_delta"] + eps) / jnp.sqrt(square + eps) * g
        new = {"step": state["step"] + 1, "square_avg": square, "acc_delta": state["acc_delta"] * rho + (1 - rho) * delta * delta}
        return p - settings["lr"] * delta, new


class Rprop(Optimizer):
    """Steps of the gradient's sign, longer where it stays and shorter where it changes: for gradients of all examples."""

    numbers = ("lr",)
    pairs = ("etas", "step_sizes")

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50), *, maximize: bool = False):
        check_positive("learning rate", lr)
        if not 0 < etas[0] < 1 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(params, dict(lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        lr = float(group["lr"])
        size = np.full(p.shape, complex(lr, lr) if p.dtype.kind == "c" else lr, p.dtype)
        return {"step": np.zeros((), np.float32), "prev": zeros(p), "step_size": size}

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        (shrink, grow), (least, most) = settings["etas"], settings["step_sizes"]
        g = turned(p, g, {**settings, "decays": False})
        turns = jnp.sign(g * state["prev"])
        factor = jnp.where(turns > 0, grow, jnp.where(turns < 0, shrink, 1)).astype(p.dtype)
        size = jnp.clip(state["step_size"] * factor, least, most)
        g = jnp.where(turns < 0, 0, g).astype(p.dtype)
        return p - jnp.sign(g) * size, {"step": state["step"] + 1, "prev": g, "step_size": size}


class ASGD(Optimizer):
    """Gradient descent with a falling rate, which also keeps the average of the parameters."""

    numbers = ("lr", "weight_decay", "lambd", "alpha", "t0")

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6,
                 weight_decay: float = 0, *, maximize: bool = False):
        check_positive("learning rate", lr)
        check_positive("weight_decay value", weight_decay)
        super().__init__(params, dict(lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay, maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        kind = np.float64 if get_default_dtype() == float64 else np.float32
        return {"step": np.zeros((), kind), "eta": np.full((), float(group["lr"]), kind), "mu": np.ones((), kind), "ax": zeros(p)}

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        s, eta, mu = settings, state["eta"], state["mu"]
        g = turned(p, g, s)
        step = state["step"] + 1
        p = p * (1 - s["lambd"] * eta.astype(jnp.float64)).astype(p.dtype) - eta.astype(p.dtype) * g
        average = jnp.where(mu == 1, p, state["ax"] + (p - state["ax"]) * mu.astype(p.dtype))
        t = step.astype(jnp.float64)
        rate = s["lr"] / (1 + s["lambd"] * s["lr"] * t) ** s["alpha"]
        return p, {"step": step, "eta": rate.astype(eta.dtype), "mu": (1 / jnp.maximum(t - s["t0"], 1)).astype(mu.dtype), "ax": average}
