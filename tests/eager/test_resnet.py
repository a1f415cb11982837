"""A training step of ResNet-18 has the numbers of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualrev import eager as torch

pytestmark = pytest.mark.thorough


def close(ours: Any, theirs: Any, tolerance: float, name: str) -> None:
    a, b = np.asarray(ours.detach().numpy(), np.float64), theirs.detach().numpy().astype(np.float64)
    assert np.linalg.norm(a - b) <= tolerance * max(float(np.linalg.norm(b)), 1e-6), name


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float64", 1e-9)])
def test_a_step_of_resnet18_has_the_numbers_of_torch(dtype: str, tolerance: float) -> None:
    reference = pytest.importorskip("torch")
    from resnet_in_torch import resnet18

    reference.manual_seed(0)
    theirs = resnet18(reference.nn).to(getattr(reference, dtype))
    ours = torch.models.resnet18().to(getattr(torch, dtype))
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    data = reference.rand(1, 3, 64, 64, dtype=getattr(reference, dtype))
    labels = reference.rand(1, 1000, dtype=getattr(reference, dtype))
    results = []
    for t, model, x, y in ((torch, ours, torch.tensor(data.numpy()), torch.tensor(labels.numpy())), (reference, theirs, data, labels)):
        optimizer = t.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
        prediction = model(x)
        loss = (prediction - y).sum()
        loss.backward()
        optimizer.step()
        results.append((prediction, loss))
    for a, b in zip(*results, strict=True):
        close(a, b, tolerance, "output or loss")
    grads = [p for p in ours.parameters() if p.grad is not None]
    assert len(grads) == 62
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        close(p.grad, q.grad, tolerance, f"gradient of {name}")
    for name, x in ours.state_dict().items():
        close(x, theirs.state_dict()[name], tolerance, name)
