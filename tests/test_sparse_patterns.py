"""Patterns against dense derivatives by jax: no entry is ever missed, and on the programs below none is added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import promoting
from cases import CASES, Case
from jax import lax
from jax.experimental.sparse import BCOO
from jax.sharding import PartitionSpec as P
from random_programs import Pool
from test_rules import Problem, as_list

import dualrev as dr
from dualrev._jax.jaxprs import stage
from dualrev.sparse.graph import Graph
from dualrev.sparse.patterns import hessian_csr, jacobian_csr
from dualrev.sparse.propagation import Propagation
from dualrev.sparse.ranges import range_of
from dualrev.sparse.values import Value

RNG = np.random.default_rng(0)
A = RNG.normal(size=(6, 6)) + 6 * np.eye(6)
BAND = np.triu(np.tril(A, 1), -1)
AT = np.array([3, 1, 4, 5])
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
SPARSE = BCOO.fromdense(jnp.asarray(BAND))


@jax.custom_jvp
def straight_through(x: Any) -> Any:
    return jnp.round(x)


straight_through.defjvp(lambda p, t: (straight_through(p[0]), t[0]))


@jax.custom_vjp
def reversed_by_pull(x: Any) -> Any:
    return jnp.flip(x) ** 2


reversed_by_pull.defvjp(lambda x: (reversed_by_pull(x), x), lambda x, ct: (2 * x * jnp.flip(ct),))


def heat(u: Any) -> Any:
    return jnp.concatenate([u[1:2] - 2 * u[:1], u[2:] - 2 * u[1:-1] + u[:-2], u[-2:-1] - 2 * u[-1:]]) + u**2 * u[::-1]


def rosenbrock(x: Any) -> Any:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def bundle(x: Any) -> Any:
    cameras, points = x[:4].reshape(2, 2), x[4:].reshape(3, 2)
    return jax.vmap(lambda c, p: jnp.sin(c[0]) * p + c[1] * jnp.exp(p[::-1]))(cameras[np.array([0, 0, 1])], points).ravel()


def steps(x: Any) -> Any:
    return lax.fori_loop(0, 6, lambda i, y: y.at[i].set(x[i] * y[(i + 1) % 6]), x)


def unknown_length(x: Any) -> Any:
    """Each entry comes to depend on all before it."""
    return lax.while_loop(lambda c: c.sum() < 1e3, lambda c: c.at[1:].add(c[:-1] ** 2 + 1), x)


#: name -> (function of vectors or matrices, their shapes).  On these the patterns are exact.
EXACT: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "entry by entry": (lambda x: jnp.tanh(x) * 2 + x, ((6,),)),
    "heat": (heat, ((8,),)),
    "rosenbrock": (rosenbrock, ((6,),)),
    "bundle": (bundle, ((10,),)),
    "constant matrix": (lambda x: BAND @ jnp.exp(x), ((6,),)),
    "constant factor with zeros": (lambda x: x * np.array([1.0, 0, 2, 0, 0, 3]) + jnp.sin(x[::-1]), ((6,),)),
    "matrix product": (lambda x, y: x @ y, ((3, 4), (4, 2))),
    "row products": (lambda x: jnp.einsum("ij,ij->i", x, x), ((4, 3),)),
    "gather": (lambda x: x[AT] * x[0], ((6,),)),
    "scatter": (lambda x: x.at[AT].set(jnp.sin(x[:4])), ((6,),)),
    "scatter over itself": (lambda x: (x**2).at[np.array([1, 1, 0, 1])].set(jnp.sin(x[:4])), ((6,),)),
    "windows over themselves": (lambda x: jnp.zeros((2, 3)).at[np.array([0, 0])].set(x**2), ((2, 3),)),
    "exponents 0": (lambda x: x ** np.array([0, 3, 2, 0]) + x[::-1] ** 0, ((4,),)),
    "scatter-add": (lambda x: jnp.zeros(6).at[np.array([1, 1, 2, 5])].add(x[:4] ** 2), ((6,),)),
    "pad and slice": (lambda x: jnp.pad(x, 2)[1:7:2] ** 2, ((6,),)),
    "where": (lambda x: jnp.where(np.arange(6) < 3, x**2, x[::-1]), ((6,),)),
    "cumsum": (lambda x: jnp.cumsum(x**2), ((6,),)),
    "cumprod": (jnp.cumprod, ((6,),)),
    "softmax": (lambda x: jax.nn.softmax(x, axis=1), ((3, 4),)),
    "fft": (lambda x: jnp.fft.fft(x).real, ((2, 3),)),
    "convolution": (lambda x: lax.conv_general_dilated(x, jnp.ones((2, 2, 3, 3)), (1, 1), "SAME") ** 2, ((1, 2, 4, 4),)),
    "active kernel": (lambda x, w: lax.conv_general_dilated(x, w, (2,), "SAME"), ((1, 2, 5), (2, 2, 3))),
    "triangular solve": (lambda x: jax.scipy.linalg.solve_triangular(A, x, lower=True), ((6,),)),
    "solve": (lambda x: jnp.linalg.solve(A, x**2), ((6,),)),
    "scan": (lambda x: lax.scan(lambda c, a: (jnp.tanh(c + a), c * a), x[0], x)[1], ((6,),)),
    "map": (lambda x: lax.map(lambda row: jnp.outer(row, row).sum(), x), ((5, 3),)),
    "counted steps": (steps, ((6,),)),
    "unknown length": (unknown_length, ((5,),)),
    "counted while": (lambda x: lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, jnp.roll(c[1], 1) * x), (0, x))[1], ((6,),)),
    "custom_jvp": (lambda x: jnp.sin(straight_through(x[1:] + x[:-1])), ((4,),)),
    "relu": (jax.nn.relu, ((4,),)),
    "gelu": (jax.nn.gelu, ((4,),)),
    "checkpoint": (jax.checkpoint(lambda x: jnp.sin(x[1:]) * x[:-1]), ((4,),)),
    "quotient": (lambda x, y: x / y, ((4,), (4,))),
    "only one entry counts": (lambda x: (x**2 * x[0])[1] + jnp.floor(x * x[3]).sum(), ((5,),)),
    "stop_gradient": (lambda x: lax.stop_gradient(x[0] ** 2) * x, ((4,),)),
    "one device": (jax.shard_map(lambda y: jnp.sin(y) * lax.psum(y, "i")[0], mesh=MESH, in_specs=P("i"), out_specs=P("i")), ((4,),)),
    "reduction by the user's operation": (lambda x: lax.reduce(x, np.float64(1), lambda a, b: a * b, (0,)), ((3, 2),)),
    "sparse matrix": (lambda x: SPARSE @ x**2, ((6,),)),
    "diagonal matrix": (lambda x: jnp.diag(x) @ jnp.sin(x), ((4,),)),
    "matrix filled in places": (lambda x: (jnp.zeros((4, 4)).at[np.arange(4), AT % 4].set(x) - jnp.zeros((4, 4))).T @ x, ((4,),)),
    "eigenvalues": (lambda x: jnp.linalg.eigh(x + x.T)[0], ((3, 3),)),
}
SHORT = ("scatter over itself", "exponents 0", "heat", "rosenbrock", "bundle", "constant matrix", "scatter", "matrix product", "scan",
         "unknown length", "custom_jvp", "only one entry counts")


def flattened(f: Callable[..., Any], shapes: tuple[tuple[int, ...], ...]) -> Callable[[Any], Any]:
    """The function of all inputs as one vector, with all outputs as one vector."""
    def flat(v: Any) -> Any:
        ends = np.cumsum([int(np.prod(s)) for s in shapes])
        parts = [part.reshape(s) for part, s in zip(jnp.split(v, ends[:-1]), shapes, strict=True)]
        return jnp.concatenate([jnp.ravel(out) for out in as_list(f(*parts))])

    return flat


def dense(f: Callable[[Any], Any], n: int, order: int, points: int = 6) -> np.ndarray:
    """Where a derivative is not zero at some of several random points and their negatives; of order 2, for any output."""
    derivative = jax.jit(jax.jacfwd(f) if order == 1 else jax.jacfwd(jax.jacfwd(f)))
    drawn = RNG.normal(size=(points // 2, n))
    found = np.abs(np.stack([derivative(x) for x in (*drawn, *-drawn)]))
    return np.asarray((found > 1e-12 * found.max(initial=0)).any(0 if order == 1 else (0, 1)))


def avals_of(shapes: tuple[tuple[int, ...], ...]) -> list[Any]:
    return [jax.typeof(jnp.zeros(s)) for s in shapes]


@pytest.mark.promotes
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in SHORT else pytest.mark.thorough) for n in EXACT])
def test_patterns_are_exact(name: str) -> None:
    f, shapes = EXACT[name]
    flat, n = flattened(f, shapes), sum(int(np.prod(s)) for s in shapes)
    fun = lambda *xs: as_list(f(*xs))  # noqa: E731  (a list of outputs)
    np.testing.assert_array_equal(jacobian_csr(fun, avals_of(shapes)).toarray(), dense(flat, n, 1))
    np.testing.assert_array_equal(hessian_csr(fun, avals_of(shapes)).toarray(), dense(flat, n, 2))


#: name -> (function of six inputs, the inputs that each output depends on).
CHOSEN: dict[str, tuple[Callable[..., Any], list[set[int]]]] = {
    "place of a maximum": (lambda x: x[jnp.argmax(x[:3]) + 1], [{1, 2, 3}]),
    "half of a place": (lambda x: x[jnp.argmax(x[:4]) // 2], [{0, 1}]),
    "place from the end": (lambda x: x[5 - jnp.argmin(x[:2])], [{4, 5}]),
    "negative place": (lambda x: x[jnp.argmax(x[:2]) - 2], [{4, 5}]),
    "comparison": (lambda x: x[jnp.where(x[4] > 0, 1, 3)], [{1, 3}]),
    "boolean": (lambda x: x[(x[5] > 0).astype(int)], [{0, 1}]),
    "two places": (lambda x: x[jnp.argmax(x[:2])] + x[2 + jnp.argmax(x[2:4])], [{0, 1, 2, 3}]),
    "place of two": (lambda x: x[jnp.argmax(x[:2]) + jnp.argmax(x[2:4])], [{0, 1, 2}]),
    "a place for each row": (lambda x: jnp.take_along_axis(x.reshape(3, 2), jnp.argmax(x.reshape(3, 2), 1)[:, None], 1),
                             [{0, 1}, {2, 3}, {4, 5}]),
    "booleans": (lambda x: x[(x[:2] > 0).astype(int) + np.array([0, 3])], [{0, 1}, {3, 4}]),
    "a sum of booleans": (lambda x: x[(x[:3] > 0).sum()], [{0, 1, 2, 3}]),
    "between bounds": (lambda x: x[jnp.clip(jnp.round(9 * x[0]).astype(int), 1, 3)], [{1, 2, 3}]),
    "remainder": (lambda x: x[jnp.argmax(x) % 2], [{0, 1}]),
    "window near": (lambda x: lax.dynamic_slice(x, (jnp.clip(jnp.round(9 * x[0]).astype(int), 1, 2),), (2,)), [{1, 2}, {2, 3}]),
    "window written near": (lambda x: lax.dynamic_update_slice(jnp.zeros(6), x[:2], ((x[:2] > 0).sum() + 1,)),
                            [set(), {0}, {0, 1}, {0, 1}, {1}, set()]),
    "added near": (lambda x: jnp.zeros(6).at[(x[:2] > 0).astype(int) + np.array([1, 4])].add(x[:2]),
                   [set(), {0}, {0}, set(), {1}, {1}]),
    "far": (lambda x: x[jnp.round(9 * x[0]).astype(int)], [set(range(6))]),
    "window": (lambda x: lax.dynamic_slice(x, (2 * jnp.argmax(x[:2]),), (2,)), [{0, 2}, {1, 3}]),
    "in a call": (jax.jit(lambda x: jax.jit(lambda i: x[i])(jnp.argmax(x[:2]))), [{0, 1}]),
    "in a scan": (lambda x: lax.scan(lambda c, _: (c + x[jnp.argmax(x[:2])], None), x[5], None, length=3)[0], [{0, 1, 5}]),
    "outside": (lambda x: jnp.stack([x.at[jnp.argmax(x[:2]) + k].get(mode=mode, fill_value=0) for k in (5, 9)
                                     for mode in ("fill", "clip")]),
                [{5}, {5}, set(), {5}]),
    "by a branch": (lambda x: x[lax.cond(x[0] > 0, lambda i: i, lambda i: i + 1, jnp.argmax(x[:2]))], [set(range(6))]),
    "scatter": (lambda x: jnp.zeros(3).at[jnp.argmax(x[:2])].set(x[5]), [{5}, {5}, set()]),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_places_that_follow_from_a_choice(name: str) -> None:
    f, expected = CHOSEN[name]
    found = jacobian_csr(lambda x: as_list(f(x)), avals_of(((6,),))).toarray()
    assert [set(np.flatnonzero(row).tolist()) for row in found] == expected
    wanted = dense(flattened(f, ((6,),)), 6, 1)
    assert not (wanted & ~found).any()
    assert not (dense(flattened(f, ((6,),)), 6, 2) & ~hessian_csr(lambda x: as_list(f(x)), avals_of(((6,),))).toarray()).any()


INT8 = np.int8
#: Operations on integers ``a``, ``b``, and on numbers ``c`` and ``n``, the latter positive.
INTEGER: list[Callable[..., Any]] = [
    lambda a, b, c, n: a + b, lambda a, b, c, n: a - b, lambda a, b, c, n: a * b, lambda a, b, c, n: jnp.maximum(a, b),
    lambda a, b, c, n: jnp.minimum(a, c), lambda a, b, c, n: -a, lambda a, b, c, n: abs(a), lambda a, b, c, n: lax.div(a, n),
    lambda a, b, c, n: lax.rem(a, n), lambda a, b, c, n: a // n, lambda a, b, c, n: a % n, lambda a, b, c, n: a[::-1],
    lambda a, b, c, n: jnp.where(a < b, a, b + c), lambda a, b, c, n: lax.clamp(c, a, INT8(c + n)), lambda a, b, c, n: jnp.sign(a),
    lambda a, b, c, n: (a <= c).astype(INT8), lambda a, b, c, n: (a == b).astype(INT8), lambda a, b, c, n: jnp.broadcast_to(a.max(), 3),
    lambda a, b, c, n: jnp.broadcast_to(a.sum(dtype=INT8), 3), lambda a, b, c, n: jnp.where((a > c) & ~(b >= c), a, c),
    lambda a, b, c, n: lax.convert_element_type(lax.convert_element_type(a, np.uint8), INT8),
    lambda a, b, c, n: a.astype(bool).astype(INT8), lambda a, b, c, n: jnp.minimum(a, INT8(0)).astype(bool).astype(INT8),
]


def integers(rng: np.random.Generator, x: Any) -> list[Any]:
    """Integers that follow from numbers by random operations."""
    table: list[Any] = [jnp.argmax(x.reshape(2, 3), 0).astype(INT8), (x[:3] > 0).astype(INT8), (x[3:] * 40).astype(INT8),
                        jnp.array([2, 100, -120], INT8)]
    for _ in range(10):
        a, b = (table[i] for i in rng.integers(0, len(table), 2))
        table.append(INTEGER[rng.integers(len(INTEGER))](a, b, INT8(rng.integers(-9, 100)), INT8(rng.integers(1, 7))))
    return table


@pytest.mark.promotes
def test_integers_lie_in_their_ranges() -> None:
    points, told = RNG.normal(size=(64, 6)), 0
    functions = [lambda x, k=k: integers(np.random.default_rng(k), x) for k in range(16)]
    numbers = jax.jit(lambda xs: [jax.vmap(f)(xs) for f in functions])(points)
    for f, outs in zip(functions, numbers, strict=True):
        program = stage(f, [jax.typeof(points[0])])
        found = Propagation(Graph(6)).run(program, [Value(program.in_avals[0], np.arange(1, 7))])
        for value, out in zip(found, outs, strict=True):
            low, high = range_of(value)  # type: ignore[misc]  # all are integers
            assert ((low <= out) & (out <= high)).all(), program
            told += bool(np.isfinite(low).all() and np.isfinite(high).all())
    assert told > 100


def test_a_negative_number_is_true() -> None:
    def f(x: Any) -> Any:
        return jnp.where((jnp.argmax(x) - 5).astype(bool), x, x[::-1])

    expected = np.eye(6, dtype=bool) | np.eye(6, dtype=bool)[::-1]
    np.testing.assert_array_equal(dr.sparse.jacobian_pattern(f)(jnp.ones(6)).todense(), expected)


# --------------------------------------------------------------------------------------------------------------------- soundness


def leading_cases() -> list[Case]:
    """The first real line of each primitive."""
    found: dict[str, Case] = {}
    for case in CASES:
        if "float64" in case.dtypes:
            found.setdefault(case.primitive, case)
    return list(found.values())


def missed(f: Callable[..., Any], xs: list[Any], order: int, oracle: Callable[..., Any] | None = None) -> list[str]:
    """What is wrong with the patterns of a function of real arrays, global and local: none may miss an entry."""
    shapes = tuple(x.shape for x in xs)
    ends = np.cumsum([x.size for x in xs])

    def flat(v: Any) -> Any:
        parts = [p.reshape(s).astype(x.dtype) for p, s, x in zip(jnp.split(v, ends[:-1]), shapes, xs, strict=True)]
        outs = [jnp.ravel(out) for out in (oracle or f)(*parts)]
        return jnp.concatenate([jnp.stack([out.real, out.imag], 1) if jnp.iscomplexobj(out) else jnp.stack([out, out], 1)
                                for out in outs] or [jnp.zeros((0, 2))])

    v = jnp.concatenate([jnp.ravel(x) for x in xs])
    avals = [jax.typeof(x) for x in xs]
    derivative, wrong = flat, []
    for k, csr in enumerate([jacobian_csr, hessian_csr][:order]):
        derivative = jax.jacfwd(derivative)
        with promoting():
            size = np.abs(np.asarray(jax.jit(derivative)(v)))
        nonzero = size > 1e-9 * size[np.isfinite(size)].max(initial=0)
        nonzero = nonzero.any(1) if k == 0 else nonzero.any((0, 1))
        for where, at in (("everywhere", None), ("here", xs)):
            with promoting():
                found = csr(f, avals, at).toarray()
            if (nonzero & ~found).any():
                wrong.append(f"order {k + 1}, {where}: {np.argwhere(nonzero & ~found)[:5].tolist()}")
    return wrong


@pytest.mark.thorough
@pytest.mark.parametrize("case", leading_cases(), ids=lambda case: case.primitive)
def test_no_row_misses_an_entry(case: Case) -> None:
    with promoting():
        problem = Problem(case, "float64")
    if not problem.xs or any(x.dtype.kind == "c" for x in problem.xs) or sum(x.size for x in problem.xs) > 60:
        pytest.skip("no real inputs, or too many")

    def f(*xs: Any, fun: Callable[..., Any] = case.fun) -> list[Any]:
        moving, still = iter(xs), iter(problem.constants)
        outs = as_list(fun(*[next(moving) if active else next(still) for active in problem.active]))
        return [out for out, moves in zip(outs, problem.moving_outs, strict=True) if moves]

    oracle = None if case.oracle is None else lambda *xs: f(*xs, fun=case.oracle)  # type: ignore[arg-type]  # it is not None
    assert missed(f, problem.xs, case.order, oracle) == []


@pytest.mark.promotes
@pytest.mark.thorough
def test_no_random_program_misses_an_entry() -> None:
    compared = 0
    for number in range(16):
        scenario = Pool(number).program(1, longest=4).scenario()
        inputs = scenario.make_inputs()
        is_real = all(x.dtype.kind == "f" for x in inputs) and sum(x.size for x in inputs) > 0
        if not is_real or "forward" not in scenario.engines:  # where jax batches all of its operations
            continue
        by_table = lambda *xs, f=scenario.function: [f(list(xs))]  # noqa: E731  (a list of outputs)
        by_jax = lambda *xs, f=scenario.function_in_jax: [f(list(xs))]  # noqa: E731
        assert missed(by_table, inputs, min(scenario.order, 2), by_jax) == [], number
        compared += 1
    assert compared > 4, "too few programs are of real inputs"


# ------------------------------------------------------------------------------------------------------------------------- loops


@pytest.mark.parametrize("n", [300, pytest.param(5000, marks=pytest.mark.thorough)])
def test_a_loop_fills_the_pattern_however_slowly(n: int) -> None:
    x = jax.ShapeDtypeStruct((n,), jnp.float64)
    step = lambda c: c.at[1:].add(0.1 * c[:-1])  # noqa: E731  (a step)
    lower = n * (n + 1) // 2
    for f in (lambda x: lax.fori_loop(0, n, lambda _, c: step(c), x), lambda x: lax.while_loop(lambda c: c.sum() < 9, step, x)):
        found = jacobian_csr(lambda x, f=f: [f(x)], [jax.typeof(jnp.zeros(n))])
        assert found.nnz == lower and (np.diff(found.indptr) == np.arange(1, n + 1)).all()
    if n < 1000:
        assert dr.sparse.jacobian_pattern(f)(x).nse == lower


def test_interactions_spread_in_a_loop_after_dependence_has() -> None:
    """All entries depend on all inputs after one step; the square of the first reaches the last after n."""
    n = 7

    def f(x: Any) -> Any:
        start = jnp.zeros(n).at[0].set(x[0] ** 2) + x.sum()
        return lax.while_loop(lambda c: c[-1] < 5, lambda c: jnp.roll(c, 1), start)[-1]

    expected = np.zeros((n, n), bool)
    expected[0, 0] = True
    np.testing.assert_array_equal(hessian_csr(lambda x: [f(x)], avals_of(((n,),))).toarray(), expected)


def test_a_number_that_a_loop_changes_is_not_taken_for_known() -> None:
    def f(x: Any) -> Any:
        def step(c: Any) -> Any:
            i, mask, y = c
            return i + 1, jnp.roll(mask, 1), y + mask * x

        return lax.while_loop(lambda c: c[2].sum() < 9, step, (0, jnp.array([1.0, 0.0, 0.0]), jnp.zeros(3)))[2]

    np.testing.assert_array_equal(jacobian_csr(lambda x: [f(x)], avals_of(((3,),))).toarray(), np.eye(3, dtype=bool))


def test_a_linear_call_reads_the_zeros_of_its_constants() -> None:
    def f(x: Any) -> Any:
        return jax.custom_derivatives.linear_call(lambda r, t: r * t, lambda r, t: r * t, np.arange(3.0), x)

    found = jacobian_csr(lambda x: [f(x)], avals_of(((3,),))).toarray()
    np.testing.assert_array_equal(found, np.diag([False, True, True]))


def test_the_rule_of_a_custom_vjp_counts() -> None:
    found = jacobian_csr(lambda x: [reversed_by_pull(x)], avals_of(((3,),))).toarray()
    np.testing.assert_array_equal(found, np.eye(3, dtype=bool)[::-1])


# ----------------------------------------------------------------------------------------------------------------- public functions


def test_patterns_have_the_structure_of_the_derivatives() -> None:
    def f(t: Any, k: Any) -> Any:
        return {"a": t["x"] ** 2 * k, "b": (t["y"].sum(), jnp.arange(3.0) * t["x"][0])}

    t = {"x": jnp.ones(2), "y": jnp.ones((2, 2))}
    found = dr.sparse.jacobian_pattern(f)(t, 2.0)
    y = np.broadcast_to(True, (2, 2))
    expected: Any = {"a": {"x": np.eye(2), "y": np.zeros((2, 2, 2))},
                "b": ({"x": np.zeros(2), "y": y}, {"x": [[False, False], [True, False], [True, False]], "y": np.zeros((3, 2, 2))})}
    jax.tree.map(lambda p, j: p.shape == j.shape or pytest.fail(f"{p.shape}, {j.shape}"), found, jax.eval_shape(jax.jacfwd(f), t, 2.0),
                 is_leaf=lambda x: isinstance(x, BCOO))
    np.testing.assert_array_equal(found["b"][1]["x"].todense(), expected["b"][1]["x"])
    np.testing.assert_array_equal(found["b"][0]["y"].todense(), y)
    np.testing.assert_array_equal(found["a"]["x"].todense(), expected["a"]["x"])
    assert found["a"]["y"].nse == found["b"][0]["x"].nse == 0 and found["a"]["y"].shape == (2, 2, 2)
    g = lambda x, y: (x**2).sum() + x[0] * y  # noqa: E731  (a function)
    (xx, xy), (yx, yy) = dr.sparse.hessian_pattern(g, (0, 1))(jnp.ones(3), 2.0)
    first = np.array([True, False, False])
    for got, wanted in ((xx, np.eye(3)), (xy, first), (yx, first), (yy, False)):
        np.testing.assert_array_equal(got.todense(), wanted)


def test_a_local_pattern_is_that_of_the_point() -> None:
    f = lambda x, y: jnp.where(x > 0, x * y, x[::-1])  # noqa: E731  (a function)
    x, y = jnp.array([1.0, -1.0, 2.0]), jnp.array([0.0, 1.0, 2.0])
    by_x = [[False, False, False], [False, True, False], [False, False, True]]
    np.testing.assert_array_equal(dr.sparse.jacobian_pattern(f)(x, y, at=x).todense(), by_x)
    np.testing.assert_array_equal(dr.sparse.jacobian_pattern(f, (0, 1))(at=(x, y))[1].todense(), np.diag([True, False, True]))
    both = dr.sparse.jacobian_pattern(f)(x, y).todense()
    assert both.sum() == 5 and both[0, 0]
    # A derivative that vanishes at a point need not have a second derivative that does.
    found = dr.sparse.hessian_pattern(lambda x: x[0] * x[1])(at=jnp.zeros(2)).todense()
    np.testing.assert_array_equal(found, [[False, True], [True, False]])


def test_what_is_lost_is_reported() -> None:
    exact = dr.sparse.pattern_report(rosenbrock, order=2)(jnp.zeros(6))
    assert exact.lost == {} and exact.shape == (6, 6) and "followed exactly" in str(exact)
    lost = dr.sparse.pattern_report(lambda x: x[jnp.argmax(x)] * x)(jnp.zeros(40))  # a choice among more numbers than are followed
    assert lost.lost == {"dynamic_slice: the place is not known": 1} and lost.nnz == 1600
    with pytest.raises(ValueError, match="order must be 1"):
        dr.sparse.pattern_report(rosenbrock, order=3)


@pytest.mark.parametrize(("f", "x", "message"), [
    (lambda x: x["a"], {"a": np.ones(2, int)}, r"args\[0\]\['a'\] is int64\[2\]. Convert it"),
    (lambda x: x, "text", "args.0. is 'text', of type str"),
    (lambda x: "text", np.ones(2), "needs arrays as outputs"),
])
def test_bad_input(f: Any, x: Any, message: str) -> None:
    for transform in (dr.sparse.jacobian_pattern, dr.sparse.hessian_pattern):
        with pytest.raises(TypeError, match=message):
            transform(f)(x)


def test_an_operation_without_a_row() -> None:
    def f(x: Any) -> Any:
        return jax.pure_callback(np.sin, x, x)

    with pytest.raises(dr.errors.NoDerivativeError, match="pure_callback"):
        dr.sparse.jacobian_pattern(f)(jnp.ones(2))


def test_mutable_references_are_refused() -> None:
    def f(x: Any) -> Any:
        ref = jax.new_ref(x)
        ref[0] = x[1] * x[2]
        return ref[...] * 2

    with pytest.raises(dr.errors.MutableReferenceError, match=r"Use arrays: x\.at"):
        dr.sparse.jacobian_pattern(f)(jnp.ones(3))


def test_a_pull_that_is_not_linear_depends_on_everything() -> None:
    """Its push cannot be found, which a reverse sweep does not need."""
    f = jax.custom_vjp(lambda x: jnp.flip(x))
    f.defvjp(lambda x: (jnp.flip(x), None), lambda _, ct: (jnp.flip(ct * jnp.sign(ct * ct + 1)),))
    assert dr.sparse.jacobian_pattern(f)(jnp.ones(3)).nse == 9
    (why,) = dr.sparse.pattern_report(f)(jnp.ones(3)).lost
    assert "gives no push" in why


def test_inputs_that_are_not_differentiated_are_not_known() -> None:
    """A pattern is for all arguments of these types; what a function closes over is known."""
    i = jnp.array(1)
    assert dr.sparse.jacobian_pattern(lambda x, i: x[i])(jnp.ones(3), i).todense().tolist() == [True, True, True]
    assert dr.sparse.jacobian_pattern(lambda x: x[i])(jnp.ones(3)).todense().tolist() == [False, True, False]


def test_under_jit() -> None:
    @jax.jit
    def f(x: Any, y: Any) -> Any:
        return dr.sparse.jacobian_pattern(lambda x: x * y + jnp.arange(3.0))(x).todense()

    np.testing.assert_array_equal(f(jnp.ones(3), jnp.zeros(3)), np.eye(3, dtype=bool))


def test_low_precision_and_empty_arrays() -> None:
    lost: Counter[str] = Counter()
    avals = [jax.typeof(jnp.zeros((2, 3), jnp.bfloat16)), jax.typeof(jnp.zeros((0, 3), jnp.float16))]
    found = jacobian_csr(lambda x, y: [x.sum(0) + y.sum(0).astype(x.dtype), y * 2, x[:, :0]], avals, lost=lost)
    assert found.shape == (3, 6) and found.nnz == 6 and not lost
    assert hessian_csr(lambda x, y: [(x * x).sum()], avals).nnz == 6
