"""Which example under ``vmap`` made a NaN: whatever axes it is asked for, in calls, loops and derivatives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dualrev as dr
from dualrev.inspection.finiteness import looking

# All axes have one length, so that no shape tells which of them are examples.
BAD = np.ones((3, 3))
BAD[0, 1] = -1.0
ZERO = np.ones((3, 3))
ZERO[2, 1] = 0.0
CUBE = np.ones((3, 3, 3))
CUBE[2, 1, 0] = -1.0


def total(v: Any) -> Any:
    return jnp.sum(jnp.sqrt(v))


def over_scan(v: Any) -> Any:
    return lax.scan(lambda c, a: (c + jnp.sqrt(a), None), jnp.float64(0.0), v)[0]


def for_as_long(v: Any) -> Any:
    """Examples take different numbers of steps."""
    return lax.while_loop(lambda s: s[0] < v[2] * 3, lambda s: (s[0] + 1, s[1] + jnp.sqrt(v[0])), (jnp.float64(0), jnp.float64(0)))[1]


def scan_of_vmap(m: Any) -> Any:
    return lax.scan(lambda c, a: (c + jnp.sum(jax.vmap(total, in_axes=a.ndim - 1)(a)), None), jnp.float64(0.0), m)[0]


@jax.custom_vjp
def ruled(v: Any) -> Any:
    return jnp.sum(v)


ruled.defvjp(lambda v: (ruled(v), v), lambda v, ct: (ct / v,))


CASES: dict[str, tuple[Any, Any, tuple[int, ...], tuple[int, ...]]] = {
    "in 1": (jax.vmap(total, in_axes=1), BAD, (1,), ()),
    "in 1, out 1": (jax.vmap(jnp.sqrt, in_axes=1, out_axes=1), BAD, (1,), ()),
    "in 0, out 1": (jax.vmap(jnp.sqrt, in_axes=0, out_axes=1), BAD, (0,), ()),
    "shared operand": (lambda x: jax.vmap(lambda a, b: jnp.log(a * b), in_axes=(None, 1), out_axes=1)(2.0, x), BAD, (1,), ()),
    "two axes": (lambda x: jax.vmap(lambda a, b: jnp.sqrt(a * b), in_axes=(0, 1))(jnp.ones((3, 3)), x), BAD, (1,), ()),
    "nested": (jax.vmap(jax.vmap(total, in_axes=1), in_axes=1), CUBE, (1, 0), ()),
    "nested, the other way": (jax.vmap(jax.vmap(total, in_axes=1), in_axes=2), CUBE, (0, 1), ()),
    "same for the inner": (jax.vmap(lambda v: jax.vmap(lambda w: w * jnp.log(v[0]))(jnp.ones(3)), in_axes=1), BAD, (1,), ()),
    "same for the outer": (jax.vmap(lambda v: jnp.sum(jax.vmap(jnp.log)(jnp.array([1.0, -1.0, 1.0]) + 0 * v[0]))), ZERO, (0, 1), ()),
    "scan within": (jax.vmap(jax.jit(over_scan), in_axes=1), BAD, (1,), (0,)),
    "within a scan": (scan_of_vmap, CUBE, (0,), (2,)),
    "around a scan around one": (jax.vmap(scan_of_vmap, in_axes=2), CUBE, (0, 1), (2,)),
    "steps that differ": (jax.vmap(for_as_long, in_axes=1), BAD, (1,), (0,)),
    "branch": (jax.vmap(lambda v: lax.cond(v[0] < 0, jnp.sqrt, lambda u: u, v), in_axes=1, out_axes=1), BAD, (1,), ()),
    "checkpoint": (jax.vmap(jax.checkpoint(jnp.sqrt), in_axes=1, out_axes=1), BAD, (1,), ()),
    "jitted gradient": (jax.jit(jax.vmap(dr.grad(total), in_axes=1, out_axes=1)), ZERO, (1,), ()),
    "gradient around": (dr.grad(lambda z: jnp.sum(jax.vmap(total, in_axes=1)(z) * 0.0)), ZERO, (1,), ()),
    "jax's gradient around": (jax.grad(lambda z: jnp.sum(jax.vmap(total, in_axes=1)(z) * 0.0)), ZERO, (1,), ()),
    "gradient of a scan": (jax.vmap(dr.grad(lambda v: over_scan(v) * 0.0), in_axes=1), ZERO, (1,), (2,)),
    "gradient around a scan": (dr.grad(lambda z: jnp.sum(jax.vmap(over_scan, in_axes=1)(z) * 0.0)), ZERO, (1,), (2,)),
    "Hessian": (jax.vmap(dr.hessian(total), in_axes=1), ZERO, (1,), ()),
    "rule of the user's": (jax.vmap(dr.grad(ruled), in_axes=1, out_axes=1), ZERO, (1,), ()),
    "around a rule of the user's": (dr.grad(lambda z: jnp.sum(jax.vmap(ruled, in_axes=1)(z))), ZERO, (1,), ()),
}


@pytest.mark.parametrize("name", CASES)
def test_example_and_step(name: str) -> None:
    fun, x, example, steps = CASES[name]
    made = dr.where_nan(fun)(x).made
    assert made is not None and (made.example, made.steps) == (example, steps)


def test_what_all_examples_share_belongs_to_none() -> None:
    made = dr.where_nan(jax.vmap(lambda v, w: v + jnp.log(w), in_axes=(1, None), out_axes=1))(ZERO, -1.0).made
    assert made is not None and made.operation == "log" and made.example == ()


def test_values_are_those_of_the_example() -> None:
    x = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    report = dr.where_nan(jax.vmap(lambda v: jnp.sum(jnp.log(v)), in_axes=1))(x)
    assert report.made is not None and (report.made.values, report.made.example) == (("-2",), (1,))
    assert "of example 1 under vmap" in str(report)


def test_all_of_a_batch_within_a_block() -> None:
    calls: list[Any] = [(jax.vmap(dr.grad(total), in_axes=1, out_axes=1), (1,), ()),
             (dr.grad(lambda z: jnp.sum(jax.vmap(over_scan, in_axes=1)(z) * 0.0)), (1,), (2,))]
    for call, example, steps in calls:
        with pytest.raises(dr.errors.NonFiniteError) as error, dr.finite():
            jax.jit(call)(ZERO)
        made = error.value.report.made  # type: ignore[attr-defined]
        assert (made.example, made.steps) == (example, steps)


def test_vmap_is_as_it_was_afterwards() -> None:
    from jax._src.interpreters.batching import BatchTrace
    before = BatchTrace.__init__, BatchTrace.process_primitive
    assert dr.where_nan(jax.vmap(total))(BAD)
    assert (BatchTrace.__init__, BatchTrace.process_primitive) == before


# ------------------------------------------------------------------------------------------------- looks without an effect


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where jax sees one device."""
    monkeypatch.setattr(looking, "_is_alone", lambda: True)


def root(x: Any) -> Any:
    return jnp.sum(jnp.sqrt(x) * 0.0)


@pytest.mark.usefixtures("alone")
def test_a_program_on_one_device_has_no_effect_and_is_waited_for() -> None:
    gradient = jax.jit(dr.grad(root))
    with dr.finite():
        assert not gradient.trace(np.ones(2)).jaxpr.effects
    slow = jax.jit(lambda a: lax.fori_loop(0, 30, lambda i, a: jnp.sin(a @ a), a))
    for _ in range(2):
        with pytest.raises(dr.errors.NonFiniteError) as error, dr.finite():
            gradient(0 * slow(jnp.ones((200, 200))))  # nobody waits for the result
        assert error.value.report.operation == "sqrt"  # type: ignore[attr-defined]
    with dr.finite():
        np.testing.assert_array_equal(gradient(np.ones(2)), np.zeros(2))


@pytest.mark.usefixtures("alone")
def test_looks_without_an_effect_in_loops_batches_and_derivatives_of_jax() -> None:
    def step(w: Any) -> Any:
        return lax.scan(lambda c, _: (c - 0.1 * dr.grad(total)(c), None), w, None, length=3)[0]

    def second(x: Any) -> Any:
        return jax.grad(lambda y: jnp.sum(dr.grad(total)(y)))(x)

    calls: list[Any] = [step, second, jax.vmap(dr.grad(total))]
    for call in calls:
        wrapped = jax.jit(call)
        with dr.finite():
            np.testing.assert_allclose(wrapped(CUBE[0]), call(CUBE[0]))
        with pytest.raises(dr.errors.NonFiniteError), dr.finite():
            wrapped(ZERO)


def test_the_line_is_that_of_the_step_under_vmap_too() -> None:
    """The program of a loop under ``vmap`` is traced by jax, which makes it no function of a library."""
    def f(x: Any) -> Any:
        def step(c: Any, i: Any) -> Any:
            return jnp.sqrt(c * (i < 2).astype(c.dtype)), None

        return jnp.sum(lax.scan(step, x, jnp.arange(3))[0])

    def push(x: Any) -> Any:
        return dr.jvp(f, (x,), (x,))[1]

    plain, batched = dr.where_nan(push)(jnp.ones(3)), dr.where_nan(jax.vmap(push))(jnp.ones((2, 3)))
    first = f.__code__.co_firstlineno
    assert plain.line == batched.line == first + 2
    assert batched.operation == plain.operation == "sqrt"
