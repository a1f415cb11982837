"""Random programs made of the table's operations: both engines and jax agree, to order 2.

A program is a list of steps; each takes arrays that earlier steps made and appends one more.  Shapes, dtypes, operations and
their parameters are drawn; the values stay of order one, so that agreement to rounding means agreement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import TOLERANCES, assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

import dualrev

Draw = Callable[[st.SearchStrategy[Any]], Any]
Array = Any
Step = Callable[[list[Array]], Array]

SETTINGS = settings(max_examples=50, deadline=None, derandomize=True, database=None,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def squash(x: Array) -> Array:
    """Of order one, and smooth, whatever ``x`` is."""
    return x / (1 + lax.square(lax.real(x)) + lax.square(lax.imag(x))) if jnp.iscomplexobj(x) else lax.tanh(x)


REAL_UNARY: dict[str, Callable[[Array], Array]] = {
    "sin": lax.sin, "cos": lax.cos, "tanh": lax.tanh, "exp": lambda x: lax.exp(squash(x)), "logistic": lax.logistic,
    "log1p": lambda x: lax.log1p(x * x), "sqrt": lambda x: lax.sqrt(1 + x * x), "rsqrt": lambda x: lax.rsqrt(1 + x * x),
    "cbrt": lambda x: lax.cbrt(2 + x * x), "atan": lax.atan, "asinh": lax.asinh, "sinh": lambda x: lax.sinh(squash(x)),
    "expm1": lambda x: lax.expm1(squash(x)), "exp2": lambda x: lax.exp2(squash(x)), "square": lax.square, "neg": lax.neg,
    "abs": lambda x: lax.abs(x + 0.123), "integer_pow": lambda x: lax.integer_pow(x, 3),
    "acos": lambda x: lax.acos(x / (2 + x * x)),
    "floor": lambda x: x + lax.floor(x * 0.3 + 0.1234), "sign": lambda x: x * lax.sign(x + 0.0123),
    "tan": lambda x: lax.tan(squash(x)),
    "erf": lax.erf, "atanh": lambda x: lax.atanh(x / (2 + x * x)), "stop": lambda x: x * lax.stop_gradient(x),
    "pow": lambda x: lax.pow(1 + x * x, jnp.asarray(1.5, x.dtype)), "log": lambda x: lax.log(1.5 + x * x),
    "copy": lambda x: jnp.array(x, copy=True), "jit": lambda x: jax.jit(lambda y: y * lax.sin(y))(x),
    "scan": lambda x: lax.scan(lambda c, _: (lax.sin(c) * 0.9 + x * 0.1, None), x, None, length=2)[0],
    "cond": lambda x: lax.cond((lax.real(x) if jnp.iscomplexobj(x) else x).sum() > 0.01, lax.sin, lambda y: y * y, x),
    "checkpoint": lambda x: jax.checkpoint(lambda y: lax.sin(y) * y)(x), "relu": lambda x: jax.nn.relu(x + 0.0123),
}
COMPLEX_UNARY: dict[str, Callable[[Array], Array]] = {
    **{name: REAL_UNARY[name] for name in ("sin", "cos", "exp", "square", "neg", "integer_pow", "copy", "jit", "scan",
                                           "checkpoint",
                                           "cond")},
    "conj": lax.conj, "swap": lambda x: lax.complex(lax.imag(x), lax.real(x)),
    "modulus": lambda x: lax.complex(lax.abs(x), lax.real(x)),
    "real": lambda x: lax.convert_element_type(lax.real(x), x.dtype), "sqrt": lambda x: lax.sqrt(x * lax.conj(x) + 2 + 0.5 * x),
}
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": lax.add, "sub": lax.sub, "mul": lax.mul, "div": lambda x, y: x / (2 + lax.square(squash(y))),
}
REAL_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    **BINARY, "max": lambda x, y: lax.max(x, y + 0.0123), "min": lambda x, y: lax.min(x - 0.0321, y),
    "atan2": lambda x, y: lax.atan2(x, 2 + y * y), "rem": lambda x, y: lax.rem(x, y * y + 2.3),
    "select": lambda x, y: lax.select(x > 0.01, y, x * y), "clamp": lambda x, y: lax.clamp(y - 1.017, x, y + 0.513),
    "hypot": lambda x, y: lax.sqrt(x * x + y * y + 1), "pow": lambda x, y: lax.pow(1.5 + x * x, squash(y)),
}


def unary(draw: Draw, x: Array) -> Step:
    table = COMPLEX_UNARY if jnp.iscomplexobj(x) else REAL_UNARY
    f = table[draw(st.sampled_from(sorted(table)))]
    return lambda env: f(env[-1])


def binary(draw: Draw, x: Array, others: list[tuple[int, Any]]) -> Step:
    table = BINARY if jnp.iscomplexobj(x) else REAL_BINARY
    f = table[draw(st.sampled_from(sorted(table)))]
    same = [i for i, a in others if a.shape == x.shape and a.dtype == x.dtype]
    i = draw(st.sampled_from(same))
    return (lambda env: f(env[-1], env[i])) if draw(st.booleans()) else (lambda env: f(env[i], env[-1]))


def shape_step(draw: Draw, x: Array) -> Step:
    """Transposes, reshapes, slices, pads, gathers: whatever moves entries about."""
    rank = x.ndim
    kind = draw(st.sampled_from(["transpose", "reshape", "rev", "broadcast", "concatenate", "pad", "slice", "gather",
                                 "dynamic_slice",
                                 "dynamic_update_slice", "scatter_add", "scatter", "squeeze", "sort", "roll", "scatter_mul"]))
    if kind == "transpose" and rank:
        order = draw(st.permutations(range(rank)))
        return lambda env: lax.transpose(env[-1], order)
    if kind == "reshape":
        return lambda env: lax.reshape(env[-1], (x.size,))
    if kind == "broadcast" and rank < 3:
        position = draw(st.integers(0, rank))
        shape = (*x.shape[:position], 2, *x.shape[position:])
        dims = [i for i in range(rank + 1) if i != position]
        return lambda env: lax.broadcast_in_dim(env[-1], shape, dims)
    if kind == "squeeze" and rank < 3:
        return lambda env: lax.sin(lax.expand_dims(env[-1], (0,)))
    if not rank or not x.size:
        return lambda env: env[-1] * 0.5
    axis = draw(st.integers(0, rank - 1))
    n = x.shape[axis]
    index = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=3))
    where = tuple([slice(None)] * axis + [np.array(index)])
    if kind == "rev":
        return lambda env: lax.rev(env[-1], (axis,))
    if kind == "concatenate" and n < 5:
        return lambda env: lax.concatenate([env[-1], lax.sin(env[-1]), env[-1]], axis)
    if kind == "pad" and n < 6:
        config = [(0, 0, 0)] * rank
        config[axis] = draw(st.tuples(st.integers(-1, 2), st.integers(0, 2), st.integers(0, 1)))
        return lambda env: lax.pad(env[-1], lax.convert_element_type(env[0].sum() * 0.1, x.dtype), config)
    if kind == "slice":
        start = draw(st.integers(0, n - 1))
        stride = draw(st.integers(1, 2))
        return lambda env: lax.slice_in_dim(env[-1], start, n, stride, axis)
    if kind == "gather":
        return lambda env: env[-1][where]
    if kind == "dynamic_slice":
        start = draw(st.integers(-1, n))
        size = draw(st.integers(1, n))
        return lambda env: lax.dynamic_slice_in_dim(env[-1], jnp.asarray(start), size, axis)
    if kind == "dynamic_update_slice":
        start = draw(st.integers(-1, n))
        return lambda env: lax.dynamic_update_slice_in_dim(env[-1], lax.sin(lax.slice_in_dim(env[-1], 0, 1, axis=axis)), start,
                                                           axis)
    if kind == "scatter_add":
        return lambda env: env[-1].at[where].add(lax.sin(env[-1][where]))
    if kind == "scatter":
        return lambda env: env[-1].at[(*where[:-1], np.unique(np.array(index)))].set(
            lax.sin(env[-1][(*where[:-1], np.unique(np.array(index)))]), unique_indices=True)
    if kind == "scatter_mul" and not jnp.iscomplexobj(x):
        return lambda env: env[-1].at[(*where[:-1], np.unique(np.array(index)))].multiply(
            lax.cos(env[-1][(*where[:-1], np.unique(np.array(index)))]), unique_indices=True)
    if kind == "sort" and not jnp.iscomplexobj(x):
        return lambda env: lax.sort(env[-1] + lax.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), dimension=axis)
    return lambda env: jnp.roll(env[-1], 1, axis)


def reduction(draw: Draw, x: Array) -> Step:
    if not x.ndim or not x.size:
        return lambda env: lax.sin(env[-1])
    axis = draw(st.integers(0, x.ndim - 1))
    names = ["sum", "cumsum", "cumprod", "prod", "mean"]
    if not jnp.iscomplexobj(x):
        names += ["max", "min", "cummax", "cumlogsumexp", "logsumexp", "argmax", "window", "softmax"]
    kind = draw(st.sampled_from(names))
    reverse = draw(st.booleans())

    def distinct(y: Array) -> Array:
        return y + lax.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)

    def window(y: Array) -> Array:
        size = [1] * x.ndim
        size[axis] = min(2, x.shape[axis])
        return lax.reduce_window(y, np.zeros((), x.dtype)[()], lax.add, tuple(size), (1,) * x.ndim, "VALID")

    table: dict[str, Callable[[Array], Array]] = {
        "sum": lambda y: jnp.sum(y, axis), "mean": lambda y: jnp.mean(y, axis), "prod": lambda y: jnp.prod(squash(y), axis),
        "cumsum": lambda y: lax.cumsum(y, axis, reverse), "cumprod": lambda y: lax.cumprod(squash(y), axis, reverse),
        "max": lambda y: jnp.max(distinct(y), axis), "min": lambda y: jnp.min(distinct(y), axis),
        "cummax": lambda y: lax.cummax(distinct(y), axis, reverse),
        "cumlogsumexp": lambda y: lax.cumlogsumexp(y, axis, reverse),
        "logsumexp": lambda y: jax.scipy.special.logsumexp(y, axis), "softmax": lambda y: jax.nn.softmax(y, axis),
        "argmax": lambda y: y * lax.convert_element_type(lax.argmax(y.reshape(-1), 0, np.int32), x.dtype) * 0.1,
        "window": window,
    }
    f = table[kind]
    return lambda env: f(env[-1])


def contraction(draw: Draw, x: Array, others: list[tuple[int, Any]]) -> Step:
    candidates = [(i, a, p, q) for i, a in others if a.dtype == x.dtype and a.ndim + x.ndim <= 5
                  for p in range(x.ndim) for q in range(a.ndim) if x.shape[p] == a.shape[q]]
    if not candidates:
        return lambda env: env[-1] * env[-1]
    i, a, p, q = draw(st.sampled_from(candidates))
    pairs = [(m, n) for m in range(x.ndim) for n in range(a.ndim) if (m, n) != (p, q) and m != p and n != q
             and x.shape[m] == a.shape[n]]
    batch = draw(st.sampled_from([None, *pairs]))
    dims = (((p,), (q,)), (((batch[0],), (batch[1],)) if batch else ((), ())))
    return lambda env: lax.dot_general(env[-1], env[i], dims) * 0.3


def conversion(draw: Draw, x: Array) -> Step:
    dtype = draw(st.sampled_from(["float64", "complex128"] if not jnp.iscomplexobj(x) else ["complex128"]))
    if x.dtype == np.float32:
        return lambda env: lax.convert_element_type(env[-1], np.float64)
    return lambda env: lax.convert_element_type(env[-1], dtype)


@st.composite
def programs(draw: Draw) -> tuple[list[Step], list[np.ndarray]]:
    """The steps of a program, and its inputs."""
    dtype = draw(st.sampled_from(["float64", "float64", "complex128", "float32"]))
    shapes = draw(st.lists(st.sampled_from([(), (2,), (3,), (2, 3), (3, 2), (1, 3), (2, 1, 3), (0, 2)]), min_size=1,
                           max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    inputs = []
    for shape in shapes:
        x = rng.standard_normal(shape)
        inputs.append((x + 1j * rng.standard_normal(shape) if dtype == "complex128" else x).astype(dtype))
    steps: list[Step] = []
    avals: list[Any] = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    for _ in range(draw(st.integers(2, 6))):
        x = avals[-1]
        others = list(enumerate(avals))
        kind = draw(st.sampled_from(["unary", "binary", "shape", "shape", "reduction", "contraction", "conversion", "unary"]))
        proto = Proto(x)
        on_two: dict[str, Any] = {"binary": binary, "contraction": contraction}
        on_one: dict[str, Any] = {"unary": unary, "shape": shape_step, "reduction": reduction, "conversion": conversion}
        step = on_two[kind](draw, proto, others) if kind in on_two else on_one[kind](draw, proto)
        out = jax.eval_shape(lambda env, step=step: step(env), avals)
        if out.size > 200:
            continue
        steps.append(step)
        avals.append(jax.ShapeDtypeStruct(out.shape, out.dtype))
    return steps, inputs


class Proto:
    """The shape and dtype of the newest value, as much of an array as the drawing of a step looks at."""

    def __init__(self, aval: Any):
        self.shape, self.dtype, self.size, self.ndim = aval.shape, aval.dtype, aval.size, len(aval.shape)


def run(steps: list[Step], inputs: Any) -> Array:
    env = list(inputs)
    for step in steps:
        env.append(step(env))
    return squash(env[-1]) + 0.1 * env[-1] if len(steps) % 2 else env[-1]


def directions(inputs: Any, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(x.shape) + (1j * rng.standard_normal(x.shape) if x.dtype.kind == "c" else 0)).astype(x.dtype)
            for x in inputs]


def first_order(d: Any, f: Callable[[Any], Array], x: Any, t: Any, ct: Any, engine: dict[str, str]) -> list[Any]:
    return [d.jvp(f, (x,), (t,), **engine)[1], *d.vjp(f, x, **engine)[1](ct)[0]]


def second_order(d: Any, f: Callable[[Any], Array], x: Any, t: Any, ct: Any, engine: dict[str, str]) -> list[Any]:
    """The push of a pull, and the pull of a push."""
    pulled = d.jvp(lambda x: d.vjp(f, x)[1](ct)[0], (x,), (t,), **engine)[1]
    return [*pulled, *d.vjp(lambda x: d.jvp(f, (x,), (t,))[1], x, **({} if d is jax else {"engine": "reverse"}))[1](ct)[0]]


@SETTINGS
@given(programs(), st.integers(0, 100))
def test_random_programs(program: tuple[list[Step], list[np.ndarray]], seed: int) -> None:
    steps, inputs = program
    t = directions(inputs, seed)
    out = jax.eval_shape(lambda x: run(steps, x), inputs)
    (ct,) = directions([np.zeros(out.shape, out.dtype)], seed + 1)

    def f(x: Any) -> Array:
        return run(steps, x)

    @jax.jit
    def everything(x: list[Array], t: list[Array], ct: Array) -> dict[str, list[Array]]:
        results = {"jax": first_order(jax, f, x, t, ct, {}) + second_order(jax, f, x, t, ct, {})}
        for engine in ("forward", "reverse"):
            results[engine] = (first_order(dualrev, f, x, t, ct, {"engine": engine})
                               + second_order(dualrev, f, x, t, ct, {"engine": engine}))
        return results

    results = everything(inputs, t, ct)
    # Entries that cancel are compared with the size of what cancelled: the largest derivative of the same order.
    tolerance = 100 * max(TOLERANCES[str(a.dtype)] for a in [out, *inputs])
    for engine in ("forward", "reverse"):
        assert len(results[engine]) == len(results["jax"])
        for got, expected in zip(results[engine], results["jax"], strict=True):
            assert got.dtype == expected.dtype
            assert got.shape == expected.shape
            assert_close(got, expected, tolerance, engine)


@settings(SETTINGS, max_examples=8)
@given(programs(), st.integers(0, 100))
def test_random_programs_without_jit(program: tuple[list[Step], list[np.ndarray]], seed: int) -> None:
    steps, inputs = program
    t = directions(inputs, seed)

    def f(x: Any) -> Array:
        return run(steps, x)

    out = jax.eval_shape(f, inputs)
    (ct,) = directions([np.zeros(out.shape, out.dtype)], seed + 1)
    expected = jax.jit(lambda x, t, ct: first_order(jax, f, x, t, ct, {}))(inputs, t, ct)
    for engine in ("forward", "reverse"):
        for got, wanted in zip(first_order(dualrev, f, inputs, t, ct, {"engine": engine}), expected, strict=True):
            assert_close(got, wanted, 100 * max(TOLERANCES[str(a.dtype)] for a in [out, *inputs]), engine)


@pytest.mark.parametrize("engine", ["forward", "reverse"])
def test_inner_product_identity(engine: Any) -> None:
    """⟨J t, u⟩ = ⟨t, Jᵀ u⟩ for a map with every kind of step."""
    def f(x: Any) -> Array:
        return lax.cumsum(lax.sort(lax.sin(x) * 2)[::2]) @ jnp.arange(6.0).reshape(3, 2)

    x, t, u = np.linspace(-1, 1, 5), np.arange(5.0), np.array([1.0, -2.0])
    moved = dualrev.jvp(f, (x,), (t,), engine=engine)[1]
    assert_close(jnp.vdot(moved, u), jnp.vdot(t, dualrev.vjp(f, x, engine=engine)[1](u)[0]))
