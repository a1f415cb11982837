"""Medians, quantiles, counting, covariances and distances give PyTorch's results, gradients and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from against_torch import in_both, message

from dualrev import eager


def gradient(t: Any, y: Any, *inputs: Any) -> Any:
    """The gradients of a sum of the entries, each weighed by another number."""
    weights = t.arange(1.0, 1 + y.numel()).reshape(y.shape).to(y.dtype)
    return t.autograd.grad((y * weights).sum(), inputs, allow_unused=True, retain_graph=True)


def same_of_each(*funs: Callable[[Any, Any], Any]) -> None:
    """The results and gradients of functions of a matrix without equal entries."""
    def program(t: Any) -> Any:
        x = t.tensor([[3.0, 1, 2, 8], [4, 7, 5, 6.5]], requires_grad=True)
        found = []
        for fun in funs:
            y = fun(t, x)
            first = y[0] if isinstance(y, tuple) else y
            found.append([y, gradient(t, first, x)])
        return found

    in_both(program)


def test_medians_and_their_kin() -> None:
    same_of_each(lambda t, x: x.median(), lambda t, x: x.median(1), lambda t, x: t.median(x, axis=0, keepdims=True),
                 lambda t, x: x.nanmedian(), lambda t, x: x.nanmedian(-1), lambda t, x: x.mode(1), lambda t, x: x.kthvalue(2),
                 lambda t, x: x.kthvalue(3, 1, True), lambda t, x: t.cummax(x, 1), lambda t, x: x.cummin(0),
                 lambda t, x: x.logcumsumexp(1), lambda t, x: x.aminmax(dim=1), lambda t, x: x.msort())


def test_quantiles() -> None:
    same_of_each(lambda t, x: x.quantile(0.3), lambda t, x: x.quantile(t.tensor([0.1, 0.5, 0.9]), 1),
                 lambda t, x: x.quantile(t.tensor([0.1, 0.5]), 0, keepdim=True), lambda t, x: x.quantile(0.6, dim=1, keepdim=True),
                 lambda t, x: x.quantile(t.tensor([0.1, 0.5]), keepdim=True), lambda t, x: x.nanquantile(0.4, 0),
                 *[lambda t, x, how=how: x.quantile(t.tensor([0.1, 0.33, 0.77, 1.0]), 1, interpolation=how)
                   for how in ("lower", "higher", "midpoint", "nearest")])


def test_equal_entries_nan_and_no_dimension() -> None:
    def program(t: Any) -> Any:
        x = t.tensor([1.0, 2, 2, 2, 5], requires_grad=True)
        x.median().backward()
        n, one = t.tensor([[1.0, float("nan"), 3], [4, 5, 6]]), t.tensor(3.0)
        return [x.grad, n.median(), n.median(1), n.nanmedian(), n.nanmedian(1), n.quantile(0.5), n.quantile(0.5, 1),
                n.nanquantile(0.5, 1), n.cummax(1), n.cummin(1), t.tensor([3, 1, 2, 2]).mode(), t.tensor([3, 1, 2]).median(),
                one.median(0), one.mode(), one.kthvalue(1), one.quantile(0.5), one.cummax(0), t.tensor([]).median()]

    in_both(program)


def test_counting() -> None:
    def program(t: Any) -> Any:
        x, m = t.tensor([3, 1, 3, 2, 2]), t.tensor([[1, 2], [0, 1], [1, 2]])
        y = t.tensor([0.0, 1, 2, 2, 3, 9.5])
        return [x.unique(), x.unique(return_inverse=True, return_counts=True), x.unique_consecutive(return_counts=True),
                m.unique(dim=0, return_inverse=True, return_counts=True), m.unique(dim=1), m.unique(return_inverse=True),
                m.unique_consecutive(dim=0, return_counts=True), t.bincount(x), x.bincount(minlength=7), x.bincount(x * 0.5),
                t.histc(y, 4), t.histc(y, 4, 0, 3), y.histc(5, min=1, max=10), t.histogram(y, 4), t.histogram(y, 3, range=(0.0,
                                                                                                                           6.0)),
                t.histogram(y, t.tensor([0.0, 1, 3, 10])), t.histogram(y, 4, density=True),
                t.histogram(y, 4, weight=t.arange(6.0)), t.argwhere(m)]

    in_both(program)


def test_places_in_sorted_sequences() -> None:
    def program(t: Any) -> Any:
        s, v = t.tensor([1.0, 3, 5, 7]), t.tensor([[0.0, 3], [4, 9]])
        large = t.arange(1000.0)
        return [t.searchsorted(s, v), t.searchsorted(s, v, right=True), t.searchsorted(s, 3.0), t.bucketize(v, s),
                t.searchsorted(s, v, side="right", out_int32=True), t.bucketize(v, s, right=True), t.bucketize(4.0, s),
                t.searchsorted(t.stack([s, s + 1]), v), t.searchsorted(t.tensor([5.0, 1, 3]), v, sorter=t.tensor([1, 2, 0])),
                t.isin(t.tensor([1, 2, 3]), t.tensor([2, 5])), t.isin(v, t.tensor([0.0, 9]), invert=True), t.isin(3, t.tensor([3])),
                t.searchsorted(large, large + 0.5).sum(), t.isin(large, large[:500]).sum(), t.searchsorted(s,
                                                                                                           t.tensor(float("nan")))]

    in_both(program)


def test_covariances_deviations_and_integrals() -> None:
    def program(t: Any) -> Any:
        x = t.arange(12.0).reshape(3, 4).sin().requires_grad_()
        f, a = t.tensor([1, 2, 3, 1]), t.tensor([0.1, 0.2, 0.3, 0.4])
        found = [*t.var_mean(x), *t.var_mean(x, 1), *t.std_mean(x, dim=0, keepdim=True), *t.var_mean(x, False),
                 *t.std_mean(x, 1, correction=0), t.cov(x), x.cov(correction=0), x[0].cov(), t.cov(x, fweights=f, aweights=a),
                 t.cov(x, aweights=a), t.cov(x, fweights=f), t.corrcoef(x), t.trapezoid(x), t.trapezoid(x, dx=2.0),
                 t.trapezoid(x, t.tensor([1.0, 3, 6, 7])), t.trapezoid(x, dim=0), t.cumulative_trapezoid(x), t.renorm(x, 2, 0, 1.2),
                 x.renorm(1, 1, 0.5)]
        return [found, [gradient(t, y, x) for y in found]]

    in_both(program, 2e-5)


@pytest.mark.parametrize("p", [2.0, 1.0, 3.0, float("inf"), 0.5])
def test_distances_between_rows(p: float) -> None:
    def program(t: Any) -> Any:
        a, b = t.arange(6.0).reshape(3, 2).sin().requires_grad_(), t.arange(60.0).reshape(30, 2).cos().requires_grad_()
        few, many, own = t.cdist(a, b[:4], p=p), t.cdist(a[None], b.expand(2, 30, 2), p), t.cdist(a, a, p)
        return [few, many, own, gradient(t, few, a, b), gradient(t, many, a, b), gradient(t, own, a)]

    in_both(program, 1e-4)


def test_refusals() -> None:
    def program(t: Any) -> Any:
        x = t.ones(2, 3)
        return [message(lambda: x.quantile(1.5)), message(lambda: t.tensor([1, 2]).quantile(0.5)), message(lambda: x.kthvalue(5)),
                message(lambda: x.quantile(t.tensor([2.0]))), message(lambda: t.ones(0, 3).median(0), IndexError),
                message(lambda: t.bincount(t.tensor([-1]))), message(lambda: t.bincount(t.tensor([1.0])), NotImplementedError),
                message(lambda: t.histc(x, 4, 3, 1)), message(lambda: t.cov(t.ones(2, 2, 2))), message(lambda: t.cdist(x,
                                                                                                                       t.ones(2,
                                                                                                                              2))),
                message(lambda: t.searchsorted(x, t.ones(3, 3))), message(lambda: t.searchsorted(x, x, side="x"))]

    in_both(program)


def test_what_depends_on_values_refuses_tracers() -> None:
    step = eager.jit(lambda x: x.unique())
    assert "unique() needs the value of a tensor that is being traced" in message(lambda: step(eager.ones(3)))


def test_numbers_are_operands() -> None:
    x = eager.arange(6.0)
    x.quantile(0.5), x.kthvalue(2), eager.renorm(x.reshape(2, 3), 2, 0, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dualrev.eager.core.evaluation.host_program", None)
        assert x.quantile(0.2).item() == pytest.approx(1.0) and x.kthvalue(5).values.item() == 4
        eager.renorm(x.reshape(2, 3), 2, 0, 3.0)
