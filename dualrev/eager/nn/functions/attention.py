"""Attention."""

from __future__ import annotations

import numpy as np

from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.nn.functions.activations import softmax
from dualrev.eager.nn.functions.dropout import dropout
from dualrev.eager.ops.precision import low_precision


@low_precision
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None) -> Tensor:
    """``softmax(query key^T * scale) value``."""
    scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if is_causal:
        n, m = scores.shape[-2:]
        attn_mask = wrap(np.tril(np.ones((n, m), bool)))
    if attn_mask is not None:
        is_choice = array_of(attn_mask).dtype == bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if is_choice else scores + attn_mask
    return dropout(softmax(scores, -1), dropout_p) @ value
