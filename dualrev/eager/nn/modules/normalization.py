"""Layers that normalize: batches, layers, groups, instances, by the root of the mean square."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, DType, Sizes
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.functions.normalization import group_norm, instance_norm, rms_norm
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter
from dualrev.eager.ops import creation as make


class GroupNorm(Module):
    """Normalization of groups of channels of each example."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Device | None = None,
                 dtype: DType | None = None):
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
                 track_running_stats: bool = False, device: Device | None = None, dtype: DType | None = None):
        super().__init__()
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.track_running_stats = tracked = track_running_stats
        self.register_parameter("weight", Parameter(make.ones(num_features, dtype=dtype)) if affine else None)
        self.register_parameter("bias", Parameter(make.zeros(num_features, dtype=dtype)) if affine else None)
        self.register_buffer("running_mean", make.zeros(num_features, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", make.ones(num_features, dtype=dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", make.tensor(0) if tracked else None)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if input.ndim == self.dims - 1:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        if input.ndim != self.dims:
            raise ValueError(f"expected {self.dims - 1}D or {self.dims}D input (got {input.ndim}D input)")
        return instance_norm(input, self.running_mean, self.running_var, self.weight, self.bias,
                             self.training or not self.track_running_stats, self.momentum, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class InstanceNorm1d(_InstanceNorm):
    """Normalization of each channel of each (channels, length)."""

    dims = 3


class InstanceNorm2d(_InstanceNorm):
    """Normalization of each channel of each (channels, height, width)."""


class InstanceNorm3d(_InstanceNorm):
    """Each channel of each volume with mean 0 and variance 1."""

    dims = 5


class LocalResponseNorm(Module):
    """Each entry divided by a power of the mean square of the channels around it."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class RMSNorm(Module):
    """Division of the last dimensions by the root of their mean square."""

    def __init__(self, normalized_shape: Sizes, eps: float | None = None, elementwise_affine: bool = True, device: Device | None = None,
                 dtype: DType | None = None):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.register_parameter("weight", Parameter(make.ones(*self.normalized_shape, dtype=dtype)) if elementwise_affine else None)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class _BatchNorm(Module):
    _version = 2
    dims: tuple[int, ...] = (4,)

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Device | None = None, dtype: DType | None = None):
        super().__init__()
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.track_running_stats = track_running_stats
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            self.register_parameter(name, Parameter(make.full((num_features,), value, dtype=dtype or dtypes.get_default_dtype()))
                                    if affine else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", make.zeros(num_features, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", make.ones(num_features, dtype=dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", make.tensor(0) if tracked else None)

    def reset_running_stats(self) -> None:
        """Forget the statistics of batches."""
        for name, value in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
            buffer = getattr(self, name)
            if buffer is not None:
                buffer.fill_(value)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        if input.ndim not in self.dims:
            raise ValueError(f"expected {' or '.join(f'{d}D' for d in self.dims)} input (got {input.ndim}D input)")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        self._check_input_dim(input)
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / self.num_batches_tracked.item()
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias,
                            self.training or self.running_mean is None, momentum, self.eps)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any) -> None:
        # States of version 1, and plain dictionaries, may lack the number of batches.
        key = prefix + "num_batches_tracked"
        if (local_metadata.get("version") or 1) < 2 and self.num_batches_tracked is not None and key not in state_dict:
            state_dict = {**state_dict, key: self.num_batches_tracked}
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class BatchNorm1d(_BatchNorm):
    """Normalization of the channels of (batch, channels) or (batch, channels, length)."""

    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalization of the channels of (batch, channels, height, width)."""


class BatchNorm3d(_BatchNorm):
    """Normalization of the channels of (batch, channels, depth, height, width)."""

    dims = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch normalization over the processes of a group: of the one process that there is, it is that of any number of dimensions."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, process_group: Any = None, device: Device | None = None, dtype: DType | None = None):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """The module with a layer of this class, with the same parameters and buffers, in place of each batch normalization."""
        if isinstance(module, (BatchNorm1d, BatchNorm2d, BatchNorm3d)):
            new = cls(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats, process_group)
            new._parameters.update(module._parameters)
            new._buffers.update(module._buffers)
            return new.train(module.training)
        for name, child in list(module.named_children()):
            module.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return module


class LayerNorm(Module):
    """Normalization over the last dimensions."""

    def __init__(self, normalized_shape: Sizes, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
                 device: Device | None = None, dtype: DType | None = None):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.register_parameter("weight", Parameter(make.ones(*self.normalized_shape, dtype=dtype)) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(make.zeros(*self.normalized_shape,
                                                             dtype=dtype)) if elementwise_affine and bias else None)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")
