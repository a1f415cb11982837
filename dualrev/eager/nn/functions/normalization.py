"""Normalization: of batches, layers, groups, instances and vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.eager.core.dtypes import bfloat16, float16, float32
from dualrev.eager.core.modes import mode, no_grad
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, described, wrap
from dualrev.eager.nn.functions.padding import pad
from dualrev.eager.nn.functions.pooling import avg_pool2d


def _kept(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A normalization whose result has the dtype of its input, of which the parameters may have more bits."""
    def of(x: jax.Array, *rest: Any) -> Any:
        found = fun(x, *rest)
        return (found[0].astype(x.dtype), *found[1:]) if isinstance(found, tuple) else found.astype(x.dtype)

    return of


def _shaped(v: jax.Array, x: jax.Array) -> jax.Array:
    return v.reshape(1, -1, *(1,) * (x.ndim - 2))


def _scaled(out: jax.Array, affine: Sequence[jax.Array]) -> jax.Array:
    """Each channel times its weight, plus its bias, where there are such."""
    if affine:
        out = out * _shaped(affine[0], out)
    return out + _shaped(affine[1], out) if len(affine) > 1 else out


def _batch_statistics(x: jax.Array, affine: Sequence[jax.Array], eps: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The normalized batch, its mean, and its unbiased variance."""
    axes = (0, *range(2, x.ndim))
    mean = jnp.mean(x, axes, keepdims=True)
    var = jnp.mean(jnp.square(x - mean), axes, keepdims=True)
    out = (x - mean) * lax.rsqrt(var + eps)
    out = _scaled(out, affine)
    n = x.size // x.shape[1]
    return out, lax.stop_gradient(mean.ravel()), lax.stop_gradient(var.ravel() * (n / max(n - 1, 1)))


def _batch_norm_of(x: jax.Array, *rest: Any) -> jax.Array:
    *affine, eps = rest
    return _batch_statistics(x, affine, eps)[0]


def _batch_norm_running(x: jax.Array, old_mean: jax.Array, old_var: jax.Array, *rest: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The normalized batch, and the running statistics after it."""
    *affine, momentum, eps = rest
    out, mean, var = _batch_statistics(x, affine, eps)
    return out, *[(1 - momentum) * old + (momentum * new).astype(old.dtype) for old, new in ((old_mean, mean), (old_var, var))]


def _batch_norm_fixed(x: jax.Array, mean: jax.Array, var: jax.Array, *rest: Any) -> jax.Array:
    *affine, eps = rest
    return _scaled((x - _shaped(mean, x)) * lax.rsqrt(_shaped(var, x) + eps), affine)


# PyTorch saves the input, the weight and the running statistics, also in training, where it does not read them again.
_batch_norm = family("NativeBatchNorm", _kept(_batch_norm_of), light=True, guards=(0, 1))
_batch_norm_train = family("NativeBatchNorm", _kept(_batch_norm_running), many=True, light=True, guards=(0, 1, 2, 3))
_batch_norm_eval = family("NativeBatchNorm", _kept(_batch_norm_fixed), guards=(0, 1, 2, 3))
_ones_like = Op("OnesLike", jnp.ones_like)


def _affine(weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
    """The parameters that are given; a bias alone stands beside a weight of ones."""
    if bias is None:
        return () if weight is None else (weight,)
    return (wrap(_ones_like.plain(array_of(bias))) if weight is None else weight, bias)


def _check_batch_norm(x: Tensor, given: dict[str, Tensor | None], training: bool) -> None:
    """Refuse what PyTorch's ``batch_norm`` refuses."""
    mean, var = given["running_mean"], given["running_var"]
    if training and x.numel() == x.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
    if training and (mean is None) != (var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    present = {name: p for name, p in given.items() if p is not None}
    for name in ("running_mean", "running_var"):
        if name not in present:
            if not training:
                raise RuntimeError(f"{name} must be defined in evaluation mode\nit is None")
        elif present[name].requires_grad and mode.grad:
            raise RuntimeError(f"The function 'native_batch_norm' is not differentiable with respect to argument '{name}'. This input "
                               f"cannot have requires_grad True.\n{described(present[name])}; give its .detach()")
    for name, p in present.items():
        if p.numel() != x.shape[1]:
            raise RuntimeError(f"{name} should contain {x.shape[1]} elements not {p.numel()}\nthe input has shape {list(x.shape)}")
    if any(p.dtype != x.dtype for p in present.values()):
        dtypes = ", ".join(f"{name} {p.dtype}" for name, p in (("input", x), *present.items()))
        if x.dtype not in (float16, bfloat16):
            raise RuntimeError(f"mixed dtype (CPU): all inputs must share same datatype.\nthese are {dtypes}")
        if any(p.dtype != float32 for p in present.values()):
            raise RuntimeError(f"mixed dtype (CPU): expect parameter to have scalar type of Float\nthese are {dtypes}")


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,  # noqa: A002
               bias: Tensor | None = None, training: bool = False, momentum: float | None = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel with mean 0 and variance 1, by the batch's statistics in training and the running ones otherwise."""
    _check_batch_norm(input, {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}, training)
    affine = _affine(weight, bias)
    if not training:
        return apply(_batch_norm_eval(eps), (input, running_mean, running_var, *affine))
    if running_mean is None or running_var is None:
        return apply(_batch_norm(eps), (input, *affine))
    if momentum is None:
        raise TypeError("batch_norm(): argument 'momentum' (position 7) must be float, not NoneType\n"
                        "with running statistics it says how much of the batch's goes into them")
    out, mean, var = apply(_batch_norm_train(eps), (input, running_mean, running_var, *affine, momentum))
    for running, new in ((running_mean, mean), (running_var, var)):
        write(running, array_of(new), counted=False)
    return out


def _layer_norm_of(x: jax.Array, *rest: Any) -> jax.Array:
    *affine, n, eps = rest
    axes = tuple(range(x.ndim - n, x.ndim))
    mean = jnp.mean(x, axes, keepdims=True)
    out = (x - mean) * lax.rsqrt(jnp.mean(jnp.square(x - mean), axes, keepdims=True) + eps)
    if affine:
        out = out * affine[0]
    return out + affine[1] if len(affine) > 1 else out


_layer_norm = family("NativeLayerNorm", _kept(_layer_norm_of), light=True)


def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,  # noqa: A002
               eps: float = 1e-5) -> Tensor:
    """The last dimensions with mean 0 and variance 1."""
    if tuple(input.shape[-len(normalized_shape):]) != tuple(normalized_shape):
        wanted = ", ".join(map(str, normalized_shape))
        raise RuntimeError(f"Given normalized_shape=[{wanted}], expected input with shape [*, {wanted}], but got input of "
                           f"size{list(input.shape)}")
    return apply(_layer_norm(len(normalized_shape), eps), (input, *_affine(weight, bias)))


def _group_norm_of(x: jax.Array, *rest: Any) -> jax.Array:
    *affine, groups, eps = rest
    parts = x.reshape(x.shape[0], groups, -1)
    mean = jnp.mean(parts, -1, keepdims=True)
    parts = (parts - mean) * lax.rsqrt(jnp.mean(jnp.square(parts - mean), -1, keepdims=True) + eps)
    out = parts.reshape(x.shape)
    return _scaled(out, affine)


def _rms_norm_of(x: jax.Array, *rest: Any) -> jax.Array:
    *weight, n, eps = rest
    out = x * lax.rsqrt(jnp.mean(jnp.square(x), tuple(range(x.ndim - n, x.ndim)), keepdims=True) + eps)
    return out * weight[0] if weight else out


#: PyTorch repeats the weight, and saves that.
_instance_norm = family("NativeBatchNorm", _kept(_group_norm_of), guards=(0,))
_group_norm, _rms_norm = family("NativeGroupNorm", _kept(_group_norm_of)), family("RmsNorm", _kept(_rms_norm_of))


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:  # noqa: A002
    """Each group of channels of each example with mean 0 and variance 1."""
    if input.shape[1] % num_groups:
        raise RuntimeError("Expected number of channels in input to be divisible by num_groups, but got input of shape "
                           f"{list(input.shape)} and num_groups={num_groups}")
    return apply(_group_norm(num_groups, eps), (input, *_affine(weight, bias)))


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,  # noqa: A002
                  bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel of each example with mean 0 and variance 1."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None and running_var is not None:
        with no_grad():
            parts = input.detach().reshape(*input.shape[:2], -1)
            for running, new in ((running_mean, parts.mean(2).mean(0)), (running_var, parts.var(2).mean(0))):
                running.mul_(1 - momentum).add_(new, alpha=momentum)
    return apply(_instance_norm(input.shape[1], eps), (input, *_affine(weight, bias)))


def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:  # noqa: A002
    """The last dimensions divided by the root of their mean square."""
    if eps is None:
        eps = float(jnp.finfo(input.dtype.numpy).eps)
    return apply(_rms_norm(len(normalized_shape), eps), (input, *(() if weight is None else (weight,))))


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:  # noqa: A002
    """Each entry divided by ``(k + alpha * m) ** beta``, where ``m`` is the mean square of the channels around it."""
    if input.ndim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality                          input (got {input.ndim} dimensions)")
    if not input.numel():
        return input
    squares = input.pow(2).reshape(input.shape[0], 1, input.shape[1], -1)
    mean = avg_pool2d(pad(squares, (0, 0, size // 2, (size - 1) // 2)), (size, 1), 1).reshape(input.shape)
    return input / (mean * alpha + k).pow(beta)
