"""The updates of SGD, Adam, AdamW, RMSprop and Adagrad."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dualrev.eager.core.evaluation import kept
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.optim.joined import entrywise
from dualrev.eager.optim.optimizer import Optimizer, Params, Settings, State, check_positive


def turned(p: jax.Array, g: jax.Array, s: Settings, coupled: bool = True) -> jax.Array:
    """The gradient, negated for maximization, plus weight decay."""
    g = -g if s["maximize"] else g
    return g + s["weight_decay"] * p if coupled and s["decays"] else g


def zeros(p: jax.Array) -> Any:
    """Zeros of the shape and dtype of a parameter: concrete values, also while a step is being traced."""
    return kept(np.zeros(p.shape, p.dtype))


class SGD(Optimizer):
    """Gradient descent, with momentum.

    The buffer starts as the first gradient, and the learning rate multiplies it when it is used.

    >>> from dualrev import eager as torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> opt = torch.optim.SGD([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> opt.step()
    >>> w
    tensor([0.8000], requires_grad=True)
    """

    implementations = ("foreach", "differentiable", "fused")
    numbers = ("lr", "weight_decay", "momentum", "dampening")

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
                 nesterov: bool = False, *, maximize: bool = False):
        for name, value in (("learning rate", lr), ("momentum value", momentum), ("weight_decay value", weight_decay)):
            check_positive(name, value)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
                                      maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        # The first gradient is not dampened; without dampening, nothing sets the first step apart from others.
        return {"momentum_buffer": zeros(p), **({"step": np.zeros((), np.float32)} if group["dampening"] else {})} if group[
            "momentum"] else {}

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        g = turned(p, g, settings)
        if not state:
            return p - settings["lr"] * g, {}
        m = settings["momentum"]
        buffer = m * state["momentum_buffer"] + ((1 - settings["dampening"]) * g if settings["damps"] else g)
        after = {}
        if "step" in state:
            buffer = jnp.where(state["step"] == 0, g, buffer)
            after = {"step": state["step"] + 1}
        g = g + m * buffer if settings["nesterov"] else buffer
        return p - settings["lr"] * g, {"momentum_buffer": buffer.astype(p.dtype), **after}


class Adam(Optimizer):
    """Steps scaled by running means of the gradient and of its square; weight decay is added to the gradient."""

    implementations = ("foreach", "capturable", "differentiable", "fused")
    pairs = ("betas",)

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, amsgrad: bool = False, *, maximize: bool = False, decoupled_weight_decay: bool = False):
        for name, value in (("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay)):
            check_positive(name, value)
        for i, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize,
                                      decoupled_weight_decay=decoupled_weight_decay))

    def begin(self, p: jax.Array, group: Settings) -> State:
        state = {"step": np.zeros((), np.float32), "exp_avg": zeros(p), "exp_avg_sq": zeros(p)}
        return state | ({"max_exp_avg_sq": zeros(p)} if group["amsgrad"] else {})

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        s = settings
        g = turned(p, g, s, not s["decoupled_weight_decay"])
        if s["decoupled_weight_decay"] and s["decays"]:
            p = p * (1 - s["lr"] * s["weight_decay"])
        if not s["amsgrad"]:
            rule = optax.scale_by_adam(*s["betas"], eps=s["eps"])
            before = optax.ScaleByAdamState(state["step"].astype(np.int32), state["exp_avg"], state["exp_avg_sq"])
            step, after = rule.update(g, before)
            new = {"step": state["step"] + 1, "exp_avg": after.mu, "exp_avg_sq": after.nu}
            return p - s["lr"] * step, new
        (b1, b2), count = s["betas"], state["step"] + 1
        mean = b1 * state["exp_avg"] + (1 - b1) * g
        square = b2 * state["exp_avg_sq"] + (1 - b2) * g * g
        largest = jnp.maximum(state["max_exp_avg_sq"], square)
        t = count.astype(p.dtype)
        step = mean / (1 - b1 ** t) / (jnp.sqrt(largest) / jnp.sqrt(1 - b2 ** t) + s["eps"])
        return p - s["lr"] * step, {"step": count, "exp_avg": mean, "exp_avg_sq": square, "max_exp_avg_sq": largest}


class AdamW(Adam):
    """As Adam, but weight decay shrinks the parameters themselves."""

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)


class RMSprop(Optimizer):
    """Steps divided by a running root mean square of the gradient."""

    numbers = ("lr", "weight_decay", "momentum")

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
                 momentum: float = 0, centered: bool = False, *, maximize: bool = False):
        for name, value in (("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay)):
            check_positive(name, value)
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered,
                                      maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        names = ["square_avg", *(["momentum_buffer"] if group["momentum"] else []), *(["grad_avg"] if group["centered"] else [])]
        return {"step": np.zeros((), np.float32), **{name: zeros(p) for name in names}}

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        s = settings
        g = turned(p, g, s)
        if s["centered"]:
            rule = optax.scale_by_stddev(s["alpha"], eps=s["eps"], eps_in_sqrt=False)
            before: Any = optax.ScaleByRStdDevState(mu=state["grad_avg"], nu=state["square_avg"])
            step, after = rule.update(g, before)
            new = {"square_avg": after.nu, "grad_avg": after.mu}
        else:
            rule = optax.scale_by_rms(s["alpha"], eps=s["eps"], eps_in_sqrt=False)
            step, after = rule.update(g, optax.ScaleByRmsState(nu=state["square_avg"]))
            new = {"square_avg": after.nu}
        if "momentum_buffer" in state:
            step = new["momentum_buffer"] = s["momentum"] * state["momentum_buffer"] + step
        if "step" in state:
            new["step"] = state["step"] + 1
        return p - s["lr"] * step, new


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of squares of all gradients so far."""

    implementations = ("foreach", "differentiable", "fused")
    numbers = ("lr", "weight_decay", "lr_decay")

    def __init__(self, params: Params, lr: float | Tensor = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10, *, maximize: bool = False):
        for name, value in (("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay)):
            check_positive(name, value)
        super().__init__(params, dict(lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay,
                                      initial_accumulator_value=initial_accumulator_value, maximize=maximize))

    def begin(self, p: jax.Array, group: Settings) -> State:
        return {"step": np.zeros((), np.float32), "sum": np.full(p.shape, group["initial_accumulator_value"], p.dtype)}

    @entrywise
    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        # optax adds eps inside the root, PyTorch outside.
        g = turned(p, g, settings)
        total = state["sum"] + g * g
        lr = settings["lr"] / (1 + state["step"] * settings["lr_decay"])
        return p - lr * g / (jnp.sqrt(total) + settings["eps"]), {"step": state["step"] + 1, "sum": total}
