"""The imperative face against PyTorch, each a ratio of times measured in this process: ``python -m benchmarks.eager_figures``.

Both libraries run the same program, written once, on the CPU.  A ratio is the median over interleaved rounds, with its quartiles, and
the ratio of the fastest rounds beside it.  Before, the loss of a first step and all of its gradients were found equal in float64: in
float32 a loss that is the small sum of large terms differs by the rounding of these, and steps amplify it.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import runpy
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch as pytorch
from rich.console import Console
from rich.table import Table

from benchmarks import timing
from benchmarks.timing import Figure, Run
from dualrev import eager

# ---------------------------------------------------------------------------------------------------------------- programs

def chain(t: Any, size: int) -> Run:
    """20 multiplications and a sum, forward and backward."""
    x, y = t.ones(size, size, requires_grad=True), t.ones(size, size)

    def run() -> Any:
        z = x
        for _ in range(20):
            z = z * y
        x.grad = None
        z.sum().backward()
        return x.grad

    return run


#: A training step, and the parameters whose gradients it leaves.
Step: TypeAlias = tuple[Run, list[Any]]


def waves(t: Any, dtype: str, *shape: int) -> Any:
    """Sines as input."""
    return (t.arange(float(math.prod(shape)), dtype=t.float64).reshape(shape) * 0.7).sin().to(getattr(t, dtype))


def filled(t: Any, model: Any, dtype: str) -> Any:
    model.to(getattr(t, dtype))
    with t.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_((t.arange(float(p.numel()), dtype=t.float64).reshape(p.shape) * 0.37 + k).sin() * 0.1)
    return model


def trained(t: Any, model: Any, x: Any, y: Any, lr: float, loss_of: Any, compiled: bool) -> Step:
    """A training step with momentum."""
    optimizer = t.optim.SGD(model.parameters(), lr=lr, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = t.jit(step) if compiled else step
    return lambda: run(x, y), list(model.parameters())


def mlp(t: Any, compiled: bool, dtype: str) -> Step:
    nn = t.nn
    model = filled(t, nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), dtype)
    x = waves(t, dtype, 32, 64)
    return trained(t, model, x, x.cos(), 1e-3, nn.functional.mse_loss, compiled)


def lstm(t: Any, compiled: bool, dtype: str) -> Step:
    """20 steps of a cell of width 64, as one writes it by hand."""
    nn = t.nn

    class Recurrent(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.outside = nn.Linear(64, 256), nn.Linear(64, 256)

        def forward(self, x: Any) -> Any:
            h, c = x.new_zeros(16, 64), x.new_zeros(16, 64)
            for k in range(20):
                i, f, g, o = (self.outside(x[:, k]) + self.inside(h)).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            return h

    x = waves(t, dtype, 16, 20, 64)
    return trained(t, filled(t, Recurrent(), dtype), x, x[:, 0].cos(), 1e-3, nn.functional.mse_loss, compiled)


def resnet(t: Any, compiled: bool, dtype: str) -> Step:
    """A step of ResNet-18 on one image of 64 x 64 pixels."""
    source = pathlib.Path(__file__).parents[1] / "tests" / "eager" / "resnet_in_torch.py"
    model = runpy.run_path(str(source))["resnet18"](t.nn)
    x = waves(t, dtype, 1, 3, 64, 64)
    return trained(t, filled(t, model, dtype), x, x.new_zeros(1, 1000), 1e-6, lambda y, labels: (y - labels).sum(), compiled)


# --------------------------------------------------------------------------------------------------------------- measuring

def difference(name: str, ours: list[Any], theirs: list[Any]) -> float:
    """The largest difference of arrays, each relative to its largest entry."""
    found = 0.0
    for a, b in zip(ours, theirs, strict=True):
        a, b = a.numpy(force=True), b.numpy(force=True)
        found = max(found, float(np.abs(a - b).max() / max(float(np.abs(b).max()), np.finfo(b.dtype).tiny)))
    if not found < 1e-7:
        raise AssertionError(f"{name}: results differ by {found}")
    return found


def first_step(made: Step) -> list[Any]:
    """The loss and the gradients of a first step."""
    run, parameters = made
    return [run(), *[p.grad for p in parameters]]


def compare(name: str, ours: Run, theirs: Run, budget: float, goal: float | None, found: float, warm: int = 60) -> Figure:
    """After as many calls as compile what comes again, and with the collector at work: graphs of both are its business."""
    return timing.compare("imperative face", name, ours, theirs, budget, goal, found, warm=warm, a_round=5e-3,
                          wait=lambda x: x.numpy(force=True), is_collected=True)


def figures(budget: float, chosen: set[str]) -> list[Figure]:
    found = []
    for size, goal in ((64, 3.0), (256, None), (1024, 1.1)):
        if "ops" in chosen:
            name, ours, theirs = f"20 multiplications, {size} x {size}", chain(eager, size), chain(pytorch, size)
            found.append(compare(name, ours, theirs, budget, goal, difference(name, [ours()], [theirs()])))
    programs: list[tuple[str, str, Callable[[Any, bool, str], Step], float | None, int]] = [
        ("mlp", "MLP 3 x 64, step", mlp, 0.5, 60), ("lstm", "LSTM 20 x 64, step", lstm, None, 320),
        ("resnet", "ResNet-18 64 x 64, step", resnet, 1.0, 3)]
    for key, name, make, goal, warm in programs:
        if key in chosen:
            for compiled in (False, True):
                label = f"{name}, {'eager.jit' if compiled else 'eager'}"
                exact = difference(label, *[first_step(make(t, compiled and t is eager, "float64")) for t in (eager, pytorch)])
                pair = make(eager, compiled, "float32")[0], make(pytorch, False, "float32")[0]
                found.append(compare(label, *pair, budget, goal if compiled else None, exact, 3 if compiled else warm))
    return found


def table(found: list[Figure]) -> Table:
    title = f"the imperative face against PyTorch {pytorch.__version__} ({pytorch.get_num_threads()} threads), CPU, float32"
    rows = Table(title=title)
    rows.add_column("program")
    for heading in ("dualrev, µs", "PyTorch, µs", *Figure.HEADINGS):
        rows.add_column(heading, justify="right")
    for f in found:
        rows.add_row(f.name, *f.cells())
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=["ops", "mlp", "lstm", "resnet"], help="ops, mlp, lstm, resnet")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--threads", type=int, help="of PyTorch; as many as it likes by default")
    options = parser.parse_args()
    if options.threads:
        pytorch.set_num_threads(options.threads)
    Console(width=136).print(table(figures(options.seconds, set(options.groups))))


if __name__ == "__main__":
    main()
