"""Options that can't be honoured: the error names the option, the loop, the user's line, the condition that fails and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same
from jax import lax

import dualrev as dr

X = 0.7


def on_host(x: Any) -> Any:
    """A sine that the host computes."""
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), x, vmap_method="sequential")


def after_callback(x: Any) -> Any:
    return lax.scan(lambda c, _: (c * on_host(lax.stop_gradient(c)), None), x, None, length=3)[0]


def after_barrier(x: Any) -> Any:
    return lax.fori_loop(0, 3, lambda _, c: c * lax.optimization_barrier(jnp.sin(lax.stop_gradient(c))), x)


def after_callback_while(x: Any) -> Any:
    return lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0] * on_host(lax.stop_gradient(c[0])), c[1] + 1), (x, 0))[0]


def waves(x: Any) -> Any:
    return lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=9)[0]


def until(x: Any) -> Any:
    return lax.while_loop(lambda c: c < 5.0, lambda c: c * jnp.exp(0.1 * c), x)


def spread_out(x: Any) -> Any:
    w, v = jnp.linalg.eigh(x * jnp.eye(3))
    return jnp.sum((v * jnp.exp(w)[None]) @ v.T)


def split_in_scan(x: Any) -> Any:
    return lax.scan(lambda c, _: (c + spread_out(x + c), None), 0.0, None, length=2)[0]


def split_in_branch(x: Any) -> Any:
    return lax.cond(x > 0, spread_out, jnp.sin, x)


def split_in_checkpoint(x: Any) -> Any:
    return jax.checkpoint(spread_out)(x)


#: The function, the option, and what the message must say: the option, the loop, the function in which it stands, and the condition.
REFUSED: list[tuple[Callable[..., Any], dict[str, Any], list[str]]] = [
    (after_callback, {"recompute_residuals": True}, ["recompute_residuals=True", "for the scan at", "after_callback",
                                                     "'pure_callback' at .*on_host", "never run twice"]),
    (after_barrier, {"recompute_residuals": True}, ["for the fori_loop at", "after_barrier", "'optimization_barrier'"]),
    (after_callback_while, {"recompute_residuals": True}, ["for the while_loop at", "after_callback_while", "'pure_callback'"]),
    (waves, {"schedule": dr.Bytes(10)}, ["Bytes.bytes=10.", "for the scan at", "waves", "40 bytes at least", "more bytes"]),
    (split_in_scan, {"split_repeated": True}, ["split_repeated=True", "for the scan at", "split_in_scan"]),
    (split_in_branch, {"split_repeated": True}, ["for the cond or switch at", "split_in_branch"]),
    (split_in_checkpoint, {"split_repeated": True}, ["for the checkpointed function at", "split_in_checkpoint"]),
    (dr.checkpoint(until, schedule="sqrt"), {}, ["schedule='sqrt'", "no scan", "loop_checkpoints="]),
]


@pytest.mark.parametrize("jit", [False, True], ids=["", "jit"])
@pytest.mark.parametrize(("f", "options", "phrases"), REFUSED, ids=lambda v: getattr(v, "__name__", None))
def test_refused(f: Callable[..., Any], options: dict[str, Any], phrases: list[str], jit: bool) -> None:
    for within in (f, jax.jit(f)):
        gradient = dr.grad(within, **options)
        for _ in range(2):  # a program that is kept raises its error again
            with pytest.raises(dr.errors.OptionError) as caught:
                (jax.jit(gradient) if jit else gradient)(X)
            for phrase in ["^grad was asked for ", *phrases]:
                assert re.search(phrase, str(caught.value)), (phrase, str(caught.value))


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"grad: max_steps=9 stores .* loop_checkpoints=2 stores .* give one"):
        dr.grad(until, max_steps=9, loop_checkpoints=2)


def partly(x: Any) -> Any:
    """A callback whose result is stored, and an exponential that is computed again."""
    return lax.scan(lambda c, _: (jnp.exp(jnp.exp(jnp.sin(c))) * on_host(lax.stop_gradient(c)), None), x, None, length=3)[0]


def random_mask(x: Any) -> Any:
    def step(c: Any, key: Any) -> tuple[Any, None]:
        return jnp.where(jax.random.bernoulli(key), c * 2.0, c), None

    return lax.scan(step, x, jax.random.split(jax.random.key(0), 3))[0]


@pytest.mark.parametrize(("f", "options"), [
    (partly, {"recompute_residuals": True}), (random_mask, {"recompute_residuals": True}),
    (jax.checkpoint(waves), {"recompute_residuals": False}),
    (dr.checkpoint(waves, schedule="sqrt"), {}), (dr.checkpoint(until, schedule="all"), {})],
    ids=["partly", "random", "checkpoint", "schedule", "while"])
def test_not_refused(f: Callable[..., Any], options: dict[str, Any]) -> None:
    forward = dr.grad(f, engine="forward", custom_vjp_jvp="transpose")(X)
    assert_same(dr.grad(f, **options)(X), forward)


def test_states_are_stored_on_concrete_values_too() -> None:
    """Without the option a concrete loop stores the residuals of all steps, which here are many more bytes."""
    x = jnp.full(100, 0.01)

    def f(x: Any) -> Any:
        return lax.while_loop(lambda c: c[1] < 200, lambda c: (jnp.sin(c[0]), c[1] + 1), (x, 0))[0]

    few, all_of_them = dr.linearize(f, x, loop_checkpoints=3)[1], dr.linearize(f, x)[1]
    assert few.residual_bytes < 10 * x.nbytes < all_of_them.residual_bytes
    assert_same(few.T @ jnp.ones(100), all_of_them.T @ jnp.ones(100))
