"""Normalization within each example: over groups of channels, over each channel, by the root of the mean square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.module import Module, Parameter
from dualrev.eager.ops import creation as make


def _group_norm_of(x: Any, *rest: Any) -> Any:
    *affine, groups, eps = rest
    parts = x.reshape(x.shape[0], groups, -1)
    mean = jnp.mean(parts, -1, keepdims=True)
    parts = (parts - mean) * lax.rsqrt(jnp.mean(jnp.square(parts - mean), -1, keepdims=True) + eps)
    out = parts.reshape(x.shape)
    if affine:
        weight, bias = (v.reshape(1, -1, *(1,) * (x.ndim - 2)) for v in affine)
        out = out * weight + bias
    return out


def _rms_norm_of(x: Any, *rest: Any) -> Any:
    *weight, n, eps = rest
    out = x * lax.rsqrt(jnp.mean(jnp.square(x), tuple(range(x.ndim - n, x.ndim)), keepdims=True) + eps)
    return out * weight[0] if weight else out


_group_norm, _rms_norm = family("NativeGroupNorm", _group_norm_of), family("RmsNorm", _rms_norm_of)


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:  # noqa: A002
    """Each group of channels of each example with mean 0 and variance 1."""
    if input.shape[1] % num_groups:
        raise RuntimeError("Expected number of channels in input to be divisible by num_groups, but got input of shape "
                           f"{list(input.shape)} and num_groups={num_groups}")
    affine = () if weight is None else (weight, bias)
    return apply(_group_norm(num_groups, eps), (input, *affine))


def instance_norm(input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Tensor | None = None,  # noqa: A002
                  bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel of each example with mean 0 and variance 1."""
    if running_mean is not None:
        raise NotImplementedError("instance_norm with running statistics\nonly the statistics of the input are there")
    return group_norm(input, input.shape[1], weight, bias, eps)


def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:  # noqa: A002
    """The last dimensions divided by the root of their mean square."""
    if eps is None:
        eps = float(jnp.finfo(input.dtype.numpy).eps)
    return apply(_rms_norm(len(normalized_shape), eps), (input, *(() if weight is None else (weight,))))


class GroupNorm(Module):
    """Normalization of groups of channels of each example."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None,
                 dtype: Any = None):
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.register_parameter("weight", Parameter(make.ones(num_channels, dtype=dtype)) if affine else None)
        self.register_parameter("bias", Parameter(make.zeros(num_channels, dtype=dtype)) if affine else None)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, bias={self.bias is not None}"


class _InstanceNorm(Module):
    dims = 4

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
                 track_running_stats: bool = False, device: Any = None, dtype: Any = None):
        super().__init__()
        if track_running_stats:
            raise NotImplementedError("track_running_stats=True\nonly the statistics of the input are there")
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.track_running_stats = False
        self.register_parameter("weight", Parameter(make.ones(num_features, dtype=dtype)) if affine else None)
        self.register_parameter("bias", Parameter(make.zeros(num_features, dtype=dtype)) if affine else None)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if input.ndim == self.dims - 1:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        if input.ndim != self.dims:
            raise ValueError(f"expected {self.dims - 1}D or {self.dims}D input (got {input.ndim}D input)")
        return instance_norm(input, None, None, self.weight, self.bias, True, self.momentum, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class InstanceNorm1d(_InstanceNorm):
    """Normalization of each channel of each (channels, length)."""

    dims = 3


class InstanceNorm2d(_InstanceNorm):
    """Normalization of each channel of each (channels, height, width)."""


class RMSNorm(Module):
    """Division of the last dimensions by the root of their mean square."""

    def __init__(self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True, device: Any = None,
                 dtype: Any = None):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.register_parameter("weight", Parameter(make.ones(*self.normalized_shape, dtype=dtype)) if elementwise_affine else None)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
