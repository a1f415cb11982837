"""Attention."""

from __future__ import annotations

import numpy as np

from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.nn.functions.activations import softmax
from dualrev.eager.nn.functions.dropout import dropout
from dualrev.eager.ops.precision import low_precision


@low_precision
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Tensor:
    """``softmax(query key^T * scale) value``; with ``enable_gqa``, several heads of queries share one of keys and values."""
    if attn_mask is not None and is_causal:
        raise RuntimeError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
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
