"""The sum over the steps of a loop of one operation's results, from stacks of its operands.

    Σₜ aₜᵀ·bₜ = [a₁; a₂; ...]ᵀ·[b₁; b₂; ...]

``SUMS`` states it for each operation that can be summed so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dualrev._jax.primitives import Params


def _dot_general(params: Params, a: jax.Array, b: jax.Array) -> jax.Array:
    (a_contract, b_contract), (a_batch, b_batch) = params["dimension_numbers"]
    contract = [0, *(axis + 1 for axis in a_contract)], [0, *(axis + 1 for axis in b_contract)]
    batch = [axis + 1 for axis in a_batch], [axis + 1 for axis in b_batch]
    return lax.dot_general(a, b, (contract, batch), precision=params["precision"],
                           preferred_element_type=params["preferred_element_type"])


def _conv(params: Params, a: jax.Array, b: jax.Array) -> jax.Array:
    """One convolution whose contracted features are those of all steps."""
    numbers = params["dimension_numbers"]

    def merge(x: jax.Array, axis: int) -> jax.Array:
        x = jnp.moveaxis(x, 0, axis)
        return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2:])

    names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "precision", "preferred_element_type")
    return lax.conv_general_dilated(merge(a, numbers.lhs_spec[1]), merge(b, numbers.rhs_spec[1]), dimension_numbers=numbers,
                                    **{name: params[name] for name in names})


def _scatter_add(params: Params, zero: jax.Array, indices: jax.Array, updates: jax.Array) -> jax.Array:
    numbers = params["dimension_numbers"]
    later = lax.ScatterDimensionNumbers(
        update_window_dims=tuple([axis + 1 for axis in numbers.update_window_dims]),
        inserted_window_dims=numbers.inserted_window_dims,
        scatter_dims_to_operand_dims=numbers.scatter_dims_to_operand_dims,
        operand_batching_dims=numbers.operand_batching_dims,
        scatter_indices_batching_dims=tuple([axis + 1 for axis in numbers.scatter_indices_batching_dims]))
    return lax.scatter_add(zero, indices, updates, later, mode=params["mode"])


def stack_sum(stack: jax.Array) -> jax.Array:
    return lax.reduce_sum(stack, (0,))


def _dynamic_update_slice(params: Params, zero: jax.Array, update: jax.Array, *starts: jax.Array) -> jax.Array:
    indices = jnp.stack([jnp.broadcast_to(start, update.shape[:1]) for start in starts], axis=1)
    axes = tuple(range(zero.ndim))
    numbers = lax.ScatterDimensionNumbers(tuple([axis + 1 for axis in axes]), (), axes)
    return lax.scatter_add(zero, indices, update, numbers, mode="clip")


class Sum(NamedTuple):
    """The sum over the steps of the results of an operation: ``of(params, *operands)``.

    ``stacked``: the operands that must be stacks; others are stacks if they change from step to step.
    ``zero``: the operand that must be zero at every step, if there is one.
    ``fits(params)``: whether the sum is right for these parameters.
    """

    of: Callable[..., jax.Array]
    stacked: Sequence[int]
    zero: int | None = None
    fits: Callable[[Params], bool] = lambda _: True


SUMS = {
    lax.dot_general_p: Sum(_dot_general, (0, 1), fits=lambda params: params["out_sharding"] is None),
    lax.conv_general_dilated_p: Sum(
        _conv, (0, 1), fits=lambda params: params["feature_group_count"] == params["batch_group_count"] == 1),
    lax.scatter_add_p: Sum(_scatter_add, (1, 2), zero=0),
    lax.dynamic_update_slice_p: Sum(_dynamic_update_slice, (1,), zero=0),
}
