"""Attention, and the layers of a transformer encoder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn import init
from dualrev.eager.nn.modules.containers import ModuleList
from dualrev.eager.nn.modules.linear import Linear
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.modules.normalization import LayerNorm
from dualrev.eager.nn.modules.stateless import Dropout
from dualrev.eager.nn.parameter import Parameter
from dualrev.eager.ops import creation as make


class MultiheadAttention(Module):
    """Multi-head attention, each head on a part of the features: ``output, weights = attention(query, key, value)``.

    >>> from dualrev import eager as torch
    >>> x = torch.ones(2, 5, 4)
    >>> out, weights = torch.nn.MultiheadAttention(4, 2, batch_first=True)(x, x, x)
    >>> out.shape, weights.shape
    (torch.Size([2, 5, 4]), torch.Size([2, 5, 5]))
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, batch_first: bool = False,
                 device: Any = None, dtype: Any = None):
        super().__init__()
        if embed_dim % num_heads:
            raise AssertionError(f"embed_dim must be divisible by num_heads\n{embed_dim} is not divisible by {num_heads}")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.in_proj_weight = Parameter(make.zeros(3 * embed_dim, embed_dim, dtype=dtype))
        self.register_parameter("in_proj_bias", Parameter(make.zeros(3 * embed_dim, dtype=dtype)) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype)
        init.xavier_uniform_(self.in_proj_weight)
        if bias:
            init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, need_weights: bool = True,
                attn_mask: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False) -> Any:
        if query.ndim == 2:
            mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
            dim = 0 if self.batch_first else 1
            out, weights = self.forward(query.unsqueeze(dim), key.unsqueeze(dim), value.unsqueeze(dim), mask, need_weights, attn_mask,
                                        average_attn_weights, is_causal)
            return out.squeeze(dim), None if weights is None else weights.squeeze(0)
        given = (query, key, value) if self.batch_first else tuple([x.transpose(0, 1) for x in (query, key, value)])
        heads = [self._heads(x, i) for i, x in enumerate(given)]
        weights = heads[0] @ heads[1].transpose(-2, -1) * (self.embed_dim // self.num_heads) ** -0.5
        batch, n, m = given[0].shape[0], given[0].shape[1], given[1].shape[1]
        if attn_mask is not None:
            weights = _masked(weights, attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(batch, self.num_heads, n, m))
        if key_padding_mask is not None:
            weights = _masked(weights, key_padding_mask.reshape(batch, 1, 1, m))
        weights = F.dropout(F.softmax(weights, -1), self.dropout, self.training)
        out = self.out_proj((weights @ heads[2]).transpose(1, 2).reshape(batch, n, self.embed_dim))
        out = out if self.batch_first else out.transpose(0, 1)
        return out, (weights.mean(1) if average_attn_weights else weights) if need_weights else None

    def _heads(self, x: Tensor, part: int) -> Tensor:
        """Queries, keys or values of (batch, head, length, features)."""
        rows = slice(part * self.embed_dim, (part + 1) * self.embed_dim)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        x = F.linear(x, self.in_proj_weight[rows], bias)
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


def _masked(weights: Tensor, mask: Tensor) -> Tensor:
    """Mask the weights: minus infinity where a boolean mask is true; a mask of numbers is added."""
    return weights.masked_fill(mask, float("-inf")) if array_of(mask).dtype == jnp.bool_ else weights + mask


class TransformerEncoderLayer(Module):
    """Self-attention and two linear layers, with residual connections around both."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Callable[[Tensor], Tensor] = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        self.norm_first = norm_first
        if isinstance(activation, str) and activation not in ("relu", "gelu"):
            raise RuntimeError(f"activation should be relu/gelu, not {activation}")
        self.activation = getattr(F, activation) if isinstance(activation, str) else activation

    def forward(self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                is_causal: bool = False) -> Tensor:
        def attend(x: Tensor) -> Tensor:
            return self.dropout1(self.self_attn(x, x, x, src_key_padding_mask, False, src_mask)[0])

        def feed(x: Tensor) -> Tensor:
            return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))

        if self.norm_first:
            x = src + attend(self.norm1(src))
            return x + feed(self.norm2(x))
        x = self.norm1(src + attend(src))
        return self.norm2(x + feed(x))


class TransformerEncoder(Module):
    """Copies of a layer in sequence."""

    def __init__(self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None, **_: Any):
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers, self.norm = num_layers, norm

    def forward(self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                is_causal: bool | None = None) -> Tensor:
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask)
        return src if self.norm is None else self.norm(src)
