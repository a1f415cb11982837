"""Kernels written with Pallas: pushed through instruction by instruction, and what is said where there is no derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

import dualrev as dr
from dualrev.errors import NoDerivativeError

X = jnp.arange(8.0) + 0.5
Y = jnp.cos(X)
N = jnp.arange(8)
BLOCK = pl.BlockSpec((4,), lambda i: (i,))
SHAPE = jax.ShapeDtypeStruct((8,), X.dtype)


def call(kernel: Callable[..., None], n_in: int = 1, **settings: Any) -> Any:
    given = {"grid": (2,), "in_specs": [BLOCK] * n_in, "out_specs": BLOCK, "out_shape": SHAPE, "interpret": True, **settings}
    return pl.pallas_call(kernel, **given)


def blocks(x: Any) -> Any:
    return x.reshape(2, 4)


def simple(x_ref: Any, out_ref: Any) -> None:
    out_ref[...] = jnp.sin(x_ref[...]) * x_ref[0]


def branches(x_ref: Any, out_ref: Any) -> None:
    @pl.when(pl.program_id(0) > 0)
    def _() -> None:
        out_ref[...] = jnp.sin(x_ref[...])

    @pl.when(pl.program_id(0) == 0)
    def _() -> None:
        out_ref[...] = x_ref[...] ** 2


def loops(x_ref: Any, out_ref: Any) -> None:
    out_ref[...] = x_ref[...] ** 2

    def body(i: Any, c: Any) -> Any:
        out_ref[i] = out_ref[i] * c
        return c * x_ref[i]

    last = lax.fori_loop(0, 3, body, 1.5)

    def step(s: Any) -> Any:
        out_ref[s] += last
        return s + 2

    lax.while_loop(lambda s: s < 4, step, 0)


def loops_as_a_function(x: Any) -> Any:
    factors = 1.5 * jnp.stack([jnp.ones(2), x[:, 0], x[:, 0] * x[:, 1]], axis=1)
    out = x**2 * jnp.concatenate([factors, jnp.ones((2, 1))], axis=1)
    return out.at[:, ::2].add(1.5 * x[:, :3].prod(axis=1)[:, None])


def parts(x_ref: Any, out_ref: Any) -> None:
    out_ref[...] = jnp.zeros(4)
    out_ref[1] += x_ref[2] ** 2
    out_ref[pl.ds(2, 2)] = jax.jit(jnp.tanh)(x_ref[pl.ds(0, 2)])


ONE: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "simple": (call(simple), lambda x: jnp.sin(x) * x[:, :1]),
    "branches": (call(branches), lambda x: jnp.stack([x[0] ** 2, jnp.sin(x[1])])),
    "loops": (call(loops), loops_as_a_function),
    "parts": (call(parts), lambda x: jnp.concatenate([jnp.zeros((2, 1)), x[:, 2:3] ** 2, jnp.tanh(x[:, :2])], axis=1)),
}


def with_scratch(x_ref: Any, out_ref: Any, scratch_ref: Any) -> None:
    scratch_ref[...] = jnp.sin(x_ref[...])
    scratch_ref[0] = scratch_ref[1] * 2
    out_ref[...] = scratch_ref[...] ** 2


def prefetched(order_ref: Any, x_ref: Any, out_ref: Any) -> None:
    out_ref[...] = x_ref[...] ** 2 * order_ref[pl.program_id(0)].astype(x_ref.dtype)


PREFETCH = pltpu.PrefetchScalarGridSpec(num_scalar_prefetch=1, grid=(2,), in_specs=[pl.BlockSpec((4,), lambda i, order: (order[i],))],
                                        out_specs=pl.BlockSpec((4,), lambda i, order: (i,)))
ONE["scratch"] = (call(with_scratch, scratch_shapes=[pltpu.VMEM((4,), X.dtype)]),
                  lambda x: (s := jnp.sin(x)).at[:, 0].set(2 * s[:, 1]) ** 2)
ONE["prefetch"] = (lambda x: pl.pallas_call(prefetched, grid_spec=PREFETCH, out_shape=SHAPE, interpret=True)(
    jnp.array([1, 0], jnp.int32), x), lambda x: jnp.stack([x[1] ** 2, 0 * x[0]]))


def agree(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


@pytest.mark.parametrize("name", ONE)
def test_pushes_of_first_and_second_order(name: str) -> None:
    kernel, function = ONE[name]

    def derivatives(d: Any, f: Callable[[Any], Any]) -> Any:
        return jax.jit(lambda x: (d.jvp(f, (x,), (Y,)), d.jacfwd(f)(x), d.jvp(lambda x: d.jvp(f, (x,), (x,))[1], (x,), (Y,))))(X)

    agree(derivatives(dr, kernel), derivatives(jax, lambda x: function(blocks(x)).reshape(-1)))


def several(x_ref: Any, y_ref: Any, n_ref: Any, out_ref: Any, count_ref: Any) -> None:
    out_ref[...] = x_ref[...] * y_ref[...] + n_ref[...].astype(out_ref.dtype)
    count_ref[...] = n_ref[...] + 1


def test_several_operands_and_results() -> None:
    f = call(several, 3, out_specs=[BLOCK, BLOCK], out_shape=[SHAPE, jax.ShapeDtypeStruct((8,), N.dtype)])
    agree(dr.jvp(lambda x, y: f(x, y, N)[0], (X, Y), (Y, X)), (X * Y + N.astype(X.dtype), Y * Y + X * X))
    agree(dr.jvp(lambda y: f(X, y, N), (Y,), (X,), zero_wins=True)[1][0], X * X)
    agree(dr.grad(lambda x: jnp.sum(f(x, Y, N)[0]), engine="forward")(X), Y)
    batch = jnp.stack([X, 2 * X])
    agree(jax.vmap(lambda x: dr.jvp(lambda x: f(x, Y, N)[0], (x,), (Y,))[1])(batch), jnp.stack([Y * Y, Y * Y]))


@pytest.mark.parametrize("moving", [(0,), (1,), (0, 1)], ids=str)
def test_a_result_in_the_memory_of_an_operand(moving: tuple[int, ...]) -> None:
    def kernel(x_ref: Any, y_ref: Any, out_ref: Any) -> None:
        out_ref[...] = out_ref[...] * x_ref[...]

    f = call(kernel, 2, input_output_aliases={1: 0})
    found = dr.jvp(lambda *given: f(*[given[moving.index(i)] if i in moving else (X, Y)[i] for i in range(2)]),
                   [(X, Y)[i] for i in moving], [jnp.ones(8)] * len(moving))[1]
    agree(found, sum((Y, X)[i] for i in moving))


def test_masked_reads_and_writes() -> None:
    from jax._src.pallas import primitives  # pl.load and pl.store moved to the modules of the accelerators

    def kernel(x_ref: Any, out_ref: Any) -> None:
        v = primitives.load(x_ref, (pl.ds(0, 4),), mask=jnp.arange(4) < 3, other=x_ref[0] * jnp.ones(4))
        primitives.store(out_ref, (pl.ds(0, 4),), jnp.zeros(4))
        primitives.store(out_ref, (pl.ds(0, 4),), v**2, mask=jnp.arange(4) > 0)

    def function(x: Any) -> Any:
        v = blocks(x).at[:, 3].set(blocks(x)[:, 0])
        return (v**2).at[:, 0].set(0).reshape(-1)

    agree(dr.jacfwd(call(kernel))(X), jax.jacfwd(function)(X))


def test_the_pushed_kernel_compiles_for_an_accelerator() -> None:
    block = pl.BlockSpec((8, 128), lambda i: (i, 0))
    f = pl.pallas_call(branches, grid=(2,), in_specs=[block], out_specs=block, out_shape=jax.ShapeDtypeStruct((16, 128), jnp.float32))
    exported = jax.export.export(jax.jit(lambda x: dr.jvp(f, (x,), (x,))), platforms=["tpu"])(jnp.ones((16, 128), jnp.float32))
    assert "tpu_custom_call" in exported.mlir_module()


@pytest.mark.parametrize("call_", [dr.grad, dr.jacrev, dr.hessian], ids=lambda f: f.__name__)
def test_no_pull(call_: Any) -> None:
    with pytest.raises(NoDerivativeError, match=r"forward mode alone.*met 'pallas_call'.*engine='forward'.*custom_vjp"):
        call_(lambda x: jnp.sum(ONE["simple"][0](x)))(X)
    with pytest.raises(NoDerivativeError, match="no transpose"):
        dr.linearize(ONE["simple"][0], X)
    stated = dr.rule(partials=[2.0])(call(lambda x_ref, out_ref: out_ref.__setitem__(..., 2 * x_ref[...])))
    agree(dr.grad(lambda x: jnp.sum(stated(x) ** 2))(X), 8 * X)
