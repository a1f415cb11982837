"""The imperative face against PyTorch, each a ratio of times measured in this process: ``python -m benchmarks.eager_figures``.

Both libraries run the same program, written once, on the CPU.  A ratio is the median over interleaved rounds, with its quartiles, and
the ratio of the fastest rounds beside it; gradients or losses were found equal before.
"""

from __future__ import annotations

import argparse
import pathlib
import runpy
from collections.abc import Callable
from typing import Any

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


def filled(t: Any, model: Any) -> Any:
    with t.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_((t.arange(float(p.numel())).reshape(p.shape) * 0.37 + k).sin() * 0.1)
    return model


def trained(t: Any, model: Any, x: Any, y: Any, lr: float, loss_of: Any, compiled: bool) -> Run:
    """A training step with momentum."""
    optimizer = t.optim.SGD(model.parameters(), lr=lr, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = t.jit(step) if compiled else step
    return lambda: run(x, y)


def mlp(t: Any, compiled: bool) -> Run:
    nn = t.nn
    model = filled(t, nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)))
    x = (t.arange(32.0 * 64).reshape(32, 64) * 0.7).sin()
    return trained(t, model, x, x.cos(), 1e-3, nn.functional.mse_loss, compiled)


def lstm(t: Any, compiled: bool) -> Run:
    """20 steps of a cell of width 64, as one writes it by hand."""
    nn = t.nn

    class Recurrent(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.outside = nn.Linear(64, 256), nn.Linear(64, 256)

        def forward(self, x: Any) -> Any:
            h, c = t.zeros(16, 64), t.zeros(16, 64)
            for k in range(20):
                i, f, g, o = (self.outside(x[:, k]) + self.inside(h)).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            return h

    x = (t.arange(16.0 * 20 * 64).reshape(16, 20, 64) * 0.7).sin()
    return trained(t, filled(t, Recurrent()), x, x[:, 0].cos(), 1e-3, nn.functional.mse_loss, compiled)


def resnet(t: Any, compiled: bool) -> Run:
    """A step of ResNet-18 on one image of 64 x 64 pixels."""
    source = pathlib.Path(__file__).parents[1] / "tests" / "eager" / "resnet_in_torch.py"
    model = runpy.run_path(str(source))["resnet18"](t.nn)
    x = (t.arange(3.0 * 64 * 64).reshape(1, 3, 64, 64) * 0.7).sin()
    return trained(t, filled(t, model), x, t.zeros(1, 1000), 1e-6, lambda y, labels: (y - labels).sum(), compiled)


# --------------------------------------------------------------------------------------------------------------- measuring

def compare(name: str, ours: Run, theirs: Run, budget: float, goal: float | None, warm: int = 60) -> Figure:
    """After as many calls as compile what comes again, and with the collector at work: graphs of both are its business."""
    a, b = ours().numpy(force=True), theirs().numpy(force=True)
    difference = float(np.abs(a - b).max())
    if not np.allclose(a, b, 1e-3, 1e-4):  # a loss may be the small sum of large terms
        raise AssertionError(f"{name}: results differ by {difference}")
    return timing.compare("imperative face", name, ours, theirs, budget, goal, difference, warm=warm, a_round=5e-3,
                          wait=lambda x: x.numpy(force=True), is_collected=True)


def figures(budget: float, chosen: set[str]) -> list[Figure]:
    found = []
    for size, goal in ((64, 3.0), (256, None), (1024, 1.1)):
        if "ops" in chosen:
            found.append(compare(f"20 multiplications, {size} x {size}", chain(eager, size), chain(pytorch, size), budget, goal))
    programs: list[tuple[str, str, Callable[[Any, bool], Run], float | None, int]] = [
        ("mlp", "MLP 3 x 64, step", mlp, 0.5, 60), ("lstm", "LSTM 20 x 64, step", lstm, None, 320),
        ("resnet", "ResNet-18 64 x 64, step", resnet, 1.0, 3)]
    for key, name, make, goal, warm in programs:
        if key in chosen:
            for compiled in (False, True):
                label = f"{name}, {'eager.jit' if compiled else 'eager'}"
                pair = make(eager, compiled), make(pytorch, False)
                found.append(compare(label, *pair, budget, goal if compiled else None, 3 if compiled else warm))
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
