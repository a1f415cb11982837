"""Random directions in a pytree of real arrays, and the checks that estimators share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import keystr, tree_flatten, tree_leaves_with_path, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import common_dtype, typeof
from dualrev._jax.trees import PyTree
from dualrev.functional import checks

#: Entries of a direction have mean 0 and variance 1: from the normal distribution, or ±1 with equal chances.
Distribution: TypeAlias = Literal["normal", "rademacher"]

#: Makes a pytree of a vector.
Unravel: TypeAlias = Callable[[Any], Any]


def distribution_checked(distribution: object, call: str) -> Distribution:
    if distribution not in get_args(Distribution):
        raise ValueError(f"{call}: distribution must be one of {', '.join(map(repr, get_args(Distribution)))}; got {distribution!r}")
    return distribution  # type: ignore[return-value]  # one of these


def check_real(x: PyTree, call: str) -> None:
    """Refuses an argument that is not made of real floating-point arrays."""
    with errors.calling(call):
        checks.check_leaves(x, "inputs")
        leaves = tree_leaves_with_path(x)
        for path, leaf in leaves:
            dtype = checks.dtype_of(leaf)
            if not jnp.issubdtype(dtype, jnp.floating):
                raise TypeError(f"{call} takes random directions in arrays of real floating-point dtype; got {dtype.name} at "
                                f"x{keystr(path)}.  Close over what does not change: {call}(lambda x: fun(x, n)).")
        if not sum(jnp.size(leaf) for _, leaf in leaves):
            raise ValueError(f"{call}: the argument has no elements, so that there is no direction to take")


def checked_key(key: Any, call: str) -> Any:
    """A key of the new kind, from one of either kind."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) and key.ndim == 0:
        return key
    if dtype == jnp.uint32 and jnp.ndim(key) == 1:
        return jax.random.wrap_key_data(key)
    raise TypeError(f"{call}: the first argument must be a key of jax.random, such as jax.random.key(0); got {key!r}")


def unraveling(x: PyTree) -> tuple[int, Any, Unravel]:
    """The number of elements of a tree, its widest dtype, and what makes a tree like it of a vector."""
    leaves, tree = tree_flatten(x)
    avals = [typeof(leaf) for leaf in leaves]

    def unravel(vector: jax.Array) -> PyTree:
        found, start = [], 0
        for a in avals:
            part = lax.slice(vector, (start,), (start + a.size,))
            found.append(lax.reshape(lax.convert_element_type(part, a.dtype), a.shape))
            start += a.size
        return tree_unflatten(tree, found)

    return sum(a.size for a in avals), common_dtype(*(a.dtype for a in avals)), unravel


def draw(key: jax.Array, samples: int, x: PyTree, distribution: Distribution) -> tuple[jax.Array, Unravel]:
    """A matrix with a direction in each row, in the widest dtype of ``x``, and what makes a tree like ``x`` of a row."""
    n, dtype, unravel = unraveling(x)
    sampler = jax.random.normal if distribution == "normal" else jax.random.rademacher
    return sampler(key, (samples, n), dtype), unravel
