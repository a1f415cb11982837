"""Backward passes as compiled programs: the numbers and errors of the node-by-node pass, and bounded caches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from against_torch import message

from dualrev import eager as torch
from dualrev.eager.compiled import backward_programs as programs
from dualrev.eager.core.caches import Table
from dualrev.eager.host import programs as host


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile operations, and a graph of up to 40 nodes when it comes for the second time."""
    monkeypatch.setattr(host, "LONGEST", 0.0)
    torch.clear_caches()
    monkeypatch.setattr(programs, "SEEN", 2)
    monkeypatch.setattr(programs, "_is_due", lambda key, n, is_due=programs._is_due: is_due(key, 0))
    monkeypatch.setattr(programs, "_programs", Table())
    monkeypatch.setattr(programs, "_seen", Table())
    yield
    torch.clear_caches()


def compiled() -> int:
    return sum(p is not None for p in programs._programs.values())


def shared(x: Any, w: Any) -> Any:
    a, b = torch.tanh(x @ w).chunk(2, 1)
    y = torch.nn.functional.layer_norm(a * b + a, (2,)) - x.norm()
    y *= w.sum()
    return (y.softmax(1) * x[:, :2]).sum()


def test_a_program_has_the_numbers_of_the_node_by_node_pass(soon: None) -> None:
    x = torch.tensor([[0.3, -1.0, 2.0, 0.7], [1.0, 0.2, -0.4, 0.9]], requires_grad=True)
    w = (torch.arange(16.0).reshape(4, 4) * 0.7).sin().requires_grad_()
    found = []
    for _ in range(4):
        x.grad = w.grad = None
        shared(x, w).backward()
        found.append((x.grad.tolist(), w.grad.tolist()))  # type: ignore[attr-defined]
        assert compiled() == (len(found) >= 2)
    assert found[0] == found[1] == found[2] == found[3]


def test_some_gradients_only(soon: None) -> None:
    x, w = torch.tensor([0.5, 2.0], requires_grad=True), torch.tensor([3.0, 1.0], requires_grad=True)
    for _ in range(4):
        h = x * w
        y = (h.sin() * x).sum()
        found: Any = torch.autograd.grad(y, (h, torch.ones(1, requires_grad=True), x), retain_graph=True, allow_unused=True)
        g, none, gx = found
        assert none is None
        np.testing.assert_allclose(g, x.detach() * h.detach().cos(), 1e-6)
        np.testing.assert_allclose(gx, (g * w + h.sin()).detach(), 1e-6)
        y.backward(inputs=[w])
        assert x.grad is None
    assert w.grad is not None
    np.testing.assert_allclose(w.grad, 4 * (x * x * h.cos()).detach(), 1e-6)
    assert compiled() == 2


def test_hooks_and_recorded_passes_visit_nodes_one_by_one(soon: None) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    seen: list[Any] = []

    def graph() -> tuple[Any, Any]:
        h = x.exp()
        return h, (h * x).sum()

    for _ in range(3):
        graph()[1].backward()
    assert compiled() == 1
    h, y = graph()
    h.retain_grad()
    y.backward()
    assert h.grad.tolist() == [1.0, 2.0]
    h, y = graph()
    h.register_hook(lambda g: seen.append(g.tolist()))
    y.backward()
    assert seen == [[1.0, 2.0]]
    handle = x.register_hook(lambda g: g * 0)
    x.grad = None
    graph()[1].backward()
    assert x.grad.tolist() == [0.0, 0.0]  # type: ignore[attr-defined]
    handle.remove()
    h, y = graph()
    again: Any = torch.autograd.grad(y, x, create_graph=True)
    assert again[0].requires_grad
    kept: list[Any] = []

    def keep(t: Any) -> int:
        kept.append(t)
        return len(kept) - 1

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda k: kept[k] * 0):
        y = graph()[1]
    x.grad = None
    y.backward()
    assert x.grad.tolist() == [0.0, 0.0]  # type: ignore[attr-defined]
    with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match=r"SumBackward0.*nan"):
        graph()[1].backward(torch.tensor(float("nan")))


def test_errors_are_those_of_the_node_by_node_pass(soon: None) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(3):
        h = x.exp()
        y = (h * x).sum()
        y.backward(retain_graph=True)
        y.backward()
        with pytest.raises(RuntimeError, match=r"ExpBackward0|MulBackward0.*freed by the backward at .*test_replaying.py"):
            y.backward()
        h = x.exp()
        y = (h * x).sum()
        h.zero_()
        assert "modified by an inplace operation" in message(y.backward)
    assert compiled() == 1
    assert x.grad.tolist() == pytest.approx((6 * (1 + x.detach()) * x.detach().exp()).tolist())  # type: ignore[union-attr]


def test_nothing_is_kept_without_a_bound(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_programs", Table(2))
    monkeypatch.setattr(programs, "_seen", Table(3))
    x = torch.tensor(1.5, requires_grad=True)
    for n in range(1, 6):
        for _ in range(1 + n % 2):
            y = x
            for _ in range(n):
                y = y * x
            y.backward()
            assert len(programs._seen) <= 3 and len(programs._programs) <= 2
    assert compiled() == 2


def test_large_graphs_are_visited_node_by_node(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "BYTES", 10)
    x = torch.ones(4, requires_grad=True)
    for _ in range(3):
        (x * x).sum().backward()
    assert list(programs._programs.values()) == [None]
    monkeypatch.setattr(programs, "NODES", 1)
    for _ in range(3):
        (x * x * x).sum().backward()
    assert len(programs._programs) == 1 and x.grad is not None and x.grad.tolist() == [15.0] * 4


def test_importing_changes_no_setting() -> None:
    program = ("import jax; before = dict(jax.config.values); from dualrev import eager as torch; "
               "(torch.ones(3, requires_grad=True).double() ** 2).sum().backward(); assert dict(jax.config.values) == before")
    subprocess.run([sys.executable, "-c", program], check=True)


SAVING: dict[str, tuple[Any, int]] = dict(
    batch_norm=(lambda t, x: t.nn.functional.batch_norm(x, None, None, t.ones(6, requires_grad=True), t.zeros(6), True), 192 + 3 * 6),
    layer_norm=(lambda t, x: t.nn.functional.layer_norm(x, (8,), t.ones(8, requires_grad=True), t.zeros(8)), 192 + 2 * 4 * 6 + 8),
    softmax=(lambda t, x: x.softmax(-1), 192), log_softmax=(lambda t, x: x.log_softmax(-1), 192),
    convolution=(lambda t, x: t.nn.functional.conv1d(x, t.ones(6, 6, 3, requires_grad=True), None, 1, 1), 192 + 6 * 6 * 3),
)


@pytest.mark.parametrize("name", SAVING)
def test_what_layers_save(name: str) -> None:
    """At most PyTorch's: the input with mean and 1 / deviation for each mean that is taken, the weight; or the result."""
    make, entries = SAVING[name]
    x = (torch.arange(4.0 * 6 * 8).reshape(4, 6, 8) * 0.7).sin().requires_grad_()
    y = make(torch, x)
    assert sum(a.nbytes for a in y.grad_fn.saved) <= 4 * entries
