"""Reductions by users' operations and functions applied in place: what jax cannot differentiate, or gets wrong."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import ENGINES, assert_same
from jax import lax

import dualrev as dr
from dualrev import errors
from dualrev.calls.user_reductions import tree, windows

Array = Any
X = jnp.asarray(np.random.default_rng(0).standard_normal(12))


def times(x: Array, y: Array) -> Array:
    return x * y


def window_products(x: Array) -> Array:
    return lax.reduce_window(x, np.float64(1), times, (3,), (2,), "SAME")


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ENGINES)
def test_windows_in_reverse(engine: Any) -> None:
    def f(x: Array) -> Array:
        return jnp.sum(jnp.sin(window_products(x)))

    def by_hand(x: Array) -> Array:
        padded = jnp.pad(x, (0, 1), constant_values=1)
        return jnp.sum(jnp.sin(padded[:-2:2] * padded[1:-1:2] * padded[2::2]))

    assert_same(dr.grad(f, engine=engine)(X), jax.grad(by_hand)(X))
    assert_same(dr.hessian(f, engine=engine)(X), jax.hessian(by_hand)(X))
    with pytest.raises(ValueError, match="reverse-mode"):
        jax.grad(f)(X)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_value_is_that_of_the_operation(engine: Any) -> None:
    """An initial value that is not the identity is used once, as jax does where nothing is differentiated."""
    def f(x: Array) -> Array:
        return lax.reduce(x, np.float64(5), lambda x, y: x + y, (0,))

    x = jnp.arange(4.0)
    assert f(x) == 11
    assert_same(dr.value_and_grad(f, engine=engine)(x), (jnp.asarray(11.0), jnp.ones(4)))
    assert jax.value_and_grad(f)(x)[0] == 6


def test_initial_values_do_not_move() -> None:
    for derivative in (dr.grad(lambda p: lax.reduce(X, p, lambda x, y: x * y, (0,))),
                       dr.jacfwd(lambda p: lax.reduce_window(X, p, times, (3,), (1,), "VALID"))):
        with pytest.raises(errors.NoDerivativeError, match=r"initial value.*identity"):
            derivative(jnp.asarray(1.0))


def test_jit_vmap_and_closed_over_constants() -> None:
    scale = jnp.asarray(2.0)

    def f(x: Array) -> Array:
        return lax.reduce(x, np.float64(0), lambda x, y: x + y + 0 * scale * x * y, (0,)) ** 2

    xs = jnp.stack([X, 2 * X])
    expected = 2 * xs.sum(1)[:, None] * jnp.ones_like(xs)
    assert_same(jax.jit(jax.vmap(dr.grad(f)))(xs), expected)
    assert_same(jax.vmap(jax.jit(dr.grad(f, engine="forward")))(xs), expected)


@pytest.mark.thorough
def test_many_entries_take_few_operations() -> None:
    """A level of the tree is one application of the operation, and overlapping windows share theirs."""
    def f(x: Array) -> Array:
        return lax.reduce(x, np.float64(1), times, (0,))

    def g(x: Array) -> Array:
        return lax.reduce_window(x, np.float64(1), times, (1024,), (1,), "VALID")

    x = jnp.ones(1 << 14)
    for fun in (f, g):
        jaxpr = jax.make_jaxpr(lambda x, fun=fun: dr.jvp(fun, (x,), (x,))[1])(x)
        assert str(jaxpr).count(" mul ") <= 3 * 15
    assert_same(dr.jvp(f, (x,), (x,))[1], jnp.asarray(float(1 << 14)))


def test_trees_pair_neighbours_in_order() -> None:
    def flatten(lists: np.ndarray) -> list[list[int]]:
        levels, results = tree(lists)
        entries: list[list[int]] = [[i] for i in range(int(lists.max(initial=-1)) + 1)]
        for level in levels:
            pairs = [[*entries[i], *entries[j]] for i, j in zip(level.left, level.right, strict=True)]
            entries = pairs + [entries[i] for i in level.alone]
        return [entries[i] if i >= 0 else [] for i in results]

    for n, size, stride, padding, base, dilation in ((7, 3, 1, (0, 0), 1, 1), (7, 4, 2, (3, 5), 2, 3), (5, 5, 1, (4, 0), 1, 1),
                                                     (3, 2, 1, (4, 4), 1, 1), (0, 2, 1, (2, 2), 1, 1), (6, 3, 2, (-1, -1), 1, 2)):
        lists = windows(n, size, stride, padding, base, dilation)
        assert flatten(lists) == [[i for i in places if i >= 0] for places in lists.tolist()]
    assert flatten(np.arange(11)[None]) == [list(range(11))]


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ENGINES)
def test_functions_applied_in_place(engine: Any) -> None:
    """In a place that is given twice, the function is applied twice; jax has no derivative of it at all."""
    indices = jnp.array([2, 0, 2, 5])

    def f(x: Array) -> Array:
        return jnp.sum(x.at[indices].apply(jnp.sin) ** 2)

    def by_hand(x: Array) -> Array:
        once = jnp.sin(x)
        return jnp.sum(x.at[jnp.array([0, 5])].set(once[jnp.array([0, 5])]).at[2].set(jnp.sin(once[2])) ** 2)

    assert_same(dr.grad(f, engine=engine)(X), jax.grad(by_hand)(X))
    assert_same(dr.hessian(f, engine=engine)(X), jax.hessian(by_hand)(X))
    assert_same(jax.jit(dr.grad(f, engine=engine))(X), jax.grad(by_hand)(X))
    with pytest.raises(NotImplementedError):
        jax.grad(f)(X)


def test_batches_of_functions_applied_in_place() -> None:
    xs, indices = jnp.stack([X, 2 * X]), jnp.array([[1, 1, 3], [0, 3, 3]])

    def f(x: Array, indices: Array) -> Array:
        return jnp.sum(x.at[indices].apply(jnp.sin))

    got = jax.vmap(dr.grad(f))(xs, indices)
    assert_same(got, jnp.stack([dr.grad(f)(x, i) for x, i in zip(xs, indices, strict=True)]))
    whole = dr.grad(lambda xs: jnp.sum(jax.vmap(f)(xs, indices)))(xs)
    assert_same(whole, got)


@pytest.mark.thorough
def test_an_operation_goes_when_the_user_lets_it_go() -> None:
    def differentiate() -> weakref.ref[Any]:
        def operation(x: Array, y: Array) -> Array:
            return x * y

        dr.grad(lambda x: lax.reduce(x, np.float64(1), operation, (0,)))(X)
        return weakref.ref(operation)

    reference = differentiate()
    jax.clear_caches()
    gc.collect()
    assert reference() is None


@pytest.mark.thorough
def test_ragged_contractions_of_every_kind() -> None:
    """Gradients of gradients of ``ragged_dot``, of which jax has no adjoint."""
    x, y = jnp.asarray(X.reshape(4, 3)), jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 2)))
    sizes = jnp.array([1, 3])

    def f(x: Array, y: Array) -> Array:
        return jnp.sum(jnp.sin(lax.ragged_dot(x, y, sizes)))

    def by_hand(x: Array, y: Array) -> Array:
        return jnp.sum(jnp.sin(jnp.einsum("mk,mkn->mn", x, y[jnp.array([0, 1, 1, 1])])))

    def second(grad: Any, f: Any) -> Any:
        return grad(lambda x, y: sum(jnp.sum(g**2) for g in grad(f, argnums=(0, 1))(x, y)), argnums=(0, 1))(x, y)

    assert_same(second(dr.grad, f), second(jax.grad, by_hand))
    with pytest.raises(NotImplementedError):
        second(jax.grad, f)
