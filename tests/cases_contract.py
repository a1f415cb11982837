"""Cases of ``dualrev/rules/contract.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from cases import RC, Case, Maker, case, constant, fixed, ints, normal, real_normal
from jax import lax


def dot(x_contract: Sequence[int], y_contract: Sequence[int], x_batch: Sequence[int] = (), y_batch: Sequence[int] = (),
        **kwargs: Any) -> Callable[..., Any]:
    numbers = ((tuple(x_contract), tuple(y_contract)), (tuple(x_batch), tuple(y_batch)))
    return lambda x, y: lax.dot_general(x, y, numbers, **kwargs)


def cube(x_contract: Sequence[int], y_contract: Sequence[int], x_batch: Sequence[int], y_batch: Sequence[int], x: Maker,
         y: Maker, label: str) -> Case:
    return case("dot_general", dot(x_contract, y_contract, x_batch, y_batch), x, y, label=label)


SINGLE = ("float32", "float16", "bfloat16")

def ragged(x_contract: Sequence[int], y_contract: Sequence[int], x_batch: Sequence[int], y_batch: Sequence[int], axis: int,
           group: Sequence[int], **kwargs: Any) -> Callable[..., Any]:
    numbers = lax.RaggedDotDimensionNumbers(((x_contract, y_contract), (x_batch, y_batch)), [axis], group)
    return lambda x, y, sizes: lax.ragged_dot_general(x, y, sizes, numbers, **kwargs)


def grouped(formula: str) -> Callable[..., Any]:
    """The same as a sum, with ``G[..., g, r]`` 1 where place ``r`` of the ragged axis is in group ``g``."""
    def run(x: Any, y: Any, sizes: Any) -> Any:
        letters = formula.split("->")[0].split(",")
        n = dict(zip(letters[0], x.shape, strict=True))[letters[2][-1]]
        ends = jnp.cumsum(sizes, -1)[..., None]
        groups = (jnp.arange(n) >= ends - sizes[..., None]) & (jnp.arange(n) < ends)
        return jnp.einsum(formula, x, y, groups.astype(x.dtype))
    return run


SIZES = fixed([2, 0, 1], "int32")

CASES = [
    # jax has no adjoint where the ragged axis is contracted or batch, and so none of second order of the third kind.
    case("ragged_dot_general", lambda x, y, g: lax.ragged_dot(x, y, g), normal(4, 2), normal(3, 2, 2), SIZES,
         oracle=grouped("mk,gkn,gm->mn"), dtypes=(*RC, *SINGLE)),
    case("ragged_dot_general", ragged([1], [0], [], [], 1, []), normal(2, 4), normal(4, 3), SIZES, oracle=grouped("mk,kn,gk->gmn"),
         label="contracted"),
    case("ragged_dot_general", ragged([2], [1], [0], [0], 0, []), normal(3, 2, 2), normal(3, 2, 2), SIZES,
         oracle=lambda x, y, _: jnp.einsum("bmk,bkn->bmn", x, y), label="batch"),
    case("ragged_dot_general", ragged([0, 3], [2, 0], [2], [3], 1, [1]), normal(2, 3, 2, 4), normal(4, 2, 2, 2, 2),
         fixed([[1, 2], [2, 0]], "int32"), oracle=grouped("jmbk,kgjbn,bgm->bmn"), label="out of order", vmap=False),
    case("ragged_dot_general", ragged([0, 3], [2, 0], [2], [1], 3, []), normal(2, 3, 2, 4), normal(4, 2, 2, 2),
         fixed([[[1, 2], [0, 3]], [[2, 0], [1, 1]]], "int32"), oracle=grouped("jmbk,kbjn,bjgk->gbmn"), label="contracted, out of order",
         vmap=False),
    case("ragged_dot_general", ragged([1], [1], [], [], 0, [0], preferred_element_type="float32"), normal(4, 2), normal(3, 2, 2),
         SIZES, oracle=lambda x, y, g: grouped("mk,gkn,gm->mn")(x.astype("float32"), y.astype("float32"), g), dtypes=("bfloat16",),
         label="wider result"),

    case("dot_general", dot([1], [0]), normal(3, 4), normal(4, 2), dtypes=(*RC, *SINGLE), label="matrices"),
    case("dot_general", dot([0], [0]), normal(4, 3), normal(4, 2), dtypes=RC, label="first axes"),
    case("dot_general", dot([1], [1]), normal(3, 4), normal(2, 4), label="last axes"),
    case("dot_general", dot([0], [1]), normal(4, 3), normal(2, 4), label="both transposed"),
    case("dot_general", dot([0], [0]), normal(5), normal(5), dtypes=RC, label="inner product"),
    case("dot_general", dot([1], [0]), normal(3, 4), normal(4), label="matrix and vector"),
    case("dot_general", dot([0], [0]), normal(4), normal(4, 3), label="vector and matrix"),
    case("dot_general", dot([], []), normal(3), normal(2), label="outer product"),
    case("dot_general", dot([], []), normal(), normal(), label="scalars"),
    case("dot_general", dot([], []), normal(), normal(2, 3), label="scalar and matrix"),
    case("dot_general", dot([0, 1], [0, 1]), normal(2, 3), normal(2, 3), label="two axes, all"),
    case("dot_general", dot([0, 1], [1, 0]), normal(2, 3), normal(3, 2), label="two axes, crossed"),
    case("dot_general", dot([], [], [0], [0]), normal(3), normal(3), label="batch only"),
    case("dot_general", dot([], [], [1, 0], [0, 1]), normal(2, 3), normal(3, 2), label="batch only, crossed"),
    cube([2], [1], [0], [0], normal(2, 3, 4), normal(2, 4, 5), "batched matrices"),
    cube([1], [2], [0], [0], normal(2, 3, 4), normal(2, 5, 3), "batched, both transposed"),
    cube([0], [1], [2], [0], normal(2, 3, 4), normal(4, 2, 5), "batch last in the left"),
    cube([0], [0], [1], [2], normal(3, 2, 4), normal(3, 5, 2), "batch in the middle"),
    cube([2], [2], [0], [0], normal(2, 3, 4), normal(2, 1, 4), "size 1"),
    cube([3], [3], [0, 2], [0, 2], normal(2, 3, 2, 4), normal(2, 5, 2, 4), "attention scores"),
    cube([3], [1], [0, 1], [0, 2], normal(2, 2, 3, 5), normal(2, 5, 2, 4), "attention values"),
    cube([3, 1], [0, 2], [2], [3], normal(2, 3, 4, 5), normal(5, 2, 3, 4), "everything out of order"),
    cube([0, 2], [3, 1], [3, 1], [0, 2], normal(2, 3, 4, 5), normal(5, 4, 3, 2), "all contracted or batch, out of order"),
    cube([1], [0], [], [], normal(0, 3), normal(3, 2), "no rows"),
    cube([1], [0], [], [], normal(2, 0), normal(0, 3), "nothing to contract"),
    cube([2], [1], [0], [0], normal(0, 2, 3), normal(0, 3, 2), "no batch"),
    cube([1], [0], [], [], normal(1, 1), normal(1, 1), "all of size 1"),
    case("dot_general", lambda x: dot([1], [0])(x, x), normal(3, 3), dtypes=RC, label="with itself"),
    case("dot_general", dot([1], [0]), constant(normal(2, 3)), normal(3, 4), label="constant left"),
    case("dot_general", dot([1], [0]), normal(2, 3), constant(normal(3, 4)), label="constant right"),
    case("dot_general", dot([1], [0], preferred_element_type="float64"), ints(-2, 3, 2, 3), normal(3, 2),
         label="integer left"),
    case("dot_general", dot([1], [0]), real_normal(2, 3), normal(3, 2), dtypes=("complex128",), label="real and complex"),
    case("dot_general", dot([1], [0]), normal(2, 3), real_normal(3, 2), dtypes=("complex128",), label="complex and real"),
    case("dot_general", dot([1], [0], preferred_element_type="float32"), normal(2, 3), normal(3, 2),
         dtypes=("bfloat16", "float16"), label="wider result"),
    case("dot_general", dot([1], [0], preferred_element_type="float64"), normal(2, 3), normal(3, 2), dtypes=("float32",),
         label="double result"),
    case("dot_general", dot([1], [0], precision=lax.Precision.HIGHEST), normal(2, 3), normal(3, 2), label="precision"),
    case("dot_general", dot([1], [0], precision=(lax.Precision.HIGH, lax.Precision.DEFAULT)), normal(2, 3), normal(3, 2),
         label="two precisions"),
]
