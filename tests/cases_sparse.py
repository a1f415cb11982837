"""Cases of ``dualrev/rules/sparse.py`` and ``dualrev/rules/compressed.py``.

Data and dense operands are arguments, indices are part of the function.  Where jax has no derivative, or a wrong one, the oracle is
the same function of dense arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import RC, Case, case, constant, fixed, normal
from jax.experimental import sparse

Array = Any

#: Four entries of a 3 by 4 matrix, two of them in one place, and one out of bounds.
INDICES = np.array([[0, 1], [2, 3], [0, 1], [1, 0], [3, 4]])
#: Out of bounds by column, and by row.
OUTSIDE = np.array([[1, 9], [0, 1], [2, 3], [3, 0], [0, 1]])
#: Two batches of three entries of a 3 by 4 matrix.
BATCHED = np.array([[[0, 1], [2, 3], [1, 1]], [[1, 2], [1, 2], [3, 4]]])
#: Without duplicates, in order.
UNIQUE = np.array([[0, 1], [1, 0], [2, 2], [2, 3]])
SINGLE = ("float32", "bfloat16")


#: Lines whose second order, and whose batches, have nothing that the leading line and those of batched arrays do not have.
once = functools.partial(case, order=1, vmap=False)


def bcoo(data: Array, indices: np.ndarray, *shape: int) -> sparse.BCOO:
    return sparse.BCOO((data, jnp.asarray(indices, jnp.int32)), shape=shape)


def todense(data: Array, indices: np.ndarray, *shape: int) -> Array:
    """What a BCOO stands for, by plain indexing."""
    n_batch, n_sparse = indices.ndim - 2, indices.shape[-1]
    rest = shape[n_batch + n_sparse:]
    data = jnp.broadcast_to(data, (*shape[:n_batch], indices.shape[-2], *rest))
    indices = np.broadcast_to(indices, (*shape[:n_batch], *indices.shape[-2:]))
    batch = np.indices(indices.shape[:-1])[:n_batch]
    return jnp.zeros(shape, data.dtype).at[(*batch, *np.moveaxis(indices, -1, 0))].add(data, mode="drop")


def dot(indices: np.ndarray, shape: Sequence[int], numbers: Any, **kwargs: Any) -> Callable[[Array, Array], Array]:
    return lambda data, y: sparse.bcoo_dot_general(bcoo(data, indices, *shape), y, dimension_numbers=numbers, **kwargs)


def dense_dot(indices: np.ndarray, shape: Sequence[int], numbers: Any, **kwargs: Any) -> Callable[[Array, Array], Array]:
    return lambda data, y: jax.lax.dot_general(todense(data, indices, *shape), y, numbers, **kwargs)


def product(indices: np.ndarray, shape: Sequence[int], numbers: Any, *makers: Any, order: int = 1, **kwargs: Any) -> Case:
    return case("bcoo_dot_general", dot(indices, shape, numbers), *makers, order=order, vmap=order == 2,
                oracle=dense_dot(indices, shape, numbers), **kwargs)


def by_sampling(indices: np.ndarray, numbers: Any) -> Callable[[Array, Array], Array]:
    return lambda x, y: sparse.bcoo_dot_general_sampled(x, y, jnp.asarray(indices, jnp.int32), dimension_numbers=numbers)


def spdot(x_indices: np.ndarray, x_shape: Sequence[int], y_indices: np.ndarray, y_shape: Sequence[int], numbers: Any,
          *makers: Any, order: int = 1, **kwargs: Any) -> Case:
    """The product of two sparse arrays, made dense."""
    def run(x: Array, y: Array) -> Array:
        result: Any = sparse.bcoo_dot_general(bcoo(x, x_indices, *x_shape), bcoo(y, y_indices, *y_shape), dimension_numbers=numbers)
        return result.todense()

    def oracle(x: Array, y: Array) -> Array:
        return jax.lax.dot_general(todense(x, x_indices, *x_shape), todense(y, y_indices, *y_shape), numbers)

    # Compiled as one: on its own, jax runs the operation as hundreds.
    return case("bcoo_spdot_general", jax.jit(run), *makers, order=order, vmap=order == 2, oracle=oracle, **kwargs)


MATMUL = (((1,), (0,)), ((), ()))
TRANSPOSED = (((0,), (0,)), ((), ()))
OUTER = (((), ()), ((), ()))
BATCH = (((2,), (1,)), ((0,), (0,)))

# Compressed rows: [0, 2], [], [1, 0, 3], and one entry more than there are.
COLUMNS, POINTERS = np.array([0, 2, 1, 0, 3, 0], np.int32), np.array([0, 2, 2, 5], np.int32)
ROWS = np.array([0, 0, 2, 2, 2, 3], np.int32)
PAIRS = np.stack([ROWS, COLUMNS], 1)


def bcsr(data: Array, columns: np.ndarray, pointers: np.ndarray, *shape: int) -> sparse.BCSR:
    return sparse.BCSR((data, jnp.asarray(columns), jnp.asarray(pointers)), shape=shape)


def csr(data: Array) -> sparse.CSR:
    return sparse.CSR((data, jnp.asarray(COLUMNS), jnp.asarray(POINTERS)), shape=(3, 4))


def coo(data: Array) -> sparse.COO:
    return sparse.COO((data, jnp.asarray(ROWS), jnp.asarray(COLUMNS)), shape=(3, 4))


def bcsr_dot(numbers: Any) -> Callable[[Array, Array], Array]:
    return lambda data, y: sparse.bcsr_dot_general(bcsr(data, COLUMNS, POINTERS, 3, 4), y, dimension_numbers=numbers)


def by_pairs(transpose: bool) -> Callable[[Array, Array], Array]:
    """The product as jax computes it: what is out of bounds is not written, but is read where the bounds are."""
    to, come, n = (COLUMNS, ROWS, 4) if transpose else (ROWS, COLUMNS, 3)

    def run(data: Array, v: Array) -> Array:
        read = v.at[come].get(mode="clip")
        return jnp.zeros((n, *v.shape[1:]), data.dtype).at[to].add(data.reshape(-1, *[1] * (v.ndim - 1)) * read)
    return run


def legacy(form: Callable[[Array], Any], name: str) -> list[Case]:
    """COO and CSR: jax cannot batch their operations, and 0.10 has wrong cotangents of their transposed products."""
    matvec, matmat = getattr(sparse, f"{name}_matvec"), getattr(sparse, f"{name}_matmat")
    cases = [case(f"{name}_todense", lambda data: form(data).todense(), normal(6), dtypes=(*RC, *SINGLE), vmap=False,
                  oracle=lambda data: todense(data, PAIRS, 3, 4))]
    for transpose in (False, True):
        n = 3 if transpose else 4
        cases += [
            case(f"{name}_matvec", lambda data, v, t=transpose: matvec(form(data), v, transpose=t), normal(6), normal(n), dtypes=RC,
                 label=f"transpose={transpose}", vmap=False, oracle=by_pairs(transpose)),
            once(f"{name}_matmat", lambda data, v, t=transpose: matmat(form(data), v, transpose=t), normal(6), normal(n, 2),
                 label=f"transpose={transpose}", oracle=by_pairs(transpose)),
        ]
    fromdense = getattr(sparse, f"{name}_fromdense")
    holes = np.array([[True, False, True], [False, True, False]])
    cases += [
        once(f"{name}_fromdense", lambda x: fromdense(x, nse=3).data, normal(2, 3), label="truncated",
             oracle=lambda x: x.reshape(-1)[:3]),
        # jax gives the entries that are left over the derivative of whatever stands first.
        case(f"{name}_fromdense", lambda x: fromdense(jnp.where(holes, x, 0), nse=5).data, normal(2, 3), dtypes=RC, vmap=False,
             oracle=lambda x: jnp.pad(x[np.nonzero(holes)], (0, 2))),
    ]
    return cases


def square(data: Array, b: Array) -> Array:
    """A sparse solve, with one entry more than the matrix has."""
    return sparse.linalg.spsolve(data + 3, SQUARE_COLUMNS, SQUARE_POINTERS, b)


SQUARE_COLUMNS, SQUARE_POINTERS = jnp.array([0, 2, 1, 0, 1, 2, 0], jnp.int32), jnp.array([0, 2, 3, 6], jnp.int32)
SQUARE_PAIRS = np.array([[0, 0], [0, 2], [1, 1], [2, 0], [2, 1], [2, 2], [3, 0]])


def dense_square(data: Array, b: Array) -> Array:
    return jnp.linalg.solve(todense(data + 3, SQUARE_PAIRS, 3, 3), b)


CASES = [
    case("bcoo_todense", lambda data: bcoo(data, INDICES, 3, 4).todense(), normal(5), dtypes=(*RC, *SINGLE)),
    once("bcoo_todense", lambda data: bcoo(data, BATCHED, 2, 3, 4).todense(), normal(2, 3), label="batch"),
    once("bcoo_todense", lambda data: bcoo(data, BATCHED[:, :, :1], 2, 3, 2).todense(), normal(2, 3, 2), label="batch and dense"),
    once("bcoo_todense", lambda data: bcoo(data, BATCHED, 2, 3, 4).todense(), normal(1, 3), label="shared data",
         oracle=lambda data: todense(data, BATCHED, 2, 3, 4)),
    once("bcoo_todense", lambda data: bcoo(data, BATCHED[:1], 2, 3, 4).todense(), normal(2, 3), label="shared indices"),
    once("bcoo_todense", lambda data: bcoo(data, np.zeros((2, 3, 0)), 2, 4).todense(), normal(2, 3, 4), label="nothing sparse"),
    once("bcoo_todense", lambda data: bcoo(data, INDICES[:0], 3, 4).todense(), normal(0), label="no entries"),

    case("bcoo_fromdense", lambda x: sparse.bcoo_fromdense(x, nse=4).data, normal(3, 4), dtypes=(*RC, *SINGLE), label="truncated"),
    once("bcoo_fromdense", lambda x: sparse.bcoo_fromdense(x.at[:, 0].set(0), nse=4, n_batch=1).data, normal(2, 3),
         label="padded"),
    once("bcoo_fromdense", lambda x: sparse.bcoo_fromdense(x, nse=2, n_dense=1).data, normal(3, 2), label="dense"),
    once("bcoo_fromdense", lambda x: sparse.bcoo_fromdense(x, nse=3, n_batch=1, n_dense=1).data, normal(2, 2),
         oracle=lambda x: jnp.pad(x[:, None], ((0, 0), (0, 2), (0, 0))), label="nothing sparse"),

    case("bcoo_extract", lambda x: sparse.bcoo_extract(bcoo(jnp.zeros(5), INDICES, 3, 4), x, assume_unique=True).data, normal(3, 4),
         dtypes=(*RC, *SINGLE)),
    once("bcoo_extract", lambda x: sparse.bcoo_extract(bcoo(jnp.zeros(5), INDICES, 3, 4), x, assume_unique=False).data, normal(3, 4),
         oracle=lambda x: x.at[tuple(INDICES.T)].get(mode="fill", fill_value=0) * np.array([1, 1, 0, 1, 0]), label="duplicates"),
    once("bcoo_extract", lambda x: sparse.bcoo_extract(bcoo(jnp.zeros((2, 3)), BATCHED, 2, 3, 4), x, assume_unique=True).data,
         normal(2, 3, 4), label="batch"),
    once("bcoo_extract", lambda x: sparse.bcoo_extract(bcoo(jnp.zeros((1, 3)), BATCHED[:1], 2, 3, 4), x, assume_unique=True).data,
         normal(2, 3, 4), label="shared indices"),

    case("bcoo_transpose", lambda data: bcoo(data, INDICES, 3, 4).T.data, normal(5), dtypes=RC),
    once("bcoo_transpose", lambda data: sparse.bcoo_transpose(
        bcoo(data, np.zeros((2, 1, 4, 2)), 2, 3, 4, 2, 3, 2), permutation=(1, 0, 3, 2, 5, 4)).data, normal(2, 3, 4, 3, 2),
        label="batch and dense"),

    case("bcoo_sort_indices", lambda data: bcoo(data, INDICES[::-1], 3, 4).sort_indices().data, normal(5), dtypes=RC),
    once("bcoo_sort_indices", lambda data: bcoo(data, BATCHED[:, ::-1, :1], 2, 3, 2).sort_indices().data, normal(1, 3, 2),
         label="shared data"),
    once("bcoo_sort_indices", lambda data: bcoo(data, BATCHED[:1], 2, 3, 4).sort_indices().data, normal(2, 3), label="shared indices"),
    once("bcoo_sort_indices", lambda data: bcoo(data, np.zeros((1, 3, 0)), 2, 4).sort_indices().data, normal(2, 3, 4),
         label="nothing sparse"),

    case("bcoo_sum_duplicates", lambda data: bcoo(data, INDICES, 3, 4).sum_duplicates(nse=4).data, normal(5), dtypes=RC),
    once("bcoo_sum_duplicates", lambda data: bcoo(data, OUTSIDE, 3, 4).sum_duplicates(nse=3).data, normal(5), label="out of bounds"),
    once("bcoo_sum_duplicates", lambda data: bcoo(data, OUTSIDE, 3, 4).sum_duplicates(nse=2).data, normal(5), label="truncated"),
    once("bcoo_sum_duplicates", lambda data: bcoo(data, BATCHED, 2, 3, 4).sum_duplicates(nse=2).data, normal(2, 3), label="batch"),
    once("bcoo_sum_duplicates", lambda data: bcoo(data, BATCHED[..., :1], 2, 3, 2).sum_duplicates(nse=3).data, normal(1, 3, 2),
         label="shared data"),
    once("bcoo_sum_duplicates", lambda data: bcoo(data, np.zeros((1, 3, 0)), 2, 4).sum_duplicates(nse=1).data, normal(2, 3, 4),
         label="nothing sparse"),
    once("bcoo_sum_duplicates", lambda data: bcoo(data, INDICES[:0], 3, 4).sum_duplicates(nse=0).data, normal(0), label="no entries"),

    product(INDICES, (3, 4), MATMUL, normal(5), normal(4, 2), label="matrices", dtypes=(*RC, *SINGLE), order=2),
    product(INDICES, (3, 4), MATMUL, normal(5), normal(4), label="vector"),
    product(INDICES, (3, 4), TRANSPOSED, normal(5), normal(3), label="transposed"),
    product(INDICES, (3, 4), (((1, 0), (0, 2)), ((), ())), normal(5), normal(4, 2, 3), label="all contracted, crossed"),
    product(INDICES, (3, 4), OUTER, normal(5), normal(2), label="outer product"),
    product(INDICES[:, 1:], (4, 2), TRANSPOSED, normal(5, 2), normal(4, 3), label="dense"),
    product(BATCHED, (2, 3, 4), BATCH, normal(2, 3), normal(2, 4, 2), label="batch"),
    product(BATCHED, (2, 3, 4), BATCH, normal(1, 3), normal(2, 4), label="shared data"),
    product(BATCHED[:1], (2, 3, 4), BATCH, normal(2, 3), normal(2, 4), label="shared indices"),
    product(BATCHED, (2, 3, 4), (((2,), (0,)), ((), ())), normal(2, 3), normal(4), label="batch kept"),
    product(BATCHED, (2, 3, 4), (((0, 1), (1, 0)), ((), ())), normal(2, 3), normal(3, 2), label="batch contracted"),
    product(BATCHED[..., :1], (2, 3, 2), (((1,), (1,)), ((0,), (0,))), normal(2, 3, 2), normal(2, 3), label="batch and dense"),
    product(np.zeros((2, 3, 0), int), (2, 4), (((), ()), ((0,), (0,))), normal(2, 3, 4), normal(2, 3), label="nothing sparse"),
    product(INDICES, (3, 4), MATMUL, constant(normal(5)), normal(4), label="constant matrix"),
    product(INDICES, (3, 4), MATMUL, normal(5), constant(normal(4)), label="constant vector"),
    once("bcoo_dot_general", dot(INDICES, (3, 4), MATMUL, preferred_element_type=np.float32), normal(5), normal(4),
         oracle=dense_dot(INDICES, (3, 4), MATMUL, preferred_element_type=np.float32), dtypes=("bfloat16",), label="wider result"),

    case("bcoo_dot_general_sampled", by_sampling(INDICES, MATMUL), normal(3, 2), normal(2, 4), dtypes=(*RC, *SINGLE)),
    once("bcoo_dot_general_sampled", by_sampling(INDICES, OUTER), normal(3), normal(4), label="vectors"),
    once("bcoo_dot_general_sampled", by_sampling(BATCHED, BATCH), normal(2, 3, 2), normal(2, 2, 4), label="batch"),
    once("bcoo_dot_general_sampled", by_sampling(BATCHED[:1, :, :1], BATCH), normal(2, 3, 2), normal(2, 2, 4), label="batch and dense"),
    once("bcoo_dot_general_sampled", by_sampling(INDICES[:, :1], BATCH), normal(2, 3, 2), normal(2, 2, 4), label="sparse batch"),
    once("bcoo_dot_general_sampled", by_sampling(INDICES, (((0, 2), (1, 0)), ((), ()))), normal(2, 3, 4), normal(4, 2, 4),
         label="two axes, crossed"),

    spdot(INDICES, (3, 4), UNIQUE[:, ::-1], (4, 3), MATMUL, normal(5), normal(4), dtypes=RC, order=2),
    spdot(INDICES, (3, 4), INDICES, (3, 4), (((0, 1), (0, 1)), ((), ())), normal(5), normal(5), label="inner product"),
    spdot(BATCHED, (2, 3, 4), BATCHED, (2, 3, 4), (((1,), (1,)), ((0,), (0,))), normal(2, 3), normal(2, 3),
          label="batch"),
    spdot(BATCHED, (2, 3, 4), INDICES, (3, 4), (((1, 2), (0, 1)), ((), ())), normal(2, 3), normal(5), label="batch on one side"),

    case("bcsr_todense", lambda data: bcsr(data, COLUMNS, POINTERS, 3, 4).todense(), normal(6), dtypes=RC),
    once("bcsr_todense", lambda data: bcsr(data, COLUMNS[None], POINTERS[None], 2, 3, 4, 2).todense(), normal(2, 6, 2),
         label="batch and dense"),
    case("bcsr_extract", lambda x: sparse.bcsr_extract(jnp.asarray(COLUMNS), jnp.asarray(POINTERS), x), normal(3, 4), dtypes=RC),
    case("bcsr_fromdense", lambda x: sparse.bcsr_fromdense(x.at[:, 0].set(0), nse=5).data, normal(2, 3), dtypes=RC),
    case("bcsr_dot_general", bcsr_dot(MATMUL), normal(6), normal(4, 2), dtypes=RC, oracle=dense_dot(PAIRS, (3, 4), MATMUL)),
    once("bcsr_dot_general", bcsr_dot(TRANSPOSED), normal(6), normal(3), oracle=dense_dot(PAIRS, (3, 4), TRANSPOSED),
         label="transposed"),

    *legacy(coo, "coo"),
    *legacy(csr, "csr"),

    case("todense", lambda data: sparse.todense(bcoo(data, INDICES, 3, 4)), normal(5), dtypes=RC, label="BCOO"),
    once("todense", lambda x: sparse.todense(x), normal(3), label="dense already"),
    once("todense", lambda data: sparse.todense(csr(data)), normal(6), oracle=lambda data: todense(data, PAIRS, 3, 4),
         label="CSR"),

    case("spsolve", square, fixed([1.0, 0.2, 0.7, -0.4, 0.1, 2.0, 0.5]), normal(3), oracle=dense_square, vmap=False),
    once("spsolve", square, constant(normal(7)), normal(3), oracle=dense_square, label="constant matrix"),
]
