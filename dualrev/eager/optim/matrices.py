"""The updates of Adafactor and Muon, which look at parameters as matrices."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.optim.algorithms import turned, zeros
from dualrev.eager.optim.optimizer import Optimizer, Params, Settings, State, check_positive


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x)) / math.sqrt(max(x.size, 1))


class Adafactor(Optimizer):
    """Steps divided by a root mean square that is kept as one number for each row and column.

    Source: [ShazeerStern2018], with the rate of PyTorch's.
    """

    implementations = ("foreach",)
    of_matrices = True

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, beta2_decay: float = -0.8,
                 eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0, *, maximize: bool = False):
        check_positive("learning rate", lr)
        if beta2_decay > 0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None and eps[0] < 0:
            raise ValueError(f"epsilon1 should be >= 0 but is: {eps[0]}")
        if eps[1] < 0:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if d < 1:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        check_positive("weight_decay", weight_decay)
        super().__init__(params, dict(lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay, maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        state: State = {"step": np.zeros((), np.float32)}
        if p.ndim > 1:
            return {**state, "row_var": np.zeros((*p.shape[:-1], 1), p.dtype),
                    "col_var": np.zeros((*p.shape[:-2], 1, p.shape[-1]), p.dtype)}
        return {**state, "variance": zeros(p)}

    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        s, step = settings, state["step"] + 1
        g = turned(p, g, s, False)
        eps1, eps2 = s["eps"]
        eps1 = float(jnp.finfo(p.dtype).eps) if eps1 is None else eps1
        share = (step ** s["beta2_decay"]).astype(p.dtype)
        rate = jnp.maximum(eps2, _rms(p)) * jnp.minimum(s["lr"], 1 / jnp.sqrt(step)).astype(p.dtype)
        if s["decays"]:
            p = p * (1 - s["lr"] * s["weight_decay"])
        new: State = {"step": step}
        if p.ndim > 1:
            for name, axis in (("row_var", -1), ("col_var", -2)):
                mean = jnp.sum(g * g, axis, keepdims=True) / g.shape[axis]
                new[name] = state[name] + share * (mean - state[name])
            estimate = new["row_var"] * new["col_var"] / jnp.maximum(jnp.mean(new["row_var"], -2, keepdims=True), eps1)
        else:
            estimate = new["variance"] = state["variance"] + share * (g * g - state["variance"])
        change = g / jnp.sqrt(jnp.maximum(estimate, eps1 * eps1))
        return p - rate / jnp.maximum(1.0, _rms(change) / s["d"]) * change, new


class Muon(Optimizer):
    """Momentum whose matrix is made orthogonal, by a few steps of Newton and Schulz in bfloat16.

    Source: [JordanEtAl2024].
    """

    implementations = ()
    of_matrices = True
    numbers = ("lr", "weight_decay", "momentum")

    def __init__(self, params: Params, lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95, nesterov: bool = True,
                 ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315), eps: float = 1e-7, ns_steps: int = 5,
                 adjust_lr_fn: str | None = None):
        for name, value in (("Learning rate", lr), ("momentum", momentum), ("weight decay", weight_decay)):
            if value < 0:
                raise ValueError(f"{name} should be >= 0 but is: {value}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, eps=eps,
                                      ns_coefficients=ns_coefficients, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn))
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.ndim != 2:
                raise ValueError(f"Muon only supports 2D parameters whereas we found a parameter with size: {p.size()}")

    def begin(self, p: jax.Array, group: Settings) -> State:
        return {"momentum_buffer": zeros(p)}

    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        s = settings
        buffer = state["momentum_buffer"] + (1 - s["momentum"]) * (g - state["momentum_buffer"])
        change: Any = g + s["momentum"] * (buffer - g) if s["nesterov"] else buffer
        m, n = p.shape
        ratio = 0.2 * math.sqrt(max(m, n)) if s["adjust_lr_fn"] == "match_rms_adamw" else math.sqrt(max(1, m / n))
        change = _orthogonal(change, s["ns_coefficients"], s["ns_steps"], s["eps"]).astype(p.dtype)
        return p * (1 - s["lr"] * s["weight_decay"]) - s["lr"] * ratio * change, {"momentum_buffer": buffer}


def _orthogonal(x: jax.Array, coefficients: tuple[float, float, float], steps: int, eps: float) -> jax.Array:
    """Singular values moved to about one: an odd polynomial of the matrix, applied a few times."""
    a, b, c = coefficients
    m, n = x.shape
    def rounded(x: jax.Array) -> jax.Array:
        return x.astype(jnp.bfloat16).astype(jnp.float32)

    y = rounded(x.T if m > n else x)
    y = rounded(y / jnp.maximum(rounded(jnp.sqrt(jnp.sum(y ** 2))), eps))
    for _ in range(steps):
        gram = rounded(y @ y.T)
        y = rounded(a * y + rounded(b * gram + c * (gram @ gram)) @ y)
    return y.T if m > n else y
