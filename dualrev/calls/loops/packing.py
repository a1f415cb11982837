"""Small carries of a loop as one array.

A loop whose step is arithmetic on a few numbers spends its time on the calls of its compiled parts.  Carries that are apart are
computed apart, each with all that they share, and each is copied before it is written over.  In one array they are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.sharding import varying
from dualrev.programs.jaxprs import nbytes_of

#: Bytes up to which a step that adds to a carry, or stacks one, spends its time on the call and not on the bytes, as measured on CPUs.
SMALL = 1024


def _may_be_packed(aval: ShapedArray) -> bool:
    """Whether an array is small, and lies on one device in one piece."""
    is_static = all(isinstance(n, int) for n in aval.shape)
    return is_static and 0 < nbytes_of(aval) <= SMALL and not varying(aval) and aval.sharding.mesh.empty


def packed(step: Callable[[Any, Any], Any], start: Any,
           is_of_use: bool) -> tuple[Callable[[Any, Any], Any], Any, Callable[[Any], Any]]:
    """A loop's step and start, with its small carries of each dtype in one array where that is of use; what unpacks its end."""
    values, structure = jax.tree_util.tree_flatten(start)
    avals = [typeof(x) for x in values]
    groups: dict[Any, list[int]] = {}
    for i, aval in enumerate(avals):
        if is_of_use and _may_be_packed(aval):
            groups.setdefault(aval.dtype, []).append(i)
    together = [indices for indices in groups.values() if len(indices) > 1]
    alone = sorted(set(range(len(values))).difference(*together))

    def pack(carry: Any) -> Any:
        leaves: Sequence[jax.Array] = jax.tree_util.tree_leaves(carry)
        return ([lax.concatenate([lax.reshape(leaves[i], (avals[i].size,)) for i in indices], 0) for indices in together],
                [leaves[i] for i in alone])

    def unpack(carry: Any) -> Any:
        arrays, rest = carry
        leaves = dict(zip(alone, rest, strict=True))
        for array, indices in zip(arrays, together, strict=True):
            end = 0
            for i in indices:
                begin, end = end, end + math.prod(avals[i].shape)
                leaves[i] = lax.reshape(lax.slice_in_dim(array, begin, end), avals[i].shape)
        return jax.tree_util.tree_unflatten(structure, [leaves[i] for i in range(len(avals))])

    def packed_step(carry: Any, x: Any) -> Any:
        carry, y = step(unpack(carry), x)
        return pack(carry), y

    return (packed_step, pack(start), unpack) if together else (step, start, lambda carry: carry)
