"""Activations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.library_functions import softmax as softmax_of
from dualrev.eager.core.annotations import DType
from dualrev.eager.core.dtype_refusals import no_kernel
from dualrev.eager.core.dtypes import type_name
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.dimensions import dim_of, of_vectors
from dualrev.eager.ops.registry import method
from dualrev.eager.ops.sampling import draw

# ------------------------------------------------------------------------------------------------------------- activations

_one = {
    "silu": lambda x: x * jax.nn.sigmoid(x), "relu6": lambda x: jnp.where(x <= 0, 0, jnp.where(x >= 6, 6, x)).astype(x.dtype),
    "logsigmoid": lambda x: -jnp.logaddexp(-x, jnp.zeros_like(x)), "softsign": lambda x: x / (1 + jnp.abs(x)),
    "mish": lambda x: x * jnp.tanh(jnp.logaddexp(x, jnp.zeros_like(x))),
    "hardswish": lambda x: x * jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, x / 6 + 0.5)).astype(x.dtype),
    "hardsigmoid": lambda x: jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, x / 6 + 0.5)).astype(x.dtype),
    "tanhshrink": lambda x: x - jnp.tanh(x),
    "selu": lambda x: 1.0507009873554805 * jnp.where(x > 0, x, 1.6732632423543772 * jnp.expm1(jnp.where(x > 0, 0, x))),
}
_OPS = {name: Op(name.capitalize(), fun, light=True) for name, fun in _one.items()}
_leaky = family("LeakyRelu", lambda x, slope: jnp.where(x > 0, x, slope * x), light=True)
_elu = family("Elu", lambda x, alpha: jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x))), light=True)
_celu = family("Celu", lambda x, alpha: jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x) / alpha)), light=True)
_hardtanh = family("Hardtanh", lambda x, low, high: jnp.where(x <= low, low, jnp.where(x >= high, high, x)).astype(x.dtype), light=True)
_prelu = Op("PreluKernel", lambda x, w: jnp.where(x > 0, x, (w if w.size == 1 else w.reshape(-1, *(1,) * (x.ndim - 2))) * x))
_softplus = family("Softplus", lambda x, beta, threshold: jnp.where(
    beta * x > threshold, x, jnp.logaddexp(beta * x, jnp.zeros_like(x)) / beta), light=True)

_SOFTSHRINK = Op("Softshrink", lambda x, t: jnp.where(x > t, x - t, jnp.where(x < -t, x + t, 0)).astype(x.dtype), light=True)
_HARDSHRINK = Op("Hardshrink", lambda x, t: jnp.where((x >= -t) & (x <= t), 0, x).astype(x.dtype), light=True)
_THRESHOLD = Op("Threshold", lambda x, t, value: jnp.where(x <= t, value, x).astype(x.dtype), light=True)
_RRELU = Op("RreluWithNoise", lambda x, noise, low, high: jnp.where(x <= 0, x * (low + (high - low) * noise), x).astype(x.dtype))


def _hardened_of(x: jax.Array, dim: int) -> jax.Array:
    # One-hot vectors in value, the given ones in derivative.
    best = jnp.expand_dims(jnp.argmax(lax.stop_gradient(x), dim), dim)
    hard = jnp.arange(x.shape[dim]).reshape([-1 if d == dim else 1 for d in range(x.ndim)]) == best
    return hard.astype(x.dtype) - lax.stop_gradient(x) + x


_hardened = family("GumbelSoftmax", _hardened_of)


def _glu_of(x: jax.Array, dim: int) -> jax.Array:
    a, b = jnp.split(x, 2, dim)
    return a * jax.nn.sigmoid(b)


_glu = family("Glu", _glu_of, light=True)


def _gelu_of(x: jax.Array, approximate: str) -> jax.Array:
    if approximate == "tanh":
        return 0.5 * x * (1 + jnp.tanh(0.7978845608028654 * (x + 0.044715 * x ** 3)))
    return 0.5 * x * (1 + lax.erf(x * 0.7071067811865476))


_gelu = family("Gelu", _gelu_of, light=True)


def _soft(x: jax.Array, dim: int, kernel: str) -> None:
    if x.dtype.kind in "biu":
        raise no_kernel(f"{kernel}_lastdim_kernel_impl" if dim % x.ndim == x.ndim - 1 else f"{kernel}_kernel_impl", x.dtype)


def _softmax_of(x: jax.Array, dim: int) -> jax.Array:
    _soft(x, dim, "softmax")
    return softmax_of(x, dim)


def _log_softmax_of(x: jax.Array, dim: int) -> jax.Array:
    _soft(x, dim, "log_softmax")
    x = x - lax.stop_gradient(jnp.max(x, dim, keepdims=True))
    return x - jnp.log(jnp.sum(jnp.exp(x), dim, keepdims=True))


# The custom rule of softmax states its derivative in terms of the result, so that only the result is saved.
_softmax, _log_softmax = (family("Softmax", of_vectors(_softmax_of)),
                          family("LogSoftmax", of_vectors(_log_softmax_of), light=True))


def relu(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """The positive part."""
    return input.relu_() if inplace else input.relu()


def sigmoid(input: Tensor) -> Tensor:  # noqa: A002
    """``1 / (1 + exp(-x))``."""
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:  # noqa: A002
    """The hyperbolic tangent."""
    return input.tanh()


def _on(op: Op, input: Tensor, inplace: bool) -> Tensor:  # noqa: A002
    """Apply an operation to the input, or change the input in place."""
    if inplace:
        return change(input, op, ())
    return apply(op, (input,))


def silu(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """``x * sigmoid(x)``."""
    return _on(_OPS["silu"], input, inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """The positive part, up to 6."""
    return _on(_OPS["relu6"], input, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:  # noqa: A002
    """The entries limited to ``[min_val, max_val]``."""
    return _on(_hardtanh(min_val, max_val), input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """``x * hardsigmoid(x)``."""
    return _on(_OPS["hardswish"], input, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """``x / 6 + 1 / 2``, from 0 to 1."""
    return _on(_OPS["hardsigmoid"], input, inplace)


def tanhshrink(input: Tensor) -> Tensor:  # noqa: A002
    """``x - tanh(x)``."""
    return apply(_OPS["tanhshrink"], (input,))


def selu(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """An ``elu`` that keeps mean 0 and variance 1."""
    return _on(_OPS["selu"], input, inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:  # noqa: A002
    """``x``, or ``alpha (exp(x / alpha) - 1)`` where it is negative."""
    return _on(_celu(alpha), input, inplace)


def glu(input: Tensor, dim: int = -1) -> Tensor:  # noqa: A002
    """The first half times the sigmoid of the second."""
    d = dim_of(dim, input.ndim)
    if input.shape[d] % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {d} is size {input.shape[d]}")
    return apply(_glu(d), (input,))


def prelu(input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002
    """``x``, or ``weight * x`` where it is negative; one weight, or one for each channel."""
    return apply(_prelu, (input, weight))


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
    return _on(_leaky(negative_slope), input, inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:  # noqa: A002
    """``x``, or ``alpha (exp(x) - 1)`` where it is negative."""
    return _on(_elu(alpha), input, inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:  # noqa: A002
    """``log(1 + exp(beta x)) / beta``, and ``x`` where ``beta x`` is above the threshold."""
    return apply(_softplus(beta, threshold), (input,))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:  # noqa: A002
    """``x`` times the normal distribution function of ``x``."""
    return apply(_gelu(approximate), (input,))


def _softmax_dim(name: str, dim: int | None, n: int) -> int:
    """The dimension; where none is given, the one that PyTorch once chose."""
    if dim is None:
        warnings.warn(f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
                      stacklevel=3)
        dim = 0 if n in (0, 1, 3) else 1
    return dim_of(dim, n)


def softmin(input: Tensor, dim: int | None = None, dtype: DType | None = None, _stacklevel: int = 3) -> Tensor:  # noqa: A002
    """The softmax of the negative."""
    return softmax(-input, _softmax_dim("softmin", dim, input.ndim), dtype)


def softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None, _stacklevel: int = 3) -> Tensor:  # noqa: A002
    """Exponentials divided by their sum along a dimension."""
    return apply(_softmax(_softmax_dim("softmax", dim, input.ndim)), (input if dtype is None else input.to(dtype),))


def log_softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None, _stacklevel: int = 3) -> Tensor:  # noqa: A002
    """The logarithm of the softmax."""
    return apply(_log_softmax(_softmax_dim("log_softmax", dim, input.ndim)), (input if dtype is None else input.to(dtype),))


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:  # noqa: A002
    """The entries brought nearer to zero by ``lambd``; zero where they are that near."""
    if lambd < 0:
        dtype = array_of(input).dtype
        raise RuntimeError(f"lambda must be in range [0, {float(jnp.finfo(dtype).max):g}] for input dtype {type_name(dtype)}, but "
                           f"found {lambd:g}")
    return apply(_SOFTSHRINK, (input, lambd))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:  # noqa: A002
    """Zero where the entries are at most ``lambd`` from it."""
    return apply(_HARDSHRINK, (input, lambd))


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:  # noqa: A002
    """The entries above a threshold, and ``value`` in the place of the others."""
    return change(input, _THRESHOLD, (threshold, value)) if inplace else apply(_THRESHOLD, (input, threshold, value))


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False) -> Tensor:  # noqa: A002
    """A leaky ``relu`` with random slopes in training, and their mean otherwise."""
    if lower > upper:
        raise RuntimeError(f"Lower bound should be less than or equal to the upper bound. Got lower={lower:g}, upper={upper:g}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    array = array_of(input)
    slopes = wrap(draw("rand", array.shape, array.dtype))
    return change(input, _RRELU, (slopes, lower, upper)) if inplace else apply(_RRELU, (input, slopes, lower, upper))


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A relaxed sample of the classes with these logits; with ``hard`` one-hot, with the gradient of the relaxed one."""
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    array = array_of(logits)
    soft = softmax((logits + wrap(draw("gumbel", array.shape, array.dtype))) / tau, dim)
    return apply(_hardened(dim_of(dim, logits.ndim)), (soft,)) if hard else soft


def _inplace(fun: Any) -> Callable[..., Tensor]:
    """The function that changes its input."""
    def changing(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: A002
        return fun(input, *args, **kwargs, inplace=True)

    changing.__name__, changing.__doc__ = f"{fun.__name__}_", f"``{fun.__name__}`` in place."
    return changing


relu_, elu_, celu_, selu_, leaky_relu_, hardtanh_, threshold_, rrelu_ = map(_inplace, (
    relu, elu, celu, selu, leaky_relu, hardtanh, threshold, rrelu))

method(softmax)
method(log_softmax)
