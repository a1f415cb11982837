"""Compiled steps: the state that they read and write, and when they are traced again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualrev import eager as torch
from dualrev._jax.traces import Tracer


def model() -> tuple[Any, Any]:
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    return w, torch.optim.SGD([w], lr=0.1, momentum=0.9)


def test_the_first_call_traces_and_python_runs_once() -> None:
    results = []
    for compiled in (False, True):
        w, optimizer = model()
        runs: list[bool] = []

        def step(x: Any, w: Any = w, optimizer: Any = optimizer, runs: Any = runs) -> Any:
            optimizer.zero_grad()
            loss = ((w * x - 6) ** 2).sum()
            runs.append(isinstance(loss.jax, Tracer))
            loss.backward()
            optimizer.step()
            return loss

        run = torch.jit(step) if compiled else step
        losses = [run(torch.tensor([2.0, 1.0])).item() for _ in range(4)]
        optimizer.param_groups[0]["lr"] = 0
        losses.append(run(torch.tensor([2.0, 1.0])).item())
        results.append((losses, w.tolist(), w.grad.tolist(), optimizer.state[w]["momentum_buffer"].tolist()))
        assert runs == ([True] if compiled else [False] * 5)
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, 1e-6)


def test_state_is_given_to_the_program_to_reuse() -> None:
    w = torch.ones(1000)

    @torch.jit
    def step() -> None:
        w.mul_(2)

    step()
    place = w.jax.unsafe_buffer_pointer()
    step()
    assert w.jax.unsafe_buffer_pointer() == place
    kept, before = w.detach(), w.jax
    step()
    assert before[0] == 4 and w[0].item() == kept[0].item() == 8


def test_gradients_from_outside() -> None:
    w = torch.ones(2, requires_grad=True)
    runs = []

    @torch.jit
    def accumulate(x: Any) -> Any:
        runs.append(w.grad is None)
        (w * x).sum().backward()

    for k in range(1, 4):
        accumulate(torch.ones(2))
        assert w.grad.tolist() == [k, k]
    assert runs == [True, False]
    w.grad = torch.full((2,), 5.0)
    accumulate(torch.ones(2))
    assert w.grad.tolist() == [6, 6]
    w.grad = None
    accumulate(torch.ones(2))
    assert w.grad.tolist() == [1, 1] and runs == [True, False]
    first = w.grad
    w.grad = None
    accumulate(torch.ones(2) * 3)
    assert first.tolist() == [1, 1] and w.grad.tolist() == [3, 3]


def test_it_is_traced_anew_where_tensors_from_outside_differ() -> None:
    w, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    runs = []

    @torch.jit
    def step(scale: Any) -> Any:
        runs.append(1)
        w.grad = b.grad = None
        (w * b * scale).sum().backward()
        return w * b

    assert step(1).tolist() == step(1).tolist() == [1, 1] and len(runs) == 1
    w.data = torch.full((2,), 3.0)
    assert step(1).tolist() == [3, 3] and len(runs) == 2
    b.requires_grad_(False)
    step(1)
    assert b.grad is None and w.grad.tolist() == [1, 1] and len(runs) == 3
    step(2)
    assert w.grad.tolist() == [2, 2] and len(runs) == 4
    step(2)
    assert len(runs) == 4


def test_what_the_step_keeps_has_values() -> None:
    w = torch.ones(2)
    log: list[Any] = []
    memory: dict[str, Any] = {}

    @torch.jit
    def step(x: Any) -> None:
        if "h" not in memory:
            memory["h"] = w * 0
        y = memory["h"].add_(w * x)
        log[:] = [y.sum()]

    for k in range(4):
        step(torch.full((2,), 1.0 + k))
        assert log[0].item() == memory["h"].sum().item() == (k + 1) * (k + 2)


def test_what_no_program_can_put_in_place_is_refused() -> None:
    memory = {"h": torch.ones(2)}

    @torch.jit
    def step() -> None:
        memory["h"] = memory["h"] * 2

    step()
    assert memory["h"].tolist() == [2, 2]
    with pytest.raises(RuntimeError, match=r"leaves a new one outside\nmade at .*test_jit.py:\d+"):
        step()


def test_arguments_are_changed_in_place_and_get_gradients() -> None:
    @torch.jit
    def step(x: Any, y: Any) -> Any:
        y.add_(1)
        (x * x * y.sum()).sum().backward()

    x, y = torch.ones(2, requires_grad=True), torch.zeros(2)
    step(x, y)
    step(x, y)
    assert y.tolist() == [2, 2] and x.grad.tolist() == [12, 12]


def test_a_step_that_fails_changes_nothing() -> None:
    w, optimizer = model()

    @torch.jit
    def step() -> Any:
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
        return float(w.sum())

    with pytest.raises(RuntimeError, match=r"a Python number needs the value of a tensor that is being traced, at .*test_jit.py:\d+"):
        step()
    assert w.tolist() == [1, -2] and w.grad is None
    (w * w).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(w.tolist(), [0.8, -1.6], 1e-6)


def test_random_numbers_and_bounds() -> None:
    draws = []
    for compiled in (False, True):
        torch.manual_seed(3)
        run = torch.jit(lambda: torch.rand(2)) if compiled else lambda: torch.rand(2)
        draws.append([run().tolist() for _ in range(3)])
    assert draws[0] == draws[1] and draws[0][0] != draws[0][1]


# ------------------------------------------------------------------------------------------ what Python would decide otherwise

SCALE = 2.0


def test_what_python_reads_is_noticed_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor, self.inner = 1.0, torch.nn.Dropout(0.0)
            self.w = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: Any) -> Any:
            return self.inner(x * self.factor * self.w + (0 if self.training else 100))

    model, power = Scaled(), 1
    step = torch.jit(lambda x: model(x) ** power * SCALE)
    x = torch.ones(1)
    assert step(x).item() == 2
    model.factor = 3.0
    assert step(x).item() == 6
    model.eval()
    assert step(x).item() == 206
    model.train()
    assert step(x).item() == 6
    power = 2
    assert step(x).item() == 18
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    assert step(x).item() == 9
    model.w = torch.nn.Parameter(torch.zeros(1))
    assert step(x).item() == 0
    handle = model.inner.register_forward_hook(lambda module, args, out: out + 5)
    assert step(x).item() == 25
    handle.remove()
    assert step(x).item() == 0


def test_hooks_and_settings_that_are_changed_later() -> None:
    w = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([w], 0.1)

    def train() -> None:
        optimizer.zero_grad()
        (w * 3).sum().backward()
        optimizer.step()

    def run(train: Any) -> Any:
        with torch.no_grad():
            w.fill_(1.0)
        optimizer.state.clear()
        optimizer.param_groups[0]["betas"] = (0.9, 0.999)
        train()
        optimizer.param_groups[0]["betas"] = (0.0, 0.5)
        handle = w.register_hook(lambda g: g * torch.tensor([1.0, -7.0]))
        train()
        handle.remove()
        train()
        return w.tolist()

    assert run(torch.jit(train)) == pytest.approx(run(train))


def test_numbers_are_seeded_again() -> None:
    step = torch.jit(lambda: torch.rand(2))
    torch.manual_seed(3)
    a = [torch.rand(2).tolist(), torch.rand(2).tolist()]
    for _ in range(2):
        torch.manual_seed(3)
        assert [step().tolist(), step().tolist()] == a


def test_arguments_that_are_more_than_values() -> None:
    b = torch.ones(2)
    twice = torch.jit(lambda x, y: (x.mul_(2), y * 1)[1])
    assert twice(b, b).tolist() == b.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="shares its values with another argument"):
        twice(b, b.detach())
    with pytest.raises(RuntimeError, match="takes from outside"):
        torch.jit(lambda x: (x.mul_(2), b * 1)[1])(b)
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="MulBackward0 computed outside"):
        torch.jit(lambda h: h.sum().backward())(w * 3)
    assert twice(torch.ones(1), torch.ones(1)).item() == 1
    assert torch.jit(lambda x: (x * 2).jax)(torch.ones(1)).tolist() == [2.0]
    zeros = torch.jit(lambda x, k: x * k)
    assert [str(zeros(torch.ones(1), k).item()) for k in (0.0, -0.0)] == ["0.0", "-0.0"]


def test_what_a_step_may_not_change() -> None:
    w = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], 0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)

    class Counting(torch.nn.Module):
        calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return x * self.calls

    def decay() -> None:
        w.grad = torch.ones(1)
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.5

    with pytest.raises(RuntimeError, match="inside a compiled step"):
        torch.jit(scheduler.step)()
    with pytest.raises(RuntimeError, match=r"changes the setting 'lr' of an optimizer, from 0\.5 to 0\.25"):
        torch.jit(decay)()
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert w.item() == 1
    step = torch.jit(Counting())
    assert step(w).item() == 1
    with pytest.raises(RuntimeError, match="changes 'calls' of the module Counting"):
        step(w)
    with pytest.raises(RuntimeError, match="mask needs the value"):
        torch.jit(lambda x: x[x > 0])(w)


def test_gradients_that_somebody_keeps() -> None:
    w = torch.ones(2, requires_grad=True)
    kept: list[Any] = []
    optimizer = torch.optim.SGD([w], 1.0, momentum=0.5)

    @torch.jit
    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).sum().backward()

    for k in range(4):
        step(torch.ones(2) * k)
        kept.append((w.grad, w.grad.detach(), w.grad.jax, w.grad[:1])[k])
    step(torch.ones(2) * 9)
    step(torch.ones(2) * 10)
    assert [np.asarray(x).tolist() for x in kept] == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0]]
    assert w.grad.tolist() == [10.0, 10.0]
    alone = torch.jit(optimizer.step)  # which reads parameters for the first time
    alone()
    alone()
    assert w.tolist() == [-24.0, -24.0]
