"""How operations run: what they save, what is compiled, and once only."""

from __future__ import annotations

from typing import Any

import pytest

from dualrev import eager as torch
from dualrev.eager import operation


def saved(t: Any) -> list[Any]:
    return [x for x in t.grad_fn.saved if getattr(x, "ndim", 0)]


def test_residuals_that_are_inputs_or_the_output_are_not_copied() -> None:
    x, y = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    product, power = x * y, x.exp()
    assert {id(a) for a in saved(product)} == {id(x.jax), id(y.jax)}
    assert [a is power.jax for a in saved(power)] == [True]
    for linear in (x + y, x.sum(), x.view(3, 1), x[1:], -x, torch.cat([x, y])):
        assert saved(linear) == []
    assert len(saved(x * torch.ones(3))) == 1  # only what the gradient of x reads


def test_relu_saves_a_mask_and_gelu_its_input() -> None:
    x = torch.ones(3, requires_grad=True)
    assert [a.dtype.name for a in saved(x.relu())] == ["bool"] and x.relu().grad_fn.inputs is None
    assert [a is x.jax for a in saved(torch.nn.functional.gelu(x))] == [True]


def test_a_derivative_is_traced_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    start = operation.Record.__init__

    def count(self: Any, *args: Any) -> None:
        made.append(self)
        start(self, *args)

    monkeypatch.setattr(operation.Record, "__init__", count)
    x = torch.ones(7, 3, requires_grad=True)
    for _ in range(3):
        x.grad = None
        (x.cos() * 3).sum(dim=1).sum().backward()
    assert len(made) <= 4
    torch.ones(7, 4, requires_grad=True).cos()
    assert len(made) <= 5


def test_the_caches_are_bounded() -> None:
    make = operation.family("Scale", lambda x, k: k * x)
    for k in range(operation.KEPT + 50):
        make(k)
    assert make.cache_info().currsize == operation.KEPT  # type: ignore[attr-defined]


def test_what_python_puts_in_is_no_new_program() -> None:
    x = torch.ones(3, requires_grad=True)
    (x * 1.0).sum().backward()
    before = torch.pointwise.OPS["mul"].graded(1)._cache_size()  # type: ignore[attr-defined]
    for k in range(20):
        (x * (k + 0.5)).sum().backward()
    assert torch.pointwise.OPS["mul"].graded(1)._cache_size() == before  # type: ignore[attr-defined]
