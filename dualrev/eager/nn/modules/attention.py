"""Attention as a layer."""

from __future__ import annotations

from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import init
from dualrev.eager.nn.functions.attention import attention_of_heads, check_dims, check_keys_and_values
from dualrev.eager.nn.modules.linear import Linear
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.parameter import Parameter
from dualrev.eager.ops import creation as make


class NonDynamicallyQuantizableLinear(Linear):
    """The linear layer at the end of an attention: a :class:`Linear` under the name that PyTorch shows."""


class MultiheadAttention(Module):
    """Multi-head attention, each head on a part of the features: ``output, weights = attention(query, key, value)``.

    >>> from dualrev import eager as torch
    >>> x = torch.ones(2, 5, 4)
    >>> out, weights = torch.nn.MultiheadAttention(4, 2, batch_first=True)(x, x, x)
    >>> out.shape, weights.shape
    (torch.Size([2, 5, 4]), torch.Size([2, 5, 5]))
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
                 add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
                 device: Device | None = None, dtype: DType | None = None):
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and num_heads={num_heads} "
                             "instead")
        if embed_dim % num_heads:
            raise AssertionError(f"embed_dim must be divisible by num_heads\n{embed_dim} is not divisible by {num_heads}")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        self._qkv_same_embed_dim = self.kdim == self.vdim == embed_dim
        shapes = {"in_proj_weight": (3 * embed_dim, embed_dim)} if self._qkv_same_embed_dim else {
            "q_proj_weight": (embed_dim, embed_dim), "k_proj_weight": (embed_dim, self.kdim), "v_proj_weight": (embed_dim, self.vdim)}
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_weight"):
            self.register_parameter(name, Parameter(make.zeros(*shapes[name], dtype=dtype)) if name in shapes else None)
        self.register_parameter("in_proj_bias", Parameter(make.zeros(3 * embed_dim, dtype=dtype)) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, dtype=dtype)
        for name in ("bias_k", "bias_v"):
            self.register_parameter(name, Parameter(make.zeros(1, 1, embed_dim, dtype=dtype)) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_weight"):
            if getattr(self, name) is not None:
                init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        if self.bias_k is not None:
            init.xavier_normal_(self.bias_k)
            init.xavier_normal_(self.bias_v)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, need_weights: bool = True,
                attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
                               "`generate_square_subsequent_mask` to create this mask.")
        check_dims(query, key, value, key_padding_mask, attn_mask, self.num_heads)
        if query.ndim == 2:
            mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
            dim = 0 if self.batch_first else 1
            out, weights = self.forward(query.unsqueeze(dim), key.unsqueeze(dim), value.unsqueeze(dim), mask, need_weights, attn_mask,
                                        average_attn_weights, is_causal)
            return out.squeeze(dim), None if weights is None else weights.squeeze(0)
        given = (query, key, value) if self.batch_first else tuple([x.transpose(0, 1) for x in (query, key, value)])
        if given[0].shape[-1] != self.embed_dim:
            raise AssertionError(f"was expecting embedding dimension of {self.embed_dim}, but got {given[0].shape[-1]}")
        key, value = [x.transpose(0, 1) if self.batch_first else x for x in (key, value)]
        check_keys_and_values(key, value, not self._qkv_same_embed_dim)
        extra = [] if self.bias_k is None else [(self.bias_k, self.bias_v)]
        if self.add_zero_attn:
            extra.append((query.new_zeros((1, 1, self.embed_dim)),) * 2)
        out, weights = attention_of_heads(given, self.num_heads, *self._projections(), extra, self.out_proj, self.dropout,
                                          self.training, key_padding_mask, attn_mask)
        out = out if self.batch_first else out.transpose(0, 1)
        return out, (weights.mean(1) if average_attn_weights else weights) if need_weights else None

    def _projections(self) -> tuple[list[Tensor], list[Tensor | None]]:
        """The weights and biases of queries, keys and values."""
        parts = [slice(i * self.embed_dim, (i + 1) * self.embed_dim) for i in range(3)]
        weights = [self.in_proj_weight[part] for part in parts] if self._qkv_same_embed_dim else [
            self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        return weights, [None if self.in_proj_bias is None else self.in_proj_bias[part] for part in parts]
