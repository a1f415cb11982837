"""Operations: what they save, what is compiled once, and the caches."""

from __future__ import annotations

from typing import Any

import pytest

from dualrev import eager as torch
from dualrev.eager.core import operation
from dualrev.eager.core.caches import BOUND, PROGRAM, Table, caches
from dualrev.eager.graph.tensor import array_of
from dualrev.eager.ops.binary import OPS


def saved(t: Any) -> list[Any]:
    return [x for x in t.grad_fn.saved if getattr(x, "ndim", 0)]


def test_residuals_that_are_inputs_or_the_output_are_not_copied() -> None:
    x, y = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    product, power = x * y, x.exp()
    assert {id(a) for a in saved(product)} == {id(array_of(x)), id(array_of(y))}
    assert [a is array_of(power) for a in saved(power)] == [True]
    for linear in (x + y, x.sum(), x.view(3, 1), x[1:], -x, torch.cat([x, y])):
        assert saved(linear) == []
    assert len(saved(x * torch.ones(3))) == 1  # only what the gradient of x reads


def test_relu_saves_a_mask_and_gelu_its_input() -> None:
    x = torch.ones(3, requires_grad=True)
    assert [a.dtype.name for a in saved(x.relu())] == ["bool"] and x.relu().grad_fn.inputs is None  # type: ignore[union-attr]
    assert [a is array_of(x) for a in saved(torch.nn.functional.gelu(x))] == [True]


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
    for k in range(BOUND + 50):
        make(k)
    assert make.cache_info().currsize == BOUND  # type: ignore[attr-defined]


def programs_of(name: str) -> int:
    """How many programs of an operation are kept."""
    op = OPS[name]
    return len(op.plain._found) + sum(len(found.kept) for found in op._graded.values())


def test_what_python_puts_in_is_no_new_program() -> None:
    x = torch.ones(3, requires_grad=True)
    (x * 1.0).sum().backward()
    before = programs_of("mul")
    for k in range(20):
        (x * (k + 0.5)).sum().backward()
    assert programs_of("mul") == before


def test_a_full_table_forgets_its_oldest_entry() -> None:
    table = Table(2)
    for k in range(4):
        assert table.keep(k, -k) == -k
    assert list(table) == [2, 3]
    table.keep(2, 5)
    assert table == {2: 5, 3: -3}


def test_one_call_empties_all_caches() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.5, momentum=0.9)
    cube = torch.lift(lambda x: x ** 3, name="Cube")

    @torch.jit
    def step(x: Any) -> Any:
        return (x * 3).cumsum(0)

    def work() -> list[Any]:
        w.grad = None
        (cube(w) * 1.5 + w.view(2, 1)[:, 0].clamp(0, 9)).sum().backward()
        torch.manual_seed(0)
        return [w.grad.tolist(), step(torch.ones(3)).tolist(), torch.rand(2).tolist()]  # type: ignore[attr-defined]

    first = work()
    optimizer.step()
    mul = OPS["mul"]
    assert programs_of("mul") > 0
    torch.clear_caches()
    assert mul._graded == {} and programs_of("mul") == 0
    assert all(len(c) == 0 for c in caches._caches.values() if isinstance(c, Table))
    assert all(c.cache_info().currsize == 0 for c in caches._caches.values() if hasattr(c, "cache_info"))
    assert all(c._cache_size() == 0 for c in caches._compiled.values())
    before = w.tolist()
    optimizer.step()
    assert w.tolist() != before
    with torch.no_grad():
        w.copy_(torch.tensor([1.0, 2.0]))
    assert work() == first
    assert 1 < PROGRAM < BOUND
