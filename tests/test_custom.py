"""Rules of users' own: functions and primitives, each of the statements, and what happens when one is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

import dualrev as dr
from dualrev.errors import RuleError
from dualrev.table.rows import rows
from dualrev.testing import DerivativeError, check_grads, check_rule


@pytest.fixture(autouse=True)
def table_as_it_was() -> Iterator[None]:
    """Rows for the primitives of these tests go when the test does."""
    before = dict(rows)
    yield
    rows.clear()
    rows.update(before)


X = jnp.array([0.5, 1.5, -2.0])
Y = jnp.array([2.0, -1.0, 3.0])


def plain(x: Any, y: Any) -> Any:
    return x**2 * y


@dr.rule(partials=[lambda x, y, *, out: 2 * out / x, lambda x, _: x**2])
def by_partials(x: Any, y: Any) -> Any:
    return plain(x, y)


def product_rule(ts: Any, x: Any, y: Any) -> Any:
    t, t_y = ts
    return (0 if t is None else 2 * x * y * t) + (0 if t_y is None else x**2 * t_y)


by_pushforward = dr.rule(plain, pushforward=product_rule)
by_adjoint = dr.rule(plain, adjoint=lambda ct, x, y: (2 * x * y * ct, x**2 * ct))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("f", [by_partials, by_pushforward, by_adjoint])
@pytest.mark.parametrize("library", [dr, jax], ids=["dualrev", "jax"])
def test_each_statement_gives_both_modes(f: Any, library: Any, wrap: Callable[..., Any]) -> None:
    def derivatives(g: Any, d: Any) -> Any:
        def total(x: Any, y: Any) -> Any:
            return jnp.sum(g(x, y) ** 2)

        return (d.grad(total, (0, 1))(X, Y), d.hessian(total)(X, Y), d.jvp(lambda x: g(x, Y), (X,), (Y,)), jax.vmap(d.grad(g))(X, Y),
                d.jacrev(lambda y: g(X, y))(Y))

    got = wrap(lambda: derivatives(f, library))()
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(derivatives(plain, jax)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_trees_keywords_and_arguments_that_are_not_arrays() -> None:
    @dr.rule(pushforward=lambda t, tree, kind, *, scale: {"out": scale * t["a"]}, nondiff_argnums=1)
    def f(tree: dict[str, Any], kind: str, *, scale: float) -> dict[str, Any]:
        assert kind == "linear"
        return {"out": scale * tree["a"]}

    value, gradient = dr.value_and_grad(lambda tree: f(tree, "linear", scale=3.0)["out"])({"a": 2.0, "unused": 1.0})
    assert (float(value), float(gradient["a"]), float(gradient["unused"])) == (6.0, 3.0, 0.0)


def test_a_partial_of_an_argument_that_does_not_move_is_not_evaluated() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("this partial was evaluated")

    f = dr.rule(plain, partials=[lambda x, y: 2 * x * y, never])
    assert float(dr.grad(f)(3.0, 2.0)) == float(dr.jvp(lambda x: f(x, 2.0), (3.0,), (1.0,))[1]) == 12.0


def primitive(name: str) -> Any:
    p = Primitive(name)
    p.def_impl(lambda x: x * 3)
    p.def_abstract_eval(lambda x: x)
    mlir.register_lowering(p, mlir.lower_fun(lambda x: x * 3, multiple_results=False))
    batching.defvectorized(p)
    return p


@pytest.mark.parametrize("statement", [{"partials": [3.0]}, {"pushforward": lambda t, _: 3 * t}, {"adjoint": lambda ct, _: 3 * ct}],
                         ids=["partials", "pushforward", "adjoint"])
def test_a_primitive_gets_a_row(statement: Any) -> None:
    triple = dr.rule(primitive("triple"), **statement)
    check_rule(triple, 2.0)
    gradient = jax.jit(jax.vmap(dr.grad(dr.grad(lambda x: triple.bind(x) ** 2))))
    np.testing.assert_array_equal(gradient(X), np.full(3, 18.0))


@pytest.mark.parametrize("engine", ["forward", "reverse"])
@pytest.mark.parametrize(("name", "statement"), [
    ("partials", {"partials": [lambda x: jnp.zeros(2)]}),
    ("pushforward", {"pushforward": lambda t, x: jnp.zeros(2)}),
    ("adjoint", {"adjoint": lambda ct, x: jnp.zeros(2)}),
])
def test_a_rule_of_the_wrong_shape_is_named(name: str, statement: Any, engine: Any) -> None:
    f = dr.rule(lambda x: 3 * x, **statement)
    f.__name__ = "thrice"
    wrong = dr.rule(primitive("wrong_" + name), **statement)
    with pytest.raises(RuleError, match=f"the rule for .*{name}"):
        dr.jvp(f, (2.0,), (1.0,), engine=engine)
    if name == "adjoint" and engine == "forward":
        return  # the push of a linear primitive is the primitive: its adjoint is not used
    with pytest.raises(RuleError, match=f"the rule for wrong_{name}"):
        dr.vjp(wrong.bind, 2.0)[1](1.0) if engine == "reverse" else dr.jvp(wrong.bind, (2.0,), (1.0,))


def test_exactly_one_statement() -> None:
    with pytest.raises(TypeError, match="exactly one of partials=, pushforward=, adjoint=; got none"):
        dr.rule(plain)
    with pytest.raises(TypeError, match="got partials, adjoint"):
        dr.rule(plain, partials=[1, 1], adjoint=lambda ct, x, y: (ct, ct))
    with pytest.raises(RuleError, match="1 partials for 2 arguments"):
        dr.grad(dr.rule(plain, partials=[1]))(1.0, 2.0)


@pytest.mark.parametrize(("modes", "words"), [(["fwd"], r"forward mode \(push\), order 1, input args\[0\]\[2\]"),
                                              (["rev"], r"reverse mode \(pull\), order 1, input args\[0\]\[2\]")])
def test_check_rule_says_what_is_wrong(modes: list[str], words: str) -> None:
    f = dr.rule(lambda x: x**2, partials=[lambda x: 2 * x + (x < -1).astype(x.dtype)])
    with pytest.raises(DerivativeError, match=words):
        check_rule(f, X, modes=modes)


def test_check_grads_finds_a_wrong_second_derivative() -> None:
    @dr.rule(partials=[lambda x, *, out: jax.lax.stop_gradient(2 * x)])
    def square(x: Any) -> Any:
        return x**2

    check_grads(square, (0.7,), order=1)
    with pytest.raises(DerivativeError, match="order 2"):
        check_grads(square, (0.7,), order=2)


@pytest.mark.promotes
def test_check_grads_of_trees_complex_numbers_and_integers() -> None:
    def f(tree: dict[str, Any], n: Any) -> dict[str, Any]:
        return {"a": jnp.sin(tree["z"]) * jnp.abs(tree["z"]) ** 2, "n": n + 1}

    check_grads(f, ({"z": jnp.array([1 + 2j, 0.3 - 1j])}, 3))
    with pytest.raises(ValueError, match="needs an input of floating or complex dtype"):
        check_grads(lambda n: n, (3,))
    with pytest.raises(ValueError, match="modes must be"):
        check_grads(jnp.sin, (1.0,), modes=("forward",))
