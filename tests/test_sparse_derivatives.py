"""Sparse Jacobians and Hessians against jax's dense ones: formats, trees, transformations, plans, patterns that are given, errors."""

from __future__ import annotations

import gc
import pathlib
import re
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from agreement import assert_close
from jax import lax
from jax.experimental.sparse import BCOO, BCSR

import dualrev
from dualrev.sparse import formats
from dualrev.sparse.colouring.positions import Positions
from dualrev.sparse.reading import blocks_of, taken

Array = Any
dr: Any = dualrev  # much below is what a type checker objects to
X = jnp.linspace(0.5, 1.7, 9)


def arrow(x: Array) -> Array:
    return (x * x + x[0] * x).at[0].set(jnp.sum(x * jnp.sin(x)))


def band(x: Array) -> Array:
    return jnp.sin(x[1:]) * x[:-1]


def energy(x: Array) -> Array:
    return jnp.sum((x[1:] - x[:-1] ** 2) ** 2 + jnp.exp(x[1:]))


def tree(d: Any, factor: Array) -> Any:
    return {"outer": d["u"][:, None] * d["v"][0][None] * factor, "sum": (jnp.sum(d["u"]), d["v"][0] ** 2)}


TREE = {"u": X[:3], "v": (X[:4].astype(jnp.float32).astype(jnp.float64),)}


def dense(found: Any) -> Any:
    """Sparse matrices in a tree as arrays."""
    def one(x: Any) -> Any:
        return x.toarray() if scipy.sparse.issparse(x) else x.todense() if isinstance(x, (BCOO, BCSR)) else x

    return jax.tree.map(one, found, is_leaf=lambda x: isinstance(x, (BCOO, BCSR)) or scipy.sparse.issparse(x))


ENGINES = ["auto", *[pytest.param(engine, marks=pytest.mark.thorough) for engine in ("forward", "reverse")]]


@pytest.mark.parametrize("form", formats.FORMATS)
@pytest.mark.parametrize("engine", ENGINES)
def test_jacobian_in_each_format(form: Any, engine: Any) -> None:
    found = dr.jacobian(arrow, sparse=True, format=form, engine=engine)(X)
    kind = {"bcoo": BCOO, "csr": BCSR, "dense": jax.Array, "scipy": scipy.sparse.csr_array}[form]
    assert isinstance(found, kind)
    assert_close(dense(found), jax.jacobian(arrow)(X))


@pytest.mark.parametrize("form", [formats.FORMATS[0], *[pytest.param(f, marks=pytest.mark.thorough) for f in formats.FORMATS[1:]]])
def test_hessian_in_each_format(form: Any) -> None:
    assert_close(dense(dr.hessian(energy, sparse=True, format=form)(X)), jax.hessian(energy)(X))


def test_entries_are_those_of_the_pattern() -> None:
    found = dr.jacobian(band, sparse=True)(X)
    assert found.nse == 16 and found.shape == (8, 9) and found.indices_sorted and found.unique_indices
    assert found.indices.tolist() == [[i, j] for i in range(8) for j in (i, i + 1)]


@pytest.mark.thorough
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_trees(chunk_size: int | None) -> None:
    """A matrix for each output and input, with their dimensions."""
    found = dr.jacobian(tree, argnums=(0, 1), sparse=True, chunk_size=chunk_size)(TREE, jnp.asarray(2.0))
    expected = jax.jacobian(tree, argnums=(0, 1))(TREE, jnp.asarray(2.0))
    tree_found: Any = jax.tree.structure(dense(found))
    assert tree_found == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(dense(found)), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert_close(a, b)
    assert found["outer"][0]["u"].shape == (3, 4, 3) and found["sum"][0][1].shape == ()
    flat = dr.jacobian(tree, sparse=True, format="csr")(TREE, 2.0)
    assert flat["outer"]["v"][0].shape == (12, 4)

    def of_tree(d: Any) -> Array:
        return jnp.sum(d["u"] ** 3) * d["v"][0][1] + jnp.sum(d["v"][0] ** 2)

    hessian = dr.hessian(of_tree, sparse=True, chunk_size=chunk_size)(TREE)
    for a, b in zip(jax.tree.leaves(dense(hessian)), jax.tree.leaves(jax.hessian(of_tree)(TREE)), strict=True):
        assert_close(a, b)


def test_a_tree_within_jit_vmap_and_grad() -> None:
    """Of what the thorough tests look at one by one, a little at once."""
    def size(d: Any) -> Array:
        found = dr.jacobian(lambda d: (d["u"] * d["v"][0][:3], d["v"][0]), sparse=True)(d)
        return jnp.sum(found[0]["u"].data ** 2) + jnp.sum(found[0]["v"][0].data ** 2)

    both = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), TREE)
    found = jax.jit(jax.vmap(dr.grad(size)))(both)
    assert_close(found["u"], 2 * both["u"])
    assert_close(found["v"][0], (2 * both["v"][0]).at[:, 3].set(0.0))


@pytest.mark.parametrize("argnums", [(2, 0), *[pytest.param(order, marks=pytest.mark.thorough) for order in ((0, 2), (-1, 1))]])
def test_arguments_in_any_order(argnums: tuple[int, ...]) -> None:
    """Columns follow the order of ``argnums``, not that of the arguments."""
    def f(d: Any, y: Array, z: Array) -> Any:
        return {"o": jnp.stack([d["a"][0] * y[1], d["b"] ** 2 * z, y[2] * d["a"][1] * z])}

    def g(*args: Any) -> Array:
        return jnp.sum(f(*args)["o"] ** 2)

    args = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(2.0)}, jnp.array([3.0, 4.0, 5.0]), jnp.array(0.5)
    expected, bent = jax.jacobian(f, argnums)(*args), jax.hessian(g, argnums)(*args)
    found = [dr.jacobian(f, argnums, sparse=True)(*args), dr.hessian(g, argnums, sparse=True)(*args),
             dr.sparse.jacobian_pattern(f, argnums)(*args), dr.sparse.hessian_pattern(g, argnums)(*args)]
    wanted = [expected, bent, *[jax.tree.map(lambda x: x != 0, tree) for tree in (expected, bent)]]
    jax.tree.map(assert_close, dense(found), wanted)


def test_arguments_that_are_not_differentiated_are_unknown() -> None:
    """A zero among them is not read into the pattern; what is no array is, and so are their types."""
    def f(x: Array, scale: Array, *, power: int, name: str = "") -> Array:
        return jnp.stack([x[0] * scale, x[1] ** power]) if name != "swap" else jnp.stack([x[1] * scale, x[0] ** power])

    jacobian = dr.jacobian(f, sparse=True)
    x = jnp.array([2.0, 3.0])
    assert jacobian(x, 0.0, power=2).todense().tolist() == [[0.0, 0.0], [0.0, 6.0]]
    assert jacobian(x, 5.0, power=2).todense().tolist() == [[5.0, 0.0], [0.0, 6.0]]
    assert jacobian(x, 5.0, power=2, name="swap").todense().tolist() == [[0.0, 5.0], [4.0, 0.0]]
    assert jacobian(jnp.ones(3), 5.0, power=2).shape == (2, 3)


def test_value_and_aux() -> None:
    def f(x: Array) -> Any:
        return x**2, {"x": x, "name": "kept"}

    (value, aux), J = dr.sparse.value_and_jacobian(f, has_aux=True)(X)
    assert aux["name"] == "kept"
    assert_close(value, X**2)
    assert_close(aux["x"], X)
    assert_close(J.todense(), jnp.diag(2 * X))
    J, aux = jax.jit(lambda x: (lambda J, aux: (J, aux["x"]))(*dr.jacobian(f, sparse=True, has_aux=True)(x)))(X)
    assert_close(J.todense(), jnp.diag(2 * X))
    value, H = dr.sparse.value_and_hessian(energy)(X)
    assert_close(value, energy(X))
    assert_close(H.todense(), jax.hessian(energy)(X))
    H, aux = dr.hessian(lambda x: (energy(x), x), has_aux=True, sparse=True)(X)
    assert_close(H.todense(), jax.hessian(energy)(X))


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ["auto", "forward", "reverse"])
def test_under_transformations(engine: Any) -> None:
    sparse = dr.jacobian(arrow, sparse=True, engine=engine)
    J = jax.jacobian(arrow)

    def size(jacobian: Any, x: Array) -> Array:
        found = jacobian(x)
        return jnp.sum((found.data if isinstance(found, BCOO) else found) ** 3)

    assert_close(jax.jit(sparse)(X).todense(), J(X))
    both = jnp.stack([X, 2 * X])
    assert_close(jax.vmap(lambda x: sparse(x).todense())(both), jax.vmap(J)(both))
    expected = jax.grad(lambda x: size(J, x))(X)
    assert_close(dr.grad(lambda x: size(sparse, x))(X), expected)
    assert_close(jax.jit(jax.grad(lambda x: size(sparse, x)))(X), expected)
    assert_close(dr.grad(lambda x: size(sparse, x), engine="forward")(X), expected)


def test_a_function_is_prepared_once_and_forgotten_with_it() -> None:
    """A request that is made anew finds what was found before; nothing of ours holds the function."""
    reference = _prepared_again_and_again()
    gc.collect()
    assert reference() is None


def _prepared_again_and_again() -> Any:
    """A reference to a function that only its derivatives may hold any more."""
    runs: list[int] = []

    def f(x: Array) -> Array:
        runs.append(0)
        return jnp.sin(x[1:]) * x[:-1]

    for _ in range(3):
        assert_close(dr.jacobian(f, sparse=True)(X).todense(), jax.jacobian(band)(X))
        once = len(runs)
    dr.jacobian(f, sparse=True)(2 * X)
    assert len(runs) == once
    for again in (lambda: dr.jacobian(f, sparse=True)(X[1:]), lambda: dr.jacobian(f, sparse=True, format="dense")(X),
                  lambda: dr.jacobian(f, sparse=True, engine="reverse")(X)):
        again()
        assert len(runs) > once  # another type, another request
        once = len(runs)
        again()
        assert len(runs) == once
    jax.jit(lambda x: dr.jacobian(f, sparse=True)(x).data)(X)
    return weakref.ref(f)


def test_functions_that_are_equal_are_prepared_apart() -> None:
    """Methods of one object are equal whatever the object holds in between."""
    class Model:
        shift = 1

        def roll(self, x: Array) -> Array:
            return jnp.roll(x, self.shift) ** 2

    model = Model()
    for model.shift in (1, 2):
        assert_close(dr.jacobian(model.roll, sparse=True)(X).todense(), jax.jacobian(model.roll)(X))


@pytest.mark.thorough
def test_what_is_traced_around_is_unknown() -> None:
    """A function that closes over a value of an outer derivative, or of an outer program."""
    def outer(scale: Array, x: Array) -> Array:
        return jnp.sum(dr.jacobian(lambda x: scale * x**2, sparse=True)(x).data)

    assert_close(dr.grad(outer)(3.0, X), jnp.sum(2 * X))
    assert_close(jax.jit(dr.grad(outer))(0.0, X), jnp.sum(2 * X))


@pytest.mark.thorough
def test_loops_branches_and_custom_rules() -> None:
    @jax.custom_jvp
    def cubed(x: Array) -> Array:
        return x**3

    cubed.defjvp(lambda p, t: (cubed(*p), 3 * p[0] ** 2 * t[0]))

    def f(x: Array) -> Array:
        c, ys = lax.scan(lambda c, a: (jnp.roll(c, 1) * 0.5 + cubed(a), jnp.sin(a)), jnp.zeros(3), x.reshape(3, 3))
        return jnp.concatenate([lax.cond(x[0] > 0, lambda c: c, lambda c: 2 * c, c), ys.reshape(-1)])

    assert_close(dr.jacobian(f, sparse=True)(X).todense(), jax.jacobian(f)(X))


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtypes(dtype: str) -> None:
    x = X.astype(dtype)
    found = dr.jacobian(band, sparse=True)(x)
    assert found.data.dtype == x.dtype
    assert_close(found.todense(), jax.jacobian(band)(x))
    H = dr.hessian(lambda x: jnp.sum(x**3), sparse=True)(x)
    assert H.data.dtype == x.dtype
    assert_close(H.todense(), jax.hessian(lambda x: jnp.sum(x**3))(x))


@pytest.mark.thorough
def test_outputs_of_several_dtypes() -> None:
    def f(x: Array) -> Any:
        return x[:2] ** 2, jnp.sum(x.astype(jnp.float32) ** 2)

    for engine in ("auto", "reverse"):
        first, second = dr.jacobian(f, sparse=True, engine=engine)(X)
        assert first.data.dtype == jnp.float64 and second.data.dtype == jnp.float32
        assert_close(first.todense(), jax.jacfwd(f)(X)[0])
        assert_close(second.todense(), jax.jacfwd(f)(X)[1])


@pytest.mark.thorough
@pytest.mark.parametrize("f", [lambda x: jnp.zeros(3), lambda x: x[:0], lambda x: x**2], ids=["constant", "no output", "no input"])
def test_nothing_to_compute(f: Any) -> None:
    x = X[:0] if f(X).shape == X.shape else X
    for form in formats.FORMATS:
        found = dense(dr.jacobian(f, sparse=True, format=form)(x))
        assert found.shape == jax.jacobian(f)(x).shape and not found.any()
    assert dr.hessian(lambda x: jnp.sum(x), sparse=True)(X).nse == 0


def test_python_numbers() -> None:
    assert dr.jacobian(lambda x: x**2, sparse=True)(3.0).todense() == 6.0
    assert dr.hessian(lambda x: x**3, sparse=True)(2.0).todense() == 12.0


# -------------------------------------------------------------------------------------------------------- patterns and plans


@pytest.mark.thorough
def test_patterns_that_are_given() -> None:
    expected = jax.jacobian(arrow)(X)
    mask = np.array(expected != 0)
    found = dr.sparse.plan(arrow, X).pattern
    for pattern in (mask, mask.astype(float), found, BCSR.from_bcoo(found),
                    scipy.sparse.csc_array(mask), scipy.sparse.coo_matrix(mask), mask.tolist()):
        found = dr.jacobian(arrow, sparse=True, pattern=pattern, check=True)(X)
        assert found.nse == mask.sum()
        assert_close(found.todense(), expected)
    more = mask.copy()
    more[3, 5] = True
    assert_close(dr.jacobian(arrow, sparse=True, pattern=more, check=True)(X).todense(), expected)


@pytest.mark.thorough
def test_a_pattern_that_misses_entries() -> None:
    mask = np.array(jax.jacobian(arrow)(X) != 0)
    mask[3, 0] = mask[0, 2] = mask[0, 4] = False
    with pytest.raises(dr.errors.PatternError, match=r"row 0: columns 2, 4; row 3: columns 0\. Add them"):
        dr.jacobian(arrow, sparse=True, pattern=mask, check=True)(X)
    dr.jacobian(arrow, sparse=True, pattern=mask)(X)  # it is taken, as nobody asked
    mask = np.array(jax.hessian(energy)(X) != 0)
    assert_close(dr.hessian(energy, sparse=True, pattern=mask, check=True)(X).todense(), jax.hessian(energy)(X))
    mask[2, 3] = mask[3, 2] = False
    with pytest.raises(dr.errors.PatternError, match=r"row 2: columns 3; row 3: columns 2"):
        dr.hessian(energy, sparse=True, pattern=mask, check=True)(X)
    with pytest.raises(dr.errors.OptionError, match="check=True compares numbers"):
        jax.jit(dr.jacobian(arrow, sparse=True, pattern=np.ones((9, 9)), check=True))(X)


def test_costs_that_are_given_decide() -> None:
    """Six pushes or four pulls give a dense matrix of 4 x 6."""
    weights = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (4, 6)))

    def f(x: Array) -> Array:
        return jnp.sin(weights @ x)

    x = jnp.ones(6)
    for costs, expected in (((1.0, 1.0), (0, 4)), ((1e-6, 2e-6), (6, 0)), ((1, 1.4), (0, 4))):
        plan = dr.sparse.plan(f, x, costs=costs)
        assert (plan.forward_colours, plan.reverse_colours, plan.costs) == (*expected, costs)
        np.testing.assert_allclose(dr.jacobian(f, sparse=plan)(x).todense(), jax.jacobian(f)(x), rtol=1e-12)
    for wrong in ((1.0, 0.0), (1.0, float("nan")), (1.0,), 2.0):
        with pytest.raises(ValueError, match="costs must be a pair of positive numbers"):
            dr.sparse.plan(f, x, costs=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a Hessian takes pushes only"):
        dr.sparse.plan(lambda x: jnp.sum(f(x)), x, derivative="hessian", costs=(1.0, 1.0))


def test_plans(tmp_path: pathlib.Path) -> None:
    plan = dr.sparse.plan(arrow, X)
    assert (plan.shape, plan.nnz, plan.forward_colours, plan.reverse_colours, plan.bounds) == ((9, 9), 25, 2, 1, (9, 9))
    assert plan.seconds is not None and plan.seconds > 0 and min(plan.costs) > 0
    text = str(plan)
    for part in ("Jacobian of arrow: 9 x 9, 25 entries", "3 passes: 2 forward, 1 reverse; each entry is read directly",
                 "columns alone take at least 9", "predicted"):
        assert part in text
    assert text.splitlines()[-9:][:2] == ["133333333", "12·······"]
    assert plan._repr_svg_().count("<rect") == 26 and plan._repr_svg_().count("stroke=\"") == 8
    assert (np.asarray(plan.pattern.todense()) == np.asarray(jax.jacobian(arrow)(X) != 0)).all()
    plan.save(tmp_path / "plan.npz")
    loaded = dr.sparse.load(tmp_path / "plan.npz")
    assert str(loaded) == text and repr(loaded) == repr(plan)
    assert_close(dr.jacobian(arrow, sparse=loaded)(X).todense(), jax.jacobian(arrow)(X))
    with pytest.raises(ValueError, match=r"for inputs float64\[9\] and outputs float64\[9\]; this .* has inputs float64\[8\]"):
        dr.jacobian(arrow, sparse=loaded)(X[:8])
    with pytest.raises(ValueError, match="the plan is one for a jacobian"):
        dr.hessian(energy, sparse=loaded)
    np.savez(tmp_path / "other.npz", x=np.ones(2))
    with pytest.raises(ValueError, match="holds no plan; it has x"):
        dr.sparse.load(tmp_path / "other.npz")


@pytest.mark.thorough
@pytest.mark.parametrize("n", [9, 40])
def test_plans_by_substitution(n: int, tmp_path: pathlib.Path) -> None:
    """Few levels are written out, many are a loop; both are differentiable."""
    x = jnp.linspace(0.5, 1.7, n)
    plan = dr.sparse.plan(energy, x, derivative="hessian", substitution=True)
    assert plan.forward_colours == 2 and "by substitution" in str(plan)
    plan.save(tmp_path / "plan.npz")
    hessian = dr.hessian(energy, sparse=dr.sparse.load(tmp_path / "plan.npz"))
    assert_close(hessian(x).todense(), jax.hessian(energy)(x), rtol=1e-9)
    assert_close(dr.grad(lambda x: jnp.sum(hessian(x).data))(x), jax.grad(lambda x: jnp.sum(jax.hessian(energy)(x)))(x), rtol=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("order", ["natural", "largest_first", "smallest_last", "incidence_degree", ("natural", "smallest_last")])
def test_orders(order: Any) -> None:
    plan = dr.sparse.plan(arrow, X, order=order, time_budget=0.01)
    assert plan.forward_colours + plan.reverse_colours == 3
    assert_close(dr.jacobian(arrow, sparse=plan)(X).todense(), jax.jacobian(arrow)(X))


def test_a_large_picture_has_few_cells() -> None:
    plan = dr.sparse.plan(lambda x: x**2, jnp.ones(1000))
    assert len(str(plan).splitlines()) < 40 and len(plan._repr_svg_()) < 100_000


def test_empty_rows_and_columns_of_scipy_matrices() -> None:
    given = scipy.sparse.csr_array(np.array([[0.0, 1.0], [0.0, 0.0]]))
    given.data[:] = 0.0  # a stored zero is no entry
    assert Positions.of_csr(given).nnz == 0


# ------------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(("make", "kind", "match"), [
    (lambda: dr.jacobian(arrow, sparse=True, format="coo"), ValueError, "one of 'bcoo', 'csr', 'dense', 'scipy'; got 'coo'"),
    (lambda: dr.jacobian(arrow, sparse=True, engine="both"), ValueError, "engine must be one of"),
    (lambda: dr.jacobian(arrow, sparse=True, chunk_size=0), ValueError, "chunk_size must be a positive int"),
    (lambda: dr.jacobian(arrow, sparse=3), TypeError, "sparse must be True, False or a plan"),
    (lambda: dr.jacobian(arrow, pattern=np.ones((9, 9))), ValueError, "are for sparse=True"),
    (lambda: dr.jacobian(arrow, sparse=True, allow_int=True), ValueError, "takes real or complex inputs"),
    (lambda: dr.jacobian(arrow, sparse=True, check=True), ValueError, "checks a pattern that is given"),
    (lambda: dr.jacobian(arrow, sparse=True, non_float="none"), ValueError, "non_float= is not for sparse derivatives"),
    (lambda: dr.jacobian(arrow, sparse=True)(X.astype(complex)), TypeError, "requires real-valued outputs"),
    (lambda: dr.jacobian(arrow, sparse=True)(jnp.arange(9)), TypeError, "requires real-valued inputs"),
    (lambda: dr.jacobian(lambda x: x.astype(int), sparse=True)(X), TypeError, "requires real-valued outputs"),
    (lambda: dr.hessian(energy, sparse=True)(X.astype(complex)), TypeError, "requires real-valued inputs"),
    (lambda: dr.jacobian(lambda x: "text", sparse=True)(X), TypeError, "not a valid JAX type"),
    (lambda: dr.jacobian(arrow, sparse=True)("text"), TypeError, "not a valid JAX type"),
    (lambda: dr.jacobian("text", sparse=True), TypeError, "Expected a callable"),
    (lambda: dr.jacobian(arrow, 1, sparse=True)(X), ValueError, "argnums of jacobian"),
    (lambda: dr.hessian(arrow, sparse=True)(X), TypeError, r"one scalar output; the function returned .*9"),
    (lambda: dr.hessian(energy, sparse=True, engine="forward"), ValueError, "engine must be one of"),
    (lambda: dr.jacobian(arrow, sparse=True, pattern=np.ones((9, 8)))(X), ValueError, r"must have shape \(9, 9\).*got \(9, 8\)"),
    (lambda: dr.jacobian(arrow, sparse=True, pattern=np.ones(9))(X), ValueError, "pattern must be a matrix"),
    (lambda: dr.jacobian(arrow, sparse=True, pattern=np.ones(9)), ValueError, r"must be a matrix.*got ndarray of shape \(9,\)"),
    (lambda: dr.sparse.hessian(energy, pattern=np.ones((3, 3, 3))), ValueError, "pattern must be a matrix, outputs by inputs"),
    (lambda: dr.jacobian(arrow, sparse=True, pattern=[["a"] * 9] * 9)(X), TypeError, "matrix of booleans or numbers"),
    (lambda: jax.jit(lambda p: dr.jacobian(arrow, sparse=True, pattern=p)(X).data)(np.ones((9, 9))), TypeError, "is being traced"),
    (lambda: dr.hessian(energy, sparse=True, pattern=np.triu(np.ones((9, 9))))(X), ValueError, "square and symmetric"),
    (lambda: jax.jit(lambda x: dr.jacobian(arrow, sparse=True, format="scipy")(x))(X), TypeError, 'format="scipy" needs numbers'),
    (lambda: dr.sparse.plan(arrow, X, order="random"), ValueError, "order must be one of 'auto', 'natural', 'largest_first'"),
    (lambda: dr.sparse.plan(arrow, X, order=()), ValueError, "order must name at least one"),
    (lambda: dr.sparse.plan(arrow, X, time_budget=-1.0), ValueError, "time_budget must be a number of seconds"),
    (lambda: dr.sparse.plan(arrow, X, derivative="gradient"), ValueError, "'jacobian' or 'hessian'"),
    (lambda: dr.sparse.plan(energy, X, derivative="hessian", engine="reverse"), ValueError, "engine must be one of"),
], ids=range(31))
def test_errors(make: Any, kind: Any, match: str) -> None:
    with pytest.raises(kind, match=match):
        make()


def test_errors_name_the_call() -> None:
    with pytest.raises(TypeError, match=re.escape("value_and_jacobian requires real-valued outputs")):
        dr.sparse.value_and_jacobian(arrow)(X.astype(complex))


@pytest.mark.parametrize("f", [arrow, lambda x: x.reshape(3, 3)[:, 1:].sum(1) ** 2])
def test_rows_that_read_alike_are_slices(f: Any) -> None:
    assert blocks_of(dr.sparse.plan(f, X).colouring.source) is not None
    np.testing.assert_allclose(dr.jacobian(f, sparse=True)(X).todense(), jax.jacfwd(f)(X), rtol=1e-12)


def test_places_are_read_by_slices_or_by_a_gather() -> None:
    """Blocks of rows, runs, single places and places in any order, of a compressed matrix or of it laid out flat."""
    rng, asked = np.random.default_rng(0), []
    for _ in range(24):
        m, k = int(rng.integers(1, 12)), int(rng.integers(1, 6))
        parts = []
        for _ in range(int(rng.integers(1, 4))):
            width, rows = int(rng.integers(1, k + 1)), int(rng.integers(1, m + 1))
            colours = np.arange(width) + rng.integers(0, k - width + 1) if rng.random() < 0.7 else rng.permutation(k)[:width]
            parts.append((colours * m + rng.integers(0, m - rows + 1) + np.arange(rows)[:, None]).ravel())
        asked.append((rng.normal(size=(k, m)), np.concatenate(parts) if rng.random() < 0.8 else rng.integers(0, k * m, 20)))
    blocks = [blocks_of(places) for _, places in asked]
    assert 8 < sum(found is not None for found in blocks) < 24
    assert all(sum(b.rows * len(b.starts) for b in found) == len(places) for found, (_, places) in zip(blocks, asked, strict=True)
               if found is not None)
    found = jax.jit(lambda xs: [(taken(x, places), taken(x.ravel(), places)) for x, (_, places) in zip(xs, asked, strict=True)])(
        [x for x, _ in asked])
    for got, (x, places) in zip(found, asked, strict=True):
        np.testing.assert_array_equal(got, np.stack([x.ravel()[places]] * 2))
