"""The time model: kernels, bytes and seconds of programs, with constants that are given; its cache; its predictions' text."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dualrev
from dualrev import time_model
from dualrev.__main__ import main
from dualrev.time_model import calibrate, machine
from dualrev.time_model.fusion import program
from dualrev.time_model.kernels import Program
from dualrev.time_model.pricing import bytes_of_call

#: Every price is a different power of ten, so that a sum says what it consists of.
PLAIN = time_model.shipped("cpu", "0.10.2").replace(
    name="plain", call_s=1.0, leaf_s=0.0, result_s=0.0, hand_s=0.0, kernel_s=1e-3, loop_kernel_s=1e-4, step_s=1e-2,
    one_kernel_step_s=1e-2,
    argument_s=0.0, graph_s=1e-3, split_s=0.0, graph_kernel_s=1e-4, within_s=0.0, threads=1.0, scalar_s=0.0, scalar_times=1.0,
    one_kernel_bytes=0, levels=((math.inf, 1e30),), fresh_s=0.0, first_s=(0.0, 0.0, 0.0), join_s=0.0,
    entry_s={"simple": (0.0, 0.0), "other": (1e-6, 1e-6)}, reduce_s=(0.0, 0.0))
X = jnp.linspace(0.1, 1.0, 50)


def cut(fun: Callable[..., Any], *args: Any) -> Program:
    return program(jax.make_jaxpr(fun)(*args))


@pytest.mark.parametrize(("fun", "kernels"), [
    (lambda x: 2.0 * x + 1.0, 1),
    (lambda x: jnp.sin(jnp.cos(x)) * x, 1),
    (lambda x: (x + 1.0, x * 2.0), 2),
    (lambda x: jnp.sum(jnp.sin(x[:32])), 1),  # what is reduced is computed in the reduction
    (lambda x: jnp.sum(jnp.sin(x)), 3),  # unless it is long: sums of windows read memory
    (lambda x: x[:20] / jnp.sum(x[:20]), 2),  # one sum, not one for each entry
    (lambda x: (jnp.cos(x) + 1.0, jnp.cos(x) * 2.0), 2),  # computed twice, as the compiler takes it for cheap
    (lambda x: (jnp.exp(x) + 1.0, jnp.exp(x) * 2.0), 3),  # computed once, as exp is costly
    (lambda x: ((x + 3.0) * 2.0, (x + 3.0) * 5.0), 2),  # computed twice, as a sum is cheap
    (lambda x: x.reshape(5, 10), 0),
    (lambda x: jax.jit(jnp.sin)(x) + jax.checkpoint(jnp.cos)(x), 1),
])
def test_kernels(fun: Callable[..., Any], kernels: int) -> None:
    assert len(cut(fun, X).kernels) == kernels


def test_what_nothing_needs_is_not_computed() -> None:
    def unused(x: jax.Array) -> jax.Array:
        jnp.linalg.cholesky(jnp.outer(x, x))
        return x + 1.0

    found = cut(unused, X)
    assert (len(found.kernels), len(found.calls)) == (1, 0)


def test_a_kernel_reads_what_it_needs() -> None:
    (kernel,) = cut(lambda x, y: x[:10] + y, X, X[:10]).kernels
    assert kernel.nbytes == 3 * 10 * X.dtype.itemsize
    (kernel,) = cut(lambda x: x[0] + x[1:], X).kernels
    assert kernel.nbytes == (49 + 1 + 49) * X.dtype.itemsize


def entries_of(found: Program, name: str) -> list[float]:
    """How many entries of an operation each kernel computes."""
    return [count for kernel in found.kernels for op, count in kernel.work if op.name == name]


@pytest.mark.parametrize(("fun", "entries"), [
    (lambda x, y: jnp.sin(x)[None] * y, [50 * 30]),  # along the inner loop: again for each row
    (lambda x, y: (jnp.sin(x)[None] * y).T, [50]),  # along the outer loop of what is written
    (lambda x, y: jnp.sin(x)[:30, None] * y, [30]),
    (lambda x, y: jnp.sum(jnp.sin(x)[:30, None] * y[:, :20], 1), [30]),  # the sum is the inner loop
    (lambda x, y: jnp.sum(jnp.sin(x)[None, :20] * y[:, :20], 1), [30 * 20]),
    (lambda x, y: jnp.sin(x)[:30, None, None] * y[:, :20, None] * x[None, None, :7], [30]),
    (lambda x, y: jnp.sin(x)[None, :30, None] * jnp.cos(x)[:, None, None] * x[None, None, :7], [50 * 30]),
])
def test_what_does_not_depend_on_an_inner_loop_is_computed_before_it(fun: Callable[..., Any], entries: list[float]) -> None:
    with jax.numpy_rank_promotion("allow"):
        assert entries_of(cut(fun, X, jnp.ones((30, 50))), "sin") == entries


def test_what_is_read_across_rows_takes_lines_of_memory() -> None:
    x = jnp.ones((300, 300))
    (turned,), (straight,) = cut(lambda x: x.T, x).kernels, cut(lambda x: x * 2.0, x).kernels
    assert list(turned.across.values()) == [300.0 * 300.0]
    assert not straight.across
    (row,) = cut(lambda x: jnp.broadcast_to(x[:1], (300, 300)) * 2.0, x).kernels
    (column,) = cut(lambda x: jnp.broadcast_to(x[:, :1], (300, 300)) * 2.0, x).kernels
    assert not row.across
    assert list(column.across.values()) == [300.0]  # one entry of each row


def test_a_scatter_writes_what_it_changes() -> None:
    """In zeros that are made for it, in place; in what the caller gave, into a copy."""
    def cost(n: int, own: bool) -> float:
        def fun(x: jax.Array) -> jax.Array:
            return (jnp.zeros(n) if own else x).at[jnp.arange(0, n, n // 4)].set(x[:4])

        found = cut(fun, jnp.ones(n))
        return sum(bytes_of_call(op) for op in found.calls) + sum(k.nbytes for k in found.kernels if k.read and k.root.size == n)

    assert cost(4000, True) == cost(400, True)
    assert cost(4000, False) == cost(4000, True) + 2 * 4000 * X.dtype.itemsize


def test_the_formula() -> None:
    def steps(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 7, lambda _, c: jnp.tan(c), x)

    # call + two carries + 7 steps of the counter and of one kernel of 50 entries
    assert time_model.time_of(jax.make_jaxpr(steps)(X), PLAIN) == pytest.approx(1.002 + 7 * (1e-2 + 2 * 1e-4 + 50 * 1e-6), rel=1e-9)
    assert time_model.time_of(jax.make_jaxpr(jnp.tan)(X), PLAIN) == pytest.approx(1.0 + 1e-3 + 50 * 1e-6)


def test_a_loop_is_one_kernel_below_the_budget() -> None:
    def steps(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: (c * 0.99 + 0.1, None), x, None, length=100)[0]

    def seconds(n: int, budget: float) -> float:
        return time_model.time_of(jax.make_jaxpr(steps)(jnp.ones(n)), PLAIN.replace(one_kernel_bytes=budget, kernel_s=0.0)) - 1.0

    assert seconds(60, 1024.0) == pytest.approx(100 * 1e-2)  # two arrays of 60 numbers of 8 bytes are 960 bytes
    assert seconds(62, 1024.0) == pytest.approx(100 * (1e-2 + 1e-4))
    assert seconds(10**5, math.inf) == pytest.approx(100 * 1e-2)


def test_a_sort_keeps_a_loop_from_being_one_kernel() -> None:
    jaxpr = jax.make_jaxpr(lambda x: jax.lax.fori_loop(0, 10, lambda _, c: jnp.sort(c), x))(X[:4])
    free = PLAIN.replace(one_kernel_bytes=math.inf, sort_s=(0.0, 0.0), loop_kernel_s=1.0)
    assert time_model.time_of(jaxpr, free) > 10.0


def test_what_is_one_kernel_by_itself_launches_one() -> None:
    """A small loop of a derivative, which is one kernel whatever the compiler makes of other loops."""
    def steps(x: jax.Array) -> jax.Array:
        return jnp.sum(jax.lax.scan(lambda c, _: (jnp.tan(c) * c, None), x, None, length=10)[0])

    def parts(**options: Any) -> list[str]:
        return [op.kind for op in cut(dualrev.grad(steps, **options), X[:4]).calls]

    assert (parts(fuse_loops=True), parts(fuse_loops=False)) == (["whole", "whole"], ["loop", "loop"])
    many = PLAIN.replace(loop_kernel_s=1.0)
    jaxpr = jax.make_jaxpr(dualrev.grad(steps, fuse_loops=True))(X[:4])
    assert time_model.time_of(jaxpr, many) < 1.5
    assert time_model.time_of(jaxpr, many.replace(backend="gpu")) > 20.0  # others launch each kernel


@pytest.mark.parametrize(("a", "b", "numbers", "times"), [
    ((9, 10), (10, 11), (((1,), (0,)), ((), ())), 1.0),  # rows times columns
    ((9, 10), (11, 10), (((1,), (1,)), ((), ())), 3.0),
    ((10, 9), (10, 11), (((0,), (0,)), ((), ())), 3.0),
])
def test_products_across_rows_take_longer(a: tuple[int, ...], b: tuple[int, ...], numbers: Any, times: float) -> None:
    rates = PLAIN.replace(dot_s=0.0, dot_per_s=(1.0, 1.0), turned_times=3.0, kernel_s=0.0)
    jaxpr = jax.make_jaxpr(lambda x, y: jax.lax.dot_general(x, y, numbers))(jnp.ones(a), jnp.ones(b))
    assert time_model.time_of(jaxpr, rates) - 1.0 == pytest.approx(times * 2 * 9 * 10 * 11)


def test_large_products_are_shared_by_threads_and_small_ones_are_written_out() -> None:
    rates = PLAIN.replace(dot_s=0.0, dot_per_s=(1.0, 1.0), written_dot_s=1e-3, kernel_s=0.0, threads=4.0)

    def seconds(n: int) -> float:
        return time_model.time_of(jax.make_jaxpr(jnp.matmul)(jnp.ones((n, n)), jnp.ones((n, n))), rates) - 1.0

    assert seconds(200) == pytest.approx(2 * 200**3 / 4)
    assert seconds(8) == pytest.approx(2 * 8**3)
    assert seconds(7) == pytest.approx(2 * 7**3 * 1e-3)


def test_the_longest_branch_counts() -> None:
    jaxpr = jax.make_jaxpr(lambda x: jax.lax.cond(x[0] > 0, jnp.tan, lambda x: x * 2, x))(X)
    assert time_model.time_of(jaxpr, PLAIN) == pytest.approx(1.0 + 3e-3 + 50e-6)


def test_everything_that_is_differentiated_in_the_tests_can_be_priced() -> None:
    """No primitive, dtype or shape is too strange."""
    def odd(x: jax.Array, key: jax.Array, n: jax.Array) -> Any:
        y = jax.random.normal(key, x.shape, x.dtype) + jnp.sort(x)
        z = jnp.fft.fft(y)
        a = jnp.outer(y, y) + 50.0 * jnp.eye(len(x), dtype=x.dtype)
        q, r = jnp.linalg.qr(a)
        return (jnp.abs(z), jnp.linalg.cholesky(a), q @ r, jax.scipy.special.gammaln(y), jnp.cumsum(y), y.at[n].add(1.0), y[n],
                jnp.zeros((0, 3)), jax.pure_callback(lambda x: x, x, x), jnp.convolve(y, y), jnp.linalg.eigvalsh(a),
                jax.lax.while_loop(lambda c: c[0] > 1.0, lambda c: c * 0.5, y), jax.lax.top_k(y, 3))

    prediction = time_model.predict(odd, X, jax.random.key(0), jnp.array([1, 2]), constants=PLAIN)
    assert 1.0 < prediction.seconds < 10.0
    assert prediction.calls > 8


def test_symbolic_shapes_have_a_length() -> None:
    (n,) = jax.export.symbolic_shape("n")
    jaxpr = jax.make_jaxpr(lambda x: jnp.tan(x))(jax.ShapeDtypeStruct((n,), "float32"))
    assert time_model.time_of(jaxpr, PLAIN) == pytest.approx(1.0 + 1e-3 + 1024 * 1e-6)


def test_prices_for_planners() -> None:
    (sine, total) = jax.make_jaxpr(lambda x: jnp.sum(jnp.tan(x)))(X).eqns
    aval = sine.outvars[0].aval
    c = PLAIN.replace(levels=((math.inf, 1e9),), reduce_s=(1e-5, 1e-5), entry_s={"simple": (1e-7, 1e-7), "other": (1e-6, 1e-6)})
    assert time_model.recompute_cost(sine, c) == pytest.approx(50e-6)
    assert time_model.recompute_cost(total, c) == pytest.approx(1e-4 + 50e-5)
    assert time_model.cost_of_equation(sine, c).seconds == pytest.approx(1e-3 + 50e-6 + 2 * 400e-9)
    assert time_model.store_cost(aval, c, 10) == pytest.approx(1e-4 + 3 * 400e-9)
    assert time_model.kernel_cost(c) == 1e-4
    assert time_model.accumulate_cost(aval, c) == pytest.approx(50e-7 + 2 * 400e-9)
    assert time_model.reduce_cost(aval, c) == pytest.approx(50e-5 + 1e-4)
    assert time_model.store_cost(aval, c.replace(fresh_s=1.0), 10**6) > 400.0  # page faults


def test_a_prediction_reads_well() -> None:
    prediction = time_model.predict(dualrev.grad(lambda x: jnp.sum(jnp.tan(x) ** 2)), X, constants=PLAIN)
    first, *lines = str(prediction).splitlines()
    assert first.startswith("1 s on plain:")
    assert "%" in lines[0]
    assert "[" not in first
    assert prediction.lines[0].seconds >= prediction.lines[-1].seconds
    assert time_model.predict(jnp.tan, jax.ShapeDtypeStruct((3,), "float32"), constants=PLAIN).transcendentals == 3
    with pytest.raises(TypeError, match="predict: expected a function"):
        time_model.predict(3.0)  # type: ignore[arg-type]


def test_no_fusion_is_left_out_of_the_sum() -> None:
    """The seconds of the equations are those of the program, but for its call."""
    def waves(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(jax.lax.scan(lambda c, _: (jnp.sin(c), c), x, None, length=5)[1]))

    prediction = time_model.predict(jax.grad(waves), X, constants=PLAIN)
    assert sum(line.seconds for line in prediction.lines) + 1.0 == pytest.approx(prediction.seconds)


# ------------------------------------------------------------------------------------------------------------- the constants


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine._constants.cache_clear()
    yield tmp_path
    machine._constants.cache_clear()


def test_measured_constants_are_kept_and_found(home: pathlib.Path) -> None:
    assert time_model.constants("cpu") == time_model.shipped("cpu")
    own = time_model.shipped("cpu").replace(name="mine", call_s=0.5)
    machine.write(own, machine.cache_file())
    machine._constants.cache_clear()
    assert time_model.constants("cpu") == own
    assert machine.cache_file().is_relative_to(home)


@pytest.mark.parametrize("spoil", [
    lambda content: "{",
    lambda content: "[]",
    lambda content: json.dumps({**content, "made for": {"backend": "cpu", "device": "another", "jaxlib": "0", "cores": "1"}}),
    lambda content: json.dumps({**content, "constants": {**content["constants"], "call_s": "fast"}}),
    lambda content: json.dumps({**content, "constants": {**content["constants"], "call_s": -1.0}}),
    lambda content: json.dumps({**content, "constants": {**content["constants"], "call_s": float("nan")}}),
    lambda content: json.dumps({**content, "constants": {**content["constants"], "levels": [[1, 2], [3]]}}),
    lambda content: json.dumps({**content, "constants": {**content["constants"], "entry_s": {"simple": [0.1, 0.1]}}}),
    lambda content: json.dumps({**content, "constants": {k: v for k, v in content["constants"].items() if k != "call_s"}}),
])
def test_a_spoilt_or_foreign_file_is_told_of_and_not_used(home: pathlib.Path, spoil: Callable[[Any], str]) -> None:
    path = machine.cache_file()
    machine.write(time_model.shipped("cpu").replace(call_s=0.5), path)
    path.write_text(spoil(json.loads(path.read_text())))
    machine._constants.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"is not used: it.*calibrate writes a new one"):
        assert time_model.constants("cpu") == time_model.shipped("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        time_model.constants("cpu")  # told once


def test_the_command_shows_and_keeps(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(calibrate, "measured", lambda: time_model.shipped("cpu").replace(name="measured here", call_s=0.25))
    assert main(["calibrate", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "call_s" in shown and "250 ms" in shown
    assert not machine.cache_file().exists()
    assert main(["calibrate"]) == 0
    machine._constants.cache_clear()
    assert time_model.constants().call_s == 0.25


def test_calibration_scales_groups_of_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that makes kernels three times slower than where the constants were fitted, and nothing else."""
    start = time_model.shipped("cpu")
    times = dict(calibrate.REFERENCE[start.name])
    times["kernel"] *= 3.0
    clock = {fun: times[group] for group, (fun, *_) in calibrate.PROGRAMS.items() if group not in ("call", "memory")}
    calls = iter([times["call"], times["memory"]])  # of one function
    monkeypatch.setattr(calibrate, "seconds", lambda fun, x: clock[fun] if fun in clock else next(calls))
    found = calibrate.measured("cpu")
    assert found.name.endswith("calibrated")
    assert (found.kernel_s, found.loop_kernel_s) == pytest.approx((3 * start.kernel_s, 3 * start.loop_kernel_s))
    for field in dataclasses.fields(found):
        if field.name != "name" and field.name not in calibrate.GROUPS["kernel"]:
            assert getattr(found, field.name) == getattr(start, field.name), field.name


def test_every_program_of_the_calibration_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "BUDGET", 0.0)
    for group, (fun, shape, dtype) in calibrate.PROGRAMS.items():
        if group != "memory":  # of the same function as a call
            assert calibrate.seconds(fun, calibrate._numbers(shape, dtype)) > 0.0


def test_planners_prices_do_not_depend_on_a_calibration() -> None:
    """Which program is made is the same for each machine with this release."""
    slow = time_model.shipped("cpu").replace(name="slow", loop_kernel_s=1.0, fresh_s=1.0)
    assert machine._margins(slow).loop_kernel_s == machine._margins(time_model.shipped("cpu")).loop_kernel_s


def test_releases_have_constants_of_their_own() -> None:
    assert time_model.shipped("cpu", "0.10.2").one_kernel_bytes == 1024
    assert time_model.shipped("cpu", "0.12.0.1").one_kernel_bytes == math.inf
    assert {time_model.shipped(name).backend for name in ("cpu", "gpu", "cuda", "tpu")} == {"cpu", "gpu", "tpu"}


def test_the_rule_of_one_kernel_is_the_compilers() -> None:
    """If this fails, ``one_kernel_bytes``, ``library_sum`` or ``library_dot`` of this release need another value."""
    constants = time_model.shipped("cpu")

    def is_one(n: int, body: Callable[[jax.Array], jax.Array]) -> tuple[bool, bool]:
        is_old = constants.one_kernel_bytes < math.inf

        def loop(x: jax.Array) -> jax.Array:
            return jax.lax.scan(lambda c, _: (body(c), None), x, None, length=100)[0]

        x = jnp.asarray(np.ones(n), "float64")
        (scan,) = cut(loop, x).calls
        options: dict[str, str | bool] | None = {"xla_cpu_use_fusion_emitters": True} if is_old else None
        compiled = jax.jit(loop).lower(x).compile(options).as_text()
        return "xla_cpu_small_call" in (compiled or ""), time_model.pricing.is_one_kernel(scan, constants)

    for n in (4, 50, 70, 2000):
        compiled, predicted = is_one(n, lambda c: c * 0.99 + 0.1)
        assert compiled == predicted, n
    for n in (20, 60, 5000):
        compiled, predicted = is_one(n, lambda c: c * 0.99 + jnp.sum(c))
        assert compiled == predicted, n
