"""Layers that learn the sizes of their inputs from the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualrev.eager.core.annotations import Device, DType, Sizes
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules import convolution, normalization
from dualrev.eager.nn.modules.linear import Linear
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy


class LazyModuleMixin(Module):
    """Base class of the lazy layers: ``initialize_parameters`` runs before the first forward pass.

    The layer then becomes one of the class ``cls_to_become``.
    """

    cls_to_become: type[Module] | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._load_hook = self._register_load_state_dict_pre_hook(self._lazy_load_hook, with_module=True)
        self._initialize_hook = self.register_forward_pre_hook(_initialize, with_kwargs=True)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for name, x in self._state().items():
            destination[prefix + name] = x if is_lazy(x) or keep_vars else x.detach()

    @staticmethod
    def _lazy_load_hook(module: Any, state_dict: Any, prefix: str, *_: Any) -> None:
        """Give parameters the shapes of those that are loaded."""
        for name, x in module._state().items():
            given = state_dict.get(prefix + name)
            if is_lazy(x) and given is not None and not is_lazy(given):
                x.materialize(given.shape)

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or buffer has no shape yet."""
        return any(is_lazy(x) for x in (*self._parameters.values(), *self._buffers.values()))

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give the parameters the shapes that belong to an input."""
        raise NotImplementedError(f"initialize_parameters is not implemented for {type(self).__name__}")

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and all(p.numel() for p in self.parameters()):
            super().reset_parameters()  # type: ignore[misc]


def _initialize(module: Any, args: Any, kwargs: Any) -> None:
    module.initialize_parameters(*args, **kwargs)
    if module.has_uninitialized_params():
        raise RuntimeError(f"module {module._get_name()} has not been fully initialized")
    for name in ("_initialize_hook", "_load_hook"):
        getattr(module, name).remove()
        delattr(module, name)
    if module.cls_to_become is not None:
        module.__class__ = module.cls_to_become


class LazyLinear(LazyModuleMixin, Linear):
    """A :class:`Linear` layer whose ``in_features`` are those of its first input.

    >>> from dualrev import eager as torch
    >>> layer = torch.nn.LazyLinear(2)
    >>> _ = layer(torch.ones(1, 3))
    >>> layer
    Linear(in_features=3, out_features=2, bias=True)
    """

    cls_to_become = Linear
    weight: Any

    def __init__(self, out_features: int, bias: bool = True, device: Device | None = None, dtype: DType | None = None):
        super().__init__(0, 0, False)
        self.out_features = out_features
        self.weight = UninitializedParameter(dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(dtype=dtype)

    def initialize_parameters(self, input: Tensor) -> None:  # noqa: A002
        if self.has_uninitialized_params():
            self.in_features = input.shape[-1]
            self.weight.materialize((self.out_features, self.in_features))
            if self.bias is not None:
                self.bias.materialize((self.out_features,))
            self.reset_parameters()
        if self.in_features == 0:
            self.in_features = self.weight.shape[-1]


class _LazyConv(LazyModuleMixin, convolution._ConvNd):
    weight: Any

    def __init__(self, out_channels: int, *args: Any, bias: bool, dtype: DType | None, groups: int, **kwargs: Any):
        super().__init__(0, 0, *args, bias=False, dtype=dtype, groups=1, **kwargs)
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        self.out_channels, self.groups = out_channels, groups
        self.weight = UninitializedParameter(dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(dtype=dtype)

    def initialize_parameters(self, input: Tensor, *_: Any) -> None:  # noqa: A002
        if self.has_uninitialized_params():
            if input.ndim not in (self.n + 1, self.n + 2):
                raise RuntimeError(f"Expected {self.n + 1}D (unbatched) or {self.n + 2}D (batched) input to {type(self).__name__}, but "
                                   f"got input of size: {input.shape}")
            self.in_channels = input.shape[-self.n - 1]
            if self.in_channels % self.groups:
                raise ValueError("in_channels must be divisible by groups")
            self.weight.materialize((*self._channels(), *self.kernel_size))
            if self.bias is not None:
                self.bias.materialize((self.out_channels,))
            self.reset_parameters()


class _LazyForward(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0, dilation: Sizes = 1,
                 groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Device | None = None,
                 dtype: DType | None = None):
        super().__init__(out_channels, kernel_size, stride, padding, dilation, bias=bias, groups=groups, padding_mode=padding_mode,
                         dtype=dtype)


class _LazyTransposed(_LazyConv):
    def __init__(self, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0, output_padding: Sizes = 0,
                 groups: int = 1, bias: bool = True, dilation: Sizes = 1, padding_mode: str = "zeros", device: Device | None = None,
                 dtype: DType | None = None):
        super().__init__(out_channels, kernel_size, stride, padding, output_padding, bias=bias, groups=groups, dilation=dilation,
                         padding_mode=padding_mode, dtype=dtype)


class _LazyNorm(LazyModuleMixin):
    affine: bool
    track_running_stats: bool

    def __init__(self, *args: Any, affine: bool, track_running_stats: bool, dtype: DType | None):
        super().__init__(0, *args, affine=False, track_running_stats=False, dtype=dtype)
        self.affine, self.track_running_stats = affine, track_running_stats
        if affine:
            self.weight, self.bias = UninitializedParameter(dtype=dtype), UninitializedParameter(dtype=dtype)
        if track_running_stats:
            self.running_mean, self.running_var = UninitializedBuffer(dtype=dtype), UninitializedBuffer(dtype=dtype)
            self.num_batches_tracked = normalization.make.tensor(0)

    def initialize_parameters(self, input: Tensor) -> None:  # noqa: A002
        if self.has_uninitialized_params():
            self.num_features = input.shape[self._channel_dim(input)]
            given: Sequence[tuple[Any, float]] = [(self.weight, 1.0), (self.bias, 0.0), (self.running_mean, 0.0),
                                                  (self.running_var, 1.0)]
            for x, value in given:
                if x is not None:
                    x.materialize((self.num_features,))
                    x.data.fill_(value)

    def _channel_dim(self, input: Tensor) -> int:  # noqa: A002
        return 1


class _LazyBatchNorm(_LazyNorm):
    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True,
                 device: Device | None = None, dtype: DType | None = None):
        super().__init__(eps, momentum, affine=affine, track_running_stats=track_running_stats, dtype=dtype)


class _LazyInstanceNorm(_LazyNorm):
    dims = 4

    def __init__(self, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, track_running_stats: bool = True,
                 device: Device | None = None, dtype: DType | None = None):
        super().__init__(eps, momentum, affine=affine, track_running_stats=track_running_stats, dtype=dtype)

    def _channel_dim(self, input: Tensor) -> int:  # noqa: A002
        return 1 if input.ndim == self.dims else 0


def _lazy(base: type[Module], of: type[Module]) -> type[Module]:
    return type(f"Lazy{of.__name__}", (base, of), {"cls_to_become": of, "__module__": __name__,
                                                   "__doc__": f"A :class:`{of.__name__}` whose channels are those of its first input."})


LazyConv1d, LazyConv2d, LazyConv3d = (
    _lazy(_LazyForward, of) for of in (convolution.Conv1d, convolution.Conv2d, convolution.Conv3d))
LazyConvTranspose1d, LazyConvTranspose2d, LazyConvTranspose3d = (
    _lazy(_LazyTransposed, of) for of in (convolution.ConvTranspose1d, convolution.ConvTranspose2d, convolution.ConvTranspose3d))
LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d = (
    _lazy(_LazyBatchNorm, of) for of in (normalization.BatchNorm1d, normalization.BatchNorm2d, normalization.BatchNorm3d))
LazyInstanceNorm1d, LazyInstanceNorm2d, LazyInstanceNorm3d = (
    _lazy(_LazyInstanceNorm, of) for of in (normalization.InstanceNorm1d, normalization.InstanceNorm2d, normalization.InstanceNorm3d))
