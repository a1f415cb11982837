"""Jacobians by elimination: values against jax, counts against counts by hand, searches against the optimum."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close, assert_same, promoting
from cases import Case
from jax import lax
from test_higher_order_rows import function_of, representatives
from test_rules import RTOL, Problem, compare, identify

import dualrev as dr
from dualrev.engines.elimination.graph import Graph
from dualrev.engines.elimination.orders import counted, order_of, predicted_ns
from dualrev.engines.elimination.pricing import product_ns, sum_ns
from dualrev.engines.elimination.structure import Structure, dense, identity, product, structure_of, sum_of
from dualrev.problems import straight_line
from dualrev.time_model import constants, time_in_words

ORDERS: tuple[Any, ...] = ("forward", "reverse", "markowitz", dr.Search(steps=50))
RNG = np.random.default_rng(0)
X = RNG.uniform(0.5, 1.5, 4)
MATRIX = RNG.uniform(-1, 1, (3, 4))


@jax.custom_jvp
def ruled(x: Any) -> Any:
    return jnp.sin(x)


ruled.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 2.0 * jnp.cos(primals[0]) * tangents[0]))


@jax.custom_vjp
def pulled(x: Any) -> Any:
    return jnp.sin(x) * x


pulled.defvjp(lambda x: (jnp.sin(x) * x, x), lambda x, ct: (3.0 * ct * jnp.cos(x),))

#: Name, function of one pytree, and where.
PROGRAMS: list[tuple[str, Callable[..., Any], Any]] = [
    ("scalars", lambda x: jnp.stack([x[0] * x[1], jnp.sin(u := jnp.exp(x[0] * x[1])) * u / x[2], x[3]]), X),
    ("the same entry twice", lambda x: x[0] * x[0] + x[::-1], X),
    ("an output that is read further", lambda x: (u := jnp.tanh(x), u * u, jnp.sum(u)), X),
    ("an input that is returned", lambda x: (x, x[1], 2.0 * x), X),
    ("a constant output", lambda x: (jnp.ones(2), jnp.sum(x), jnp.arange(3)), X),
    ("a layer", lambda p: jnp.tanh(p["w"] @ p["x"] + p["b"]), {"w": MATRIX, "x": X, "b": np.ones(3)}),
    ("matrices", lambda p: jnp.tanh(p[0] @ p[1].T) @ p[1], (MATRIX, MATRIX[:2] * 0.3)),
    ("batched products", lambda x: jnp.einsum("bij,bjk->bik", x, jnp.sin(x)), RNG.normal(size=(2, 2, 2))),
    ("scalar times vector", lambda p: p[0] * p[1] + p[0], (np.array(0.3), X)),
    ("axes of length 1", lambda x: x.reshape(4, 1) * x.reshape(1, 4) + jnp.sum(x.reshape(4, 1), 1, keepdims=True), X),
    ("norms and broadcasts", lambda x: x / jnp.sqrt(jnp.sum(x**2)) - jnp.mean(x), X),
    ("moved in the middle", lambda x: jnp.cumsum(jnp.roll(jnp.sin(x), 1))[1:] * jnp.cos(x)[:-1], X),
    ("reshaped in the middle", lambda x: jnp.sum(jnp.sin(x).reshape(2, 2).T * x.reshape(2, 2), 0), X),
    ("two moves in a row", lambda x: jnp.flip(jnp.concatenate([jnp.exp(x), x]))[::2].reshape(2, 2) ** 2.0, X),
    ("a diagonal", lambda x: jnp.diag(jnp.outer(jnp.sin(x), x)) + jnp.trace(jnp.outer(x, jnp.cos(x))), X),
    ("sorted", lambda x: jnp.sort(jnp.sin(3.0 * x)) * x, X),
    ("an index that is computed", lambda x: jnp.sin(x)[jnp.argmax(x)] * lax.dynamic_slice(jnp.exp(x), (jnp.argmin(x) % 2,), (2,)), X),
    ("an index that may be out of bounds", lambda x: (jnp.sum(jnp.sin(x)) * MATRIX)[jnp.asarray(2)] * x, X),
    ("where", lambda x: jnp.where(x > 1.0, jnp.sin(x), x * x) + jax.nn.relu(x - 0.8), X),
    ("a scan", lambda x: lax.scan(lambda c, y: (jnp.sin(c) * y, c + y), x[0], jnp.exp(x)), X),
    ("a while loop", lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1]) * 1.1), (0, x))[1], X),
    ("a branch", lambda x: lax.cond(x[0] > 0.0, jnp.sin, jnp.cos, x * x), X),
    ("jit and checkpoint", lambda x: jax.jit(lambda y: jax.checkpoint(jnp.tanh)(y) * y)(jnp.sin(x)), X),
    ("a JVP rule", lambda x: ruled(x * x) * x, X),
    ("a VJP rule", lambda x: pulled(x * x) * x, X),
    ("a solution", lambda x: jnp.linalg.solve(jnp.outer(x, x) + 3.0 * jnp.eye(4), jnp.sin(x)), X),
    ("softmax", lambda x: jax.nn.softmax(jax.nn.silu(x)) * jax.nn.logsumexp(x), X),
    ("a convolution", lambda x: jnp.convolve(jnp.sin(x), x), X),
    ("no entries", lambda x: (jnp.sin(x[:0]), jnp.sum(x)), X),
    ("several types", lambda p: p[0].astype("float64") * p[1] + jnp.sin(p[1]), (X.astype("float32"), X)),
    ("half precision", lambda x: jnp.sin(x) * x + x[0], jnp.asarray(X, "bfloat16")),
]


#: What runs by default.
QUICK = {"scalars", "a layer"}


@pytest.mark.promotes
@pytest.mark.parametrize(("name", "f", "x"), [pytest.param(*each, id=each[0], marks=[] if each[0] in QUICK else pytest.mark.thorough)
                                              for each in PROGRAMS])
def test_values(name: str, f: Callable[..., Any], x: Any) -> None:
    """All orders give jax's Jacobian, compiled in one program."""
    x = jax.tree.map(jnp.asarray, x)
    if name == "a while loop":  # jax has forward mode only there
        expected = jax.jacfwd(f)(x)
    elif name == "a constant output":
        expected = (*jax.jacobian(lambda x: f(x)[:2])(x), jnp.zeros((3, 4)))
        f = (lambda whole: lambda x: (*whole(x)[:2], whole(x)[2] * 1.0))(f)
    else:
        expected = jax.jacobian(f)(x)
    found = jax.jit(lambda x: [dr.jacobian(f, engine="elimination", order=order)(x) for order in ORDERS])(x)
    for each in found:
        assert_same(each, expected, 5e-2 if name == "half precision" else 1e-10 if name != "several types" else 1e-5)


@pytest.mark.parametrize("case", [pytest.param(case, id=identify(case, case.dtypes[0]), marks=pytest.mark.thorough)
                                  for case in representatives() if case.primitive != "ragged_dot_general"])  # which jax cannot vmap
def test_rows(case: Case) -> None:
    """A line for each kind and form of row in each file of rows: the Jacobian times a tangent."""
    problem = Problem(case, case.dtypes[0])
    constants, xs, ts, _ = problem.inputs
    if any(map(jnp.iscomplexobj, [*xs, *problem.outs])):
        return  # test_integers_and_complex_numbers
    f = function_of(problem, constants, case.fun)
    found = dr.jacobian(lambda *xs: tuple(f(*xs)), tuple(range(len(xs))), engine="elimination")(*xs)
    pushed = [sum(jnp.tensordot(j, t, t.ndim) for j, t in zip(blocks, ts[0], strict=True)) for blocks in found]
    expected = promoting()(jax.jvp)(function_of(problem, constants, case.oracle or case.fun), xs, ts[0])[1]
    compare({"J t": pushed}, {"J t": expected}, 100 * (case.rtol or RTOL[case.dtypes[0]]), "elimination")


def test_a_vjp_rule_is_followed_in_both_directions() -> None:
    """A rule that is not the derivative is what all orders multiply, whether its block is found by pushes or by pulls."""
    for order in ORDERS:
        found = dr.jacobian(lambda x: pulled(x), engine="elimination", order=order)(jnp.asarray(X))
        assert_close(found, np.diag(3 * np.cos(X)))


@pytest.mark.thorough
def test_transformations() -> None:
    """Under vmap and jit, of a Jacobian itself, with aux, argnums and keywords, un-jitted."""
    def f(x: Any, y: Any, scale: float = 1.0) -> Any:
        return jnp.sin(x * y) * scale * x[0], {"sum": x.sum()}

    x, y = jnp.asarray(X), jnp.asarray(X[::-1].copy())
    assert_same(dr.jacobian(lambda x: jnp.sin(x * y), engine="elimination")(x), jax.jacobian(lambda x: jnp.sin(x * y))(x))  # un-jitted
    rows = jnp.stack([x, y])

    def everything(d: Any, x: Any, y: Any, **way: Any) -> Any:
        def jacobian(x: Any) -> Any:
            return d.jacobian(lambda x: f(x, y)[0], **way)(x)  # closes over a traced value

        return (d.jacobian(f, (0, 1), has_aux=True, **way)(x, y, scale=2.0), jax.vmap(d.jacobian(f, has_aux=True, **way))(rows, rows),
                d.jacobian(jacobian, **way)(x), d.grad(lambda x: jacobian(x).sum())(x), d.jvp(jacobian, (x,), (y,)))

    for order in ("forward", "reverse"):
        found = jax.jit(functools.partial(everything, dr, engine="elimination", order=order))(x, y)
        assert_same(found, jax.jit(functools.partial(everything, jax))(x, y))


@pytest.mark.promotes
@pytest.mark.thorough
def test_integers_and_complex_numbers() -> None:
    found = dr.jacobian(lambda p: p[0] * p[1], allow_int=True, engine="elimination")((2.0, 3))
    assert float(found[0]) == 3.0
    assert found[1].shape == ()
    z = jnp.asarray(X + 0.5j * X[::-1])
    for order in ORDERS:
        found = dr.jacobian(lambda z: jnp.exp(z * z[0]) / z, holomorphic=True, engine="elimination", order=order)(z)
        assert_close(found, jax.jacobian(lambda z: jnp.exp(z * z[0]) / z, holomorphic=True)(z))
    for f in (jnp.conj, lambda z: jnp.sin(jnp.conj(jnp.sin(z))), lambda z: z * jnp.abs(z), lambda z: jnp.real(z) + 0j):
        with pytest.raises(dr.errors.NoDerivativeError, match=r"linear over the complex numbers.*engine='forward'"):
            dr.jacobian(f, holomorphic=True, engine="elimination")(z)


def test_bad_input() -> None:
    x = jnp.asarray(X)
    for error, message, ask in [
        (ValueError, r"order must be one of 'forward'.*got 'back'", lambda: dr.jacobian(jnp.sin, engine="elimination", order="back")),  # type: ignore[call-overload]
        (TypeError, "order must be one of .* of type float", lambda: dr.jacobian(jnp.sin, engine="elimination", order=0.5)),  # type: ignore[call-overload]
        (ValueError, "is that of engine='elimination'; got engine='auto'", lambda: dr.jacobian(jnp.sin, order="forward")),
        (ValueError, "no sweep that chunk_size=2", lambda: dr.jacobian(jnp.sin, engine="elimination", chunk_size=2)),
        (ValueError, r"positions 0 to 0 .* got \(0, 1\)", lambda: dr.eliminate(lambda x: jnp.sin(jnp.cos(x)), x, order=(0, 1))),
        (dr.errors.OptionError, "zero_wins", lambda: dr.jacobian(jnp.sin, engine="elimination", zero_wins=True)(x)),
        (dr.errors.OptionError, "cotangent_dtype", lambda: dr.jacobian(jnp.sin, engine="elimination", cotangent_dtype="float64")(x)),
        (TypeError, "complex-valued inputs, but got int32", lambda: dr.eliminate(jnp.sin, jnp.arange(3, dtype="int32"))),
        (TypeError, "eliminate needs arrays as arguments", lambda: dr.eliminate(jnp.sin, "x")),
        (ValueError, "seconds and steps must be positive", lambda: dr.Search(seconds=0)),
        (ValueError, "objective must be one of .*'time'; got 'speed'", lambda: dr.Search(objective="speed")),  # type: ignore[arg-type]
        (TypeError, "complex", lambda: dr.jacobian(jnp.fft.fft, engine="elimination")(x)),
    ]:
        with pytest.raises(error, match=message):
            ask()


# ------------------------------------------------------------------------------------------------------------- counts


def test_counts_by_hand() -> None:
    """v0 = x·y, v1 = sin(v0), v2 = v1·x, and the outputs v2 and v2·y.

    Forward: v0 has edges from x and y and one out: 2; v1 then the same: 2; v2 has edges from x and y and two out, to its own output
    as a copy and to v2·y: 2 are counted.  Reverse: v2 has edges from v1 and x and two out, one of them a copy: 2; v1 one in and two
    out: 2; v0 two in and two out: 4.  Best is v1 into v2, 1, then v0 into v2, 2, then v2 into its reader, 2.
    """
    def f(x: Any, y: Any) -> Any:
        out = jnp.sin(x * y) * x
        return out, out * y

    counts = {order: dr.eliminate(f, 1.0, 2.0, argnums=(0, 1), order=order).multiplications for order in ("forward", "reverse")}
    assert counts == {"forward": 6, "reverse": 8}
    assert dr.eliminate(f, 1.0, 2.0, argnums=(0, 1), order=dr.Search(steps=200)).multiplications == 5


def test_neither_mode_is_best() -> None:
    """A bottleneck: three inputs, a sum of two steps, a sine, three outputs [GriewankWalther2008, sec. 10.2].

    Forward: x0 + x1 costs 2, + x2 costs 3, sin 3·3, in all 14; reverse: sin 3, the sums 2·3 and 2·3, in all 15.  From the middle: the
    second sum, of two operands, into the sine 2, the first 2, the sine 3·3.
    """
    def f(x: Any, y: Any, z: Any) -> Any:
        middle = jnp.sin(x + y + z)
        return 2.0 * middle, jnp.cos(middle), middle * middle

    plan = dr.eliminate(f, 1.0, 2.0, 3.0, argnums=(0, 1, 2), order="forward")
    assert (plan.multiplications, plan.nontrivial) == (14, 9)
    assert (plan.count("reverse"), plan.count("markowitz")) == (15, 13)
    assert len(plan.vertices) == 3
    assert "test_elimination.py" in plan.vertices[0]
    assert "14 multiplications" in str(plan)


def chain_of_matrices(x: Any) -> Any:
    """Two wide layers and a scalar, which most orders multiply as matrices, and reverse as rows; beside it small work."""
    h = jnp.tanh(jnp.full((60, 50), 0.1) @ x)
    return jnp.sum(jnp.tanh(jnp.full((60, 60), 0.1) @ h)), jnp.sin(x[:2]) * x[0]


@pytest.mark.thorough
def test_search_by_predicted_time() -> None:
    x = np.ones(50)
    plans = {order: dr.eliminate(chain_of_matrices, x, order=order) for order in ("forward", "reverse", "markowitz")}  # type: ignore[call-overload]
    found = dr.eliminate(chain_of_matrices, x, order=dr.Search(objective="time", steps=60))
    assert 0 < found.seconds <= min(plan.seconds for plan in plans.values())
    assert plans["forward"].seconds > 2 * found.seconds
    assert f"in about {time_in_words(found.seconds)}" in str(found)
    got = dr.jacobian(chain_of_matrices, engine="elimination", order=found.order)(jnp.asarray(x, "float32"))
    for block, expected in zip(got, jax.jacobian(chain_of_matrices)(jnp.asarray(x, "float32")), strict=True):
        np.testing.assert_allclose(block, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.thorough), pytest.param(2, marks=pytest.mark.thorough)])
def test_predicted_time_is_of_products_and_sums(seed: int) -> None:
    """The search finds the order with the least time of all orders of a small graph, by a count of its own."""
    graph, c = random_graph(seed), constants()

    def seconds(order: Any) -> float:
        edges = {(p, s): structure for p, s, structure in graph.edges}
        total = 0.0
        for v in order:
            ins, outs = ([(e, b) for e, b in edges.items() if e[k] == v] for k in (1, 0))
            for ((p, _), b), ((_, s), a) in itertools.product(ins, outs):
                made = product(a, b)
                total += product_ns(a, b, made, c)
                old = edges.get((p, s))
                edges[p, s] = made.structure if old is None else sum_of(old, made.structure).structure
                total += 0.0 if old is None else sum_ns(edges[p, s], c)
            for e, _ in [*ins, *outs]:
                del edges[e]
        return total

    best = min(map(seconds, itertools.permutations(graph.middle)))
    found = order_of(graph, dr.Search(objective="time", steps=3000, seconds=20.0))
    assert seconds(found) == pytest.approx(best) == pytest.approx(predicted_ns(graph, found))


def test_counts_of_blocks() -> None:
    """Products of blocks take n, m·n and m·k·n multiplications where they are diagonal, diagonal and dense, and dense."""
    n, m, k = 5, 3, 2
    diagonal = structure_of((0,), (0,), (0,), {0: n}, "full")
    assert product(diagonal, diagonal)[:3] == (diagonal, n, n)
    assert product(dense((m,), (n,)), diagonal)[:3] == (dense((m,), (n,)), m * n, m * n)
    assert product(dense((m,), (k,)), dense((k,), (n,))).multiplications == m * k * n
    assert product(identity((n,)), diagonal)[:3] == (diagonal, 0, 0)
    unit = structure_of((0,), (0,), (0,), {0: n}, "unit")
    assert product(unit, diagonal)[:3] == (diagonal, n, 0)
    assert sum_of(diagonal, unit).structure == diagonal
    assert sum_of(diagonal, dense((n,), (n,))).structure == dense((n,), (n,))
    # d(W x)/dW is x in each row: its product with a diagonal has m·n values, and no m·m·n.
    by_matrix = structure_of((0,), (0, 1), (1,), {0: m, 1: n}, "full")
    over_rows = structure_of((0,), (0,), (0,), {0: m}, "full")
    assert product(over_rows, by_matrix).multiplications == product(over_rows, by_matrix).structure.size == m * n


def test_structures_are_found() -> None:
    def f(w: Any, x: Any) -> Any:
        return jnp.tanh(w @ x) + jnp.sum(x)

    edges = dr.eliminate(f, np.ones((3, 4)), np.ones(4), argnums=(0, 1)).edges
    assert any("full[i; i,j] over (j)" in edge for edge in edges), edges
    assert any("full[i; i] over (i)" in edge for edge in edges), edges
    assert any("copy[; i] over ()" in edge for edge in edges), edges


def random_graph(seed: int) -> Graph:
    """Six vertices between two inputs and two outputs, with edges of a few structures."""
    rng = random.Random(seed)
    shapes: list[tuple[int, ...]] = [(2,), ()]
    edges: list[tuple[int, int, Structure]] = []
    sizes = [rng.choice(shapes) for _ in range(10)]
    for s in range(2, 10):
        for p in rng.sample(range(min(s, 8)), min(s, rng.randint(1, 3), 8)):
            kinds = [dense(sizes[s], sizes[p]), dense(sizes[s], sizes[p], "unit")]
            diagonal = [structure_of((0,), (0,), (0,), {0: 2}, "full")] if sizes[s] == sizes[p] == (2,) else []
            edges += [(p, s, rng.choice([*kinds, *diagonal]))]
    return Graph((2, 3, 4, 5, 6, 7), tuple(edges))


@pytest.mark.parametrize("seed", range(4))
def test_search_finds_the_optimum(seed: int) -> None:
    """Of all 720 orders of a small graph."""
    graph = random_graph(seed)
    best = min(counted(graph, order)[0] for order in itertools.permutations(graph.middle))
    found = order_of(graph, dr.Search(seconds=60, steps=1500))
    assert counted(graph, found)[0] == best
    assert found == order_of(graph, dr.Search(seconds=60.0, steps=1500))


def test_a_plan_can_be_followed() -> None:
    x = tuple(X)
    plan = dr.eliminate(lambda a, b, c, d: (a * b * c, jnp.sin(a * b) * d), *x, argnums=(0, 1, 2, 3), order=dr.Search(steps=100))
    found = dr.jacobian(lambda a, b, c, d: (a * b * c, jnp.sin(a * b) * d), (0, 1, 2, 3), engine="elimination", order=plan.order)(*x)
    assert_same(found, jax.jacobian(lambda a, b, c, d: (a * b * c, jnp.sin(a * b) * d), (0, 1, 2, 3))(*x))
    assert plan.count(plan.order) == plan.multiplications


#: The problem, where, and the fewest multiplications of [LohoffNeftci2024, table 1] for their text of it.
PUBLISHED: list[tuple[Callable[..., Any], Any, int]] = [
    (straight_line.roe_flux_1d, (1.0, 0.3, 2.5, 0.8, -0.2, 2.0), 320),
    (straight_line.robot_arm, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 231),
    (straight_line.human_heart_dipole, tuple(RNG.normal(size=8)), 148),
    (straight_line.propane_combustion, tuple(RNG.uniform(0.5, 1, 11)), 88),
    (straight_line.black_scholes_greeks, (1.0, 1.1, 0.1, 0.2, 0.5), 312),
    (straight_line.roe_flux_3d, (1.0, 0.3, 0.1, 0.2, 2.5, 0.8, -0.2, 0.3, 0.1, 2.0), 811),
    (straight_line.perceptron, (X, X, RNG.normal(size=(8, 4)), RNG.normal(size=8), RNG.normal(size=(4, 8)), X, 1.0, 0.1), 389),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("f", "x", "published"), PUBLISHED, ids=[f.__name__ for f, _, _ in PUBLISHED])
def test_published_problems(f: Callable[..., Any], x: Any, published: int) -> None:
    x = tuple([jnp.asarray(v) for v in x])
    argnums = tuple(range(len(x)))
    plan = dr.eliminate(f, *x, argnums=argnums, order=dr.Search(seconds=60, steps=3000))
    assert plan.multiplications <= published
    found = jax.jit(dr.jacobian(f, argnums, engine="elimination", order=plan.order))(*x)
    assert_same(found, jax.jacobian(f, argnums)(*x))
