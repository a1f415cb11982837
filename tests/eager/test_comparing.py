"""``torch.testing`` says what PyTorch's says, and batches of datasets have its structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from against_torch import in_both

from dualrev import eager as torch

INF, NAN = float("inf"), float("nan")
PAIRS: dict[str, Callable[[Any, Any], tuple[Any, Any, dict[str, Any]]]] = dict(
    close=lambda t, x: (x, x + 1e-7, {}), apart=lambda t, x: (x, t.tensor([1.0, 2.0, 4.0]), {}),
    dtype=lambda t, x: (x, x.double(), {}), any_dtype=lambda t, x: (x, x.double(), {"check_dtype": False}),
    shape=lambda t, x: (x, x[:2], {}), floats=lambda t, x: (1.0, 2.0, {}), kinds=lambda t, x: (1, 1.0, {}),
    lists=lambda t, x: ([1, 2.0], [1, 2.5], {}), dicts=lambda t, x: ({"a": x}, {"a": x + 1}, {}),
    keys=lambda t, x: ({"a": x}, {"b": x}, {}), lengths=lambda t, x: ((x,), (x, x), {}), list_beside=lambda t, x: (x, [1.0], {}),
    words=lambda t, x: ("a", "a", {}), nan=lambda t, x: (t.tensor(NAN), t.tensor(NAN), {}),
    equal_nan=lambda t, x: (t.tensor([NAN]), t.tensor([NAN]), {"equal_nan": True}), half=lambda t, x: (x, x, {"rtol": 1e-2}),
    tolerant=lambda t, x: (x, t.tensor([1.0, 2.0, 4.0]), {"rtol": 0, "atol": 2}),
    whole=lambda t, x: (t.tensor([1, 2]), t.tensor([1, 3]), {}),
    flags=lambda t, x: (t.tensor([True, False]), t.tensor([True, True]), {}),
    one=lambda t, x: (t.tensor(1.0), t.tensor(2.0), {}), text=lambda t, x: (x, x + 1, {"msg": "hello"}),
    of_text=lambda t, x: (x, x + 1, {"msg": lambda m: "H " + m}), infinite=lambda t, x: (t.tensor([INF]), t.tensor([INF]), {}),
    far=lambda t, x: (t.tensor([[1.0, INF]]), t.tensor([[1.0, 0.0]]), {}), array=lambda t, x: (x, x.numpy(), {}),
    complex=lambda t, x: (t.tensor([1 + 1j]), t.tensor([1 + 2j]), {}), none=lambda t, x: (None, None, {}),
    bools=lambda t, x: (True, False, {}), empty=lambda t, x: (t.ones(2, 0), t.ones(2, 0), {}),
    arrays=lambda t, x: (x.numpy(), x.numpy() + 1, {}), nested=lambda t, x: ([x, [1, 2]], [x, [1, 3]], {}),
    number_beside=lambda t, x: (1.0, x, {}), narrow=lambda t, x: (x.bfloat16(), (x * 1.01).bfloat16(), {}),
    gradient=lambda t, x: (x.requires_grad_(), x.detach() + 1, {}),
)


@pytest.mark.parametrize("name", PAIRS)
def test_closeness_is_told_as_in_pytorch(name: str) -> None:
    def program(t: Any) -> Any:
        actual, expected, options = PAIRS[name](t, t.tensor([1.0, 2.0, 3.0]))
        try:
            t.testing.assert_close(actual, expected, **options)
        except (AssertionError, TypeError, ValueError) as error:
            return [type(error).__name__, str(error).replace("dualrev.eager.graph.tensor.", "torch.")]
        return []

    in_both(program)


def test_random_tensors_to_try() -> None:
    for dtype in (torch.float32, torch.int64, torch.bool, torch.uint8, torch.complex64, torch.bfloat16):
        x = torch.testing.make_tensor((50, 3), dtype=dtype, device="cpu", exclude_zero=dtype != torch.bool)
        assert x.shape == (50, 3)
        assert x.dtype == dtype
        assert dtype == torch.bool or bool((x != 0).all())
        assert len(set(x.flatten().tolist())) > 1
    assert torch.testing.make_tensor(4, dtype=torch.float64, device="cpu", low=2, high=3, requires_grad=True).requires_grad


def test_batches_and_samplers() -> None:
    def program(t: Any) -> Any:
        D = t.utils.data
        shares = [list(D.DistributedSampler(range(n), num_replicas=3, rank=r, shuffle=False, drop_last=drop))
                  for n in (0, 2, 5, 6) for r in range(3) for drop in (False, True)]
        mixed = [list(D.DistributedSampler(range(7), 2, r, seed=3)) for r in range(2)]
        refused = []
        for make in (lambda: D.DistributedSampler(range(5), 2, 3), lambda: D.DistributedSampler(range(5))):
            try:
                make()
            except ValueError as error:
                refused.append(str(error).splitlines()[0])
        batch = D.default_collate([(t.ones(2), "a", 1.0), (t.zeros(2), "b", 2.0)])
        converted = D.default_convert({"a": np.ones(2), "b": [1, (2, np.float32(3))], "c": "x"})
        return [shares, sorted({*mixed[0], *mixed[1]}), refused, [batch[0], batch[1], batch[2]], D.get_worker_info() is None,
                converted["a"], converted["b"][0], converted["b"][1][1], converted["c"]]

    in_both(program)
