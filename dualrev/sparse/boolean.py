"""Boolean sparse arrays of jax."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.traces import is_eager

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO


@functools.cache
def _class() -> type[BCOO]:
    """The class of the arrays.  It is made when the first is needed, since importing jax's sparse arrays takes time."""
    from jax.experimental.sparse import BCOO

    @jax.tree_util.register_pytree_node_class
    class BooleanBCOO(BCOO):
        """A BCOO of booleans, without batch and dense dimensions.  jax adds where it should set, and adds no booleans."""

        def todense(self) -> jax.Array:
            if is_eager((self.data, self.indices)):  # nothing is compiled
                found = np.zeros(self.shape, bool)
                found[tuple(np.asarray(self.indices).T)] = np.asarray(self.data).any() if not self.ndim else np.asarray(self.data)
                return jnp.asarray(found)
            if not self.ndim:
                return self.data.any()
            where = tuple([self.indices[:, d] for d in range(self.ndim)])
            return jnp.zeros(self.shape, bool).at[where].max(self.data)

    return BooleanBCOO


def boolean_bcoo(indices: np.ndarray, shape: tuple[int, ...]) -> BCOO:
    """True at ``indices``, of shape (number of entries, dimensions), which are sorted and distinct."""
    index = np.int32 if max(shape, default=0) < 2**31 else np.int64
    return _class()((jnp.ones(len(indices), bool), jnp.asarray(indices.astype(index))), shape=shape, indices_sorted=True,
                    unique_indices=True)
