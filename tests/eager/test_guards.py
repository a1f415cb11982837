"""Values that are changed in place between forward and backward: refused where PyTorch refuses, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from against_torch import in_both

CALLS = [(name, k) for name in ("functions", "linalg", "methods", "networks") for k in range(0, 560, 20)]
#: What the default run samples.
SAMPLE = (("linalg", 160),)


@pytest.mark.parametrize(("name", "start"), [c if c in SAMPLE else pytest.param(*c, marks=pytest.mark.thorough) for c in CALLS])
def test_changes_of_operands_and_results_are_refused_as_in_pytorch(name: str, start: int) -> None:
    pytest.importorskip("torch", reason="compared with PyTorch")
    import changes
    import survey

    known = changes.known()
    found = {call: changes.differences(call) for call in survey.calls(name)[start: start + 20]}
    wrong = [f"{call}: {changed} is {ours}, not {theirs}" for call, rows in found.items() for changed, ours, theirs in rows
             if (call, changed) not in known]
    assert not wrong, "\n".join(wrong)


def test_known_differences_are_calls_with_reasons() -> None:
    changes = pytest.importorskip("changes", reason="its calls run in PyTorch")
    import survey

    every = {call for path in survey.FOLDER.glob("*.txt") for call in survey.calls(path.stem)}
    assert {call for call, _ in changes.known()} <= every
    assert all(changes.known().values())


# -------------------------------------------------------------------------------------------------------------- programs

def _twice(t: Any, x: Any) -> Any:
    """A layer whose weight is changed between two uses."""
    w = t.ones(3, requires_grad=True) * 1.0
    y = (x * w).sum()
    w.add_(1)
    return y + (x * w).sum(), None


def _normalized(t: Any, x: Any) -> Any:
    out = t.nn.functional.normalize(x, dim=0)
    return out.sum(), x


def _running(t: Any, x: Any) -> Any:
    """A running sum that is added to in place."""
    total = t.zeros(3)
    for k in range(3):
        total += x * k
    return total.sum(), None


def _product_in_place(t: Any, x: Any) -> Any:
    total = t.ones(3)
    for _ in range(3):
        total *= x
    return total.sum(), None


def _hidden(t: Any, x: Any) -> Any:
    h = (x * 2).tanh()
    return (h * h).sum(), h


def _row(t: Any, x: Any) -> Any:
    table = x.expand(2, 3).clone()
    first = table[0]
    return first.exp().sum(), table


def _view_of_read(t: Any, x: Any) -> Any:
    table = x.expand(2, 3).clone()
    y = table.square().sum()
    return y, table[1]


def _clone_of_read(t: Any, x: Any) -> Any:
    z = x.clone()
    return z.square().sum(), x


def _detached(t: Any, x: Any) -> Any:
    z = x * 1
    return z.sin().sum(), z.detach()


def _through_data(t: Any, x: Any) -> Any:
    z = x * 1
    return z.sin().sum(), z.data


def _attention(t: Any, x: Any) -> Any:
    weights = t.softmax(x.outer(x), -1)
    return (weights @ x).sum(), weights


def _mask(t: Any, x: Any) -> Any:
    mask = t.tensor([True, False, True])
    return x[mask].sum(), mask


def _filled(t: Any, x: Any) -> Any:
    mask = t.tensor([True, False, True])
    return x.masked_fill(mask, 0.0).sum(), mask


def _chosen(t: Any, x: Any) -> Any:
    which = x > 0.5
    return t.where(which, x, -x).sum(), which


def _target(t: Any, x: Any) -> Any:
    target = t.tensor([2])
    return t.nn.functional.cross_entropy(x[None], target), target


def _regression(t: Any, x: Any) -> Any:
    target = t.zeros(3)
    return t.nn.functional.mse_loss(x, target), target


def _absolute(t: Any, x: Any) -> Any:
    target = t.zeros(3)
    return t.nn.functional.l1_loss(x, target), target


def _batch_norm(t: Any, x: Any) -> Any:
    """A layer that changes its running statistics at each call."""
    layer = t.nn.BatchNorm1d(3)
    rows = x.expand(2, 3) * t.tensor([[1.0], [2.0]])
    return layer(layer(rows)).square().sum(), None


def _frozen_norm(t: Any, x: Any) -> Any:
    layer = t.nn.BatchNorm1d(3).eval()
    return layer(x.expand(2, 3)).sum(), layer.running_var


def _norm_of(changed: str, training: bool, affine: bool) -> Callable[[Any, Any], Any]:
    """Batch norm: its input, its parameters and its running statistics, which training reads for nothing but guards too."""
    def made(t: Any, x: Any) -> Any:
        given = {"input": x.expand(2, 3) * t.tensor([[1.0], [2.0]]), "running_mean": t.zeros(3), "running_var": t.ones(3),
                 "weight": x * 1.0 if affine else None, "bias": x * 2.0 if affine else None}
        out = t.nn.functional.batch_norm(*given.values(), training)
        return out.square().sum(), {**given, "out": out}[changed]

    made.__name__ = f"norm-{'training' if training else 'eval'}-{'affine' if affine else 'bare'}-{changed}"
    return made


def _norm_twice(t: Any, x: Any) -> Any:
    """The running statistics are written to without a count: the first call may be differentiated after the second."""
    mean, var = t.zeros(3), t.ones(3)
    rows = x.expand(2, 3) * t.tensor([[1.0], [2.0]])
    norm = t.nn.functional.batch_norm
    return (norm(rows, mean, var, training=True) + norm(rows, mean, var, training=True)).square().sum(), None


def _instance_norm(t: Any, x: Any) -> Any:
    """Its running statistics are copies."""
    mean = t.zeros(3)
    rows = x.expand(2, 3)[..., None] * t.tensor([1.0, 2.0, 4.0])
    return t.nn.functional.instance_norm(rows, mean, t.ones(3)).square().sum(), mean


def _dropped(t: Any, x: Any) -> Any:
    out = t.nn.functional.dropout(x, 0.0)
    return out.sum(), out


def _pooled(t: Any, x: Any) -> Any:
    out, places = t.nn.functional.max_pool1d(x[None, None], 2, return_indices=True)
    return out.sum(), places


def _gathered(t: Any, x: Any) -> Any:
    places = t.tensor([0, 2])
    return x.gather(0, places).sum(), places


def _scattered(t: Any, x: Any) -> Any:
    source = x[:2] * 2
    return t.zeros(3).scatter_add(0, t.tensor([0, 2]), source).sum(), source


def _stacked(t: Any, x: Any) -> Any:
    parts = [x * k for k in range(2)]
    return t.stack(parts).sum(), parts[0]


def _joined(t: Any, x: Any) -> Any:
    out = t.cat([x, x * 2])
    return out.sum(), out


def _largest(t: Any, x: Any) -> Any:
    values, places = x.topk(2)
    return values.sum(), places


def _solved(t: Any, x: Any) -> Any:
    a = x.outer(x) + 2 * t.eye(3)
    return t.linalg.solve(a, t.ones(3)).sum(), a


def _factor(t: Any, x: Any) -> Any:
    low = t.linalg.cholesky(x.outer(x) + 2 * t.eye(3))
    return low.sum(), low


def _step(t: Any, x: Any) -> Any:
    """A step of an optimizer between forward and backward."""
    layer = t.nn.Sequential(t.nn.Linear(3, 2), t.nn.Tanh(), t.nn.Linear(2, 1))
    return layer(x).sum(), layer[2].weight


def _step_of_first(t: Any, x: Any) -> Any:
    layer = t.nn.Sequential(t.nn.Linear(3, 2), t.nn.Tanh(), t.nn.Linear(2, 1))
    return layer(x.detach()).sum(), layer[0].weight


PROGRAMS: list[Callable[[Any, Any], Any]] = [
    _twice, _normalized, _running, _product_in_place, _hidden, _row, _view_of_read, _clone_of_read, _detached, _through_data,
    _attention, _mask, _filled, _chosen, _target, _regression, _absolute, _batch_norm, _frozen_norm, _dropped, _pooled, _gathered,
    _scattered, _stacked, _joined, _largest, _solved, _factor, _step, _step_of_first, _norm_twice, _instance_norm,
    *[_norm_of(changed, training, affine) for training in (True, False) for affine, names in (
        (True, ("input", "running_mean", "running_var", "weight", "bias", "out")), (False, ("running_mean", "running_var")))
      for changed in names]]


@pytest.mark.parametrize("make", PROGRAMS, ids=[make.__name__.strip("_") for make in PROGRAMS])
def test_programs_that_change_what_was_read(make: Callable[[Any, Any], Any]) -> None:
    def program(t: Any) -> Any:
        x = t.tensor([0.3, 0.6, 0.9], requires_grad=True) * 1
        result, changed = make(t, x)
        if changed is not None:
            with t.no_grad():
                changed.copy_(changed.clone())
        try:
            result.backward()
        except RuntimeError as error:
            return str(error)[:60]
        return "no refusal"

    in_both(program)
