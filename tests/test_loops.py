"""Loops: reverse mode where nobody knows the number of steps, and sums over the steps of a scan that are taken after it."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import promoting
from checkpoint_schedules import Forward, Revolve
from jax import lax

import dualrev as dr
from dualrev import errors, time_model
from dualrev._jax.calls import scan_layout
from dualrev.options import schedules
from dualrev.time_model import machine

RNG = np.random.default_rng(2024)
WEIGHTS = jnp.asarray(RNG.normal(size=(4, 4)))
START = jnp.asarray(RNG.normal(size=(3, 4)))
Step = Callable[[Any, Any, Any], Any]


def tanh_step(w: Any, i: Any, h: Any) -> Any:
    return jnp.tanh(h @ w) + 0.3 * jnp.cos(jnp.asarray(i, h.dtype) + h)


def while_of(step: Step) -> Callable[..., Any]:
    """A program that repeats a step as often as its argument says."""

    def run(w: Any, h: Any, n: Any) -> Any:
        _, h = lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, step(w, c[0], c[1])), (0, h))
        return sum(jnp.sum(jnp.sin(jnp.abs(x) + x.real)) for x in jax.tree.leaves(h) if jnp.issubdtype(x.dtype, jnp.inexact))

    return run


def scan_of(step: Step) -> Callable[..., Any]:
    """The same, of a number of steps that jax knows."""

    def run(w: Any, h: Any, n: int) -> Any:
        h, _ = lax.scan(lambda h, i: (step(w, i, h), None), h, jnp.arange(n))
        return sum(jnp.sum(jnp.sin(jnp.abs(x) + x.real)) for x in jax.tree.leaves(h) if jnp.issubdtype(x.dtype, jnp.inexact))

    return run


def assert_close(got: Any, expected: Any, rtol: float = 1e-10) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        left, right = np.asarray(a, complex), np.asarray(b, complex)
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol * max(1.0, float(np.abs(right).max())))


# ------------------------------------------------------------------------------------------------------- unknown length


@pytest.mark.parametrize("n", [0, 1, 2, 7, 130])
def test_reverse_of_a_while_loop(n: int) -> None:
    f, expected = while_of(tanh_step), jax.grad(scan_of(tanh_step), (0, 1))(WEIGHTS, START, n)
    assert_close(dr.grad(f, (0, 1))(WEIGHTS, START, n), expected)
    ways = [{}, {"loop_checkpoints": 2}, {"loop_checkpoints": 1}, {"loop_checkpoints": 5}, {"max_steps": 130}]
    for options in ways if n == 7 else ways[:2]:
        assert_close(jax.jit(dr.grad(f, (0, 1), **options))(WEIGHTS, START, n), expected)  # type: ignore[call-overload]


def two_carries(w: Any, i: Any, h: Any) -> Any:
    key, even, odd = h
    key, now = jax.random.split(key)
    noise = jax.random.normal(now, odd.shape)
    return key, lax.cond(i % 2 == 0, lambda x: jnp.sin(x @ w), lambda x: x * odd, even), odd + 0.1 * noise * even


def inner_while(w: Any, i: Any, h: Any) -> Any:
    return lax.while_loop(lambda c: jnp.sum(c**2) > 1, lambda c: c * 0.7 + 0.01 * jnp.sin(c @ w), 2 * h + 1)


def inner_scan(w: Any, i: Any, h: Any) -> Any:
    return lax.scan(lambda c, x: (jnp.sin(c * x @ w), None), h, jnp.stack([h, h + 1]))[0]


STEPS: dict[str, tuple[Step, Any, Any]] = {
    "keys and branches": (two_carries, WEIGHTS, (jax.random.key(3), START, START + 1)),
    "a scan inside": (inner_scan, WEIGHTS, START),
    "complex": (tanh_step, WEIGHTS.astype(complex) + 0.3j, START.astype(complex) - 0.2j),
    "single precision": (tanh_step, WEIGHTS.astype("float32"), START.astype("float32")),
    "an unused constant": (lambda w, i, h: jnp.sin(h), WEIGHTS, START),
    "a carry that stands still": (lambda w, i, h: (h[0], jnp.sin(h[1] @ w) * h[0]), WEIGHTS, (START, START)),
    "carries that change places": (lambda w, i, h: (h[1], jnp.sin(h[0] @ w)), WEIGHTS, (START, START + 1)),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", STEPS)
def test_bodies(name: str) -> None:
    step, w, h = STEPS[name]
    rtol = 1e-4 if name == "single precision" else 1e-10
    expected = jax.grad(scan_of(step), 0, holomorphic=False)(w, h, 9)
    for how in (dr.grad, lambda f, **k: jax.jit(dr.grad(f, **k))):
        assert_close(how(while_of(step))(w, h, 9), expected, rtol)
        assert_close(how(while_of(step), loop_checkpoints=2)(w, h, 9), expected, rtol)
    pushed = dr.jvp(lambda w: while_of(step)(w, h, 9), (w,), (w,))[1]
    assert_close(pushed, jax.jvp(lambda w: scan_of(step)(w, h, 9), (w,), (w,))[1], rtol)


def test_while_in_while() -> None:
    """The oracle is forward mode, which goes through such loops in jax."""
    f = while_of(inner_while)
    expected = jax.jacfwd(lambda w: f(w, START, 3))(WEIGHTS)
    assert_close(dr.grad(lambda w: f(w, START, 3))(WEIGHTS), expected)
    assert_close(jax.jit(dr.grad(f, loop_checkpoints=2))(WEIGHTS, START, 3), expected)


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{}, {"loop_checkpoints": 2}, {"max_steps": 8}], ids=str)
def test_second_order(options: Any) -> None:
    n = 6
    expected = jax.hessian(lambda w: scan_of(tanh_step)(w, START, n))(WEIGHTS)

    def f(w: Any) -> Any:
        return while_of(tanh_step)(w, START, n)

    for outer, inner in ((dr.jacrev, dr.jacrev), (dr.jacfwd, dr.jacrev), (dr.jacrev, dr.jacfwd))[: 1 if options else 3]:
        assert_close(jax.jit(outer(inner(f, **options), **options))(WEIGHTS), expected)
    if not options:
        assert_close(dr.jacrev(dr.jacrev(f))(WEIGHTS), expected)


@pytest.mark.parametrize("options", [{}, {"loop_checkpoints": 3}, {"max_steps": 20}], ids=str)
def test_vmapped_over_different_numbers_of_steps(options: Any) -> None:
    starts, counts = jnp.stack([START, 2 * START, START + 1]), jnp.array([5, 0, 11])
    got = jax.jit(jax.vmap(dr.grad(while_of(tanh_step), (0, 1), **options), (None, 0, 0)))(WEIGHTS, starts, counts)
    rows = [jax.grad(scan_of(tanh_step), (0, 1))(WEIGHTS, h, int(n)) for h, n in zip(starts, counts, strict=True)]
    assert_close(got, jax.tree.map(lambda *xs: jnp.stack(xs), *rows))


@pytest.mark.parametrize("how", [dr.grad, functools.partial(dr.grad, engine="forward"), lambda f: jax.jit(dr.grad(f))],
                         ids=["reverse", "forward", "jit"])
def test_a_batch_inside(how: Any) -> None:
    """The members of a batch stop at different steps."""
    starts, counts = jnp.stack([START, 2 * START, START + 1]), jnp.array([5, 0, 7])

    def total(f: Any) -> Any:
        return lambda w: jnp.sum(jnp.stack([f(w, h, n) for h, n in zip(starts, [5, 0, 7], strict=True)]) ** 2)

    got = how(lambda w: jnp.sum(jax.vmap(while_of(tanh_step), (None, 0, 0))(w, starts, counts) ** 2))(WEIGHTS)
    assert_close(got, jax.grad(total(scan_of(tanh_step)))(WEIGHTS))


def test_newton() -> None:
    """d sqrt(a) / da, through the iteration that finds it."""

    def newton(a: Any) -> Any:
        return lax.while_loop(lambda s: jnp.abs(s * s - a) > 1e-12, lambda s: (s + a / s) / 2, a)

    for gradient in (dr.grad(newton), jax.jit(dr.grad(newton)), dr.grad(newton, engine="forward")):
        np.testing.assert_allclose(gradient(2.0), 0.5 / math.sqrt(2), rtol=1e-9)
    np.testing.assert_allclose(dr.grad(dr.grad(newton))(2.0), -0.25 * 2**-1.5, rtol=1e-6)


def test_a_pushed_linear_map_and_a_pulled_one() -> None:
    J = dr.linearize(lambda w: while_of(tanh_step)(w, START, 9), WEIGHTS)[1]
    t = jnp.cos(WEIGHTS)
    expected = jax.jvp(lambda w: scan_of(tanh_step)(w, START, 9), (WEIGHTS,), (t,))[1]
    np.testing.assert_allclose(J(t), expected, rtol=1e-10)


def test_a_linear_loop_is_transposed() -> None:
    """jax cannot: its while loops have no transposes."""

    def f(x: Any) -> Any:
        return lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, jnp.roll(c[1], 1) * (c[0] + 2.0)), (0, x))[1]

    x, ct = jnp.arange(3.0), jnp.array([1.0, -2.0, 0.5])
    with pytest.raises(ValueError, match="while_loop"):
        jax.linear_transpose(f, x)(ct)
    (got,) = dr.linear_transpose(f, x)(ct)
    np.testing.assert_allclose(got, jax.jacfwd(f)(x).T @ ct, rtol=1e-12)


def test_a_loop_that_never_ends_is_stopped() -> None:
    def f(x: Any) -> Any:
        return lax.while_loop(lambda c: ~(c < 1), lambda c: jnp.sqrt(c - 4), x)  # the square root of -1 is never less than 1

    for gradient in (dr.grad(f, max_steps=50), dr.grad(f, max_steps=50, engine="forward")):
        with pytest.raises(errors.LoopTooLongError, match="max_steps=50"):
            gradient(3.0)
    with pytest.raises(Exception, match="max_steps=50"):
        jax.block_until_ready(jax.jit(dr.grad(f, max_steps=50))(3.0))
    np.testing.assert_allclose(dr.grad(f, max_steps=1)(4.5), 0.5 / math.sqrt(0.5))


@pytest.mark.parametrize("name", ["loop_checkpoints", "max_steps"])
def test_counts_that_make_no_sense(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        dr.grad(jnp.sin, **{name: 0})(1.0)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=f"{name} must be None or a whole number; got 2.5"):
        dr.grad(jnp.sin, **{name: 2.5})(1.0)  # type: ignore[call-overload]


def test_room_does_not_grow_with_the_number_of_steps() -> None:
    def bytes_of(n: int) -> int:
        compiled = jax.jit(dr.grad(while_of(tanh_step), loop_checkpoints=4)).lower(WEIGHTS, START, n).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return int(analysis.temp_size_in_bytes)

    assert bytes_of(10) == bytes_of(10**6) < 100 * START.nbytes


# ---------------------------------------------------------------------------------------------------------- schedules


def fewest(steps: int, slots: int) -> int:
    """The fewest evaluations, pulls not counted, by dynamic programming."""
    table = {(1, s): 0 for s in range(1, slots + 1)}
    for length in range(2, steps + 1):
        table[length, 1] = length * (length - 1) // 2
        for s in range(2, slots + 1):
            table[length, s] = min(m + table[length - m, s - 1] + table[m, s] for m in range(1, length))
    return table[steps, slots]


@pytest.mark.parametrize(("steps", "slots"), [(2, 2), (9, 3), (64, 4), (100, 7), (50, 60)])
def test_offline_schedules_are_the_best(steps: int, slots: int) -> None:
    starts = schedules.positions(steps, slots)
    assert len(starts) <= slots and schedules.evaluations(starts, steps, slots) + starts[-1] == fewest(steps, slots)
    np.testing.assert_allclose(schedules.cost(np.array(steps), slots, schedules.binomials(slots)), fewest(steps, slots))


@pytest.mark.parametrize(("steps", "slots"), [(1, 1), (5, 9), (10, 2), (30, 3), (64, 4), (100, 7)])
def test_offline_schedules_take_as_many_steps_as_revolve(steps: int, slots: int) -> None:
    """The schedule of the package checkpoint_schedules, whose pulls are forward steps that record."""
    forward = [action.n1 - action.n0 for action in Revolve(steps, slots) if isinstance(action, Forward)]
    starts = schedules.positions(steps, slots)
    assert sum(forward) == starts[-1] + schedules.evaluations(starts, steps, slots) + steps


@pytest.mark.parametrize(("steps", "slots"), [(9, 1), (30, 3), (64, 4), (20, 30)])
def test_a_scan_takes_the_steps_of_its_schedule(steps: int, slots: int) -> None:
    taken = []

    def step(h: Any, _: Any) -> Any:
        jax.debug.callback(lambda: taken.append(1))
        return jnp.sin(h), None

    jax.block_until_ready(jax.jit(dr.grad(lambda x: lax.scan(step, x, None, length=steps)[0], schedule=dr.Revolve(slots)))(1.0))
    jax.effects_barrier()
    starts = schedules.positions(steps, slots)
    assert len(taken) == steps + schedules.evaluations(starts, steps, slots) + steps  # the sweep, on the way back, and recorded


@pytest.mark.parametrize(("steps", "slots", "most"), [(64, 4, 279), (256, 4, 1650), (512, 16, 2000)])
def test_online_schedules_are_near_the_best(steps: int, slots: int, most: int) -> None:
    """Evaluations in all, pulls counted: for 64 steps and 4 states the best that knows the length takes 264."""
    table, starts = jnp.asarray(schedules.binomials(slots)), [0]
    choose = jax.jit(lambda starts, step: schedules.discard(starts, step, table))
    for step in range(1, steps):
        starts.append(step)
        if len(starts) > slots:
            given_up = int(choose(jnp.array(starts[:-1], "int32"), jnp.int32(step)))
            del starts[given_up]
    total = 2 * steps + schedules.evaluations(starts, steps, slots)
    assert fewest(steps, slots) + steps <= total <= most


def rnn(w: Any, h: Any, reverse: bool = False) -> Any:
    xs = jnp.asarray(np.random.default_rng(5).normal(size=(11, *h.shape)))

    def step(carry: Any, x: Any) -> Any:
        h, n = carry
        h = jnp.tanh(h @ w + x * h[:1]) * (1 + n % 2)
        return (h, n + 1), (h * x, n)

    (h, _), (ys, _) = lax.scan(step, (h, 0), (xs * jnp.sum(w)), reverse=reverse)
    return jnp.sum(jnp.sin(ys)) + jnp.sum(h**3)


SCHEDULES = ["sqrt", dr.Revolve(1), dr.Revolve(3), dr.Revolve(50), dr.Bytes(700), dr.Bytes(10**6)]


@pytest.mark.thorough
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_schedules_of_a_scan(schedule: Any, reverse: bool) -> None:
    f = functools.partial(rnn, reverse=reverse)
    expected = jax.grad(f, (0, 1))(WEIGHTS, START)
    gradient = dr.grad(f, (0, 1), schedule=schedule)
    assert_close(gradient(WEIGHTS, START), expected)
    assert_close(jax.jit(gradient)(WEIGHTS, START), expected)
    t = (jnp.cos(WEIGHTS), jnp.sin(START))
    if schedule in ("sqrt", dr.Revolve(3)) and not reverse:
        assert_close(dr.jvp(gradient, (WEIGHTS, START), t)[1], jax.jvp(jax.grad(f, (0, 1)), (WEIGHTS, START), t)[1])
        J = dr.linearize(f, WEIGHTS, START, schedule=schedule)[1]
        assert_close(J(*t), jax.jvp(f, (WEIGHTS, START), t)[1])
        batch = jnp.stack([START, 2 * START])
        assert_close(jax.vmap(gradient, (None, 0))(WEIGHTS, batch), jax.vmap(jax.grad(f, (0, 1)), (None, 0))(WEIGHTS, batch))


def long_chain(x: Any) -> Any:
    return jnp.sum(lax.scan(lambda h, _: (jnp.sin(jnp.exp(-h) * h), None), x, None, length=400)[0])


def test_schedules_take_less_room() -> None:
    x = jnp.ones(100)

    def room(schedule: Any) -> int:
        return dr.linearize(long_chain, x, schedule=schedule)[1].residual_bytes

    everything, root, slots, some = room("all"), room("sqrt"), room(dr.Revolve(5)), room(dr.Bytes(40_000))
    assert everything >= 400 * x.nbytes
    assert root < 25 * x.nbytes and slots < 10 * x.nbytes and some <= 40_000


@pytest.mark.parametrize("schedule", ["sqrt", dr.Revolve(5)], ids=str)
def test_a_schedule_for_a_part_of_a_function(schedule: Any) -> None:
    x = jnp.linspace(0.5, 1, 100)
    part = dr.checkpoint(long_chain, schedule=schedule)

    def f(x: Any) -> Any:
        return long_chain(part(x) * x)

    expected = jax.grad(lambda x: long_chain(long_chain(x) * x))(x)
    assert_close(dr.grad(f)(x), expected)
    assert_close(jax.jit(dr.grad(f))(x), expected)
    assert_close(jax.grad(f)(x), expected)
    alone, plain = (dr.linearize(g, x)[1].residual_bytes for g in (part, long_chain))
    assert alone <= dr.linearize(long_chain, x, schedule=schedule)[1].residual_bytes + 2 * x.nbytes < plain / 10
    assert plain < dr.linearize(f, x)[1].residual_bytes < 1.2 * plain


@pytest.mark.parametrize("nbytes", [176, 240, 500, 1200, 2399])
def test_what_is_kept_fits(nbytes: int) -> None:
    def f(x: Any) -> Any:
        return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c) * c, None), x, None, length=30)[0])

    assert dr.linearize(f, jnp.ones(5), schedule=dr.Bytes(nbytes))[1].residual_bytes <= nbytes


def test_the_table_of_reach() -> None:
    table = schedules.binomials(40)
    for s, r in [(0, 5), (3, 0), (3, 4), (41, 2), (12, 9)]:
        assert table[s, r] == math.comb(s + r, s)
    assert table[40, 60] == np.iinfo(np.int32).max


def test_schedules_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="slots must be 1 or more; got 0"):
        dr.Revolve(0)
    with pytest.raises(ValueError, match=r"two states and the residuals of one step, \d+ bytes at least"):
        dr.grad(long_chain, schedule=dr.Bytes(900))(jnp.ones(100))
    with pytest.raises(ValueError, match=r"schedule must be 'all', 'sqrt', Revolve\(slots\) or Bytes\(n\); got 'log'"):
        dr.grad(long_chain, schedule="log")(jnp.ones(100))  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="schedule must be 'all'"):
        dr.checkpoint(long_chain, schedule=3)  # type: ignore[call-overload]


# ---------------------------------------------------------------------------------- sums over time, taken after the loop


@promoting()
def recurrent(w: Any) -> Any:
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(12, 2, 5)))

    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(x @ w["in"] + h @ w["again"] + w["bias"][None])
        return h, h

    return jnp.sum(lax.scan(step, jnp.zeros((2, 6)), xs)[1] ** 2)


def lookup(w: Any) -> Any:
    places = jnp.array([3, 0, 3, 1, 7, 2])

    def step(h: Any, i: Any) -> Any:
        return jnp.tanh(h * w["table"][i] + lax.dynamic_slice_in_dim(w["rows"], i, 1)[0] + w["table"][2]), None

    return jnp.sum(lax.scan(step, jnp.ones(5), places)[0])


def convolution(w: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        return jnp.tanh(lax.conv_general_dilated(h, w["kernel"], (1, 1), "SAME") + x), None

    return jnp.sum(lax.scan(step, jnp.ones((1, 2, 5, 5)), jnp.arange(3.0), reverse=True)[0] ** 2)


def tied(w: Any) -> Any:
    """The weights enter transposed, scaled, in a function of its own, and twice."""

    def step(h: Any, x: Any) -> Any:
        return jnp.tanh(jax.jit(jnp.matmul)(h, 2.0 * w["w"].T) - jnp.einsum("bi,ij,j->bj", h, w["w"], x)), None

    return jnp.sum(lax.scan(step, jnp.ones((3, 8)), jnp.asarray(np.random.default_rng(2).normal(size=(7, 8))))[0] ** 2)


def diagonal(w: Any) -> Any:
    """Weights enter entry by entry, and the state is what a step reads of the one before, keeps of itself and gives."""

    def step(carry: Any, x: Any) -> Any:
        h, c = carry
        c = c * jnp.tanh(h * w["gate"] + w["bias"]) + x * w["in"][None]
        h = jnp.sin(c) + w["gate"] * h
        return (h, c), (h, h * jnp.sum(w["in"][None] * h))

    h, scaled = lax.scan(step, (jnp.ones((2, 5)), jnp.ones((2, 5))), draw(9, 2, 5), reverse=True)[1]
    return jnp.sum(h**2) + jnp.sum(jnp.cos(scaled))


def prepared(w: dict[str, Any]) -> Any:
    """Weights that each step makes of others by operations that are linear in them: the sum goes through the adjoints of these once."""
    system, mask = jnp.eye(6) + jnp.tril(draw(6, 6), -1), np.arange(36).reshape(6, 6) % 3 == 0

    def step(h: Any, x: Any) -> Any:
        weights = jax.scipy.linalg.solve_triangular(system, w["raw"] + x[0] * 0, lower=True)
        weights = jnp.cumsum(jnp.where(mask, weights, 2 - weights), 0)
        h = jnp.tanh(weights @ h + x)
        return h, jnp.sum(h)

    return jnp.sum(lax.scan(step, jnp.ones(6), draw(9, 6))[1])


def draw(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape) / 3)


SUMS = {
    "recurrent": (recurrent, {"in": draw(5, 6), "again": draw(6, 6), "bias": draw(6)}),
    "lookup": (lookup, {"table": draw(40, 5), "rows": draw(9, 5)}),
    "convolution": (convolution, {"kernel": draw(2, 2, 3, 3)}),
    "tied": (tied, {"w": draw(8, 8)}),
    "prepared": (prepared, {"raw": draw(6, 6)}),
    "diagonal": (diagonal, {"gate": draw(2, 5), "bias": draw(2, 5), "in": draw(5)}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["auto", True, False])
@pytest.mark.parametrize("name", SUMS)
def test_sums_over_time(name: str, how: Any) -> None:
    f, w = SUMS[name]
    expected = jax.grad(f)(w)
    assert_close(jax.jit(dr.grad(f, stack_cotangents=how))(w), expected)
    assert_close(dr.grad(f, stack_cotangents=how)(w), expected)


@pytest.mark.thorough
@pytest.mark.parametrize("name", SUMS)
def test_sums_over_time_of_second_order_and_in_batches(name: str) -> None:
    f, w = SUMS[name]
    gradient, expected = dr.grad(f, stack_cotangents=True), jax.grad(f)
    t = jax.tree.map(jnp.cos, w)
    assert_close(dr.jvp(gradient, (w,), (t,))[1], jax.jvp(expected, (w,), (t,))[1])
    batch = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), w)
    assert_close(jax.vmap(gradient)(batch), jax.vmap(expected)(batch))


def carried(f: Any, w: Any, how: Any) -> list[tuple[int, ...]]:
    """Shapes of what the scans of a gradient carry."""
    jaxpr = jax.make_jaxpr(dr.grad(f, stack_cotangents=how, fuse_loops=False))(w)
    return [var.aval.shape for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "scan" for var in eqn.outvars]


@pytest.mark.parametrize(("name", "leaf"), [
    ("recurrent", "again"), ("lookup", "table"), ("convolution", "kernel"), ("tied", "w"), ("prepared", "raw")])
def test_weights_are_not_carried(name: str, leaf: str) -> None:
    f, w = SUMS[name]
    assert w[leaf].shape in carried(f, w, False)
    assert w[leaf].shape not in carried(f, w, True)


def gated(w: Any) -> Any:
    """Cotangents of gates are factors of two products, concatenated, and differ in one of three."""

    def step(h: Any, x: Any) -> Any:
        (r, z, n), (again_r, again_z, again_n) = jnp.split(x @ w["in"], 3, -1), jnp.split(h @ w["again"], 3, -1)
        new, update = jnp.tanh(n + jax.nn.sigmoid(r + again_r) * again_n), jax.nn.sigmoid(z + again_z)
        h = (1 - update) * new + update * h
        return h, h

    return jnp.sum(lax.scan(step, jnp.zeros((4, 6)), draw(9, 4, 5))[1] ** 2)


def gated_while(w: Any, steps: Any = 5) -> Any:
    def step(carry: Any) -> Any:
        i, h = carry
        a, b = jnp.split(h @ w["again"][:, :12], 2, -1)
        return i + 1, (2.0 + jnp.sin(a)) * b + h

    return jnp.sum(lax.while_loop(lambda carry: carry[0] < steps, step, (0, jnp.ones((4, 6))))[1] ** 2)


@pytest.fixture
def slow_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computing anything again is faster than storing it."""
    slow = time_model.shipped("cpu").replace(fresh_from=0, fresh_s=1e-6)
    monkeypatch.setattr(machine, "_constants", lambda backend: slow)


@pytest.mark.usefixtures("slow_memory")
def test_of_factors_that_follow_from_one_another_some_are_stacked() -> None:
    w = {"in": draw(5, 18), "again": draw(6, 18)}
    gradient = dr.grad(gated, stack_cotangents=True, recompute_residuals=False, fuse_loops=False)
    expected = jax.grad(gated)
    assert_close(jax.jit(gradient)(w), expected(w))
    pull = [eqn for eqn in jax.make_jaxpr(gradient)(w).jaxpr.eqns if eqn.primitive.name == "scan"][-1]
    assert len([v for v in pull.outvars if v.aval.shape[:1] == (9,)]) < 4, "of four arrays, others are products"
    t = jax.tree.map(jnp.cos, w)
    assert_close(dr.jvp(gradient, (w,), (t,))[1], jax.jvp(expected, (w,), (t,))[1])
    batch = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), w)
    assert_close(jax.vmap(gradient)(batch), jax.vmap(expected)(batch))


@pytest.mark.usefixtures("slow_memory")
@pytest.mark.parametrize("options", [{"max_steps": 12}, {"loop_checkpoints": 2}])
def test_factors_of_a_loop_of_unknown_length(options: Any) -> None:
    w = {"again": draw(6, 18)}

    def fixed(w: Any) -> Any:
        def step(h: Any, _: Any) -> Any:
            a, b = jnp.split(h @ w["again"][:, :12], 2, -1)
            return (2.0 + jnp.sin(a)) * b + h, None

        return jnp.sum(lax.scan(step, jnp.ones((4, 6)), None, length=5)[0] ** 2)

    gradient = dr.grad(gated_while, stack_cotangents=True, **options)
    assert_close(jax.jit(gradient)(w), jax.grad(fixed)(w))
    t = jax.tree.map(jnp.cos, w)
    assert_close(dr.jvp(gradient, (w,), (t,))[1], jax.jvp(jax.grad(fixed), (w,), (t,))[1])


def oscillators(w: Any) -> Any:
    """Arithmetic on a few numbers; what a step finds is a result as it is, and so is the first half of it."""

    def step(carry: Any, x: Any) -> Any:
        (p, q), count = carry
        force = jnp.sin(p) * w["stiffness"] + x
        return ((p + q * w["mass"], q - force * jnp.cos(w["mass"] * q)), count + 1), (p, q[:4])

    ((p, q), count), (ps, qs) = lax.scan(step, ((w["start"], w["start"] ** 2), 0), draw(15, 16))
    return jnp.sum(p * q) * count + jnp.sum(ps**3) + jnp.sum(qs)


@pytest.mark.thorough
def test_small_carries_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A compiler that makes several kernels of such a loop.
    monkeypatch.setattr(machine, "_constants", lambda backend: time_model.shipped("cpu", "0.10.2"))
    w = {"stiffness": draw(16), "mass": draw(1, 16)[0], "start": draw(1, 1, 16)[0, 0]}
    expected = jax.grad(oscillators)(w)
    assert_close(jax.jit(dr.grad(oscillators))(w), expected)
    pulls = [eqn for eqn in jax.make_jaxpr(dr.grad(oscillators, fuse_loops=False))(w).jaxpr.eqns if eqn.primitive.name == "scan"][1:]
    carried_shapes = [v.aval.shape for v in pulls[0].outvars[: scan_layout(pulls[0].params)[1]]]
    assert len(carried_shapes) == 1 and carried_shapes[0][0] >= 32, "two carries of sixteen entries are one of thirty-two"
    t = jax.tree.map(jnp.cos, w)
    assert_close(dr.jvp(dr.grad(oscillators), (w,), (t,))[1], jax.jvp(jax.grad(oscillators), (w,), (t,))[1])
    assert_close(dr.grad(lambda w: dr.jvp(oscillators, (w,), (t,))[1])(w), jax.grad(lambda w: jax.jvp(oscillators, (w,), (t,))[1])(w))
    batch = jax.tree.map(lambda x: jnp.stack([x, x + 0.1]), w)
    assert_close(jax.vmap(dr.grad(oscillators))(batch), jax.vmap(jax.grad(oscillators))(batch))


def test_a_result_that_is_the_carry_before_the_step_is_stacked_once() -> None:
    def f(p: Any) -> Any:
        return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c) * p, c), p, None, length=9)[1])

    forward = next(eqn for eqn in jax.make_jaxpr(dr.grad(f, fuse_loops=False))(draw(5)).jaxpr.eqns if eqn.primitive.name == "scan")
    assert [v.aval.shape for v in forward.outvars].count((9, 5)) == 2  # the result, sin
    assert_close(dr.grad(f)(draw(5)), jax.grad(f)(draw(5)))


def test_a_checkpointed_loop_adds_to_one_sum() -> None:
    """Its steps need no room for another cotangent of the weights, beside the result."""
    def f(w: Any, n: Any) -> Any:
        return jnp.sum(lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, jnp.tanh(w @ c[1])), (0, jnp.ones(100)))[1])

    w = draw(100, 100)
    gradient = jax.jit(dr.grad(f, loop_checkpoints=3, stack_cotangents=False)).lower(w, 7).compile()
    assert_close(gradient(w, 7), jax.grad(lambda w: jnp.sum(lax.fori_loop(0, 7, lambda _, h: jnp.tanh(w @ h), jnp.ones(100))))(w))
    room: Any = gradient.memory_analysis()
    assert room.temp_size_in_bytes < w.nbytes


def repeated(use: Callable[[Any, Any], Any], times: int) -> Callable[[Any], Any]:
    def f(w: Any) -> Any:
        def step(h: Any, _: Any) -> Any:
            y = w
            for _ in range(times):
                h, y = use(h, y)
            return h + y @ h, None

        return jnp.sum(lax.scan(step, jnp.ones(3), None, length=2)[0])

    return f


@pytest.mark.parametrize("use", [lambda h, y: (jnp.tanh(y @ h), y), lambda h, y: (h, -y)])
def test_a_step_that_uses_a_weight_very_often(use: Any) -> None:
    jax.make_jaxpr(dr.grad(repeated(use, sys.getrecursionlimit())))(jnp.eye(3))


def test_a_sum_of_a_sum_is_taken_once() -> None:
    f, w = repeated(lambda h, y: (h, y + y), 60), jnp.eye(3) / 2.0**60
    assert_close(dr.grad(f, stack_cotangents=True)(w), jax.grad(f)(w))


def test_sums_in_a_wider_dtype() -> None:
    w = SUMS["recurrent"][1]
    low = jax.tree.map(lambda x: x.astype("bfloat16"), w)

    def f(w: Any) -> Any:
        return recurrent(jax.tree.map(lambda x: x.astype("float32"), w))

    got = dr.grad(f, cotangent_dtype="float32")(low)
    assert_close(got, jax.tree.map(lambda x: x.astype("float32"), jax.grad(recurrent)(
        jax.tree.map(lambda x: x.astype("float64"), low))), rtol=1e-4)


def test_stacking_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="stack_cotangents must be 'auto', True or False; got 'always'"):
        dr.grad(jnp.sin, stack_cotangents="always")(1.0)  # type: ignore[call-overload]


def test_a_loop_of_no_steps() -> None:
    """Its plan divides by the number of steps."""
    def value(w: Any, h: Any, xs: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            y = jnp.tanh(w @ h + x)
            return jnp.sin(y) * x, y

        h, ys = lax.scan(step, h, xs)
        return jnp.sum(h**2) + jnp.sum(ys)

    arguments = WEIGHTS, START[0], jnp.ones((0, 4))
    of_weights, of_start, of_xs = dr.grad(value, (0, 1, 2))(*arguments)
    assert_close((of_weights, of_start), jax.grad(value, (0, 1))(*arguments))
    assert of_xs.shape == (0, 4)
