"""Functions that layers are made of: ``torch.nn.functional``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.eager.core.dtypes import type_name
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.nn.functions.activations import celu as celu
from dualrev.eager.nn.functions.activations import elu as elu
from dualrev.eager.nn.functions.activations import gelu as gelu
from dualrev.eager.nn.functions.activations import glu as glu
from dualrev.eager.nn.functions.activations import hardsigmoid as hardsigmoid
from dualrev.eager.nn.functions.activations import hardswish as hardswish
from dualrev.eager.nn.functions.activations import hardtanh as hardtanh
from dualrev.eager.nn.functions.activations import leaky_relu as leaky_relu
from dualrev.eager.nn.functions.activations import log_softmax as log_softmax
from dualrev.eager.nn.functions.activations import logsigmoid as logsigmoid
from dualrev.eager.nn.functions.activations import mish as mish
from dualrev.eager.nn.functions.activations import prelu as prelu
from dualrev.eager.nn.functions.activations import relu as relu
from dualrev.eager.nn.functions.activations import relu6 as relu6
from dualrev.eager.nn.functions.activations import selu as selu
from dualrev.eager.nn.functions.activations import sigmoid as sigmoid
from dualrev.eager.nn.functions.activations import silu as silu
from dualrev.eager.nn.functions.activations import softmax as softmax
from dualrev.eager.nn.functions.activations import softmin as softmin
from dualrev.eager.nn.functions.activations import softplus as softplus
from dualrev.eager.nn.functions.activations import softsign as softsign
from dualrev.eager.nn.functions.activations import tanh as tanh
from dualrev.eager.nn.functions.activations import tanhshrink as tanhshrink
from dualrev.eager.nn.functions.small_convolution import is_small, small_of
from dualrev.eager.ops.checks import first_outside, same_dtype
from dualrev.eager.ops.sampling import draw

_LINEAR = Op("Addmm", lambda x, w, b: jnp.matmul(x, w.T) + b)
_LINEAR_PLAIN = Op("Mm", lambda x, w: jnp.matmul(x, w.T))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
    """``x @ weight.T + bias``."""
    x, w = array_of(input).shape, array_of(weight).shape
    if x[-1] != w[1]:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({'x'.join(map(str, x))} and {w[1]}x{w[0]})\n"
                           f"the layer takes {w[1]} features")
    same_dtype(array_of(input), array_of(weight), "mat1 and mat2 must have the same dtype, but got {A} and {B}")
    return apply(_LINEAR_PLAIN, (input, weight)) if bias is None else apply(_LINEAR, (input, weight, bias))


def _tuple(x: Any, n: int) -> tuple[int, ...]:
    return (x,) * n if isinstance(x, int) else tuple(x)


def _conv_of(x: Any, w: Any, *rest: Any) -> Any:
    *bias, stride, padding, dilation, groups = rest
    letters = "DHW"[-(x.ndim - 2):]
    out = lax.conv_general_dilated(x, w, stride, padding if isinstance(padding, str) else [(p, p) for p in padding],
                                   rhs_dilation=dilation, feature_group_count=groups,
                                   dimension_numbers=("NC" + letters, "OI" + letters, "NC" + letters))
    return out + bias[0].reshape(-1, *(1,) * len(letters)) if bias else out


_conv = family("Convolution", _conv_of)
_small_conv = family("Convolution", small_of, light=True)


def _convolve(n: int) -> Callable[..., Tensor]:
    def conv(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,  # noqa: A002
             groups: int = 1) -> Tensor:
        if input.ndim == n + 1:
            return conv(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
        if input.ndim != n + 2:
            raise RuntimeError(f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to conv{n}d, but got input of size: "
                               f"{list(input.shape)}")
        if input.shape[1] != weight.shape[1] * groups:
            raise RuntimeError(f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
                               f"{weight.shape[1] * groups} channels, but got {input.shape[1]} channels instead")
        same_dtype(array_of(input), array_of(weight if bias is None else bias), "Input type ({}) and " + (
            "weight" if bias is None else "bias") + " type ({}) should be the same")
        if not isinstance(padding, str):
            sizes = [s + 2 * p for s, p in zip(input.shape[2:], _tuple(padding, n), strict=True)]
            spans = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], _tuple(dilation, n), strict=True)]
            if any(s < k for s, k in zip(sizes, spans, strict=True)):
                raise RuntimeError(f"Calculated padded input size per channel: ({' x '.join(map(str, sizes))}). Kernel size: "
                                   f"({' x '.join(map(str, spans))}). Kernel size can't be greater than actual input size")
        pads = padding.upper() if isinstance(padding, str) else _tuple(padding, n)
        steps, holes = _tuple(stride, n), _tuple(dilation, n)
        small = is_small(tuple(input.shape[2:]), tuple(weight.shape[2:]), steps, pads, holes, groups)
        op = (_small_conv if small else _conv)(steps, pads, holes, groups)
        return apply(op, (input, weight) if bias is None else (input, weight, bias))

    conv.__name__, conv.__doc__ = f"conv{n}d", f"Convolution over {n} dimension{'s' * (n > 1)} of (batch, channels, ...)."
    return conv


conv1d, conv2d, conv3d = _convolve(1), _convolve(2), _convolve(3)


def _shaped(v: Any, x: Any) -> Any:
    return v.reshape(1, -1, *(1,) * (x.ndim - 2))


def _batch_norm_of(x: Any, *rest: Any) -> Any:
    *affine, eps = rest
    axes = (0, *range(2, x.ndim))
    mean = jnp.mean(x, axes, keepdims=True)
    var = jnp.mean(jnp.square(x - mean), axes, keepdims=True)
    out = (x - mean) * lax.rsqrt(var + eps)
    if affine:
        out = out * _shaped(affine[0], x) + _shaped(affine[1], x)
    n = x.size // x.shape[1]
    return out, lax.stop_gradient(mean.ravel()), lax.stop_gradient(var.ravel() * (n / max(n - 1, 1)))


def _batch_norm_fixed(x: Any, mean: Any, var: Any, *rest: Any) -> Any:
    *affine, eps = rest
    out = (x - _shaped(mean, x)) * lax.rsqrt(_shaped(var, x) + eps)
    return out * _shaped(affine[0], x) + _shaped(affine[1], x) if affine else out


_batch_norm = family("NativeBatchNorm", _batch_norm_of, many=True, light=True)
_batch_norm_eval = family("NativeBatchNorm", _batch_norm_fixed)
_towards = Op("Lerp", lambda old, new, momentum: (1 - momentum) * old + (momentum * new).astype(old.dtype))


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,  # noqa: A002
               bias: Tensor | None = None, training: bool = False, momentum: float | None = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel with mean 0 and variance 1, by the batch's statistics in training and the running ones otherwise."""
    from dualrev.eager.graph.inplace import write

    affine = () if weight is None else (weight, bias)
    for name, x in (("running_mean", running_mean), ("weight", weight)):
        if x is not None and x.numel() != input.shape[1]:
            raise RuntimeError(f"{name} should contain {input.shape[1]} elements not {x.numel()}\n"
                               f"the input has shape {list(input.shape)}")
    if not training:
        return apply(_batch_norm_eval(eps), (input, running_mean, running_var, *affine))
    if input.numel() == input.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    out, mean, var = apply(_batch_norm(eps), (input, *affine))
    if running_mean is not None and running_var is not None:
        for running, new in ((running_mean, mean), (running_var, var)):
            write(running, _towards.plain(array_of(running), array_of(new), momentum))
    return out


def _layer_norm_of(x: Any, *rest: Any) -> Any:
    *affine, n, eps = rest
    axes = tuple(range(x.ndim - n, x.ndim))
    mean = jnp.mean(x, axes, keepdims=True)
    out = (x - mean) * lax.rsqrt(jnp.mean(jnp.square(x - mean), axes, keepdims=True) + eps)
    if affine:
        out = out * affine[0]
    return out + affine[1] if len(affine) > 1 else out


_layer_norm = family("NativeLayerNorm", _layer_norm_of, light=True)


def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,  # noqa: A002
               eps: float = 1e-5) -> Tensor:
    """The last dimensions with mean 0 and variance 1."""
    if tuple(input.shape[-len(normalized_shape):]) != tuple(normalized_shape):
        wanted = ", ".join(map(str, normalized_shape))
        raise RuntimeError(f"Given normalized_shape=[{wanted}], expected input with shape [*, {wanted}], but got input of "
                           f"size{list(input.shape)}")
    return apply(_layer_norm(len(normalized_shape), eps), (input, *[x for x in (weight, bias) if x is not None]))


_embedding = family("Embedding", lambda w, index, padding: jnp.take(w, index, 0) if padding is None else jnp.where(
    (index == padding)[..., None], lax.stop_gradient(jnp.take(w, index, 0)), jnp.take(w, index, 0)))


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:  # noqa: A002
    """The rows of a table that indices name; that of ``padding_idx`` gets no gradient."""
    index = array_of(input)
    if index.dtype.kind not in "iu":
        raise RuntimeError("Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
                           f"torch.{type_name(index.dtype)}Tensor instead (while checking arguments for embedding)")
    wrong = first_outside(index, weight.shape[0])
    if wrong is not None:
        raise IndexError(f"index out of range in self\nindex {wrong} of a table of {weight.shape[0]} rows")
    return apply(_embedding(padding_idx), (weight, input))


_drop = family("Dropout", lambda x, mask, p: jnp.where(mask, x / (1 - p), 0).astype(x.dtype))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """Entries set to zero with probability ``p``, the others divided by ``1 - p``."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0.0
    mask = wrap(draw("bernoulli", array_of(input).shape, jnp.bool_, 1 - p))
    return apply(_drop(p), (input, mask))


_one_hot = family("OneHot", lambda x, n: jax.nn.one_hot(x, n, dtype=jax.dtypes.canonicalize_dtype(jnp.int64)))
_pad = family("ConstantPadNd", lambda x, pads, value: jnp.pad(x, pads, constant_values=value))


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Ones where the classes are."""
    if num_classes >= 0 and (wrong := first_outside(array_of(tensor), num_classes)) is not None:
        raise RuntimeError(f"Class values must be {'smaller than num_classes' if wrong > 0 else 'non-negative'}.\n"
                           f"there is {wrong}, and num_classes={num_classes}")
    return apply(_one_hot(int(tensor.max().item()) + 1 if num_classes < 0 else num_classes), (tensor,))


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:  # noqa: A002
    """A frame of one number; ``pad`` counts from the last dimension."""
    if mode != "constant":
        raise NotImplementedError(f"pad with mode='{mode}'\nonly 'constant' is there; concatenate slices instead")
    pads = [(0, 0)] * (input.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    return apply(_pad(tuple(pads), value), (input,))


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:  # noqa: A002
    """Divided by the norm along a dimension."""
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None) -> Tensor:
    """``softmax(query key^T * scale) value``."""
    scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if is_causal:
        n, m = scores.shape[-2:]
        attn_mask = wrap(jnp.tril(jnp.ones((n, m), bool)))
    if attn_mask is not None:
        is_choice = array_of(attn_mask).dtype == bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if is_choice else scores + attn_mask
    return dropout(softmax(scores, -1), dropout_p) @ value


from dualrev.eager.nn.functions.losses import (  # noqa: E402
    binary_cross_entropy as binary_cross_entropy,
)
from dualrev.eager.nn.functions.losses import (  # noqa: E402
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
)
from dualrev.eager.nn.functions.losses import cross_entropy as cross_entropy  # noqa: E402
from dualrev.eager.nn.functions.losses import huber_loss as huber_loss  # noqa: E402
from dualrev.eager.nn.functions.losses import kl_div as kl_div  # noqa: E402
from dualrev.eager.nn.functions.losses import l1_loss as l1_loss  # noqa: E402
from dualrev.eager.nn.functions.losses import mse_loss as mse_loss  # noqa: E402
from dualrev.eager.nn.functions.losses import nll_loss as nll_loss  # noqa: E402
from dualrev.eager.nn.functions.losses import smooth_l1_loss as smooth_l1_loss  # noqa: E402
from dualrev.eager.nn.functions.windows import adaptive_avg_pool1d as adaptive_avg_pool1d  # noqa: E402
from dualrev.eager.nn.functions.windows import adaptive_avg_pool2d as adaptive_avg_pool2d  # noqa: E402
from dualrev.eager.nn.functions.windows import avg_pool1d as avg_pool1d  # noqa: E402
from dualrev.eager.nn.functions.windows import avg_pool2d as avg_pool2d  # noqa: E402
from dualrev.eager.nn.functions.windows import conv_transpose1d as conv_transpose1d  # noqa: E402
from dualrev.eager.nn.functions.windows import conv_transpose2d as conv_transpose2d  # noqa: E402
from dualrev.eager.nn.functions.windows import conv_transpose3d as conv_transpose3d  # noqa: E402
from dualrev.eager.nn.functions.windows import cosine_similarity as cosine_similarity  # noqa: E402
from dualrev.eager.nn.functions.windows import interpolate as interpolate  # noqa: E402
from dualrev.eager.nn.functions.windows import max_pool1d as max_pool1d  # noqa: E402
from dualrev.eager.nn.functions.windows import max_pool2d as max_pool2d  # noqa: E402
from dualrev.eager.nn.modules.normalization import group_norm as group_norm  # noqa: E402
from dualrev.eager.nn.modules.normalization import instance_norm as instance_norm  # noqa: E402
from dualrev.eager.nn.modules.normalization import rms_norm as rms_norm  # noqa: E402
