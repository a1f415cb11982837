"""What a type checker knows of tensors: mypy reads this file, and each line that it must refuse carries what it ignores.

An ``ignore`` that is not needed is an error of mypy's own here, so a signature that lets a wrong call pass is found.
"""

from __future__ import annotations

from typing import assert_type

import numpy as np
import pytest

from dualrev import eager as torch
from dualrev.eager import Size, Tensor


def test_operators_and_methods_give_tensors() -> None:
    x = torch.ones(2, 3)
    assert_type(x, Tensor)
    assert_type(1 - x / 2, Tensor)
    assert_type(x @ x.T, Tensor)
    assert_type(x[0, 1:], Tensor)
    assert_type(x.shape, Size)
    assert_type(x.size(0), int)
    assert_type(x.relu().sum(dim=1), Tensor)
    assert_type(x.numpy(), np.ndarray)
    assert_type(torch.where(x > 0, x, 0.0), Tensor)
    assert_type(torch.nonzero(x, as_tuple=True), tuple[Tensor, ...])
    assert_type(x.max(), Tensor)
    assert_type(x.max(dim=0).indices, Tensor)
    assert_type(x.reshape(3, 2), Tensor)
    assert_type(x.reshape((3, -1)), Tensor)
    assert_type(x.split(1), tuple[Tensor, ...])


def test_what_is_no_argument_is_refused() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(AttributeError):
        x.rellu()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        torch.onse(2)  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        x + "1"  # type: ignore[operator]
    with pytest.raises(TypeError):
        x.sum(dims=0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        torch.zeros(2, dtype="float32")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        torch.cat(x, dim="0")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        torch.nn.functional.conv2d(x, x, strides=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        torch.nn.Linear(2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        torch.optim.SGD([x], rate=0.1)  # type: ignore[call-arg]


def test_modules_keep_their_class() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    assert_type(model.eval().double(), torch.nn.Sequential)
    assert_type(model[:1], torch.nn.Sequential)
    assert_type(model[0], torch.nn.Module)
    assert_type([p.grad for p in model.parameters()], list[Tensor | None])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    assert_type(optimizer.step(lambda: 1.0), float | None)
    assert optimizer.step(lambda: 1.0) == 1.0


def test_a_compiled_step_has_the_parameters_of_its_function() -> None:
    def step(x: Tensor, scale: float = 1.0) -> Tensor:
        return x * scale

    assert_type(torch.jit(step)(torch.ones(2), scale=2.0), Tensor)
    with pytest.raises(TypeError):
        torch.jit(step)(torch.ones(2), factor=2.0)  # type: ignore[call-arg]
