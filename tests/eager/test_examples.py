"""Functions of one example over many: one program for all operations, and what is known stays known."""

from __future__ import annotations

from typing import Any

import jax.monitoring
import numpy as np
import pytest
from against_torch import in_both

from dualrev import eager as torch

_COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations() -> Any:
    """The programs that XLA compiles while a test runs."""
    found: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_small_programs_need_no_compiler(compilations: list[str]) -> None:
    w, x = torch.arange(6.0).reshape(2, 3), torch.arange(12.0).reshape(4, 3).cos()
    found = torch.func.vmap(torch.func.grad(lambda w, x: (w @ x).tanh().sum()), in_dims=(None, 0))(w, x)
    one = torch.stack([torch.func.grad(lambda w, x=row: (w @ x).tanh().sum())(w) for row in x])
    np.testing.assert_allclose(found.numpy(), one.numpy(), 1e-5, 1e-6)
    del compilations[:]
    torch.func.vmap(torch.func.grad(lambda w, x: (w @ x).tanh().sum() * 2), in_dims=(None, 0))(w, x)
    assert not compilations


def test_functions_that_are_made_anew_share_a_program(compilations: list[str]) -> None:
    w, x = torch.ones(700, 700) / 700, torch.ones(400, 700)
    counts, sums = [], []

    def mapped() -> torch.Tensor:
        return torch.vmap(lambda row: (w @ row).tanh().sum())(x)

    for _ in range(3):
        before = len(compilations)
        out = mapped()
        counts.append(len(compilations) - before)
        sums.append(out.sum().item())
        w += 1 / 700  # what the function reads is no part of the program
        assert out.shape == (400,)
    assert counts[0] == 1
    assert counts[1:] == [0, 0]
    np.testing.assert_allclose(sums, [400 * 700 * np.tanh(k + 1) for k in range(3)], 1e-5)


def test_what_is_known_stays_known() -> None:
    def program(t: Any) -> Any:
        twice, big = t.tensor(True), t.ones(700, 700)

        def of_one(x: Any, twice: Any) -> Any:
            total = big @ big  # large, and the same for all examples
            if total[0, 0] > 699 and twice:
                return x * 2
            return x

        return [t.vmap(of_one, in_dims=(0, None))(t.arange(6.0).reshape(2, 3), twice),
                t.vmap(t.vmap(lambda a, b: a * b, in_dims=(None, 0)), in_dims=(0, None))(t.arange(3.0), t.arange(2.0)),
                t.vmap(lambda p: p["a"].sum() + p["b"], in_dims=({"a": 0, "b": None},))({"a": t.ones(2, 3), "b": t.tensor(1.0)}),
                t.vmap(lambda x: (x, x.sum()), out_dims=(1, 0))(t.arange(6.0).reshape(2, 3)),
                t.vmap(lambda x: x.sum(), chunk_size=2)(t.arange(15.0).reshape(5, 3)),
                t.vmap(lambda x: x.cumsum(0), in_dims=1)(t.arange(6, dtype=t.int64).reshape(2, 3)),
                t.vmap(lambda x: x * 2)(t.ones(2, 3, dtype=t.float64)).dtype == t.float64]

    in_both(program)


def test_random_numbers_are_drawn_once_or_for_each() -> None:
    torch.manual_seed(0)
    apart = torch.vmap(lambda x: torch.rand(3) + x, randomness="different")(torch.zeros(2, 3))
    same = torch.vmap(lambda x: torch.rand(3) + x, randomness="same")(torch.zeros(2, 3))
    again = torch.vmap(lambda x: torch.rand(3) + x, randomness="same")(torch.zeros(2, 3))
    assert (apart[0] != apart[1]).all()
    assert (same[0] == same[1]).all()
    assert (same[0] != again[0]).all()
    assert isinstance(torch.rand(1).item(), float)  # the generator's state has a value


def test_dictionaries_keep_the_order_of_their_keys() -> None:
    """Programs zip the values of parameters and gradients; jax would sort the keys."""
    def program(t: Any) -> list[Any]:
        f = t.func
        params = {"w": t.tensor([1.0, 2.0]), "b": t.tensor([3.0]), "a": t.tensor([0.5])}

        def loss(p: Any, x: Any) -> Any:
            assert list(p) == ["w", "b", "a"]
            return (p["w"] * x).sum() * p["b"].sum() + p["a"].sum() ** 2

        def parts(p: Any) -> dict[str, Any]:
            return {"z": (p["w"] ** 2, {"y": p["b"], "x": p["a"]}), "c": p["w"].sum()}

        x = t.tensor([[0.5, 1.0], [2.0, -1.0], [1.0, 1.0]])
        out, pull = f.vjp(parts, params)
        pulled, = pull(out)
        value, pushed = f.jvp(parts, (params,), (params,))
        line, push = f.linearize(parts, params)
        tracked = {k: v.clone().requires_grad_() for k, v in params.items()}
        found = [f.grad(loss)(params, x[0]), f.vmap(f.grad(loss), in_dims=(None, 0))(params, x),
                 f.vmap(f.grad(loss), in_dims=({"b": None, "a": None, "w": None}, 0), chunk_size=2)(params, x),
                 f.jacrev(parts)(params), f.jacfwd(parts)(params), out, pulled, value, pushed, line, push(params),
                 f.vmap(parts, out_dims={"z": (1, {"y": 0, "x": 0}), "c": 0})({k: v.expand(2, *v.shape) for k, v in params.items()}),
                 f.hessian(lambda p: (p["w"].sum() * p["b"].sum()))(params), f.grad(loss)(tracked, x[0])]
        return [flat(y) for y in found]

    def flat(x: Any) -> list[Any]:
        if isinstance(x, dict):
            return [[k, *flat(y)] for k, y in x.items()]
        return [z for y in x for z in flat(y)] if isinstance(x, (tuple, list)) else [x]

    in_both(program)
