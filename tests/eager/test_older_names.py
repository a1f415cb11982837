"""Names that programs still use: copies of views, factorizations, attention as a function, levels of forward mode, edges."""

from __future__ import annotations

from typing import Any

import pytest
from against_torch import in_both

from dualrev import eager as torch


def test_copies_of_views_have_storages_of_their_own() -> None:
    def program(t: Any) -> Any:
        x = t.arange(12.0).reshape(3, 4)
        c = t.view_as_complex(t.ones(2, 2))
        found = [t.transpose_copy(x, 0, 1), t.permute_copy(x, (1, 0)), t.view_copy(x, (4, 3)), t.expand_copy(x, (2, 3, 4)),
                 t.select_copy(x, 0, 1), t.slice_copy(x, 1, 0, 3, 2), t.slice_copy(x), t.unsqueeze_copy(x, 0), t.squeeze_copy(x[:1], 0),
                 t.t_copy(x), t.diagonal_copy(x), t.unfold_copy(x, 1, 2, 1), t.detach_copy(x), t.alias_copy(x),
                 t.as_strided_copy(x, (2, 2), (1, 2)), t.view_as_real_copy(c), t.view_as_complex_copy(t.ones(2, 2)).real,
                 *t.split_copy(x, 2), *t.split_with_sizes_copy(x, (1, 2)), *t.unbind_copy(x)]
        for out in found[:15]:
            out.zero_()
        x = x.requires_grad_()
        (t.transpose_copy(x, 0, 1) * 2).sum().backward()
        return [*found, x.detach(), x.grad]

    in_both(program)


def test_factors_and_conjugates() -> None:
    def program(t: Any) -> Any:
        a = t.tensor([[2.0, 1.0], [4.0, 3.0]])
        z = t.tensor([1 + 2j, 3j])
        packed, pivots = t.lu(a)
        return [packed, pivots, *t.lu(a, get_infos=True), *a.lu(), t.lu_solve(t.ones(2, 1), packed, pivots), z.conj_physical_().real,
                z.imag]

    in_both(program)


@pytest.mark.parametrize("case", ["padded", *[pytest.param(c, marks=pytest.mark.thorough) for c in (
    "plain", "masked", "extra", "separate", "single")]])
def test_attention_as_a_function(case: str) -> None:
    def program(t: Any) -> Any:
        x = t.arange(24.0).reshape(3, 2, 4).sin().requires_grad_()
        w, b = (t.arange(48.0) * 0.3).cos().reshape(12, 4).requires_grad_(), t.arange(12.0) / 10
        more: dict[str, Any] = {}
        k = v = zero = None
        if case == "masked":
            more = dict(attn_mask=t.ones(3, 3).triu(1).bool(), is_causal=True)
        elif case == "padded":
            more = dict(key_padding_mask=t.tensor([[False, False, True], [False, True, True]]), average_attn_weights=False)
        elif case == "extra":
            k, v, zero = t.ones(1, 1, 4), t.ones(1, 1, 4) * 2, True
        elif case == "separate":
            more = dict(use_separate_proj_weight=True, q_proj_weight=w[:4], k_proj_weight=w[4:8], v_proj_weight=w[8:],
                        need_weights=False)
        given = x[:, 0] if case == "single" else x
        out, weights = t.nn.functional.multi_head_attention_forward(
            given, given, given, 4, 2, None if case == "separate" else w, b, k, v, bool(zero), 0.0, t.eye(4) * 2, t.ones(4), **more)
        return [out, weights, *t.autograd.grad((out * out).sum(), [x, w])]

    in_both(program)


def test_batches_over_one_process() -> None:
    def program(t: Any) -> Any:
        t.manual_seed(0)
        model = t.nn.Sequential(t.nn.Conv1d(2, 3, 1), t.nn.Sequential(t.nn.BatchNorm1d(3), t.nn.ReLU()))
        converted = t.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        layer = converted[1][0]
        return [type(layer).__name__, sorted(converted.state_dict()), repr(layer), layer.eval()(t.ones(2, 3, 4)),
                layer.weight is model[1][0].weight]

    in_both(program)
    layer = torch.nn.SyncBatchNorm(3)
    x = torch.arange(18.0).reshape(2, 3, 3)
    assert torch.equal(layer(x), torch.nn.BatchNorm1d(3)(x))
    with pytest.raises(ValueError, match="expected at least 2D input"):
        layer(torch.ones(3))


def test_levels_edges_and_versions() -> None:
    def program(t: Any) -> Any:
        fw, graph = t.autograd.forward_ad, t.autograd.graph
        fw.enter_dual_level()
        x = fw.make_dual(t.tensor(3.0), t.tensor(1.0))
        tangent = fw.unpack_dual(x * x).tangent
        fw.exit_dual_level()
        y = t.tensor([2.0], requires_grad=True)
        z = (y * 2).exp()
        edges = [graph.get_gradient_edge(a) for a in (y, z)]
        graph.increment_version(z)
        found = []
        for call in (lambda: z.sum().backward(), lambda: graph.get_gradient_edge(t.ones(1)), lambda: fw.exit_dual_level()):
            try:
                call()
            except RuntimeError as error:
                found.append(str(error).splitlines()[0][:60])
        with t.autograd.inference_mode():
            inside = t.ones(1).is_inference()
        return [tangent, [type(e.node).__name__ for e in edges], [e.output_nr for e in edges], found, inside]

    in_both(program)


def test_bits_are_read_as_other_numbers() -> None:
    def program(t: Any) -> Any:
        x = t.arange(8.0).reshape(2, 4)
        found = [x.view(kind) for kind in (t.int32, t.int16, t.uint8, t.int64, t.float64, t.complex64, t.bfloat16)]
        found += [x.view(dtype=t.int32), t.tensor([True, False]).view(t.uint8), t.tensor([1, 0], dtype=t.uint8).view(t.bool),
                  t.tensor([1 + 2j, 3j]).view(t.float32), t.tensor(1.0).view(t.int32), x[:, :2].view(t.float64),
                  x.T.contiguous().view(t.int32)]
        words, refused = x.view(t.int32), []
        words[0] = 0  # x shows it
        x.view(t.int16)[1, 1::2] = 0x4000
        y = t.ones(4, requires_grad=True) * 1
        bits = y.view(t.int32)
        for call in (lambda: t.ones(3).view(t.float64), lambda: t.tensor(1.0).view(t.int16), lambda: t.tensor(1.0).view(t.float64)):
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error).splitlines()[0])
        return [*[(str(a.dtype), list(a.shape), a.tolist()) for a in found], x, bits, bits.requires_grad, words.storage_offset(),
                words[1].storage_offset(), x.view(t.int16)[1].storage_offset(), refused]

    in_both(program)
