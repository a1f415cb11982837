"""The functional and the imperative face meet: functions of tensors under dualrev and jax, functions of arrays on tensors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_torch import fill, in_both

import dualrev
from dualrev import eager as torch

pytestmark = pytest.mark.thorough

X = jnp.array([0.3, -0.8, 1.1])


def imperative(x: Any) -> Any:
    """Written for tensors, with a loop and a branch on what does not depend on values."""
    out = x.sin() * x
    for k in range(2):
        out = torch.cat([out[1:], out[:1] * (k + 1)])
    return (out ** 2).sum()


def functional(x: Any) -> Any:
    out = jnp.sin(x) * x
    for k in range(2):
        out = jnp.concatenate([out[1:], out[:1] * (k + 1)])
    return jnp.sum(out ** 2)


@pytest.mark.parametrize("engine", ["forward", "reverse"])
def test_functions_of_tensors_under_dualrev(engine: Any) -> None:
    f = torch.func.lower(imperative)
    for transform in (dualrev.grad, dualrev.jacobian, dualrev.value_and_grad):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), transform(f, engine=engine)(X),
                     transform(functional, engine=engine)(X))
    np.testing.assert_allclose(dualrev.hessian(f)(X), dualrev.hessian(functional)(X), 1e-5, 1e-6)
    np.testing.assert_allclose(dualrev.jvp(f, (X,), (X,), engine=engine), dualrev.jvp(functional, (X,), (X,)), 1e-6)


def test_under_jit_and_vmap() -> None:
    f = torch.func.lower(imperative)
    rows = jnp.stack([X, 2 * X])
    np.testing.assert_allclose(jax.jit(f)(X), functional(X), 1e-6)
    np.testing.assert_allclose(jax.vmap(f)(rows), [functional(x) for x in rows], 1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(dualrev.grad(f)))(rows), [jax.grad(functional)(x) for x in rows], 1e-5)


def test_backward_inside_a_function_that_is_differentiated() -> None:
    def gradient(x: Any) -> Any:
        x = x.clone().requires_grad_()  # detach() would cut the derivative from outside
        imperative(x).backward()
        return x.grad

    g = torch.func.lower(gradient)
    np.testing.assert_allclose(g(X), jax.grad(functional)(X), 1e-6)
    np.testing.assert_allclose(dualrev.jacobian(g)(X), jax.hessian(functional)(X), 1e-5, 1e-6)
    np.testing.assert_allclose(jax.vmap(g)(X[None])[0], jax.grad(functional)(X), 1e-6)


def test_a_tensor_goes_into_a_lifted_function() -> None:
    x = torch.tensor(np.asarray(X), requires_grad=True)
    y = torch.lift(functional)(x)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), jax.grad(functional)(X), 1e-6)  # type: ignore[union-attr]


def test_gradients_of_each_example_are_those_of_a_loop() -> None:
    def program(t: Any) -> list[Any]:
        model = fill(t, t.nn.Sequential(t.nn.Linear(3, 4), t.nn.Tanh(), t.nn.Linear(4, 2)))
        x, classes = t.arange(15.0).reshape(5, 3).sin(), t.tensor([0, 1, 1, 0, 1])
        params = {name: p.detach() for name, p in model.named_parameters()}

        def loss(params: Any, x: Any, c: Any) -> Any:
            return t.nn.functional.cross_entropy(t.func.functional_call(model, params, (x.unsqueeze(0),)), c.unsqueeze(0))

        each = t.func.vmap(t.func.grad(loss), in_dims=(None, 0, 0))(params, x, classes)
        for i in range(5):
            model.zero_grad()
            t.nn.functional.cross_entropy(model(x[i: i + 1]), classes[i: i + 1]).backward()
            for name, p in model.named_parameters():
                assert t.allclose(each[name][i], p.grad, rtol=1e-4, atol=1e-6)
        return [each[name] for name in params]

    in_both(program)


def test_the_functions_of_torch_func() -> None:
    def program(t: Any) -> list[Any]:
        F = t.func
        x, y = t.tensor([0.3, -0.8]), t.tensor([1.0, 2.0, 3.0])

        def f(x: Any, y: Any) -> Any:
            return x.exp().sum() * y ** 2

        def loss(x: Any) -> Any:
            return (x ** 3).prod().sin()

        out, pull = F.vjp(f, x, y)
        one, pull_one = F.vjp(loss, x)
        return [F.grad(loss)(x), F.grad_and_value(loss)(x), F.jacrev(f)(x, y), F.jacfwd(f, argnums=(0, 1))(x, y), F.hessian(loss)(x),
                F.jvp(f, (x, y), (x, y)), out, pull(y), one, pull_one(t.tensor(2.0)), F.vmap(f, in_dims=(None, 0))(x, y),
                F.grad(lambda x: F.grad(loss)(x).sum())(x), F.grad(lambda x: (loss(x), x * 2), has_aux=True)(x)]

    in_both(program, 1e-4)
    with pytest.raises(ValueError, match="no parameter or buffer 'head'"):
        torch.func.functional_call(torch.nn.Linear(1, 1), {"head": torch.ones(1)}, (torch.ones(1),))
