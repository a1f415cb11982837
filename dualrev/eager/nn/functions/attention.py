"""Attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dualrev.eager.core.size import Size
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.nn.functions.activations import softmax
from dualrev.eager.nn.functions.dropout import dropout
from dualrev.eager.nn.functions.linear import linear
from dualrev.eager.nn.functions.padding import pad
from dualrev.eager.ops.joining import cat
from dualrev.eager.ops.precision import low_precision


@low_precision
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Tensor:
    """``softmax(query key^T * scale) value``; with ``enable_gqa``, several heads of queries share one of keys and values."""
    if attn_mask is not None and is_causal:
        raise RuntimeError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError("Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: "
                           f"{query.ndim} key.dim: {key.ndim} and value.dim: {value.ndim} instead.")
    if enable_gqa:
        heads = query.shape[-3]
        if heads % key.shape[-3] or heads % value.shape[-3]:
            raise RuntimeError("Number of heads in key and value must divide the number of heads in query")
        key, value = (x.repeat_interleave(heads // x.shape[-3], -3) for x in (key, value))
    scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if is_causal:
        n, m = scores.shape[-2:]
        attn_mask = wrap(np.tril(np.ones((n, m), bool)))
    if attn_mask is not None:
        is_choice = array_of(attn_mask).dtype == bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if is_choice else scores + attn_mask
    return dropout(softmax(scores, -1), dropout_p) @ value


def check_dims(query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None,
               num_heads: int) -> None:
    """Refuse numbers of dimensions that do not fit together, in PyTorch's words."""
    if query.ndim not in (2, 3):
        raise AssertionError(f"query should be unbatched 2D or batched 3D tensor but received {query.ndim}-D query tensor")
    kind = "batched (3-D)" if query.ndim == 3 else "unbatched (2-D)"
    if key.ndim != query.ndim or value.ndim != query.ndim:
        raise AssertionError(f"For {kind} `query`, expected `key` and `value` to be {query.ndim}-D but found {key.ndim}-D and "
                             f"{value.ndim}-D tensors respectively")
    if key_padding_mask is not None and key_padding_mask.ndim != query.ndim - 1:
        raise AssertionError(f"For {kind} `query`, expected `key_padding_mask` to be `None` or {query.ndim - 1}-D but found "
                             f"{key_padding_mask.ndim}-D tensor instead")
    if attn_mask is not None and attn_mask.ndim not in (2, 3):
        raise AssertionError(f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {attn_mask.ndim}-D tensor "
                             "instead")
    if attn_mask is not None and query.ndim == 2 and attn_mask.ndim == 3:
        expected = (num_heads, query.shape[0], key.shape[0])
        if tuple(attn_mask.shape) != expected:
            raise AssertionError(f"Expected `attn_mask` shape to be {expected} but got {attn_mask.shape}")
    for name, mask in (("key_padding_mask", key_padding_mask), ("attn_mask", attn_mask)):
        if mask is not None and array_of(mask).dtype.kind in "iu":
            raise AssertionError(f"only bool and floating types of {name} are supported")


def check_keys_and_values(key: Tensor, value: Tensor, separate: bool) -> None:
    """Refuse values that do not fit the keys, of (length, batch, features); with ``separate`` weights, features may differ."""
    if separate and key.shape[:2] != value.shape[:2]:
        raise AssertionError(f"key's sequence and batch dims {Size(key.shape[:2])} do not match value's {Size(value.shape[:2])}")
    if not separate and key.shape != value.shape:
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")


def attention_of_heads(given: Sequence[Tensor], num_heads: int, weights: Sequence[Tensor], biases: Sequence[Tensor | None],
                       extra: Sequence[tuple[Tensor, Tensor]], output: Callable[[Tensor], Tensor], dropout_p: float = 0.0,
                       training: bool = True, key_padding_mask: Tensor | None = None, attn_mask: Tensor | None = None
                       ) -> tuple[Tensor, Tensor]:
    """Attention of several heads, each on a part of the features, and its weights of (batch, heads, queries, keys).

    Queries, keys and values, of (batch, length, features), are projected by ``weights`` and ``biases``; ``extra`` are further keys and
    values, and ``output`` projects the result.
    """
    q, k, v = [linear(x, w, b) for x, w, b in zip(given, weights, biases, strict=True)]
    batch, n, m, features = q.shape[0], q.shape[1], k.shape[1], q.shape[2]
    for more_k, more_v in extra:
        k, v = cat([k, more_k.expand(batch, 1, -1)], 1), cat([v, more_v.expand(batch, 1, -1)], 1)
    q, k, v = [x.reshape(batch, -1, num_heads, features // num_heads).transpose(1, 2) for x in (q, k, v)]
    scores = q @ k.transpose(-2, -1) * (features // num_heads) ** -0.5
    if attn_mask is not None:
        _check_mask(tuple(attn_mask.shape), batch, num_heads, n, m)
        mask = attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(batch, num_heads, n, m)
        scores = _masked(scores, pad(mask, (0, len(extra))) if extra else mask)
    if key_padding_mask is not None:
        if tuple(key_padding_mask.shape) != (batch, m):
            d = 0 if key_padding_mask.shape[0] != batch else 1
            raise AssertionError(f"Expected key_padded_mask.shape[{d}] to be {(batch, m)[d]}, but got {key_padding_mask.shape[d]}")
        mask = key_padding_mask.reshape(batch, 1, 1, m)
        scores = _masked(scores, pad(mask, (0, len(extra))) if extra else mask)
    found = dropout(softmax(scores, -1), dropout_p, training)
    return output((found @ v).transpose(1, 2).reshape(batch, n, features)), found


def _check_mask(shape: tuple[int, ...], batch: int, heads: int, n: int, m: int) -> None:
    if len(shape) not in (2, 3):
        raise RuntimeError(f"attn_mask's dimension {len(shape)} is not supported")
    wanted = (n, m) if len(shape) == 2 else (batch * heads, n, m)
    if shape != wanted:
        raise RuntimeError(f"The shape of the {len(shape)}D attn_mask is {Size(shape)!r}, but should be {wanted}.")


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Mask the scores: minus infinity where a boolean mask is true; a mask of numbers is added."""
    return scores.masked_fill(mask, float("-inf")) if array_of(mask).dtype == bool else scores + mask


def multi_head_attention_forward(query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
                                 in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
                                 bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
                                 out_proj_bias: Tensor | None, training: bool = True, key_padding_mask: Tensor | None = None,
                                 need_weights: bool = True, attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False,
                                 q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
                                 v_proj_weight: Tensor | None = None, static_k: Tensor | None = None, static_v: Tensor | None = None,
                                 average_attn_weights: bool = True, is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
    """What :class:`~dualrev.eager.nn.MultiheadAttention` computes, of its parameters: sequences are (length, batch, features).

    Raises:
      NotImplementedError: ``static_k`` or ``static_v`` is given.
      AssertionError: the number of features is another than ``embed_dim_to_check``.
    """
    if static_k is not None or static_v is not None:
        raise NotImplementedError("multi_head_attention_forward: static_k and static_v are not offered\ngive them as key and value, "
                                  "projected by the identity")
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
                           "`generate_square_subsequent_mask` to create this mask.")
    if query.ndim == 2:
        mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        out, found = multi_head_attention_forward(
            query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias,
            bias_k, bias_v, add_zero_attn, dropout_p, out_proj_weight, out_proj_bias, training, mask, need_weights, attn_mask,
            use_separate_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, None, None, average_attn_weights, is_causal)
        return out.squeeze(1), None if found is None else found.squeeze(0)
    features = query.shape[-1]
    if features != embed_dim_to_check:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {features}")
    given = [x.transpose(0, 1) for x in (query, key, value)]
    parts = [slice(i * features, (i + 1) * features) for i in range(3)]
    weights = [q_proj_weight, k_proj_weight, v_proj_weight] if use_separate_proj_weight or in_proj_weight is None else [
        in_proj_weight[part] for part in parts]
    if any(w is None for w in weights):
        raise AssertionError("use_separate_proj_weight is True but q_proj_weight, k_proj_weight or v_proj_weight is None")
    biases = [None if in_proj_bias is None else in_proj_bias[part] for part in parts]
    extra = [] if bias_k is None or bias_v is None else [(bias_k, bias_v)]
    if add_zero_attn:
        extra.append((query.new_zeros((1, 1, features)),) * 2)
    out, found = attention_of_heads(given, num_heads, weights, biases, extra,  # type: ignore[arg-type]  # none is None
                                    lambda x: linear(x, out_proj_weight, out_proj_bias), dropout_p, training, key_padding_mask,
                                    attn_mask)
    shown = found.mean(1) if average_attn_weights else found
    return out.transpose(0, 1), shown if need_weights else None
