"""Small carries of a loop, packed into one array.

A loop whose step is arithmetic on a few numbers spends its time on calls of kernels.  Separate carries have separate kernels, each of
which repeats the common subexpressions, and each carry is copied before it is overwritten.  One packed array has one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
from jax import lax

from dualrev._jax.avals import DType, ShapedArray, typeof
from dualrev._jax.sharding import varying
from dualrev._jax.trees import PyTree
from dualrev.programs.jaxprs import nbytes_of

#: The bytes of a carry up to which the time of a step is that of kernel calls, not of memory traffic; measured on CPUs.
SMALL = 1024


#: A step of a scan: ``step(carry, x) -> (carry, y)``.
Step: TypeAlias = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def _may_be_packed(aval: ShapedArray) -> bool:
    """Whether an array is small and not sharded."""
    is_static = all(isinstance(n, int) for n in aval.shape)
    return is_static and 0 < nbytes_of(aval) <= SMALL and not varying(aval) and aval.sharding.mesh.empty


def packed(step: Step, start: PyTree, is_of_use: bool) -> tuple[Step, PyTree, Callable[[PyTree], PyTree]]:
    """A loop's step and start with the small carries of each dtype in one array, if that is of use; and the function that unpacks."""
    values, structure = jax.tree_util.tree_flatten(start)
    avals = [typeof(x) for x in values]
    groups: dict[DType, list[int]] = {}
    for i, aval in enumerate(avals):
        if is_of_use and _may_be_packed(aval):
            groups.setdefault(aval.dtype, []).append(i)
    together = [indices for indices in groups.values() if len(indices) > 1]
    alone = sorted(set(range(len(values))).difference(*together))

    def pack(carry: PyTree) -> tuple[list[jax.Array], list[jax.Array]]:
        leaves: Sequence[jax.Array] = jax.tree_util.tree_leaves(carry)
        return ([lax.concatenate([lax.reshape(leaves[i], (avals[i].size,)) for i in indices], 0) for indices in together],
                [leaves[i] for i in alone])

    def unpack(carry: tuple[list[jax.Array], list[jax.Array]]) -> PyTree:
        arrays, rest = carry
        leaves = dict(zip(alone, rest, strict=True))
        for array, indices in zip(arrays, together, strict=True):
            end = 0
            for i in indices:
                begin, end = end, end + math.prod(avals[i].shape)
                leaves[i] = lax.reshape(lax.slice_in_dim(array, begin, end), avals[i].shape)
        return jax.tree_util.tree_unflatten(structure, [leaves[i] for i in range(len(avals))])

    def packed_step(carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        carry, y = step(unpack(carry), x)
        return pack(carry), y

    return (packed_step, pack(start), unpack) if together else (step, start, lambda carry: carry)
