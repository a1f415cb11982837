"""What a mode that goes forward says of itself: enough for every row, calls and loops included, to be evaluated under it.

Such a mode carries *parts* beside each value: a tangent, a bundle of tangents, a Jacobian and a Laplacian, the coefficients of a
series.  An operation maps values and parts to values and parts (:meth:`Mode.row`).  An operation that holds a program hands values and
parts to its program; what it needs to know of the parts for that is stated here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from dualrev._jax.avals import ShapedArray, is_differentiable, typeof
from dualrev._jax.primitives import Params
from dualrev._jax.trees import PyTree

if TYPE_CHECKING:
    from dualrev.table.rows import Row

#: What a mode carries beside one value: a pytree of arrays; None where nothing is known to be nonzero.
Parts: TypeAlias = Any

#: Outputs of an operation, and the parts of each.
Carried: TypeAlias = tuple[list[jax.Array], Sequence[Parts]]

#: What is static about the parts of several values, such as their structure and the types of their arrays: each mode has its own,
#: which can be hashed.
Structure: TypeAlias = Any


class Mode(ABC):
    """A mode of differentiation that goes forward through a program.

    Modes are compared and hashed as keys of caches: two that are equal give the same programs.
    """

    #: What errors call the mode.
    name: str
    #: Whether parts are tangents, which rows push by themselves (:meth:`~dualrev.table.rows.Row.jvp`).
    pushes = False
    #: How many axes the arrays of parts have in front of those of their value: a number for all, or a tree of numbers that is a prefix
    #: of the parts.
    leading: PyTree = 0

    @abstractmethod
    def row(self, row: Row, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried:
        """``(outs, parts out)`` of one operation, of whose operands some have parts."""

    @abstractmethod
    def zero(self, aval: ShapedArray) -> Parts:
        """The parts, in full, of a differentiable value that depends on no input."""

    def full(self, aval: ShapedArray) -> Parts:
        """The abstract values of :meth:`zero`."""
        return jax.tree.map(lambda x: ShapedArray(x.shape, x.dtype), jax.eval_shape(lambda: self.zero(aval)))

    def fill(self, parts: Parts, aval: ShapedArray) -> Parts:
        """``parts`` with zeros for what is None in them: what a loop carries and what branches return has one structure."""
        zero = self.zero(aval)
        if parts is None:
            return zero
        return jax.tree.map(lambda part, zeros: zeros if part is None else part, parts, zero, is_leaf=lambda x: x is None)

    def has_parts(self, aval: ShapedArray) -> bool:
        """Whether values of this type can have parts."""
        return is_differentiable(aval)

    def flatten(self, parts: Sequence[Parts]) -> tuple[list[jax.Array], Structure]:
        """The arrays of several values' parts, and what is static about them: their structure and types."""
        leaves, tree = jax.tree_util.tree_flatten(list(parts))
        return leaves, (tree, tuple([_strong(x if hasattr(x, "update") else typeof(x)) for x in leaves]))

    def unflatten(self, structure: Structure, leaves: Sequence[jax.Array]) -> list[Parts]:
        """Undo :meth:`flatten`."""
        found: list[Parts] = jax.tree_util.tree_unflatten(structure[0], list(leaves))
        return found

    def avals(self, structure: Structure, in_avals: Sequence[ShapedArray]) -> list[ShapedArray]:
        """The abstract values of the arrays of parts that have this structure, of values with these abstract values."""
        return list(structure[1])

    def are_like(self, structure: Structure) -> list[int | None]:
        """For each array of parts, which value it lies on the devices like, if any."""
        return [None] * len(structure[1])

    def slices(self, parts: Parts) -> Parts:
        """The parts of a stack of values, with the axis of the stack in front."""
        return self._moved(parts, lambda x, n: jnp.moveaxis(x, n, 0))

    def stacked(self, parts: Parts) -> Parts:
        """Undo :meth:`slices`."""
        return self._moved(parts, lambda x, n: jnp.moveaxis(x, 0, n))

    def specs(self, spec: PartitionSpec, parts: Parts) -> list[PartitionSpec]:
        """Of parts of a value that is sharded by a spec, the spec of each array."""
        found: list[PartitionSpec] = []
        self._moved(parts, lambda x, n: found.append(type(spec)(*[None] * n, *spec)))
        return found

    def _moved(self, parts: Parts, move: Callable[[jax.Array, int], object]) -> Parts:
        return jax.tree.map(lambda n, part: jax.tree.map(lambda x: move(x, n), part), self.leading, parts)


def _strong(aval: ShapedArray) -> ShapedArray:
    strong: ShapedArray = aval.update(weak_type=False)
    return strong
