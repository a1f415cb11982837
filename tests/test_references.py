"""Mutable references inside differentiated functions: what a program with references computes, its derivative is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from agreement import FACES, Face, assert_close, assert_same

import dualrev
from dualrev.errors import MutableReferenceError

X = jnp.array([0.3, 0.5, 0.7])


def written_and_read(x: Any) -> Any:
    ref = jax.new_ref(jnp.zeros(3))
    ref[0] = x[0] * 2
    ref[1] = ref[0] * x[1]
    ref[...] += jnp.sin(x)
    return jnp.sum(ref[...] ** 2)


def in_loop(x: Any) -> Any:
    ref = jax.new_ref(x)

    def body(i: Any, c: Any) -> Any:
        ref[i] = jnp.sin(ref[i]) * c
        return c * 1.1

    return jax.lax.fori_loop(0, 3, body, 1.5) * jnp.sum(ref[...])


def in_compiled_function(x: Any) -> Any:
    ref = jax.new_ref(jnp.zeros(()))

    @jax.jit
    def step(y: Any) -> Any:
        ref[...] = ref[...] + jnp.sum(y * y)
        return y * 3

    step(step(x))
    return ref[...] * x[0]


def in_branch(x: Any) -> Any:
    ref = jax.new_ref(x)
    jax.lax.cond(x[0] > 0, lambda: ref.__setitem__(0, x[1] * x[2]), lambda: None)
    return jax.ref.freeze(ref).prod()


def swapped_and_added(x: Any) -> Any:
    ref = jax.new_ref(jnp.zeros(3))
    jax.ref.addupdate(ref, (1,), x[0] * x[1])
    jax.ref.addupdate(ref, slice(0, 2), x[1:])
    old = jax.ref.swap(ref, 1, x[2] ** 2)
    return jnp.sum(ref[...] ** 2) * old


def whole_function_compiled(x: Any) -> Any:
    return jax.jit(written_and_read)(x)


FUNCTIONS = [written_and_read, in_loop, in_compiled_function, in_branch, swapped_and_added, whole_function_compiled]


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_gradient(f: Callable[..., Any], face: Face) -> None:
    expected = jax.grad(f)(X)
    assert_same(face.grad(f)(X), expected)
    assert_same(jax.jit(face.grad(f))(X), expected)


@pytest.mark.thorough
@pytest.mark.parametrize("f", [written_and_read, in_loop], ids=lambda f: f.__name__)
def test_second_order_and_vmap(f: Callable[..., Any]) -> None:
    batch = jnp.stack([X, 2 * X])
    assert_same(jax.jit(dualrev.hessian(f))(X), columns(jax.grad(f)))
    assert_same(jax.vmap(dualrev.grad(f))(batch), jnp.stack([jax.grad(f)(x) for x in batch]))


def columns(f: Callable[..., Any]) -> Any:
    """The Jacobian, by one push of jax's after another: jax's references do not all go through ``vmap``."""
    return jnp.stack([jax.jvp(f, (X,), (t,))[1] for t in jnp.eye(3)], -1)


def test_run_state_goes_both_ways() -> None:
    """jax pushes through ``run_state`` and does not pull."""
    from jax._src.state.discharge import run_state

    def f(x: Any) -> Any:
        def body(ref: Any) -> None:
            ref[0] = ref[1] * jnp.sin(ref[2])

        return jnp.sum(run_state(body)(x) ** 2)

    with pytest.raises(ValueError, match="Linearization failed"):
        jax.grad(f)(X)
    assert_same(dualrev.grad(f)(X), columns(f))
    assert_same(dualrev.grad(f, engine="forward")(X), columns(f))


def test_outside_reference_may_be_read_and_written_with_constants() -> None:
    ref = jax.new_ref(jnp.zeros(3))

    def f(x: Any) -> Any:
        ref[...] = jax.lax.stop_gradient(x) * 2
        return jnp.sum(x * ref[...])

    assert_same(dualrev.grad(f)(X), 2 * X)
    assert_close(ref[...], 2 * X)


def test_cotangents_are_stashed_in_an_outside_reference() -> None:
    @jax.custom_vjp
    def stash(ref: Any, x: Any) -> Any:
        return x

    def backward(ref: Any, ct: Any) -> Any:
        ref[...] = ct
        return None, ct

    stash.defvjp(lambda ref, x: (x, ref), backward)
    seen = jax.new_ref(jnp.zeros(3))
    dualrev.grad(lambda x: jnp.sum(stash(seen, jnp.sin(x)) ** 2))(X)
    assert_close(seen[...], 2 * jnp.sin(X))


@pytest.mark.parametrize("face", FACES, ids=str)
def test_outside_reference_is_not_written_with_what_moves(face: Face) -> None:
    ref = jax.new_ref(jnp.zeros(3))

    def f(x: Any) -> Any:
        ref[...] = x
        return jnp.sum(x)

    with pytest.raises(MutableReferenceError, match=r"test_references\.py.*outside the differentiated function.*stop_gradient"):
        face.grad(f)(X)


@pytest.mark.parametrize("face", FACES, ids=str)
def test_references_neither_enter_nor_leave(face: Face) -> None:
    with pytest.raises(MutableReferenceError, match="returned a mutable reference"):
        face.vjp(jax.new_ref, X)
    with pytest.raises(TypeError, match="is a mutable reference"):
        face.grad(lambda ref: ref[0])(jax.new_ref(X))


def test_reference_enters_a_checkpoint() -> None:
    def f(x: Any) -> Any:
        ref = jax.new_ref(x)
        jax.checkpoint(lambda: ref.__setitem__(0, jnp.sin(ref[1])))()
        return jnp.sum(ref[...] ** 2)

    assert_same(dualrev.grad(f)(X), jnp.array([0.0, jnp.sin(1.0) + 1.0, 1.4]))


@pytest.mark.parametrize("face", FACES, ids=str)
def test_reference_cannot_enter_a_custom_rule(face: Face) -> None:
    @jax.custom_vjp
    def read(ref: Any, x: Any) -> Any:
        return ref[...] * x

    read.defvjp(lambda ref, x: (ref[...] * x, ref[...]), lambda value, ct: (None, value * ct))

    def f(x: Any) -> Any:
        return jnp.sum(read(jax.new_ref(x), x))

    with pytest.raises(MutableReferenceError, match="cannot enter"):
        face.grad(f)(X)


# ---------------------------------------------------------------- from outside, where a program may be evaluated a second time

def counted(ref: Any, x: Any) -> Any:
    """``sin(n x)`` in the ``n``-th evaluation: what a second evaluation of the same step finds is another value."""
    out = x * ref[...]
    ref[...] += 1.0
    return jnp.sin(out)


def added_first(ref: Any) -> Any:
    def f(x: Any) -> Any:
        ref.addupdate(1.0)
        return jnp.sin(x * (ref[...] - 1))

    return jax.checkpoint(f)


def in_while_loop(ref: Any) -> Any:
    return lambda x: jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, counted(ref, s[1])), (0, x))[1]


#: Functions that read and write a reference, and the number of their steps.
FROM_OUTSIDE: dict[str, tuple[Callable[[Any], Any], int]] = {
    "checkpoint": (lambda ref: jax.checkpoint(lambda x: counted(ref, x)), 1),
    "checkpoints": (
        lambda ref: jax.checkpoint(jax.checkpoint(lambda x: counted(ref, x), policy=jax.checkpoint_policies.dots_saveable)), 1),
    "checkpoint of jit": (lambda ref: jax.checkpoint(jax.jit(lambda x: counted(ref, x))), 1),
    "argument of a checkpoint": (lambda ref: lambda x: jax.checkpoint(counted)(ref, x), 1),
    "addition": (added_first, 1),
    "steps in Python": (lambda ref: lambda x: counted(ref, counted(ref, counted(ref, x))), 3),
    "scan": (lambda ref: lambda x: jax.lax.scan(lambda c, _: (counted(ref, c), None), x, None, length=3)[0], 3),
    "scan of checkpoints": (lambda ref: lambda x: jax.lax.scan(jax.checkpoint(lambda c, _: (counted(ref, c), None)), x, None, 3)[0], 3),
    "checkpoint of a scan": (
        lambda ref: jax.checkpoint(lambda x: jax.lax.scan(lambda c, _: (counted(ref, c), None), x, None, length=3)[0]), 3),
    "while loop": (in_while_loop, 3),
}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("options", [{}, {"loop_checkpoints": 2}, {"schedule": "sqrt"}], ids=["", "loop_checkpoints", "schedule"])
@pytest.mark.parametrize("name", FROM_OUTSIDE)
def test_a_reference_from_outside_is_read_and_written_once(name: str, options: dict[str, Any], wrap: Any) -> None:
    make, n = FROM_OUTSIDE[name]

    def oracle(x: Any) -> Any:
        for i in range(n):
            x = jnp.sin(x * (i + 1))
        return x

    ref = jax.new_ref(1.0)
    assert_close(wrap(dualrev.grad(make(ref), **options))(0.7), jax.grad(oracle)(0.7))
    assert ref[...] == n + 1
    if not options:
        ref = jax.new_ref(1.0)
        out, tangent = wrap(lambda x: dualrev.jvp(make(ref), (x,), (1.0,)))(0.7)
        assert_close(out, oracle(0.7))
        assert_close(tangent, jax.grad(oracle)(0.7))
        assert ref[...] == n + 1


@pytest.mark.parametrize("name", ["scan", "while loop"])
def test_no_active_value_is_written_in_a_loop(name: str) -> None:
    def f(x: Any) -> Any:
        def step(c: Any) -> Any:
            ref[...] += c
            return jnp.sin(c)

        if name == "scan":
            return jax.lax.scan(lambda c, _: (step(c), None), x, None, length=3)[0]
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, step(s[1])), (0, x))[1]

    ref = jax.new_ref(1.0)
    with pytest.raises(MutableReferenceError, match="made outside the differentiated function"):
        dualrev.grad(f)(0.7)
