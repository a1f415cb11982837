"""Names that programs seldom use, in both libraries: sizes, storages, histograms, patterns of dimensions, a few eigenpairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from against_torch import in_both

from dualrev import eager as torch


def _said(call: Callable[[], Any]) -> str:
    """The class and the first line of the error of a call, or what it gave."""
    try:
        return repr(call())
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def test_numbers_and_branches() -> None:
    def program(t: Any) -> Any:
        calls = [lambda: t.sym_max(1, 2.0), lambda: t.sym_min(3, 2), lambda: t.sym_sum(1, 2), lambda: t.sym_sum([1.5, 2]),
                 lambda: t.sym_ite(True, 1, 2), lambda: t.sym_ite(True, 1, 2.0), lambda: t.sym_int(-1.7), lambda: t.sym_float(2),
                 lambda: t.sym_not(True), lambda: t.sym_max("a", 1), lambda: t.nn.factory_kwargs({"dtype": 1}),
                 lambda: t.nn.factory_kwargs({"a": 1}), lambda: t.nn.factory_kwargs({"dtype": 1, "factory_kwargs": {"dtype": 2}})]
        return [_said(call) for call in calls]

    in_both(program)
    x = torch.tensor([0.5, -2.0], requires_grad=True)
    torch.cond(x.sum() > 0, lambda x: x.sin().sum(), lambda x: x.cos().sum(), (x,)).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), -np.sin([0.5, -2.0]), rtol=1e-6)
    with pytest.raises(RuntimeError, match="single-element tensor"):
        torch.cond(x > 0, abs, abs, (x,))


def test_settings_of_the_process() -> None:
    def program(t: Any) -> Any:
        found = []
        for kind in ("torch.DoubleTensor", t.FloatTensor, 3, t.LongTensor):
            found.append(_said(lambda kind=kind: t.set_default_tensor_type(kind)))
            found.append(str(t.tensor(1.0).dtype))
        for mode in ("warn", 2, 0, "no", 7):
            found.append(_said(lambda mode=mode: t.set_deterministic_debug_mode(mode)))
            found.append(str(t.get_deterministic_debug_mode()))
        with t.autograd.set_multithreading_enabled(False):
            found.append(_said(lambda: t.autograd.set_multithreading_enabled(1)))
        return found

    in_both(program)


def test_storages_are_shared_by_views() -> None:
    def program(t: Any) -> Any:
        x = t.arange(12.0).reshape(4, 3)
        y = t.zeros(4, 3)
        return [x.data_ptr() == y.data_ptr(), x.T.data_ptr() == x.data_ptr(), x[1].data_ptr() - x.data_ptr(),
                x[1:, 1].untyped_storage().data_ptr() == x.untyped_storage().data_ptr(), x[1:].untyped_storage().nbytes(),
                len(x[1:].storage()), x.T[1].storage()[5], x[2, 1:].storage_offset(), x.chunk(2, 1)[1].storage_offset(),
                x.detach().data_ptr() == x.data_ptr(), x.clone().data_ptr() == x.data_ptr(), x.to_dense() is x, x.dense_dim(),
                x.sparse_dim(), *[_said(getattr(x, name)) for name in ("coalesce", "is_coalesced", "indices", "values",
                                                                       "crow_indices", "col_indices", "row_indices")]]

    in_both(program)


def test_a_shape_that_no_strides_give_is_a_copy_or_refused() -> None:
    """``reshape`` of such a tensor shares nothing with it, and ``view`` refuses."""
    makers: list[Callable[[Any], tuple[Any, tuple[int, ...]]]] = [
        lambda x: (x.t(), (12,)), lambda x: (x[:, :2], (6,)), lambda x: (x[:, :2], (3, 2, 1)), lambda x: (x[::2], (2, 2, 2)),
        lambda x: (x.expand(2, 3, 4), (6, 4)), lambda x: (x.view(3, 2, 2).transpose(1, 2), (3, 4)), lambda x: (x.diagonal(), (3, 1)),
        lambda x: (x.view(3, 2, 2).permute(1, 0, 2), (2, 3, 2, 1)), lambda x: (x.chunk(2, 1)[0], (6,)), lambda x: (x.mT, (4, 3, 1)),
        lambda x: (x.unbind(1)[1], (3, 1)), lambda x: (x[:, 1], (1, 3)), lambda x: (x[None, :, 1:3], (3, 2)),
        lambda x: (x[:, :1], (3,)),
        lambda x: (x[1:].t().unsqueeze(1), (4, 2)), lambda x: (x[:, ::2].t(), (6,)), lambda x: (x.squeeze().flatten(), (2, 6))]

    def program(t: Any) -> Any:
        found: list[Any] = []
        for make in makers:
            x = t.arange(12.0).reshape(3, 4)
            part, shape = make(x)
            found += [_said(lambda part=part, shape=shape: tuple(part.view(shape).shape)), part.is_contiguous()]
            out = part.reshape(shape)
            _said(lambda out=out: out.zero_())  # an expanded one is refused
            found.append(x)
        for out in (x.t().flatten(), x.T.ravel(), x.t().flatten(0, 1)):
            out.zero_()
        found.append(x)
        z = x.clone().requires_grad_()
        (z.t().reshape(2, 6) * t.arange(6.0)).sum().backward()
        return [*found, z.grad, type(z.t().reshape(2, 6).grad_fn).__name__, type(z.reshape(2, 6).grad_fn).__name__]

    in_both(program)


def test_histograms_of_points() -> None:
    def program(t: Any) -> Any:
        x = t.arange(24.0).reshape(4, 2, 3).sin()
        hist, edges = t.histogramdd(x, [2, 2, 3])
        wide, _ = t.histogramdd(x, 2, density=True, range=[0.0, 1.0, 0.0, 1.0, -1.0, 1.0], weight=t.arange(8.0).reshape(4, 2))
        own, _ = t.histogramdd(x[..., :2], (t.tensor([-1.0, 0.0, 1.0]), t.tensor([-1.0, 0.5, 1.0])))
        return [hist, *edges, wide, own, *[_said(call) for call in (
            lambda: t.histogramdd(x, [2, 2]), lambda: t.histogramdd(x, 2, range=[0.0, 1.0]), lambda: t.histogramdd(t.ones(3), 2),
            lambda: t.histogramdd(t.ones(3, 3, dtype=t.int64), 2))]]

    in_both(program)


def test_dimensions_by_a_pattern() -> None:
    def program(t: Any) -> Any:
        x = t.arange(24.0).reshape(2, 3, 4).requires_grad_()
        out = t.func.rearrange(x, "b h w -> (b w) h")
        (out * t.arange(3.0)).sum().backward()
        return [out, x.grad, t.func.rearrange(x, "b ... -> ... b"), t.func.rearrange(x, "b h w -> h (b w)"),
                t.func.rearrange(t.ones(2, 3, 4, 5), "b ... c -> b (...) c"), t.func.rearrange([x, x], "n a b c -> a (b n c)"),
                *[_said(lambda pattern=pattern: t.func.rearrange(x, pattern)) for pattern in (
                    "a b c -> b c", "a b c -> a b 2 c", "a b -> b a")]]

    in_both(program)
    assert torch.func.rearrange(torch.arange(6), "(a b) -> b a 1", a=2).shape == (3, 2, 1)
    for pattern in ("a b", "(a (b) -> a b", "(a b -> a b", "a) b -> a b", "a a -> a", "a (...) -> a (...)", "a-b -> a"):
        with pytest.raises(ValueError, match=r"pattern|identifier|Identifiers"):
            torch.func.rearrange(torch.ones(2, 2), pattern)
    with pytest.raises(ValueError, match="do not give a dimension of size 6"):
        torch.func.rearrange(torch.arange(6), "(a b) -> a b", a=4)


def test_a_few_eigenpairs() -> None:
    def program(t: Any) -> Any:
        a = (t.arange(81.0).reshape(9, 9) * 0.7).sin()
        a = a @ a.T + t.diag(t.arange(9.0))
        b = t.diag(t.arange(9.0) / 4 + 1)
        found = [t.lobpcg(a, 2, tol=1e-7, niter=200), t.lobpcg(a, 2, B=b, largest=False, tol=1e-7, niter=300)]
        values, vectors = found[0]
        return [*[e for e, _ in found], (a @ vectors - vectors * values).abs().max() < 2e-2, _said(lambda: t.lobpcg(a, 4))]

    in_both(program, 1e-3)
    a = torch.diag(torch.arange(1.0, 7.0)).double().requires_grad_()
    torch.lobpcg(a, 2)[0].sum().backward()
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), np.diag([0.0, 0, 0, 0, 1, 1]), atol=1e-12)


def test_a_linear_layer_with_its_loss() -> None:
    def program(t: Any) -> Any:
        x, w = (t.arange(12.0).reshape(4, 3).sin().requires_grad_() for _ in range(2))
        y, bias = t.tensor([0, 3, 2, 1]), t.arange(4.0) / 3
        lce = t.nn.functional.linear_cross_entropy
        loss = lce(x, w, y, linear_bias=bias, weight=bias + 1, label_smoothing=0.1)
        loss.backward()
        spread = lce(x, w.reshape(2, 2, 3), t.tensor([[0, 1], [1, 1], [0, 0], [1, 0]]), reduction="none")
        layer = t.nn.LinearCrossEntropyLoss(3, 4, bias=True)
        with t.no_grad():
            layer.linear.weight.copy_(w)
            layer.linear.bias.copy_(bias)
        return [loss, x.grad, w.grad, spread, layer(x, y), repr(layer), list(layer.state_dict()), *[_said(call) for call in (
            lambda: lce(x, t.ones(2, 4), y), lambda: lce(x, w[0], y), lambda: lce(t.ones(1, 1, 1), w, y),
            lambda: lce(x, w, y, linear_bias=t.ones(3)), lambda: lce(x, w, t.ones(4, 4), ignore_index=1),
            lambda: t.nn.LinearCrossEntropyLoss(3, 4, label_smoothing=2.0))]]

    in_both(program)


def test_parametrizations_go_to_another_module() -> None:
    def program(t: Any) -> Any:
        parametrize, P = t.nn.utils.parametrize, t.nn.utils.parametrizations
        a, b = t.nn.Linear(3, 3), t.nn.Linear(3, 3)
        with t.no_grad():
            a.weight.copy_(t.arange(9.0).reshape(3, 3).sin())
        P.weight_norm(a)
        parametrize.transfer_parametrizations_and_params(a, b)
        return [b.weight, parametrize.is_parametrized(b, "weight"), list(b.state_dict()),
                a.parametrizations.weight.original0 is b.parametrizations.weight.original0]

    in_both(program)


def test_numbers_of_complex_parameters_are_pairs_to_optimizers() -> None:
    """PyTorch's optimizers take a complex number as two real ones; a few steps of each class."""
    def program(t: Any) -> Any:
        found = []
        for make in (lambda p: t.optim.Adam(p, 0.1), lambda p: t.optim.Adam(p, 0.1, amsgrad=True), lambda p: t.optim.AdamW(p, 0.1),
                     lambda p: t.optim.RMSprop(p, 0.1, centered=True, momentum=0.5), lambda p: t.optim.Adagrad(p, 0.1),
                     lambda p: t.optim.Adamax(p, 0.1), lambda p: t.optim.NAdam(p, 0.1), lambda p: t.optim.RAdam(p, 0.1),
                     lambda p: t.optim.Adadelta(p), lambda p: t.optim.Rprop(p, 0.1), lambda p: t.optim.SGD(p, 0.1, momentum=0.9)):
            z = t.tensor([1 + 2j, -0.5 + 0.25j, 3j], requires_grad=True)
            real = t.ones(2, requires_grad=True)
            optimizer = make([z, real])
            for _ in range(3):
                optimizer.zero_grad()
                ((z * (1 - 2j)).real.sum() + (z.abs() ** 2).sum() + (real ** 2).sum()).backward()
                optimizer.step()
            found += [z.detach(), real.detach(), *[x for x in optimizer.state[z].values() if t.is_tensor(x) and x.ndim]]
        return found

    in_both(program)


def test_an_entry_in_a_tensor_and_text_of_complex_ones() -> None:
    def program(t: Any) -> Any:
        x = t.arange(6).reshape(2, 3)
        return [2 in x, 9 in x, 2.0 in x, t.tensor(3) in x, _said(lambda: "a" in x), repr(t.tensor([1 + 2j, 3 - 0.5j])),
                repr(t.tensor([[1e-5 + 2j, 3]])), repr(t.tensor(1 + 2j)), repr(t.tensor([1 + 2j, complex("nan")])),
                repr((t.arange(12.0) + 1j * t.arange(12.0).sin()).reshape(2, 6)), repr(t.tensor([1 + 0j] * 30))]

    in_both(program)


def test_second_derivatives_lead_to_what_they_depend_on() -> None:
    """The penalty of a gradient does not depend on the last bias: its gradient is None, as in PyTorch."""
    def program(t: Any) -> Any:
        model = t.nn.Sequential(t.nn.Linear(3, 4), t.nn.Softplus(), t.nn.Linear(4, 1))
        with t.no_grad():
            for p in model.parameters():
                p.copy_(t.arange(float(p.numel())).reshape(p.shape).sin())
        x = t.arange(6.0).reshape(2, 3).cos().requires_grad_()
        g, = t.autograd.grad(model(x).sum(), x, create_graph=True)
        (g ** 2).sum().backward()
        return [None if p.grad is None else p.grad for p in model.parameters()]

    in_both(program)


def test_a_vector_becomes_parameters_with_values_of_their_own() -> None:
    def program(t: Any) -> Any:
        p = t.ones(2, 2, requires_grad=True)
        before = p.detach()
        t.nn.utils.vector_to_parameters(t.arange(4.0), [p])
        return [before, p.detach()]

    in_both(program)
