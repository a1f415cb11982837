"""Sparse arrays as users hold them: pytrees of data and indices, under every transformation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import ENGINES, assert_same
from jax.experimental import sparse

import dualrev as dr
from dualrev.table.rows import load_optional, rows
from dualrev.testing import check_grads

Array = Any
RNG = np.random.default_rng(0)
MATRIX = RNG.standard_normal((4, 5)) * (RNG.random((4, 5)) < 0.5)
VECTOR = jnp.asarray(RNG.standard_normal(5))
FORMATS = [sparse.BCOO, sparse.BCSR, sparse.COO, sparse.CSR, sparse.CSC]


def energy(A: Any, x: Array) -> Array:
    return jnp.sum(jnp.sin(A @ x) ** 2)


def test_sparse_arrays_cost_nothing_until_they_are_used() -> None:
    """The family is loaded at its first use, and a rule that the user stated before that stays."""
    program = """
import sys, dualrev as dr, jax, jax.numpy as jnp
dr.grad(lambda x: x * x)(1.0)
assert "jax.experimental.sparse" not in sys.modules
from jax.experimental import sparse
assert "dualrev.rules.sparse.bcoo" not in sys.modules
dr.rule(sparse.bcoo_todense_p, adjoint=lambda ct, data, indices: jnp.full(data.shape, 7, data.dtype))
A = sparse.BCOO.fromdense(jnp.eye(3))
assert (jax.jit(dr.grad(lambda x: (A @ x).sum()))(jnp.ones(3)) == 1).all()
assert "dualrev.rules.sparse.bcoo" in sys.modules
assert (dr.grad(lambda data: sparse.BCOO((data, A.indices), shape=A.shape).todense().sum())(A.data) == 7).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_loading_again_changes_nothing() -> None:
    load_optional()
    before = dict(rows)
    load_optional()
    assert rows == before


@pytest.mark.parametrize("form", [pytest.param(form, marks=() if form is FORMATS[0] else pytest.mark.thorough, id=form.__name__)
                                  for form in FORMATS])
@pytest.mark.parametrize("engine", ENGINES)
def test_gradient_of_a_sparse_matrix(form: Any, engine: Any) -> None:
    """A sparse matrix of cotangents, with float0 for its indices: the dense cotangent where there are entries."""
    A = form.fromdense(jnp.asarray(MATRIX))
    of_matrix, of_vector = dr.grad(energy, argnums=(0, 1), allow_int=True, engine=engine)(A, VECTOR)
    expected = jax.grad(energy, argnums=(0, 1))(jnp.asarray(MATRIX), VECTOR)  # 0.10.2 has it wrong for CSC
    tree: Any
    leaves, tree = jax.tree_util.tree_flatten(of_matrix)
    as_jax, jax_tree = jax.tree_util.tree_flatten(jax.grad(energy, allow_int=True)(A, VECTOR))
    assert tree == jax_tree
    assert [(x.shape, x.dtype) for x in leaves] == [(x.shape, x.dtype) for x in as_jax]
    _, *indices = jax.tree_util.tree_leaves(A)
    for data in (of_matrix.data, jax.jit(dr.grad(energy, allow_int=True, engine=engine))(A, VECTOR).data):
        assert_same(jax.tree_util.tree_unflatten(tree, [data, *indices]).todense(), jnp.where(MATRIX != 0, expected[0], 0))
    assert_same(of_vector, expected[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_integers_are_refused_as_in_jax(engine: Any) -> None:
    with pytest.raises(TypeError, match="int32"):
        dr.grad(energy, engine=engine)(sparse.BCOO.fromdense(jnp.asarray(MATRIX)), VECTOR)


def with_data(A: Any, f: Callable[[Any], Array]) -> Callable[[Array], Array]:
    """``f`` as a function of the data alone."""
    _, *rest = jax.tree_util.tree_leaves(A)
    tree = jax.tree_util.tree_structure(A)
    return lambda data: f(jax.tree_util.tree_unflatten(tree, [data, *rest]))


@pytest.mark.parametrize("form", [sparse.BCOO, sparse.BCSR], ids=lambda form: form.__name__)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.thorough
def test_jacobians_and_hessians(form: Any, engine: Any) -> None:
    A = form.fromdense(jnp.asarray(MATRIX))
    f = with_data(A, lambda A: jnp.sin(A @ VECTOR))
    assert_same(dr.jacfwd(f, engine=engine)(A.data), jax.jacfwd(f)(A.data))
    assert_same(dr.jacrev(f, engine=engine)(A.data), jax.jacrev(f)(A.data))
    g = with_data(A, lambda A: energy(A, VECTOR))
    assert_same(dr.hessian(g, engine=engine)(A.data), jax.hessian(g)(A.data))


@pytest.mark.parametrize("form", [sparse.COO, sparse.CSR], ids=lambda form: form.__name__)
@pytest.mark.thorough
def test_jacobians_of_matrices_that_jax_cannot_batch(form: Any) -> None:
    A = form.fromdense(jnp.asarray(MATRIX))
    row, column = np.nonzero(MATRIX)

    def dense(data: Array) -> Array:
        return jnp.zeros(MATRIX.shape).at[row, column].set(data) @ VECTOR

    f = with_data(A, lambda A: jnp.sin(A @ VECTOR))
    for jacobian in (dr.jacfwd, dr.jacrev):
        assert_same(jacobian(f)(A.data), jax.jacfwd(lambda data: jnp.sin(dense(data)))(A.data))
    with pytest.raises(NotImplementedError, match="Batching rule"):
        jax.jacfwd(f)(A.data)
    transposed = jax.tree_util.tree_map(jnp.asarray, A)
    with pytest.raises(NotImplementedError, match="Batching rule"):
        jax.jacrev(lambda x: transposed @ x)(VECTOR)
    assert_same(dr.jacrev(lambda x: transposed @ x)(VECTOR), jnp.asarray(MATRIX))


@pytest.mark.thorough
def test_batches() -> None:
    """Batched matrices, and ``vmap`` of a gradient over data, over vectors, and over both."""
    A = sparse.BCOO.fromdense(jnp.asarray(np.stack([MATRIX, 2 * MATRIX])), n_batch=1)
    xs = jnp.stack([VECTOR, VECTOR**2])

    def total(A: Any, xs: Array) -> Array:
        product: Array = sparse.bcoo_dot_general(A, xs, dimension_numbers=(((2,), (1,)), ((0,), (0,))))
        return jnp.sum(jnp.sin(product))

    got = dr.grad(total, argnums=(0, 1), allow_int=True)(A, xs)
    assert_same(got, jax.grad(total, argnums=(0, 1), allow_int=True)(A, xs))
    one = sparse.BCOO.fromdense(jnp.asarray(MATRIX))

    def f(data: Array, x: Array) -> Array:
        return energy(sparse.BCOO((data, one.indices), shape=one.shape), x)

    datas = jnp.stack([one.data, one.data**2])
    for axes in ((0, 0), (0, None), (None, 0)):
        args = [many if axis == 0 else many[0] for many, axis in zip((datas, xs), axes, strict=True)]
        assert_same(jax.vmap(dr.grad(f, argnums=(0, 1)), axes)(*args), jax.vmap(jax.grad(f, argnums=(0, 1)), axes)(*args))


# ------------------------------------------------------------------------------------------------------------------- size


def sizes(jaxpr: Any) -> Iterator[int]:
    for eqn in jaxpr.eqns:
        for value in jax.tree_util.tree_leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from sizes(inner)
        yield from (int(np.prod(v.aval.shape)) for v in eqn.outvars)


N = 10_000
PLACES = jnp.asarray(RNG.integers(0, N, (300, 2)), jnp.int32)
LARGE = sparse.BCOO((jnp.asarray(RNG.standard_normal(300)), PLACES), shape=(N, N))
WIDE = {
    "vector": lambda A: A @ jnp.ones(N),
    "transposed": lambda A: A.T @ jnp.ones(N),
    "matrix": lambda A: A @ jnp.ones((N, 3)),
    "from the left": lambda A: jnp.ones((2, N)) @ A,
    "by rows": lambda A: sparse.BCSR.from_bcoo(A.sum_duplicates(nse=300)) @ jnp.ones(N),
    "summed": lambda A: A.sum_duplicates(nse=300).sort_indices().data,
    "sparse product": lambda A: (A @ A).data,
}


@pytest.mark.parametrize("how", WIDE)
def test_nothing_is_made_dense(how: str) -> None:
    """The gradient of a product with a 10,000 by 10,000 matrix makes no array of more than a few vectors."""
    f = with_data(LARGE, lambda A: jnp.sum(jnp.sin(WIDE[how](A))))
    limit = 300 * 300 * 4 if how == "sparse product" else 4 * N  # jax's product of sparse arrays forms all pairs of entries
    for derivative in (dr.grad(f), lambda data: dr.jvp(dr.grad(f), (data,), (data,)), lambda data: dr.jvp(f, (data,), (data,))):
        assert max(sizes(jax.make_jaxpr(derivative)(LARGE.data).jaxpr)) <= limit
    check_grads(f, (LARGE.data,), order=1)


# ----------------------------------------------------------------------------------------------------------- beyond jax


@pytest.mark.thorough
def test_products_of_sparse_matrices_in_reverse() -> None:
    A, B = (sparse.BCOO.fromdense(jnp.asarray(M)) for M in (MATRIX, MATRIX.T))

    def f(a: Array, b: Array) -> Array:
        product: Any = sparse.BCOO((a, A.indices), shape=A.shape) @ sparse.BCOO((b, B.indices), shape=B.shape)
        return jnp.sum(jnp.sin(product.todense()))

    def dense(a: Array, b: Array) -> Array:
        left, right = (jnp.zeros(M.shape).at[tuple(M.indices.T)].set(x) for M, x in ((A, a), (B, b)))
        return jnp.sum(jnp.sin(left @ right))

    for engine in ENGINES:
        assert_same(dr.grad(f, argnums=(0, 1), engine=engine)(A.data, B.data), jax.grad(dense, argnums=(0, 1))(A.data, B.data))
    with pytest.raises(NotImplementedError):
        jax.grad(f)(A.data, B.data)


def test_counting_the_entries_takes_concrete_indices() -> None:
    A = sparse.BCOO((jnp.array([1.0, 2, 3]), jnp.array([[1, 0], [0, 1], [1, 0]])), shape=(2, 2))
    f = with_data(A, lambda A: jnp.sum(A.sum_duplicates().data ** 2))
    for engine in ENGINES:
        assert_same(dr.grad(f, engine=engine)(A.data), jnp.array([8.0, 4, 8]))
    assert_same(dr.jvp(dr.grad(f), (A.data,), (jnp.ones(3),))[1], jnp.array([4.0, 2, 4]))
    with pytest.raises(ValueError, match="nse"):
        jax.jit(lambda A: dr.grad(lambda A: jnp.sum(A.sum_duplicates().data), allow_int=True)(A).data)(A)


@pytest.mark.thorough
def test_sparsified_functions() -> None:
    A = sparse.BCOO.fromdense(jnp.asarray(MATRIX))

    @sparse.sparsify
    def f(A: Any, x: Array) -> Array:
        return jnp.sum(jnp.sin((2 * A.T).T @ x))

    g = with_data(A, lambda A: f(A, VECTOR))
    assert_same(dr.grad(g)(A.data), jax.grad(g)(A.data))
    assert_same(dr.hessian(g)(A.data), jax.hessian(g)(A.data))


def test_transposes_of_products() -> None:
    formats: list[Any] = FORMATS
    for form in formats:
        A = form.fromdense(jnp.asarray(MATRIX))
        (got,) = dr.linear_transpose(lambda x, A=A: A @ x, VECTOR)(jnp.arange(4.0))
        assert_same(got, MATRIX.T @ jnp.arange(4.0))


@pytest.mark.thorough
def test_sparse_solve() -> None:
    M = sparse.CSR.fromdense(jnp.asarray(MATRIX[:, :4] + 3 * np.eye(4)))
    row, column = np.nonzero(np.asarray(M.todense()))

    def solve(data: Array, b: Array) -> Array:
        return sparse.linalg.spsolve(data, M.indices, M.indptr, b)

    def dense(data: Array, b: Array) -> Array:
        return jnp.linalg.solve(jnp.zeros((4, 4)).at[row, column].set(data), b)

    b = jnp.arange(1.0, 5)
    for engine in ENGINES:
        got = dr.vjp(solve, M.data, b, engine=engine)[1](b)
        assert_same(got, jax.vjp(dense, M.data, b)[1](b))
        assert_same(dr.jacobian(solve, engine=engine)(M.data, b), jax.jacobian(dense)(M.data, b))
    bs = jnp.stack([b, b**2])
    assert_same(jax.vmap(dr.grad(lambda d, b: solve(d, b)[0]), (None, 0))(M.data, bs),
                jax.vmap(jax.grad(lambda d, b: dense(d, b)[0]), (None, 0))(M.data, bs))
    with pytest.raises(NotImplementedError, match="Batching rule"):
        jax.jacobian(solve)(M.data, b)
