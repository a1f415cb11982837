"""Cotangents of parts of one array: collected, joined once, and linear in their number; equal operations merged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close
from jax import lax
from jax.extend.core import jaxpr_as_fun

import dualrev
from dualrev.linear.joining import FUSED, layers
from dualrev.linear.pieces import Pieces
from dualrev.linear.places import Box, Window
from dualrev.programs.common_subexpressions import merged, merged_graph
from dualrev.programs.partition import eqns_within, graph_of

Array = Any
Function = Callable[[Array], Array]


def entries(n: int) -> Function:
    def f(x: Array) -> Array:
        s = x[0]
        for i in range(1, n):
            s = s + jnp.sin(x[i]) * x[i - 1]
        return s

    return f


def of_matrix(n: int) -> Function:
    return lambda x: sum((jnp.sin(x[i, j]) * x[j, i] for i in range(n) for j in range(n)), jnp.zeros((), x.dtype))


def every_other(n: int) -> Function:
    """Entries with gaps: few enough to be laid out with zeros."""
    return lambda x: sum((jnp.sin(x[i]) for i in range(0, n, 3)), jnp.zeros((), x.dtype))


def scattered(n: int) -> Function:
    """Entries so far from each other that they are scattered into zeros."""
    return lambda x: sum((jnp.sin(x[7 * i + i * i]) for i in range(n)), jnp.zeros((), x.dtype))


def windows(n: int) -> Function:
    return lambda x: sum((jnp.sin(x[i: i + 3]).sum() ** 2 for i in range(n - 3)), jnp.zeros((), x.dtype))


def gathers(n: int) -> Function:
    return lambda x: sum((jnp.prod(x[np.array([i, 7 * i % n, i])]) for i in range(n)), jnp.zeros((), x.dtype))


def rows_by_gathers(n: int) -> Function:
    return lambda x: sum((jnp.prod(x.at[np.array([[i, 2], [n, -1]])].get(mode="fill", fill_value=1.0)) for i in range(n)),
                         jnp.zeros((), x.dtype))


def whole_and_parts(n: int) -> Function:
    return lambda x: jnp.sum(x**2) * x[0] + x[1] * x[n - 1] + jnp.sum(jnp.cos(x)) * x[1]


def of_unequal_length(n: int) -> Function:
    def f(x: Array) -> Array:
        at, s = 0, jnp.zeros((), x.dtype)
        for k in range(1, n):
            s, at = s + jnp.sin(x[at: at + k]).sum() ** 2, at + k
        return s

    return f


def strided(n: int) -> Function:
    return lambda x: jnp.sum(jnp.sin(x[::2]) * x[1::2]) * x[3] + x[::-1][0] * x[n - 1:: -3][1]


def split_and_unstacked(n: int) -> Function:
    def f(x: Array) -> Array:
        head, _, tail = jnp.split(x, [2, n - 2])
        first, *_, last = jnp.unstack(x)
        return jnp.sum(jnp.sin(head)) * jnp.prod(tail) + first * last

    return f


def grid(n: int) -> Function:
    """Blocks that cut two axes, in a pinwheel too: no row of them is cut through."""
    def f(x: Array) -> Array:
        pinwheel = [x[:1, : n - 1], x[: n - 1, n - 1:], x[n - 1:, 1:], x[1:, :1], x[1: n - 1, 1: n - 1]]
        blocks = [x[i: i + 2, j: j + 2] for i in range(0, n, 2) for j in range(0, n, 2)]
        return sum((jnp.sin(part).sum() ** 2 for part in (*pinwheel, *blocks)), jnp.zeros((), x.dtype))

    return f


def dynamic(n: int) -> Function:
    def f(x: Array) -> Array:
        k = jnp.argmax(x)
        parts = [lax.dynamic_slice(x, (start,), (2,)) for start in (k, k + 1, k, jnp.int64(n + 3), -k, 0, 2)]
        return sum((jnp.prod(part) * (i + 1) for i, part in enumerate(parts)), jnp.zeros((), x.dtype)) + x[0] * jnp.sum(x * x)

    return f


def vectors(n: int) -> Any:
    return np.random.default_rng(n).normal(size=n)


CASES: list[tuple[Function, Any]] = [
    (entries(5), vectors(5)), (entries(70), vectors(70)), (of_matrix(4), vectors(16).reshape(4, 4)), (every_other(40), vectors(40)),
    (scattered(10), vectors(150)), (windows(12), vectors(12)), (gathers(6), vectors(6)),
    (rows_by_gathers(3), vectors(15).reshape(3, 5)), (whole_and_parts(4), vectors(4)), (of_unequal_length(12), vectors(66)),
    (strided(12), vectors(12)), (split_and_unstacked(7), vectors(7)), (grid(6), vectors(36).reshape(6, 6)),
    (dynamic(9), vectors(9)), (dynamic(900), vectors(900)), (entries(0), vectors(1))]


@pytest.mark.promotes
@pytest.mark.parametrize("is_compiled", [pytest.param(False, marks=pytest.mark.thorough), True])
@pytest.mark.parametrize(("f", "x"), [
    pytest.param(f, x, id=f"{f.__qualname__.split('.')[0]}-{x.size}", marks=[pytest.mark.thorough] if x.size in (36, 66, 70) else [])
    for f, x in CASES])
def test_to_order_two(f: Function, x: Array, is_compiled: bool) -> None:
    maybe_jit: Callable[..., Any] = jax.jit if is_compiled else lambda f: f
    assert_close(maybe_jit(dualrev.grad(f))(x), jax.grad(f)(x))
    if x.size > 100:
        return
    t = np.cos(np.arange(x.size)).reshape(x.shape)
    product = jax.jvp(jax.grad(f), (x,), (t,))[1]
    assert_close(maybe_jit(lambda x: dualrev.jvp(dualrev.grad(f), (x,), (t,))[1])(x), product)
    assert_close(maybe_jit(dualrev.grad(lambda x: jnp.vdot(dualrev.grad(f)(x), t)))(x), product)
    if is_compiled:
        assert_close(jax.vmap(dualrev.grad(f))(np.stack([x, 2 * x])), jax.vmap(jax.grad(f))(np.stack([x, 2 * x])))


def entries_of(jaxpr: Any) -> int:
    """The number of entries of all results: what a program of these operations, one by one, writes."""
    return sum(math.prod(getattr(v.aval, "shape", ())) for eqn in eqns_within(jaxpr) for v in eqn.outvars)


@pytest.mark.parametrize("make", [entries, every_other, windows, gathers])
def test_equations_and_entries_are_linear_in_the_number_of_parts(make: Callable[[int], Function]) -> None:
    """A gradient has as many equations as a few functions, and writes as many entries: arrays of length n for each part write n²."""
    program, gradient = (jax.make_jaxpr(f)(vectors(200)) for f in (make(200), dualrev.grad(make(200))))
    assert entries_of(gradient) < 15 * entries_of(program)
    assert len(gradient.eqns) < 4 * len(program.eqns)


def test_second_order_is_linear_too() -> None:
    def product(n: int) -> Any:
        f = entries(n)
        return jax.make_jaxpr(dualrev.grad(lambda x: jnp.sum(dualrev.grad(f)(x))))(vectors(n))

    assert entries_of(product(200)) < 2.3 * entries_of(product(100))


def names(f: Callable[..., Any], *args: Any) -> list[str]:
    return [str(eqn.primitive) for eqn in eqns_within(jax.make_jaxpr(f)(*args))]


def test_neighbours_become_one_concatenation() -> None:
    def f(y: Array) -> Array:
        return jnp.sum(jnp.sin(y[0]) * y[1] + y[2] * y[0] * y[1])

    found = names(dualrev.grad(f), np.ones((3, 4)))
    assert found.count("concatenate") == 1 and "pad" not in found


def test_overlapping_slices_are_padded_and_added_as_ever() -> None:
    found = names(dualrev.grad(lambda x: jnp.sum(jnp.sin(x[1:]) * x[:-1])), np.ones(9))
    assert found.count("pad") == 2 and "concatenate" not in found


def test_many_windows_take_as_few_sums_as_they_overlap() -> None:
    assert names(dualrev.grad(windows(100)), vectors(100)).count("pad") <= 3


def test_equal_dynamic_places_are_summed_first() -> None:
    def f(x: Array, k: Array) -> Array:
        parts = [lax.dynamic_slice_p.bind(x, k, slice_sizes=(2,)) for _ in range(5)]
        return sum((jnp.prod(part) for part in parts), jnp.zeros(()))

    assert names(dualrev.grad(f), vectors(9), np.int32(3)).count("dynamic_update_slice") == 1


def test_gathers_become_one_scatter() -> None:
    assert names(dualrev.grad(gathers(20)), vectors(20)).count("scatter-add") == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "complex64", "complex128"])
def test_dtypes(dtype: str) -> None:
    x = jnp.asarray(vectors(20)).astype(dtype)

    def f(x: Array) -> Array:
        return jnp.real(sum((x[i] * x[i - 1] for i in range(20)), jnp.zeros((), dtype)))

    assert dualrev.grad(f)(x).dtype == dtype
    assert_close(jax.jit(dualrev.grad(f))(x), jax.grad(f)(x))


def test_wide_cotangents() -> None:
    """In bfloat16 a sum of 400 equal terms stops growing; cotangents of entries accumulate in the wider dtype too."""
    x = jnp.full(3, 0.1, "bfloat16")

    def f(x: Array) -> Array:
        return sum((x[0] * x[1] for _ in range(400)), jnp.zeros((), "bfloat16"))

    gradient = dualrev.grad(f, cotangent_dtype="float32")(x)
    assert gradient.dtype == jnp.float32
    assert_close(gradient, np.array([400, 400, 0]) * np.float32(x[0]))


def test_scans_with_entries() -> None:
    def f(y: Array, p: Array) -> Array:
        def step(y: Array, _: None) -> tuple[Array, Array]:
            moved = jnp.stack([p[0] * (y[1] - y[0]), y[0] * (p[1] - y[2]) - y[1], y[0] * y[1] - p[2] * y[2]])
            return y + 0.01 * moved, y[2]

        last, seen = lax.scan(step, y, None, length=7)
        return jnp.sum(last**2) + jnp.sum(seen)

    y, p = np.arange(12.0).reshape(3, 4) / 10, np.array([10.0, 28, 8 / 3])
    for f_of in (lambda y: f(y, p), lambda p: f(y, p)):
        x = y if f_of(y[:, :1]) is None else p
        assert_close(jax.jit(dualrev.grad(f_of))(x), jax.grad(f_of)(x))
    assert_close(dualrev.hessian(lambda p: f(y, p))(p), jax.hessian(lambda p: f(y, p))(p))


def test_nothing_but_arrays_leaves_a_map() -> None:
    """Pieces are between the maps of a tape: a pull gives arrays, also that of a map that is no tape."""
    _, pull = dualrev.vjp(lambda x: (x[1], x[3]), vectors(5))
    (ct,) = pull((1.0, 2.0))
    assert isinstance(ct, jax.Array)
    assert_close(ct, np.array([0, 1.0, 0, 2, 0]))


# ------------------------------------------------------------------------------------------------------------------ random parts


def random_parts(rng: np.random.Generator, shape: tuple[int, ...], depth: int) -> list[Function]:
    """Functions that take parts of an array of this shape, some of them parts of parts."""
    found: list[Function] = []
    for _ in range(rng.integers(1, 9)):
        axis, kind = int(rng.integers(len(shape))), rng.integers(6)
        n = shape[axis]
        start, size = (int(k) for k in (rng.integers(n), rng.integers(1, n + 1)))
        size = min(size, n - start)
        indices = rng.integers(0, n, size=3)
        options: list[Any] = [
            lambda x, a=axis, s=start, m=size: lax.slice_in_dim(x, s, s + m, axis=a),
            lambda x, a=axis, s=start: lax.index_in_dim(x, s, a, keepdims=True),
            lambda x, a=axis, s=start, m=size: lax.dynamic_slice_in_dim(x, jnp.int32(s), m, a),
            lambda x, a=axis, i=indices: jnp.take(x, i, axis=a),
            lambda x, a=axis: jnp.split(x, [1], axis=a)[-1] if x.shape[a] > 1 else x,
            lambda x, a=axis: jnp.expand_dims(jnp.unstack(x, axis=a)[0], a)]
        part = options[kind]
        inner = jax.eval_shape(part, jax.ShapeDtypeStruct(shape, "float64")).shape
        if depth and 0 not in inner:
            found += [lambda x, p=part, q=q: q(p(x)) for q in random_parts(rng, inner, depth - 1)[:3]]  # type: ignore[misc]
        else:
            found.append(part)
    return found


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(2, 12))])
def test_random_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 7, size=rng.integers(1, 4)))
    parts = random_parts(rng, shape, depth=2)

    def f(x: Array) -> Array:
        return sum((jnp.sin(p(x) * (k + 1)).sum() ** 2 for k, p in enumerate(parts)), jnp.zeros(()))

    x, t = rng.normal(size=shape), rng.normal(size=shape)
    assert_close(jax.jit(dualrev.grad(f))(x), jax.jit(jax.grad(f))(x))
    assert_close(jax.jit(lambda x: dualrev.jvp(dualrev.grad(f), (x,), (t,))[1])(x),
                 jax.jit(lambda x: jax.jvp(jax.grad(f), (x,), (t,))[1])(x))


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(2, 10))])
def test_random_boxes(seed: int) -> None:
    """Pieces in random boxes, with and without strides, overlapping or not, are what NumPy adds up."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 9, size=rng.integers(1, 4)))
    pieces, expected = Pieces(jax.typeof(jnp.zeros(shape))), np.zeros(shape)
    for _ in range(rng.integers(1, 40)):
        starts = tuple(int(rng.integers(n)) for n in shape)
        strides = tuple(int(k) for k in rng.integers(1, 3, size=len(shape)))
        sizes = tuple(int(rng.integers(0 if rng.random() < 0.1 else 1, (n - s - 1) // k + 2))
                      for n, s, k in zip(shape, starts, strides, strict=True))
        piece = rng.normal(size=sizes)
        pieces.put(Box(starts, sizes, tuple(k if n > 1 else 1 for k, n in zip(strides, sizes, strict=True))), (), jnp.asarray(piece))
        expected[tuple(slice(s, s + (n - 1) * k + 1 if n else s, k) for s, n, k in zip(starts, sizes, strides, strict=True))] += piece
    assert_close(pieces.array(), expected)
    assert_close(jax.jit(pieces.array)(), expected)


def test_disjoint_boxes_become_one_region() -> None:
    for n, m in itertools.product((1, 3, FUSED + 1, 70), (1, 2)):
        regions = [((i, j), jnp.full((1, 1), 10.0 * i + j)) for i in range(n) for j in range(m)]
        ((starts, found),) = layers(regions)
        assert starts == (0, 0)
        assert_close(found, 10.0 * np.arange(n)[:, None] + np.arange(m))


def test_a_window_with_known_starts_is_a_box() -> None:
    pieces = Pieces(jax.typeof(jnp.zeros(5))).put(Window((2,)), (np.int32(9),), jnp.ones(2))  # type: ignore[arg-type]
    assert_close(pieces.array(), np.array([0, 0, 0, 1.0, 1]))


# --------------------------------------------------------------------------------------------------------------- equal operations


def primitives(jaxpr: Any) -> list[str]:
    return [str(eqn.primitive) for eqn in jaxpr.jaxpr.eqns]


def evaluated(jaxpr: Any, *args: Any) -> Sequence[Any]:
    found: Sequence[Any] = jaxpr_as_fun(jaxpr)(*args)
    return found


def test_equal_operations_are_merged() -> None:
    def f(x: Array) -> tuple[Array, Array]:
        return jnp.sin(x[0]) + jnp.where(x > 0, x, 0.0), jnp.sin(x[0]) * jnp.where(x > 0, x, 0.0)

    program = jax.make_jaxpr(f)(vectors(3))
    found = merged(program)
    assert primitives(found).count("slice") == primitives(found).count("sin") == primitives(found).count("jit") == 1
    for x, y in zip(evaluated(found, vectors(3)), f(vectors(3)), strict=True):
        assert_close(x, y)
    assert merged(found) is found
    assert len(merged_graph(graph_of(program)).eqns) < len(graph_of(program).eqns)


def test_results_that_only_one_of_two_equal_operations_reads() -> None:
    def f(x: Array) -> Array:
        (_, a), (b, _) = lax.split(x, (1, 2)), lax.split(x, (1, 2))
        return jnp.sum(a) * jnp.sum(b)

    found = merged(jax.make_jaxpr(f)(vectors(3)))
    assert primitives(found).count("split") == 1
    assert_close(evaluated(found, vectors(3))[0], f(vectors(3)))


@pytest.mark.parametrize(("f", "name"), [
    (lambda x: x * 0.0 + x * -0.0, "mul"),
    (lambda x: lax.optimization_barrier(x) + lax.optimization_barrier(x), "optimization_barrier"),
    (lambda x: jax.pure_callback(np.sin, x, x) + jax.pure_callback(np.sin, x, x), "pure_callback"),
    (lambda x: x + jax.lax.rng_uniform(0.0, 1.0, (3,)) + jax.lax.rng_uniform(0.0, 1.0, (3,)), "rng_uniform"),
    (lambda x: lax.convert_element_type(x, "float32") + lax.convert_element_type(lax.sin(x), "float32"), "convert_element_type")])
def test_operations_that_stay_apart(f: Function, name: str) -> None:
    assert primitives(merged(jax.make_jaxpr(f)(vectors(3)))).count(name) == 2


def test_references_and_effects_stay_apart() -> None:
    def f(x: Array) -> Array:
        one, two = jax.new_ref(x), jax.new_ref(x)
        one[...] += 1.0
        jax.debug.print("{}", x[0])
        jax.debug.print("{}", x[0])
        return one[...] * two[...]

    found = merged(jax.make_jaxpr(f)(vectors(3)))
    assert primitives(found).count("new_ref") == primitives(found).count("debug_print") == 2
    assert_close(dualrev.grad(lambda x: jnp.sum(jax.jit(f)(x)))(vectors(3)), 2 * vectors(3) + 1)


def test_a_staged_program_has_one_residual_for_equal_operations() -> None:
    @jax.jit
    def f(x: Array) -> Array:
        return jnp.sin(x) * jnp.cos(x) + jnp.exp(jnp.sin(x)) * jnp.sin(x)

    assert names(dualrev.grad(lambda x: jnp.sum(f(x))), vectors(3)).count("sin") < 4
    assert_close(dualrev.grad(lambda x: jnp.sum(f(x)))(vectors(3)), jax.grad(lambda x: jnp.sum(f(x)))(vectors(3)))


def test_indices_of_a_gather_that_numpy_made() -> None:
    numbers = lax.GatherDimensionNumbers((0,), (0,), (0, 1))

    def f(x: Any) -> Any:
        return jnp.sum(lax.gather(x, np.array([1, 0]), numbers, (1, 3)) ** 2 + lax.gather(x, np.array([0, 0]), numbers, (1, 3)))

    x = jnp.arange(12.0).reshape(4, 3)
    assert_close(dualrev.grad(f)(x), jax.grad(f)(x))
    assert_close(jax.jit(dualrev.grad(f))(x), jax.grad(f)(x))
