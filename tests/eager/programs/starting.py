"""What whole programs start from, and how they are trained; it imports neither library."""

from __future__ import annotations

from typing import Any


def waves(t: Any, *shape: int, k: float = 1.0) -> Any:
    """Numbers that are the same in both libraries."""
    n = 1
    for s in shape:
        n *= s
    return (t.arange(float(n)) * 0.7 * k).sin().reshape(*shape)


def trained(t: Any, model: Any, optimizer: Any, loss_of: Any, steps: int = 4) -> list[Any]:
    """The losses of some steps, and the sum of the parameters after them."""
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return [*found, [p.detach().sum() for p in model.parameters()]]


def fill(t: Any, model: Any) -> Any:
    """Parameters that are the same in both libraries."""
    with t.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_((t.arange(float(p.numel())).reshape(p.shape) * 0.37 + k).sin())
    return model
