"""Training: optimizers, layers, losses, modules, compiled steps; matrix calculus, and the cost of the modes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_torch import fill, in_both, message

import dualrev
from dualrev import eager as torch
from dualrev.problems import PROBLEMS
from dualrev.report.measure import flatten, measure

pytestmark = pytest.mark.thorough

OPTIMIZERS: dict[str, Callable[[Any, Any], Any]] = dict(
    sgd=lambda t, p: t.optim.SGD(p, lr=0.01),
    sgd_momentum=lambda t, p: t.optim.SGD(p, lr=0.003, momentum=0.9, dampening=0.1, weight_decay=0.01),
    nesterov=lambda t, p: t.optim.SGD(p, lr=0.003, momentum=0.9, nesterov=True),
    adam=lambda t, p: t.optim.Adam(p, lr=0.01, weight_decay=0.1),
    ascent=lambda t, p: t.optim.Adam(p, lr=0.01, maximize=True),
    adamw=lambda t, p: t.optim.AdamW(p, lr=0.01),
    amsgrad=lambda t, p: t.optim.Adam(p, lr=0.01, amsgrad=True),
    rmsprop=lambda t, p: t.optim.RMSprop(p, momentum=0.5, weight_decay=0.1),
    centered=lambda t, p: t.optim.RMSprop(p, centered=True),
    adagrad=lambda t, p: t.optim.Adagrad(p, lr=0.1, lr_decay=0.01),
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trajectories_are_those_of_pytorch(name: str) -> None:
    def program(t: Any) -> list[Any]:
        x = t.tensor([1.0, 2.0, 3.0, 4.0], dtype=t.float64)
        w, b = t.tensor([1.0], dtype=t.float64, requires_grad=True), t.tensor([0.0], dtype=t.float64, requires_grad=True)
        optimizer = OPTIMIZERS[name](t, [w, b])
        schedule = t.optim.lr_scheduler.StepLR(optimizer, 30, 0.5)
        losses = []
        for _ in range(100):
            optimizer.zero_grad()
            loss = ((w * x + b - (2 * x + 1)) ** 2).sum()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        return [*losses, w, b, schedule.get_last_lr()]

    in_both(program)


def test_optimizers_have_groups_closures_and_state() -> None:
    def program(t: Any) -> list[Any]:
        a, b = t.ones(2, requires_grad=True), t.ones(2, requires_grad=True)
        optimizer = t.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1, momentum=0.9)

        def closure() -> Any:
            optimizer.zero_grad()
            loss = (a * b).sum()
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        state = optimizer.state_dict()
        optimizer = t.optim.SGD([{"params": [a]}, {"params": [b]}], lr=1.0, momentum=0.9)
        optimizer.load_state_dict(state)
        optimizer.step(closure)
        rates = []
        for make in (lambda o: t.optim.lr_scheduler.ExponentialLR(o, 0.5),
                     lambda o: t.optim.lr_scheduler.CosineAnnealingLR(o, 4, 0.01)):
            other = t.optim.SGD([a], lr=0.1)
            schedule = make(other)
            for _ in range(5):
                rates.append(schedule.get_last_lr()[0])
                other.step()
                schedule.step()
        return [loss, a, b, rates, [g["lr"] for g in optimizer.param_groups], message(lambda: t.optim.SGD([], lr=0.1), ValueError),
                message(lambda: t.optim.SGD([a], lr=-1.0), ValueError)]

    in_both(program)


#: A layer, and the shape of its input.
LAYERS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = dict(
    linear=(lambda nn: nn.Linear(3, 4), (2, 3)),
    conv=(lambda nn: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (1, 2, 5, 6)),
    dilated=(lambda nn: nn.Conv2d(2, 3, (1, 3), dilation=2, bias=False), (2, 2, 4, 7)),
    conv1d=(lambda nn: nn.Conv1d(2, 3, 2), (2, 2, 5)),
    batch_norm=(lambda nn: nn.BatchNorm2d(3), (2, 3, 2, 2)),
    layer_norm=(lambda nn: nn.LayerNorm(4), (2, 3, 4)),
    max_pool=(lambda nn: nn.MaxPool2d(3, 2, 1), (1, 2, 7, 7)),
    avg_pool=(lambda nn: nn.AvgPool2d(2), (1, 2, 4, 4)),
    adaptive=(lambda nn: nn.AdaptiveAvgPool2d((2, 3)), (1, 2, 5, 7)),
    gelu=(lambda nn: nn.GELU(), (3,)),
    tanh=(lambda nn: nn.Tanh(), (3,)),
    softmax=(lambda nn: nn.Softmax(dim=-1), (2, 3)),
    elu=(lambda nn: nn.ELU(), (5,)),
    leaky=(lambda nn: nn.LeakyReLU(0.2), (5,)),
    silu=(lambda nn: nn.SiLU(), (5,)),
    flat=(lambda nn: nn.Sequential(nn.Flatten(), nn.Linear(6, 2), nn.ReLU()), (2, 2, 3)),
)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    make, shape = LAYERS[name]

    def program(t: Any) -> list[Any]:
        model = fill(t, make(t.nn))
        x = ((t.arange(float(np.prod(shape))).reshape(shape) * 0.71).sin() * 2).requires_grad_()
        y = model(x)
        (y * y.detach().cos()).sum().backward()
        state = model.state_dict()
        return [y, x.grad, [p.grad for p in model.parameters()], list(state), list(state.values()), model.eval()(x)]

    in_both(program, 2e-5)


def test_losses() -> None:
    def program(t: Any) -> list[Any]:
        nn = t.nn
        x = t.tensor([[0.2, -1.0, 2.0], [0.5, 0.1, -0.3]], requires_grad=True)
        y = t.tensor([[0.0, 1.0, 2.0], [0.5, 0.9, 0.3]])
        classes = t.tensor([2, 0])
        weight = t.tensor([1.0, 2.0, 0.5])
        losses = [nn.MSELoss()(x, y), nn.L1Loss(reduction="sum")(x, y), nn.SmoothL1Loss()(x, y), nn.HuberLoss(delta=0.3)(x, y),
                  nn.CrossEntropyLoss()(x, classes), nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1)(x, classes),
                  nn.CrossEntropyLoss(ignore_index=0, reduction="sum")(x, classes), nn.CrossEntropyLoss()(x, y.softmax(1)),
                  nn.NLLLoss()(x.log_softmax(1), classes), nn.BCEWithLogitsLoss(pos_weight=weight)(x, y.clamp(max=1)),
                  nn.BCELoss()(x.sigmoid(), y.clamp(max=1)), nn.KLDivLoss(reduction="batchmean")(x.log_softmax(1), y.softmax(1))]
        grads = [t.autograd.grad(loss, x)[0] for loss in losses]
        return [*losses, *grads]

    in_both(program)


def test_modules_and_their_state() -> None:
    def program(t: Any) -> list[Any]:
        class Net(t.nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.layers = t.nn.ModuleList([t.nn.Linear(2, 2) for _ in range(2)])
                self.scale = t.nn.Parameter(t.ones(1))
                self.table = t.nn.Embedding(4, 2, padding_idx=0)
                self.register_buffer("count", t.zeros(1))
                self.drop = t.nn.Dropout(0.5)

            def forward(self, i: Any) -> Any:
                x = self.table(i)
                for layer in self.layers:
                    x = t.relu(layer(x))
                return self.drop(x * self.scale)

        net = fill(t, Net())
        copy = Net()
        loaded = copy.load_state_dict(net.state_dict())
        net.eval()
        copy.eval()
        i = t.tensor([[0, 1], [3, 3]])
        net(i).sum().backward()
        names = [n for n, _ in net.named_parameters()]
        text = message(lambda: copy.load_state_dict({"scale": t.ones(1)}))
        grads = [p.grad for p in net.parameters()]
        net.zero_grad()
        return [net(i), copy(i), names, len(list(net.modules())), repr(net), grads, [p.grad for p in net.parameters()], text,
                net.training, len(loaded[0]), [n for n, _ in net.named_buffers()]]

    in_both(program)


def test_a_compiled_step_has_the_same_numbers() -> None:
    def losses(compiled: bool) -> tuple[list[float], list[Any]]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2),
                                    torch.nn.Linear(8, 1)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = torch.jit(step) if compiled else step
        x = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
        found = []
        for _ in range(6):
            found.append(run(x, x.sum(1, keepdim=True)).item())
            schedule.step()
        return found, [v.tolist() for v in model.state_dict().values()] + [p.grad.tolist() for p in model.parameters()]

    (a, state_a), (b, state_b) = losses(False), losses(True)
    np.testing.assert_allclose(a, b, 1e-9)
    for x, y in zip(state_a, state_b, strict=True):
        np.testing.assert_allclose(x, y, 1e-7, 1e-9)


def test_a_compiled_step_accumulates_and_reads_no_values() -> None:
    w = torch.ones(2, requires_grad=True)

    @torch.jit
    def accumulate(x: Any) -> Any:
        (w * x).sum().backward()
        return w.grad * 1

    for k in range(1, 5):
        assert accumulate(torch.ones(2)).tolist() == w.grad.tolist() == [k, k]

    @torch.jit
    def branches(x: Any) -> Any:
        return x if x.sum() > 0 else -x

    with pytest.raises(RuntimeError, match=r"being traced, at .*test_training.py:\d+"):
        branches(torch.ones(2))


def test_gradients_of_a_linear_model() -> None:
    def program(t: Any) -> list[Any]:
        w, b = t.tensor([1.0, 1.0, 1.0], requires_grad=True), t.tensor(0.0, requires_grad=True)
        loss = (w.dot(t.tensor([2.0, 1.0, 3.0])) + b - 9) ** 2 / 2
        loss.backward()
        return [w.grad, b.grad]

    assert [g.tolist() for g in in_both(program)] == [[-6, -3, -9], -3]


def test_what_the_modes_cost_is_counted() -> None:
    """For n inputs n pushes that leave nothing behind, or one pull from a tape: as ``python -m dualrev`` shows it."""
    problem = next(p for p in PROBLEMS if p.name == "linear model")
    inputs = problem.make_inputs()
    row = measure("linear model", flatten(problem.function, (inputs,), {}))
    assert (row.inputs, row.outputs, row.forward.passes, row.reverse.passes, row.agrees) == (4, 1, 4, 1, True)
    assert row.value == 4.5 and row.tape_bytes > 0

    def left_behind(call: Callable[[], Any]) -> int:
        """Bytes of the arrays that a call leaves alive beside the numbers that it is asked for."""
        gc.collect()
        before = {id(x) for x in jax.live_arrays()}
        held = call()
        gc.collect()
        numbers = {id(x) for x in jax.tree.leaves(held[0] if callable(held[1]) else held)}
        return sum(x.nbytes for x in jax.live_arrays() if id(x) not in before and id(x) not in numbers)

    ones = jax.tree.map(jnp.ones_like, inputs)
    calls = (lambda: dualrev.jvp(problem.function, (inputs,), (ones,)), lambda: dualrev.vjp(problem.function, inputs))
    for call in calls:
        call()  # what is made once and kept for all calls
    assert left_behind(calls[0]) == 0 < left_behind(calls[1])


def test_matrix_calculus() -> None:
    def program(t: Any) -> list[Any]:
        x = t.arange(4.0).requires_grad_()
        X, y = t.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]), t.tensor([1.0, 0.0, 2.0])
        w = t.tensor([0.5, -1.0], requires_grad=True)
        results = [t.autograd.grad(f(x), x)[0] for f in (lambda x: 2 * t.dot(x, x), lambda x: x.sum(), lambda x: (x * x).sum())]
        g, = t.autograd.grad(((X @ w - y) ** 2).sum(), w)
        assert t.allclose(g, 2 * X.T @ (X @ w - y).detach())
        return [*results, g]

    in_both(program)


def test_tensor_functions_are_functions_for_jax_and_dualrev() -> None:
    def f(x: Any) -> Any:
        return (torch.Tensor(x).sin() ** 2).sum().jax

    def g(x: Any) -> Any:
        t: Any = torch.Tensor(x).requires_grad_()
        (t ** 3).sum().backward()
        return t.grad.jax

    x = jnp.arange(3.0)
    np.testing.assert_allclose(jax.jit(f)(x), f(x))
    np.testing.assert_allclose(dualrev.grad(f)(x), np.sin(2 * np.arange(3.0)), 1e-6)
    np.testing.assert_allclose(jax.vmap(g)(jnp.stack([x, x])), [3 * x ** 2] * 2)
    np.testing.assert_allclose(dualrev.jacobian(g)(x), np.diag(6 * np.arange(3.0)))


def test_convolutions_with_few_places() -> None:
    def program(t: Any) -> list[Any]:
        x = (t.arange(2.0 * 3 * 4 * 3).reshape(2, 3, 4, 3) * 0.7).sin().requires_grad_()
        w, b = (t.arange(36.0 * 3).reshape(4, 3, 3, 3) * 0.4).cos().requires_grad_(), t.ones(4, requires_grad=True)
        results = []
        for settings in (dict(padding=1), dict(stride=2, padding=(2, 1)), dict(dilation=(1, 2), padding=2, bias=None)):
            y = t.nn.functional.conv2d(x, w, **dict(dict(bias=b), **settings))
            first, = t.autograd.grad((y * y.detach().cos()).sum(), x, create_graph=True)
            results += [y, first, *t.autograd.grad((first ** 2).sum(), w)]
        return results

    in_both(program, 2e-5)
