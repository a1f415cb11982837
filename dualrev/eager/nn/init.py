"""Initialization of parameters: ``torch.nn.init``."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.modes import no_grad
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.generator import Generator
from dualrev.eager.ops.sampling import rand, randn
from dualrev.eager.ops.sequences import eye


def _fans(t: Tensor) -> tuple[int, int]:
    if t.ndim < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    field = math.prod(t.shape[2:])
    return t.shape[1] * field, t.shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The recommended gain of a nonlinearity."""
    if nonlinearity == "leaky_relu":
        if param is not None and (isinstance(param, bool) or not isinstance(param, (int, float))):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity in ("linear", "sigmoid", *[f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)]):
        return 1
    gains = {"relu": math.sqrt(2), "tanh": 5 / 3, "selu": 0.75}
    if nonlinearity not in gains:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return gains[nonlinearity]


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform from ``a`` to ``b``."""
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal."""
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """One number."""
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform, with variance ``gain^2 2 / (fan_in + fan_out)``."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal, with variance ``gain^2 2 / (fan_in + fan_out)``."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), generator)


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: Generator | None = None) -> Tensor:
    """Uniform, with variance ``gain^2 / fan``, where ``mode`` chooses the fan."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    bound = math.sqrt(3) * calculate_gain(nonlinearity, a) / math.sqrt(_fans(tensor)[mode != "fan_in"])
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: Generator | None = None) -> Tensor:
    """Normal, with variance ``gain^2 / fan``, where ``mode`` chooses the fan."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fans(tensor)[mode != "fan_in"]), generator)


def eye_(tensor: Tensor) -> Tensor:
    """Ones on the diagonal."""
    with no_grad():
        return tensor.copy_(eye(*tensor.shape, dtype=tensor.dtype))


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
                  generator: Generator | None = None) -> Tensor:
    """Normal, truncated to ``[a, b]``."""
    # The inverse distribution function of uniform numbers between its values at the bounds.
    low, high = (math.erf((x - mean) / std / math.sqrt(2)) for x in (a, b))
    with no_grad():
        return tensor.uniform_(low, high, generator=generator).erfinv_().mul_(std * math.sqrt(2)).add_(mean).clamp_(a, b)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """A matrix with orthonormal rows or columns."""
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    with no_grad():
        q, r = jnp.linalg.qr(array_of(randn(max(rows, columns), min(rows, columns), dtype=tensor.dtype, generator=generator)))
        q = q * jnp.sign(jnp.diag(r))[None]
        return tensor.copy_(wrap(gain * (q if rows >= columns else q.T)).reshape(tensor.shape))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A kernel of a convolution that keeps as many channels as it can, in each group."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups:
        raise ValueError("dim 0 must be divisible by groups")
    values = np.zeros(tuple(tensor.shape))
    size = tensor.shape[0] // groups
    for g in range(groups):
        for i in range(min(size, tensor.shape[1])):
            values[(g * size + i, i, *[n // 2 for n in tensor.shape[2:]])] = 1
    with no_grad():
        return tensor.copy_(wrap(values))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Normal, with a fraction of each column zero."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    with no_grad():
        tensor.normal_(0, std, generator=generator)
        order = rand(rows, columns, generator=generator).argsort(0)
        return tensor.mul_((order >= zeros).to(tensor.dtype))


def _older(name: str) -> Callable[..., Tensor]:
    """The function under its name of before, which warns."""
    fun: Callable[..., Tensor] = globals()[f"{name}_"]

    @functools.wraps(fun)
    def older(*args: Any, **kwargs: Any) -> Tensor:
        warnings.warn(f"`nn.init.{name}` is now deprecated in favor of `nn.init.{name}_`.", FutureWarning, stacklevel=2)
        return fun(*args, **kwargs)

    older.__name__ = older.__qualname__ = name
    return older


uniform, normal, constant, dirac, orthogonal = (_older(name) for name in ("uniform", "normal", "constant", "dirac", "orthogonal"))
xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal = (
    _older(name) for name in ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"))
