"""Activations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.eager.dispatch import apply
from dualrev.eager.names import dim_of, method
from dualrev.eager.operation import Op, family
from dualrev.eager.tensors import Tensor

# ------------------------------------------------------------------------------------------------------------- activations

_one = {
    "silu": lambda x: x * jax.nn.sigmoid(x), "relu6": lambda x: jnp.where(x <= 0, 0, jnp.where(x >= 6, 6, x)).astype(x.dtype),
    "logsigmoid": lambda x: -jnp.logaddexp(-x, jnp.zeros_like(x)), "softsign": lambda x: x / (1 + jnp.abs(x)),
    "mish": lambda x: x * jnp.tanh(jnp.logaddexp(x, jnp.zeros_like(x))), "hardtanh": lambda x: jnp.where(x <= -1, -1, jnp.where(
        x >= 1, 1, x)).astype(x.dtype),
}
_OPS = {name: Op(name.capitalize(), fun, light=True) for name, fun in _one.items()}
_leaky = family("LeakyRelu", lambda x, slope: jnp.where(x > 0, x, slope * x), light=True)
_elu = family("Elu", lambda x, alpha: jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x))), light=True)
_softplus = family("Softplus", lambda x, beta: jnp.logaddexp(beta * x, jnp.zeros_like(x)) / beta, light=True)


def _gelu_of(x: Any, approximate: str) -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + jnp.tanh(0.7978845608028654 * (x + 0.044715 * x ** 3)))
    return 0.5 * x * (1 + lax.erf(x * 0.7071067811865476))


_gelu = family("Gelu", _gelu_of, light=True)


def _softmax_of(x: Any, dim: int) -> Any:
    powers = jnp.exp(x - lax.stop_gradient(jnp.max(x, dim, keepdims=True)))
    return powers / jnp.sum(powers, dim, keepdims=True)


def _log_softmax_of(x: Any, dim: int) -> Any:
    x = x - lax.stop_gradient(jnp.max(x, dim, keepdims=True))
    return x - jnp.log(jnp.sum(jnp.exp(x), dim, keepdims=True))


_softmax, _log_softmax = family("Softmax", _softmax_of), family("LogSoftmax", _log_softmax_of)


def relu(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """The positive part."""
    return input.relu_() if inplace else input.relu()


def sigmoid(input: Tensor) -> Tensor:  # noqa: A002
    """``1 / (1 + exp(-x))``."""
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:  # noqa: A002
    """The hyperbolic tangent."""
    return input.tanh()


def silu(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """``x * sigmoid(x)``."""
    return apply(_OPS["silu"], (input,))


def relu6(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """The positive part, up to 6."""
    return apply(_OPS["relu6"], (input,))


def hardtanh(input: Tensor) -> Tensor:  # noqa: A002
    """The nearest number from -1 to 1."""
    return apply(_OPS["hardtanh"], (input,))


def logsigmoid(input: Tensor) -> Tensor:  # noqa: A002
    """The logarithm of the sigmoid."""
    return apply(_OPS["logsigmoid"], (input,))


def softsign(input: Tensor) -> Tensor:  # noqa: A002
    """``x / (1 + |x|)``."""
    return apply(_OPS["softsign"], (input,))


def mish(input: Tensor) -> Tensor:  # noqa: A002
    """``x * tanh(softplus(x))``."""
    return apply(_OPS["mish"], (input,))


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:  # noqa: A002
    """``x``, or a small multiple of it where it is negative."""
    return apply(_leaky(negative_slope), (input,))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:  # noqa: A002
    """``x``, or ``alpha (exp(x) - 1)`` where it is negative."""
    return apply(_elu(alpha), (input,))


def softplus(input: Tensor, beta: float = 1.0) -> Tensor:  # noqa: A002
    """``log(1 + exp(beta x)) / beta``."""
    return apply(_softplus(beta), (input,))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:  # noqa: A002
    """``x`` times the normal distribution function of ``x``."""
    return apply(_gelu(approximate), (input,))


def softmax(input: Tensor, dim: int = -1, dtype: Any = None) -> Tensor:  # noqa: A002
    """Exponentials divided by their sum along a dimension."""
    return apply(_softmax(dim_of(dim, input.ndim)), (input if dtype is None else input.to(dtype),))


def log_softmax(input: Tensor, dim: int = -1, dtype: Any = None) -> Tensor:  # noqa: A002
    """The logarithm of the softmax."""
    return apply(_log_softmax(dim_of(dim, input.ndim)), (input if dtype is None else input.to(dtype),))


method(softmax)
method(log_softmax)
