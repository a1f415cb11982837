"""A batch norm in evaluation, merged into the layer before it; and modules without initialization."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter
from dualrev.eager.ops.arguments import memory_format
from dualrev.eager.ops.creation import ones_like, zeros_like

M = TypeVar("M", bound=Module)


def _fused(weight: Tensor, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, scale: Tensor | None, shift: Tensor | None,
           shape: list[int]) -> tuple[Parameter, Parameter]:
    before = zeros_like(mean) if bias is None else bias
    scale, shift = ones_like(mean) if scale is None else scale, zeros_like(mean) if shift is None else shift
    factor = scale * (var + eps).rsqrt()
    return (Parameter((weight * factor.reshape(shape)).to(weight.dtype).detach(), weight.requires_grad),
            Parameter(((before - mean) * factor + shift).to(before.dtype).detach(), before.requires_grad))


def fuse_conv_bn_weights(conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float, bn_w: Tensor | None,
                         bn_b: Tensor | None, transpose: bool = False) -> tuple[Parameter, Parameter]:
    """The weight and the bias of a convolution that includes a batch norm after it."""
    shape = [1, -1, *[1] * (conv_w.ndim - 2)] if transpose else [-1, *[1] * (conv_w.ndim - 1)]
    return _fused(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, shape)


def fuse_linear_bn_weights(linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float, bn_w: Tensor,
                           bn_b: Tensor) -> tuple[Parameter, Parameter]:
    """The weight and the bias of a linear layer that includes a batch norm after it."""
    return _fused(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, [-1, 1])


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A convolution, and a batch norm after it, as one convolution; both in evaluation."""
    if conv.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    found = copy.deepcopy(conv)
    found.weight, found.bias = fuse_conv_bn_weights(conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
                                                    transpose)
    return found


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A linear layer, and a batch norm after it, as one linear layer; both in evaluation."""
    if linear.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise AssertionError("To fuse, linear.out_features == bn.num_features or bn.num_features == 1")
    found = copy.deepcopy(linear)
    found.weight, found.bias = fuse_linear_bn_weights(linear.weight, linear.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight,
                                                      bn.bias)
    return found


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """A module whose values are to be set: here it is initialized as others are."""
    if not issubclass(module_cls, Module):
        raise RuntimeError(f"Expected a Module; got {module_cls}")
    kwargs.pop("device", None)
    return module_cls(*args, **kwargs)


def convert_conv2d_weight_memory_format(module: M, memory_format: memory_format) -> M:
    """The module itself: the compiler chooses the order of entries in memory."""
    return module


def convert_conv3d_weight_memory_format(module: M, memory_format: memory_format) -> M:
    """The module itself: the compiler chooses the order of entries in memory."""
    return module
