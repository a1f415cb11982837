"""Attention with all its settings, transformers, and tables of vectors."""

from __future__ import annotations

from typing import Any

import pytest
from against_torch import fill, in_both, message
from test_images import with_grad
from test_packed_sequences import wave


@pytest.mark.parametrize("settings", [{"add_bias_kv": True}, {"add_zero_attn": True, "add_bias_kv": True, "bias": False}],
                         ids=["bias", "zero"])
def test_attention_to_added_places(settings: dict[str, Any]) -> None:
    def program(t: Any) -> list[Any]:
        attention, x = fill(t, t.nn.MultiheadAttention(8, 2, **settings)), wave(t, 3, 2, 8)
        masks: list[dict[str, Any]] = [
            {"key_padding_mask": t.tensor([[False, True, False], [False, False, True]])}, {"attn_mask": t.ones(3, 3).triu(1).bool()},
            {"attn_mask": wave(t, 4, 3, 3), "average_attn_weights": False}]
        return [[n for n, _ in attention.named_parameters()],
                [with_grad(t, lambda x: attention(x, x, x, **m), x) for m in masks]]  # noqa: B023

    in_both(program)


def test_attention_to_other_features() -> None:
    def program(t: Any) -> list[Any]:
        attention = fill(t, t.nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True))
        x = wave(t, 3, 8)
        plain = t.nn.MultiheadAttention(8, 2)
        return [[n for n, _ in attention.named_parameters()],
                with_grad(t, attention, wave(t, 2, 3, 8), wave(t, 2, 5, 6), wave(t, 2, 5, 4)),
                repr(attention), message(lambda: plain(x, x, x, is_causal=True)),
                message(lambda: plain(x, x, x, attn_mask=wave(t, 2, 2))),
                message(lambda: plain(wave(t, 3, 6), x, x), AssertionError)]

    in_both(program)


@pytest.mark.parametrize("settings", [{}, {"norm_first": True, "activation": "gelu"}, {"bias": False}], ids=["after", "before", "bias"])
def test_transformer(settings: dict[str, Any]) -> None:
    def program(t: Any) -> list[Any]:
        model = fill(t, t.nn.Transformer(8, 2, 1, 2, 16, dropout=0.0, batch_first=True, **settings))
        src, tgt = wave(t, 2, 5, 8), (2 * wave(t, 2, 3, 8)).cos()
        later = model.generate_square_subsequent_mask(3)
        pads = t.tensor([[False] * 5, [False] * 3 + [True] * 2])
        return [list(model.state_dict()), later, model(src, tgt, tgt_mask=later, tgt_is_causal=True), model(src[0], tgt[0]),
                with_grad(t, lambda s, x: model(s, x, tgt_mask=later, src_key_padding_mask=pads, memory_key_padding_mask=pads),
                          src, tgt)]

    in_both(program, 1e-4)


def test_parts_of_transformers() -> None:
    def program(t: Any) -> list[Any]:
        nn, x, memory = t.nn, wave(t, 3, 2, 8), wave(t, 5, 2, 8)
        decoder = fill(t, nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0), 2))
        encoder = fill(t, nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0), 2, nn.LayerNorm(8)))
        model = nn.Transformer(8, 2, 1, 1, 16)
        return [decoder(x, memory), encoder(x), repr(decoder), message(lambda: model(memory, wave(t, 3, 1, 8))),
                message(lambda: model(memory, wave(t, 3, 2, 6))), message(lambda: nn.TransformerDecoderLayer(8, 2, activation="x"))]

    in_both(program, 1e-4)


def test_scaled_attention_of_shared_heads() -> None:
    def program(t: Any) -> list[Any]:
        attend, q, k = t.nn.functional.scaled_dot_product_attention, wave(t, 2, 4, 3, 8), wave(t, 2, 2, 5, 8)
        return [with_grad(t, lambda q, k: attend(q, k, k, enable_gqa=True), q, k),
                message(lambda: attend(q[0], q[0], q[0], t.ones(3, 3).bool(), is_causal=True))]

    in_both(program)


def test_embeddings() -> None:
    def program(t: Any) -> list[Any]:
        F, w, index = t.nn.functional, 3 * wave(t, 6, 3), t.tensor([[1, 2, 2], [0, 5, 1]])
        short = w.clone()
        rows = F.embedding(index, short, max_norm=1.0)
        table = t.nn.Embedding(5, 3, padding_idx=-2, max_norm=2.0)
        return [with_grad(t, lambda w: F.embedding(index, w, padding_idx=-1), w),
                with_grad(t, lambda w: F.embedding(index, w, scale_grad_by_freq=True), w), rows, short, table.padding_idx,
                table.weight[3],
                repr(table), t.nn.Embedding.from_pretrained(w)(index), t.nn.Embedding.from_pretrained(w).weight.requires_grad,
                message(lambda: t.nn.Embedding(3, 2, padding_idx=4), AssertionError)]

    in_both(program)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags(mode: str) -> None:
    def program(t: Any) -> list[Any]:
        bag, w, index = t.nn.functional.embedding_bag, 3 * wave(t, 6, 3), t.tensor([[1, 2, 2], [0, 5, 1]])
        flat = index.reshape(-1)
        outs = [with_grad(t, lambda w: bag(index, w, mode=mode), w),
                with_grad(t, lambda w: bag(flat, w, t.tensor([0, 2, 2, 5]), mode=mode), w),
                bag(flat, w, t.tensor([0, 2, 2, 5, 6]), mode=mode, include_last_offset=True, padding_idx=1),
                repr(t.nn.EmbeddingBag(3, 2))]
        if mode == "sum":
            outs.append(with_grad(t, lambda w, s: bag(index, w, mode=mode, per_sample_weights=s), w, wave(t, 2, 3)))
        return [*outs, message(lambda: bag(flat, w), ValueError), message(lambda: bag(flat, w, t.tensor([1])))]

    in_both(program)
