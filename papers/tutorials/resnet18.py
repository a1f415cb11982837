"""One training step of ResNet-18, from PyTorch's introduction to autograd: forward, backward, and a step down the gradient.

    python papers/tutorials/resnet18.py
    python papers/tutorials/resnet18.py --weights resnet18.safetensors    # torchvision's, saved by safetensors.torch.save_file

The image and the labels are random, as they are in the tutorial, and the loss, a sum of differences, has no least value: each step
takes it further down.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from dualrev import eager as torch
from dualrev.eager.models import resnet18


def step(model: Any, optimizer: Any, data: Any, labels: Any) -> Any:
    """The tutorial's, line by line."""
    prediction = model(data)             # forward pass
    loss = (prediction - labels).sum()
    loss.backward()                      # backward pass
    optimizer.step()                     # gradient descent
    return loss


def main(arguments: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="a safetensors file with torchvision's names; random weights without it")
    parser.add_argument("--steps", type=int, default=3, help="how many (default: %(default)s)")
    options = parser.parse_args(arguments)
    console = Console()
    torch.manual_seed(0)
    with console.status("making the model"):
        model = resnet18(weights=options.weights)
        data = torch.rand(1, 3, 64, 64)
        labels = torch.rand(1, 1000)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    table = Table("step", "loss", "gradients", "norm of the gradient", "time", title="ResNet-18, 1 x 3 x 64 x 64")
    losses = []
    for k in range(options.steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        with console.status(f"step {k + 1}" + ("; the first one compiles each operation" if k == 0 else "")):
            losses.append(step(model, optimizer, data, labels).item())
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads).item()
        table.add_row(f"{k + 1}", f"{losses[-1]:.2f}", f"{len(grads)} of {len(list(model.parameters()))}", f"{norm:.1f}",
                      f"{time.perf_counter() - start:.2f} s")
    console.print(table)
    return losses


if __name__ == "__main__":
    main()
