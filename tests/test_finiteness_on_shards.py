"""Where a NaN came from in ``shard_map``: the operation, the line, the values and the shard, on 8 virtual devices."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

import dualrev as dr
from dualrev.inspection.finiteness.report import NanReport

HERE = pathlib.Path(__file__)
pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")

# The bad number is entry (1, 1) of the shard a=2, b=1.
BAD = np.ones((8, 4))
BAD[5, 3] = -1.0
ZERO = np.ones((8, 4))
ZERO[5, 3] = 0.0


def on_shards(fun: Callable[..., Any], ins: Any = None, outs: Any = None, **options: Any) -> Callable[..., Any]:
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    ins, outs = P("a", "b") if ins is None else ins, P("a", "b") if outs is None else outs
    mapped: Callable[..., Any] = jax.shard_map(fun, mesh=mesh, in_specs=ins, out_specs=outs, **options)
    return mapped


def check(report: NanReport, operation: str, mark: str, shard: dict[str, int] | None = None, where: str = "function") -> None:
    (line,) = [i for i, text in enumerate(HERE.read_text().splitlines(), 1) if text.endswith(f"# {mark}")]
    assert report.made is not None
    assert (report.operation, report.where, report.line) == (operation, where, line), str(report)
    assert dict(report.made.shard) == ({"a": 2, "b": 1} if shard is None else shard)


def test_operation_values_and_shard() -> None:
    def f(x: Any) -> Any:
        return jnp.log(2 * x) + 1  # the logarithm

    report = dr.where_nan(on_shards(f))(BAD)
    check(report, "log", "the logarithm")
    assert report.made is not None and (report.made.values, report.made.index, report.made.shape) == (("-2",), (1, 1), (2, 2))
    assert report.index == (5, 3) and "on shard a=2, b=1" in str(report)


def test_in_compiled_functions_and_branches() -> None:
    def f(x: Any) -> Any:
        return jax.jit(lambda y: lax.cond(jnp.min(y) < 0, lambda u: jnp.sqrt(u), lambda u: u, y))(x)  # the branch

    check(dr.where_nan(on_shards(f))(BAD), "sqrt", "the branch")


@pytest.mark.parametrize("options", [{}, {"check_vma": False}], ids=["typed", "untyped"])
def test_steps_of_loops(options: dict[str, Any]) -> None:
    def f(x: Any) -> Any:
        return lax.scan(lambda c, a: (c + jnp.sqrt(a), None), x[0], x)[0][None]  # the step

    report = dr.where_nan(on_shards(f, **options))(BAD)
    check(report, "sqrt", "the step")
    assert report.made is not None and report.made.steps == (1,)


def test_loops_in_which_shards_meet() -> None:
    def f(x: Any) -> Any:
        return lax.scan(lambda c, a: (c + lax.psum(jnp.sqrt(a), "b"), None), jnp.zeros_like(x[0]), x)[0][None]  # summed

    report = dr.where_nan(on_shards(f, check_vma=False))(BAD)
    check(report, "sqrt", "summed")
    assert report.made is not None and report.made.steps == (1,)


@pytest.mark.parametrize("options", [{}, {"check_vma": False}], ids=["typed", "untyped"])
def test_through_sums_over_shards(options: dict[str, Any]) -> None:
    def f(x: Any) -> Any:
        return lax.psum(jnp.sqrt(x), "a")  # then a sum

    check(dr.where_nan(on_shards(f, outs=P(None, "b"), **options))(BAD), "sqrt", "then a sum")


def test_a_sum_over_shards_that_makes_it() -> None:
    def f(x: Any) -> Any:
        sign = jnp.where(lax.axis_index("a") == 1, 1.0, -1.0)
        return lax.psum(jnp.where(x == 0, jnp.inf, 1.0) * sign, "a")  # infinities meet

    x = ZERO.copy()
    x[3, 3] = 0.0  # of the shard a=1; the sum is the same on all
    report = dr.where_nan(on_shards(f, outs=P(None, "b")))(x)
    check(report, "psum", "infinities meet", {"a": 0, "b": 1})
    assert report.kind == "nan" and report.made is not None and "infinity minus" in report.made.why


def test_sent_to_another_shard() -> None:
    def f(x: Any) -> Any:
        return lax.ppermute(jnp.sqrt(x), "a", [(i, (i + 1) % 4) for i in range(4)])  # sent on

    report = dr.where_nan(on_shards(f))(BAD)
    check(report, "sqrt", "sent on")
    assert report.index == (7, 3)


def test_nested_and_partial_maps() -> None:
    def inner(y: Any) -> Any:
        return jnp.log(y)  # innermost

    def f(x: Any) -> Any:
        return jax.shard_map(inner, in_specs=P(None, "b"), out_specs=P(None, "b"), axis_names={"b"})(x)

    check(dr.where_nan(jax.jit(on_shards(inner, P("a", None), P("a", None), axis_names={"a"})))(BAD), "log", "innermost", {"a": 2})
    check(dr.where_nan(jax.jit(on_shards(f, P("a", None), P("a", None), axis_names={"a"})))(BAD), "log", "innermost")


def test_a_value_that_all_shards_have_and_one_that_was_given() -> None:
    def f(x: Any, w: Any) -> Any:
        return x * jnp.log(w)  # replicated

    check(dr.where_nan(on_shards(f, (P("a", "b"), P())))(ZERO, -1.0), "log", "replicated", {"a": 0, "b": 0})
    report = dr.where_nan(on_shards(f, (P("a", "b"), P())))(np.where(BAD < 0, np.nan, 1.0), 2.0)
    assert report.made is not None and (report.operation, report.made.index) == ("input", (5, 3))


def test_batches_of_sharded_programs() -> None:
    def f(x: Any) -> Any:
        return jax.vmap(jnp.sqrt, in_axes=1, out_axes=1)(x)  # a batch of one shard

    report = dr.where_nan(on_shards(f))(BAD)
    check(report, "sqrt", "a batch of one shard")
    assert report.made is not None and report.made.example == (1,)
    report = dr.where_nan(jax.vmap(on_shards(jnp.sqrt), in_axes=2))(np.stack([ZERO, BAD, ZERO], 2))
    assert report.made is not None and (report.made.example, report.made.shard) == ((1,), {"a": 2, "b": 1})


def loss(x: Any) -> Any:
    return jnp.sum(jnp.sqrt(x) * 0.0)  # the loss


def around(x: Any) -> Any:
    return jnp.sum(on_shards(lambda y: loss(y)[None], outs=P(("a", "b")))(x))


@pytest.mark.parametrize("by", [dr.grad, lambda f: jax.jit(dr.grad(f))], ids=["unjitted", "jitted"])
def test_gradients_of_sharded_programs(by: Callable[..., Any]) -> None:
    check(dr.where_nan(by(around))(ZERO), "sqrt", "the loss", where="pull")
    with pytest.raises(dr.errors.NonFiniteError) as error, dr.finite():
        by(around)(ZERO)
    check(error.value.report, "sqrt", "the loss", where="pull")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"check_vma": False}], ids=["typed", "untyped"])
def test_gradients_on_shards(options: dict[str, Any]) -> None:
    gradient = jax.jit(on_shards(dr.grad(lambda y: lax.psum(loss(y), ("a", "b"))), **options))
    check(dr.where_nan(gradient)(ZERO), "sqrt", "the loss", where="pull")
    with dr.finite():
        assert np.isfinite(gradient(np.ones((8, 4)))).all()
    with pytest.raises(dr.errors.NonFiniteError) as error, dr.finite():
        gradient(ZERO)
    check(error.value.report, "sqrt", "the loss", where="pull")  # type: ignore[arg-type]
    assert error.value.report.index == (1, 1)  # type: ignore[attr-defined]
