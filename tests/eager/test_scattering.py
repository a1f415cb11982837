"""Writing at indices, views of parts, and shapes changed in place give PyTorch's results, gradients and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from against_torch import in_both, message
from test_statistics import gradient


@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_scatter_reduce(reduce: str) -> None:
    def program(t: Any) -> Any:
        x, s = t.tensor([[2.0, 0, 3], [4, 3, 6]], requires_grad=True), t.tensor([[2.0, 0, 4], [3, 3, 0]], requires_grad=True)
        i = t.tensor([[0, 1, 0], [1, 1, 0]])
        outs = [t.scatter_reduce(x, dim, i, s, reduce, include_self=own) for dim in (0, 1) for own in (True, False)]
        outs += [x.index_reduce(1, t.tensor([0, 0, 2]), s, reduce, include_self=own) for own in (True, False) if reduce != "sum"]
        whole = t.tensor([5, 7]).scatter_reduce(0, t.tensor([0, 0, 1]), t.tensor([2, 1, 4]), reduce)
        place = t.zeros(2, 3).scatter_reduce_(1, i, s.detach(), reduce, include_self=False)
        return [outs, [gradient(t, y, x, s) for y in outs], whole, place]

    in_both(program)


def test_writing_at_indices() -> None:
    def program(t: Any) -> Any:
        x, s = t.arange(1.0, 7).reshape(2, 3).clone().requires_grad_(), t.tensor([[2.0, 3], [4, 5]], requires_grad=True)
        j = t.tensor([2, 0])
        outs = [x.index_add(1, j, s), t.index_add(x, 1, j, s, alpha=2), x.index_copy(1, j, s), x.index_fill(1, j, 7.0),
                x.index_fill(0, t.tensor([-1]), t.tensor(3.0)), x.take(t.tensor([[0, 5], [-1, 2]])),
                t.take_along_dim(x, t.tensor([[0], [2]]), 1), x.take_along_dim(t.tensor([4, 1])), x.masked_scatter(x > 2,
                                                                                                                   t.arange(10.0)),
                x.masked_scatter(t.tensor([True, False, True]), -t.arange(10.0)), x.put(t.tensor([0, -1]), s[0]),
                x.put(t.tensor([0, 0]), s[0], accumulate=True), x.index_put((t.tensor([0]), t.tensor([1])), t.tensor(5.0))]
        w = t.ones(2, 3)
        places = [w.scatter_(0, t.tensor([[0, 1, 1]]), value=5.0).clone(), w.scatter_(1, t.tensor([[0], [2]]), 2,
                                                                                      reduce="add").clone(),
                  w.scatter_(1, t.tensor([[0], [2]]), t.tensor([[3.0], [4.0]]), reduce="multiply").clone(),
                  w.index_fill_(1, j, 2.0).clone(), w.index_copy_(0, t.tensor([1]), t.ones(1, 3)).clone(),
                  w.put_(t.tensor([1, 4]), t.tensor([1.0, 2])).clone(), w.masked_scatter_(w > 1, t.arange(6.0)).clone()]
        return [outs, [gradient(t, y, x, s) for y in outs], places]

    in_both(program)


def test_parts_and_arrangements() -> None:
    def program(t: Any) -> Any:
        x = t.arange(24.0).reshape(2, 3, 4).requires_grad_()
        outs = [t.block_diag(x[0], x[1]), t.diag_embed(x, -1), x.unfold(2, 2, 1), x.unfold(1, 2, 2),
                t.as_strided(x, (2, 2), (3, 1), 1), x[1].as_strided((2,), (2,)), t.diagflat(x[0, :2, :2], 1)]
        w = t.zeros(6)
        w.unfold(0, 2, 2).fill_(1.0)
        w.as_strided((2,), (3,)).add_(5.0)
        parts = [t.tensor_split(x, 3, 2), x.tensor_split((1, 3), 2), t.hsplit(x, 3), t.vsplit(x, 2), t.dsplit(x, [1, 3]),
                 x.split_with_sizes([1, 3], 2), t.dstack([x[0], x[1]]), t.column_stack([t.arange(3.0), t.ones(3, 2)]),
                 t.broadcast_tensors(t.ones(3, 1), t.arange(2.0)), list(t.broadcast_shapes((2, 1), (3,)))]
        strides = [x.stride(), x.mT.stride(), x[:, 1].stride(), x[0, 1:].storage_offset(), x.unfold(2, 2, 1).stride(), x.stride(-1),
                   t.ones(3, 1).expand(3, 4).stride(), x.permute(dims=(2, 0, 1)).stride(), t.ones(0, 3).stride()]
        return [outs, [gradient(t, y, x) for y in outs], w, parts, [list(s) if isinstance(s, tuple) else s for s in strides]]

    in_both(program)


def test_shapes_changed_in_place() -> None:
    def program(t: Any) -> Any:
        x = t.arange(6.0).reshape(2, 3)
        shapes = [list(x.unsqueeze_(0).shape), list(x.squeeze_(0).shape), list(x.t_().shape)]
        x.transpose_(0, 1)
        x[0, 0] = 9
        y = t.ones(2, 3, requires_grad=True)
        z = y * 2
        z.t_()
        z.mul_(t.arange(6.0).reshape(3, 2))
        z.sum().backward()
        return [shapes, x, y.grad, list(z.shape)]

    in_both(program)


def test_parts_of_complex_tensors_are_views() -> None:
    def program(t: Any) -> Any:
        z = t.tensor([1 + 2j, 3 - 1j])
        r = t.view_as_real(z)
        r[0, 0] = 9
        z.real[1] = 5
        values = [z.clone(), r.clone()]
        z.imag.zero_()
        a = t.tensor([[1.0, 2], [3, 4]], requires_grad=True)
        (t.view_as_complex(a) ** 2).abs().sum().backward()
        c = t.tensor([1 + 2j, 3 - 1j], requires_grad=True)
        parts = t.view_as_real(c * 2)
        (parts[..., 0] * 3 + parts[..., 1] ** 2).sum().backward()
        return [values, z, t.real(z), t.imag(z), a.grad, t.view_as_real(c.grad), list(z.imag.stride()), z.imag.storage_offset()]

    in_both(program)


def test_refusals() -> None:
    def program(t: Any) -> Any:
        x, j = t.ones(2, 3), t.tensor([2, 0])
        return [message(lambda: x.scatter(0, t.tensor([[0, 1, 0]]), t.ones(1, 1))), message(lambda: x.index_add(1, j, t.ones(3,
                                                                                                                             2))),
                message(lambda: x.index_copy(1, j, t.ones(2, 3)), IndexError), message(lambda: x.take(t.tensor([9])), IndexError),
                message(lambda: x.masked_scatter(x > 0, t.ones(2))), message(lambda: x.unfold(1, 9, 1)),
                message(lambda: t.hsplit(x, 2)), message(lambda: x.scatter_reduce(0, t.tensor([[0]]), x, "q")),
                message(lambda: t.broadcast_shapes((2,), (3,))), message(lambda: x.imag), message(lambda: t.view_as_real(x))]

    in_both(program)


def test_copies_of_what_is_not_contiguous() -> None:
    def program(t: Any) -> Any:
        x = t.arange(6.0).reshape(2, 3)
        parts = [x, x.t(), x[1], x[:, 1], x[1:], x[:, :2], x[0, 1:], x[::2], x.t().t(), x.unsqueeze(0), x.expand(2, 2, 3), x[:, None]]
        y = x.t().contiguous()
        y.add_(1.0)
        x[1].contiguous().mul_(2.0)
        return [[p.is_contiguous() for p in parts], list(y.stride()), x, t.tensor([1, 2]).clamp(1.5), t.tensor([1, 2]).clamp_max(1)]

    in_both(program)
