"""Optimizers and schedules of their rates follow PyTorch's trajectories; averages of models."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from against_torch import fill, in_both, message

from dualrev import eager as torch

OPTIMIZERS: dict[str, Callable[[Any, Any], Any]] = dict(
    adadelta=lambda t, p: t.optim.Adadelta(p, weight_decay=0.3, foreach=False),
    adamax=lambda t, p: t.optim.Adamax(p, lr=0.02, weight_decay=0.1),
    nadam=lambda t, p: t.optim.NAdam(p, lr=0.02, weight_decay=0.1, capturable=False),
    nadam_decoupled=lambda t, p: t.optim.NAdam(p, lr=0.02, weight_decay=0.1, decoupled_weight_decay=True),
    radam=lambda t, p: t.optim.RAdam(p, lr=0.02, weight_decay=0.1),
    radam_decoupled=lambda t, p: t.optim.RAdam(p, lr=0.02, weight_decay=0.1, decoupled_weight_decay=True, maximize=True),
    asgd=lambda t, p: t.optim.ASGD(p, t0=5),
    rprop=lambda t, p: t.optim.Rprop(p),
)


def _loss(t: Any, w: Any) -> Any:
    return ((w * t.tensor([1.0, 2.0, 0.5]) - 1) ** 2).sum() + w.sin().sum()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trajectories_are_those_of_pytorch(name: str) -> None:
    def program(t: Any) -> list[Any]:
        w = t.tensor([1.0, -2.0, 3.0], requires_grad=True)
        optimizer = OPTIMIZERS[name](t, [w])
        found = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = _loss(t, w)
            loss.backward()
            optimizer.step()
            found.append(loss)
        return [found, w, sorted(optimizer.state[w])]

    in_both(program)


def test_a_compiled_step_updates_as_one_that_is_not() -> None:
    for make in OPTIMIZERS.values():
        results = []
        for wrap in (lambda f: f, torch.jit):
            w = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
            optimizer = make(torch, [w])

            def step(w: Any = w, optimizer: Any = optimizer) -> None:
                optimizer.zero_grad()
                _loss(torch, w).backward()
                optimizer.step()

            run = wrap(step)
            for _ in range(3):
                run()
            results.append(w)
        assert torch.allclose(results[0], results[1], rtol=1e-5)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_follows_pytorch_and_goes_on_from_a_state(search: str | None) -> None:
    def program(t: Any) -> list[Any]:
        x, b = t.tensor([-1.5, 2.0], dtype=t.float64, requires_grad=True), t.zeros((), dtype=t.float64, requires_grad=True)

        def make() -> Any:
            return t.optim.LBFGS([x, b], lr=0.5 if search is None else 1, line_search_fn=search, history_size=3, max_iter=5)

        optimizer = make()

        def closure() -> Any:
            optimizer.zero_grad()
            loss = (1 - x[0]) ** 2 + 3 * (x[1] - x[0] ** 2) ** 2 + (b - x[0]) ** 4
            loss.backward()
            return loss

        found: list[Any] = []
        for k in range(5):
            if k == 2:
                state = optimizer.state_dict()
                optimizer = make()
                optimizer.load_state_dict(copy.deepcopy(state))
            found += [optimizer.step(closure), x.detach().clone(), b.detach().clone()]
        return [*found, optimizer.state[x]["func_evals"], optimizer.state[x]["n_iter"]]

    in_both(program)


def test_lbfgs_refuses_what_pytorch_refuses() -> None:
    def program(t: Any) -> list[str]:
        def leaf() -> Any:
            return t.ones(1, requires_grad=True)

        def wrong() -> None:
            w = leaf()
            optimizer = t.optim.LBFGS([w], line_search_fn="other")

            def closure() -> Any:
                optimizer.zero_grad()
                loss = (w * 2).sum()
                loss.backward()
                return loss

            optimizer.step(closure)

        return [message(lambda: t.optim.LBFGS([{"params": [leaf()]}, {"params": [leaf()]}]), ValueError), message(wrong),
                message(lambda: t.optim.Rprop([leaf()], etas=(1.5, 2.0)), ValueError),
                message(lambda: t.optim.NAdam([leaf()], betas=(0.9, 1.0)), ValueError),
                message(lambda: t.optim.Adadelta([leaf()], rho=2.0), ValueError)]

    in_both(program)


def test_hooks_of_steps_and_names_of_parameters() -> None:
    def program(t: Any) -> list[Any]:
        model = fill(t, t.nn.Linear(2, 1))
        optimizer = t.optim.SGD(model.named_parameters(), lr=0.1)
        seen: list[str] = []
        before = optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
        optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("after"))
        model(t.ones(1, 2)).sum().backward()
        optimizer.step()
        before.remove()
        optimizer.step()
        return [seen, optimizer.param_groups[0]["param_names"], model.weight]

    in_both(program)


# ----------------------------------------------------------------------------------------------------------------- schedules

SCHEDULES: dict[str, Callable[[Any, Any], Any]] = dict(
    step=lambda s, o: s.StepLR(o, 3),
    multi_step=lambda s, o: s.MultiStepLR(o, [2, 2, 5]),
    constant=lambda s, o: s.ConstantLR(o),
    linear=lambda s, o: s.LinearLR(o, total_iters=4),
    exponential=lambda s, o: s.ExponentialLR(o, 0.9),
    polynomial=lambda s, o: s.PolynomialLR(o, 4, 2.0),
    cosine=lambda s, o: s.CosineAnnealingLR(o, 4, 0.01),
    by_function=lambda s, o: s.LambdaLR(o, lambda e: 0.9 ** e),
    by_functions=lambda s, o: s.LambdaLR(o, [lambda e: 0.9 ** e, lambda e: 0.5 ** e]),
    multiplicative=lambda s, o: s.MultiplicativeLR(o, lambda e: 0.9),
    cyclic=lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3),
    cyclic_halved=lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, 2, "triangular2"),
    cyclic_falling=lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, None, "exp_range", 0.9),
    cyclic_own=lambda s, o: s.CyclicLR(o, 0.01, 0.1, 2, scale_fn=lambda x: 1 / x),
    one_cycle=lambda s, o: s.OneCycleLR(o, 0.1, total_steps=12),
    one_cycle_linear=lambda s, o: s.OneCycleLR(o, 0.1, epochs=3, steps_per_epoch=4, three_phase=True, anneal_strategy="linear"),
    restarts=lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    sequential=lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 3), s.CosineAnnealingLR(o, 6)], [3]),
    chained=lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)]),
)


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_pytorch_and_go_on_from_a_state(name: str) -> None:
    def program(t: Any) -> list[Any]:
        a, b = t.ones(2, requires_grad=True), t.ones(1, requires_grad=True)

        def make() -> tuple[Any, Any]:
            optimizer = t.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.5, momentum=0.9)
            return optimizer, SCHEDULES[name](t.optim.lr_scheduler, optimizer)

        optimizer, schedule = make()
        found = [schedule.get_last_lr()]
        for k in range(10):
            if k == 5:
                states = optimizer.state_dict(), schedule.state_dict()
                found.append(sorted(states[1]))
                optimizer, schedule = make()
                optimizer.load_state_dict(states[0])
                schedule.load_state_dict(copy.deepcopy(states[1]))
            optimizer.step()
            schedule.step()
            found.append([*schedule.get_last_lr(), *[g["momentum"] for g in optimizer.param_groups]])
        return found

    in_both(program, 1e-9)


def test_the_rate_falls_on_a_plateau() -> None:
    def program(t: Any) -> list[Any]:
        optimizer = t.optim.SGD([t.ones(1, requires_grad=True)], lr=1.0)
        schedule = t.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.5, 1, cooldown=1, min_lr=0.1)
        found: list[Any] = []
        for metric in [1, 2, 2, 2, 2, 2, 1, 3, 3, 3, 3, 3, t.tensor(2.0), 2]:
            schedule.step(metric)
            found += [schedule.get_last_lr(), schedule.num_bad_epochs, schedule.cooldown_counter]
        s = t.optim.lr_scheduler
        return [*found, sorted(schedule.state_dict()),
                message(lambda: s.ReduceLROnPlateau(optimizer, "maxi"), ValueError),
                message(lambda: s.ReduceLROnPlateau(optimizer, factor=1.0), ValueError),
                message(lambda: s.OneCycleLR(optimizer, 0.1), ValueError),
                message(lambda: s.StepLR(3, 0.1), TypeError), message(lambda: s.LambdaLR(optimizer, []), ValueError)]

    in_both(program)


def test_a_schedule_of_the_users_own_and_a_step_too_early() -> None:
    def program(t: Any) -> list[Any]:
        class Own(t.optim.lr_scheduler._LRScheduler):  # type: ignore[misc, name-defined]
            def get_lr(self) -> list[float]:
                return [base / (1 + self.last_epoch) for base in self.base_lrs]

        optimizer = t.optim.SGD([t.ones(1, requires_grad=True)], lr=1.0)
        schedule = Own(optimizer)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            schedule.step()
            early = len(caught)
            optimizer.step()
            schedule.step()
            schedule.step(4)
        return [schedule.get_last_lr(), early, len(caught)]

    in_both(program)


def test_betas_that_change_need_no_new_program() -> None:
    w = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([w])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    with pytest.MonkeyPatch.context() as patch:
        for k in range(5):
            (w * w).sum().backward()
            optimizer.step()
            schedule.step()
            if k == 1:
                patch.setattr("dualrev.eager.core.evaluation.host_program", None)


@pytest.mark.parametrize("name", ["SGD", "Adam", *[pytest.param(name, marks=pytest.mark.thorough) for name in (
    "AdamW", "RMSprop", "Adagrad", "Adamax", "NAdam", "RAdam", "Adadelta", "Rprop", "ASGD")]])
def test_parameters_that_are_updated_together_get_the_numbers_of_each_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = [(3, 2), (), (4,), (0, 2), (2,), ()]

    def found() -> Any:
        params = [(torch.arange(float(math.prod(s))).reshape(s) * 0.7 + k).sin().requires_grad_() for k, s in enumerate(shapes)]
        params.append(torch.linspace(0, 1, 5, dtype=torch.float64).requires_grad_())
        settings = dict(momentum=0.9) if name in ("SGD", "RMSprop") else {}
        optimizer = getattr(torch.optim, name)([{"params": params[:3], "lr": 0.1}, {"params": params[3:]}], lr=0.05, **settings)
        for k in range(5):
            optimizer.zero_grad()
            # Some have no gradient in some steps: their counts differ.
            used = [p for i, p in enumerate(params) if (i + k) % 4 or k == 3]
            sum(((p - 0.3 * k).cos() ** 2).sum() for p in used).backward()  # type: ignore[union-attr]
            optimizer.step()
            if k == 2:
                with torch.no_grad():
                    params[0].mul_(0.5)
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        return [p.tolist() for p in params], [[x.tolist() for x in s.values()] for s in optimizer.state_dict()["state"].values()]

    together = found()
    monkeypatch.setattr("dualrev.eager.optim.joined.ENTRIES", -1)
    assert found() == together


def test_a_rule_that_is_not_entry_by_entry_is_not_joined() -> None:
    class Normed(torch.optim.SGD):
        def update(self, p: Any, g: Any, state: Any, settings: Any) -> Any:
            return p - settings["lr"] * g / (g * g).sum() ** 0.5, state

    a, b = (torch.tensor(x, requires_grad=True) for x in ([3.0, 4.0], [6.0, 8.0]))
    optimizer = Normed([a, b], lr=1.0)
    ((a * a).sum() + (b * b).sum()).backward()
    optimizer.step()
    assert torch.allclose(a, torch.tensor([2.4, 3.2])) and torch.allclose(b, torch.tensor([5.4, 7.2]))


def test_averages_of_models_and_their_rates() -> None:
    def program(t: Any) -> list[Any]:
        model = fill(t, t.nn.Sequential(t.nn.Linear(2, 3), t.nn.BatchNorm1d(3)))
        s, found = t.optim.swa_utils, []
        for average in (s.AveragedModel(model), s.AveragedModel(model, multi_avg_fn=s.get_ema_multi_avg_fn(0.9), use_buffers=True),
                        s.AveragedModel(model, avg_fn=s.get_ema_avg_fn(0.9))):
            for k in range(3):
                with t.no_grad():
                    for p in model.parameters():
                        p.add_(0.1 * k)
                average.update_parameters(model)
            found += [average.n_averaged, *average.module.parameters(), sorted(average.state_dict())]
        s.update_bn([t.arange(8.0).reshape(4, 2) + i for i in range(3)], average)
        found += [average.module[1].running_mean, average.module[1].running_var, average.module[1].momentum, average.training]
        for strategy in ("cos", "linear"):
            optimizer = t.optim.SGD(model.parameters(), lr=0.5)
            schedule = s.SWALR(optimizer, 0.05, 4, strategy)
            for _ in range(6):
                optimizer.step()
                schedule.step()
                found += schedule.get_last_lr()
        return [*found, message(lambda: s.get_ema_avg_fn(2.0), ValueError)]

    in_both(program)


@pytest.mark.parametrize("kind", ["SGD", "SGD damped", "RMSprop", "Adam", "AdamW", "Adagrad", "NAdam", "RAdam", "ASGD", "Rprop",
                                  "Adamax", "Adadelta", "Adafactor"])
def test_states_go_from_pytorch_and_back(kind: str) -> None:
    """A state that either library saved is continued by the other one."""
    pytorch = pytest.importorskip("torch", reason="states are exchanged with PyTorch")
    options: dict[str, Any] = {"SGD": dict(lr=0.01, momentum=0.9), "SGD damped": dict(lr=0.01, momentum=0.9, dampening=0.3),
                               "RMSprop": dict(momentum=0.5, centered=True)}.get(kind, {})

    def made(t: Any, values: Any) -> tuple[Any, Any]:
        p = t.nn.Parameter(t.tensor(values))
        return p, getattr(t.optim, kind.split()[0])([p], **options)

    def step(p: Any, optimizer: Any) -> list[float]:
        optimizer.zero_grad()
        (p ** 4).sum().backward()
        optimizer.step()
        return p.tolist()

    def moved(state: dict[str, Any], to: Any) -> dict[str, Any]:
        parts = {k: {n: to.tensor(x.numpy()) if hasattr(x, "numpy") else x for n, x in s.items()} for k, s in state["state"].items()}
        return {"state": parts, "param_groups": state["param_groups"]}

    one, of_one = made(pytorch, [1.0, -0.5])
    for _ in range(3):
        step(one, of_one)
    other, of_other = made(torch, one.tolist())
    of_other.load_state_dict(moved(of_one.state_dict(), torch))
    assert step(other, of_other) == pytest.approx(step(one, of_one), 1e-5)
    back, of_back = made(pytorch, other.tolist())
    of_back.load_state_dict(moved(of_other.state_dict(), pytorch))
    assert step(back, of_back) == pytest.approx(step(one, of_one), 1e-5)
    if "damped" not in kind:  # the first step of a dampened momentum is another
        mine, theirs = ({n: str(x.dtype) for n, x in o.state_dict()["state"][0].items()} for o in (of_other, of_one))
        assert mine == theirs
