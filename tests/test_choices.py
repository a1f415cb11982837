"""What ``engine="auto"`` chooses among sweeps, elimination and the compressed way, and that each gives jax's derivative and type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close
from jax import lax

import dualrev
from dualrev import time_model
from dualrev.functional import sparse_way
from dualrev.sparse import closure
from dualrev.time_model import machine

Array = Any
dr: Any = dualrev


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constants that come with the package, whatever this machine was calibrated to."""
    monkeypatch.setattr(machine, "_constants", lambda backend: time_model.shipped("cpu", "0.10.2"))


def x_of(n: int) -> Array:
    return jnp.linspace(0.5, 1.7, n)


def band(x: Array) -> Array:
    return jnp.sin(x[1:]) * x[:-1] + jnp.exp(x[1:])


def arrow(x: Array) -> Array:
    return (x * x + x[0] * x).at[0].set(jnp.sum(x * jnp.sin(x)))


def dense(x: Array) -> Array:
    return jnp.outer(x, x) @ jnp.sin(x)


def trees(d: Any) -> Any:
    return {"a": d["u"] * d["v"][0][1:], "b": (jnp.cumsum(d["u"][:20]), d["v"][0] ** 2)}


def energy(x: Array) -> Array:
    return jnp.sum((x[1:] - x[:-1] ** 2) ** 2 + jnp.exp(x[1:]))


def few_numbers(x: Array) -> Array:
    """Few numbers and many operations between them, the bottleneck of one number in the middle."""
    a = jnp.sin(x[0] * x[1]) * x[2] / (1 + x[3] ** 2) + x[4] * x[5] * x[6] * x[7]
    for _ in range(8):
        a = jnp.sin(a) * 1.1
    return jnp.stack([a, a * 2, jnp.exp(a), a**2, jnp.cos(a), a + 1, a / 3, -a])


WEIGHTS = [jnp.asarray(np.random.default_rng(0).normal(size=shape) / 5) for shape in ((90, 6), (6, 30), (30, 80))]


def autoencoder(x: Array) -> Array:
    return jnp.tanh(jnp.tanh(jnp.tanh(x @ WEIGHTS[0]) @ WEIGHTS[1]) @ WEIGHTS[2])


def two_through_a_waist(d: Any) -> Any:
    """Two values cross the cut, one of which is an output; so does one that does not depend on the inputs."""
    steps = jnp.arange(3.0) + d["u"].shape[0]
    a, b = jnp.stack([jnp.sum(d["u"] ** 2), jnp.prod(d["v"])]), jnp.sum(jnp.sin(d["v"]) * d["u"])
    c = lax.fori_loop(0, 5, lambda i, c: jnp.sin(c) + a[0] * 0.1, b)
    return {"a": a, "out": jnp.tanh(c * jnp.linspace(0.0, 1.0, 40)) * a[1], "steps": c * steps[:, None] * jnp.ones((3, 2))}


CASES: list[tuple[Callable[..., Any], Any, str]] = [
    (band, x_of(400), "sparse"),
]
MORE: list[tuple[Callable[..., Any], Any, str]] = [
    (dense, x_of(60), "tape"), (lambda x: jnp.sum(x**2)[None], x_of(500), "reverse"), (arrow, x_of(400), "sparse"),
    (band, x_of(9), "reverse"), (trees, {"u": x_of(299), "v": (x_of(300),)}, "sparse"),
    (lambda x: jnp.tanh(x[:200]) * x[200:400], x_of(800), "sparse"), (few_numbers, x_of(8), "tape"), (autoencoder, x_of(90), "waist"),
]


@pytest.mark.parametrize(("f", "x", "expected"), [*CASES, *[pytest.param(*case, marks=pytest.mark.thorough) for case in MORE]])
def test_jacobians(f: Any, x: Any, expected: str) -> None:
    jacobian = dr.jacobian(f)
    choice = jacobian.plan(x)
    assert choice.chosen == expected, str(choice)
    found, by_jax = jax.jit(jacobian)(x), jax.jacobian(f)(x)
    assert str(jax.tree.structure(found)) == str(jax.tree.structure(by_jax))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(by_jax), strict=True):
        assert (type(a), a.dtype, a.shape, a.weak_type) == (type(b), b.dtype, b.shape, b.weak_type)
        assert_close(a, b)
    for name in choice.seconds:  # each can be had whatever is predicted
        forced = dr.jacfwd(f, engine="reverse") if name == "tape" else dr.jacobian(f, engine=name)
        jax.tree.map(assert_close, forced(x), by_jax)


def test_through_a_waist() -> None:
    x = {"u": x_of(20), "v": x_of(20)}
    found = jax.jit(dr.jacobian(two_through_a_waist, engine="waist"))(x)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(jax.jit(jax.jacobian(two_through_a_waist))(x)), strict=True):
        assert a.dtype == b.dtype
        assert_close(a, b)


@pytest.mark.thorough
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_waist_under_transformations(chunk_size: int | None) -> None:
    x = {"u": x_of(20), "v": x_of(20)}
    waist = dr.jacobian(two_through_a_waist, engine="waist", chunk_size=chunk_size)
    expected = jax.jacobian(two_through_a_waist)(x)
    for found in (waist(x), jax.vmap(waist)(jax.tree.map(lambda x: x[None], x))):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert_close(a.reshape(b.shape), b)
    value, aux = dr.jacobian(lambda x: (autoencoder(x), x.shape), engine="waist", has_aux=True)(x_of(90))
    assert aux == (90,)
    assert_close(value, jax.jacobian(autoencoder)(x_of(90)))
    found = dr.grad(lambda x: jnp.sum(dr.jacobian(autoencoder, engine="waist")(x) ** 2))(x_of(90))
    assert_close(found, jax.grad(lambda x: jnp.sum(jax.jacobian(autoencoder)(x) ** 2))(x_of(90)))


def test_what_a_waist_can_not_do() -> None:
    for make, kind, match in (
            (lambda: dr.jacobian(jnp.sin, engine="waist")(x_of(3)), ValueError, "cuts a program of two operations or more"),
            (lambda: dr.jacobian(autoencoder, engine="waist", zero_wins=True)(x_of(90)), dr.errors.OptionError, "zero_wins"),
            (lambda: dr.jacobian(autoencoder, engine="waist")(jnp.arange(90)), TypeError, "real-valued inputs")):
        with pytest.raises(kind, match=match):
            make()
    choice = dr.jacobian(lambda x: autoencoder(x.astype(jnp.float64))).plan(x_of(90).astype(jnp.float32))
    assert choice.left_out["waist"] == "inputs and outputs have several dtypes"
    assert dr.jacobian(dense).plan(x_of(60)).left_out["waist"] == "120 numbers cross its narrowest cut, for 60 passes"
    assert dr.jacobian(few_numbers).plan(x_of(8)).left_out["waist"] == "8 passes are few"


@pytest.mark.thorough
@pytest.mark.parametrize(("f", "n", "expected"), [(energy, 300, "sparse"), (lambda x: jnp.sum(x) ** 3, 40, "forward over reverse")])
def test_hessians(f: Any, n: int, expected: str) -> None:
    x, hessian = x_of(n), dr.hessian(f, engine="auto")
    choice = hessian.plan(x)
    assert choice.chosen == expected, str(choice)
    by_jax = jax.hessian(f)(x)
    for found in (jax.jit(hessian)(x), dr.hessian(f, engine="sparse")(x)):
        assert isinstance(found, jax.Array) and found.dtype == by_jax.dtype
        assert_close(found, by_jax)


@pytest.mark.thorough
def test_un_jitted_calls_compress_where_one_call_regains_it() -> None:
    jacobian, x = dr.jacobian(band), x_of(1500)
    assert jacobian.plan(x).unjitted == "sparse"
    expected = jax.jit(jax.jacfwd(band))(x)
    assert_close(jacobian(x), expected)
    assert_close(jacobian(2 * x), jax.jit(jax.jacfwd(band))(2 * x))
    assert dr.jacobian(band).plan(x_of(300)).unjitted == "reverse"


@pytest.mark.parametrize("is_jitted", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_what_a_function_reads_from_elsewhere_may_change(is_jitted: bool) -> None:
    """A function that is another one in a later call, of the same shapes, has its own pattern."""
    state: dict[str, Any] = {"shift": 1, "weights": x_of(1500)}

    def f(x: Array) -> Array:
        return jnp.roll(x, state["shift"]) ** 2 * state["weights"]

    n = 300 if is_jitted else 1500
    jacobian, x, rows = dr.jacobian(f), x_of(n), np.arange(n)
    for changes, (shift, weights) in enumerate([(1, x), (3, x), (3, jnp.zeros(n).at[7].set(2.0)), (5, x), (6, x)]):
        state.update(shift=shift, weights=weights)
        found = (jax.jit(lambda x: jacobian(x)) if is_jitted else jacobian)(x)
        choice, unjitted = jacobian.plan(x), "sparse" if changes <= sparse_way.MOST_CHANGES else "tape"
        assert choice.chosen == "sparse" and (is_jitted or choice.unjitted == unjitted)
        expected = np.zeros((n, n))
        expected[rows, (rows - shift) % n] = 2 * np.roll(x, shift) * weights
        assert_close(found, expected)


@pytest.mark.parametrize(("f", "x", "why"), [
    (dense, x_of(600), "its pattern has many entries"),
    (lambda x: jax.nn.softmax(x) * x, x_of(3000), "its pattern has many entries"),
    (lambda x: x.astype(jnp.float32), x_of(500), "several dtypes"),
    (lambda x: x[:3] * 2, x_of(500), "3 outputs are fewer than 16"),
    (lambda x: x * 2, x_of(10), "10 inputs are fewer than 16"),
    (lambda x: x * 2, x_of(500).astype(complex), "not real"),
    (lambda x: jax.lax.fori_loop(0, 1000, lambda i, x: jnp.sin(x), x), x_of(16), "take longer"),
])
def test_counts_speak_against_the_compressed_way(f: Any, x: Any, why: str) -> None:
    choice = dr.jacobian(f, engine="auto").plan(x)
    assert choice.chosen != "sparse" and why in choice.left_out["sparse"]
    assert why in str(choice)


def test_a_full_pattern_is_not_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is kept of it are its sets, which the outputs share."""
    append = closure.Sets._append

    def checked(sets: closure.Sets, ends: Any, indices: Any) -> int:
        assert len(indices) < 10**8
        return append(sets, ends, indices)

    monkeypatch.setattr(closure.Sets, "_append", checked)
    choice = dr.jacobian(jax.nn.softmax).plan(jax.ShapeDtypeStruct((100_000,), "float32"))
    assert choice.left_out["sparse"] == "its pattern has many entries"


def test_what_only_sweeps_can_do_is_swept() -> None:
    """A Hessian of several outputs; errors are those of the sweeps."""
    x = x_of(20)
    hessian = dr.hessian(lambda x: x[:3] ** 3 * x[1], engine="auto")
    assert "one scalar output" in hessian.plan(x).left_out["sparse"]
    assert_close(hessian(x), jax.hessian(lambda x: x[:3] ** 3 * x[1])(x))
    with pytest.raises(TypeError, match="real-valued outputs"):
        jax.jit(dr.jacobian(lambda x: x.astype(int)))(x)


def test_functions_that_read_values_run_un_jitted() -> None:
    def f(x: Array) -> Array:
        return x * 2 if x[0] > 0 else x * 3

    x = x_of(300)
    np.testing.assert_array_equal(dr.jacobian(f)(x), 2 * np.eye(300))
    np.testing.assert_array_equal(dr.jacobian(f)(-x), 3 * np.eye(300))


def test_what_is_asked_for_is_said() -> None:
    x = x_of(40)
    for derivative, chosen in (
            (dr.jacobian(band, engine="forward"), "forward"), (dr.jacobian(band, engine="elimination"), "elimination"),
            (dr.hessian(energy), "forward over reverse"), (dr.hessian(energy, engine="reverse"), "reverse"),
            (dr.grad(energy), "reverse"),
            (dr.value_and_grad(energy, engine="forward"), "forward"), (dr.jacobian(band, sparse=True), "sparse"),
            (dr.hessian(energy, engine="sparse"), "sparse"), (dr.sparse.value_and_jacobian(band), "sparse")):
        choice = derivative.plan(x)
        assert choice.chosen == choice.unjitted == chosen and choice.is_asked and "asked for" in str(choice)
    assert dr.jacobian(band, engine="sparse").plan(x).sparse.forward_colours == 2
    assert not hasattr(dr.jvp, "plan") and not hasattr(dr.jacfwd(dr.grad(energy)), "plan")
    choice = dr.grad(energy, engine="auto").plan(x)
    assert choice.call == "grad" and choice.chosen == "reverse" and set(choice.seconds) == {"forward", "reverse"}


def test_shapes_do_for_arguments() -> None:
    shape = jax.ShapeDtypeStruct((400,), jnp.float64)
    text = str(dr.jacobian(lambda x, scale: band(x) * scale).plan(shape, jax.ShapeDtypeStruct((), jnp.float64)))
    assert text.startswith('jacobian of <lambda>: sparse, predicted to be the fastest; jacobian(f, engine="sparse")')
    assert "tape: " in text and "2 forward and 0 reverse colours" in text and "outside of jit: reverse" in text
    with pytest.raises(TypeError, match="argnums"):
        dr.jacobian(band, argnums=1).plan(shape)


@pytest.mark.thorough
@pytest.mark.parametrize("transform", [jax.vmap, lambda f: jax.jit(jax.vmap(f)), lambda f: jax.vmap(jax.jit(f))])
def test_under_vmap(transform: Any) -> None:
    both = jnp.stack([x_of(200), 2 * x_of(200)])
    assert_close(transform(dr.jacobian(arrow))(both), jax.vmap(jax.jacobian(arrow))(both))


@pytest.mark.thorough
@pytest.mark.parametrize("grad", [dr.grad, jax.grad])
def test_derivatives_of_what_was_chosen(grad: Any) -> None:
    x = x_of(150)

    def size(jacobian: Any) -> Any:
        return lambda x: jnp.sum(jacobian(arrow)(x) ** 3)

    expected = jax.grad(size(jax.jacobian))(x)
    assert_close(grad(size(dr.jacobian))(x), expected)
    assert_close(jax.jit(grad(size(dr.jacobian)))(x), expected)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(6))
def test_random_sparse_functions(seed: int) -> None:
    """Whatever is chosen, the result is jax's."""
    random = np.random.default_rng(seed)
    n, m = random.integers(20, 300, 2)
    rows = random.integers(0, n, (m, 3))

    def f(x: Array) -> Array:
        y = jnp.sin(x[rows[:, 0]]) * x[rows[:, 1]] + x[rows[:, 2]] ** 2
        return y if seed % 2 else y * jnp.mean(y)

    x = jnp.asarray(random.normal(size=n))
    assert_close(jax.jit(dr.jacobian(f))(x), jax.jacobian(f)(x))
    assert_close(jax.jit(dr.hessian(lambda x: jnp.sum(f(x)), engine="auto"))(x), jax.hessian(lambda x: jnp.sum(f(x)))(x))


def test_counts_are_those_of_the_module() -> None:
    """A dense derivative takes longer than this for each pass and entry, or the compressed way would be looked for where it costs."""
    assert sparse_way.PASS_ENTRY_S < sparse_way.UNJITTED_PASS_ENTRY_S and sparse_way.FEWER > 1
