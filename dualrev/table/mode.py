"""What a mode that goes forward says of itself: enough for every row, calls and loops included, to be evaluated under it.

Such a mode carries *parts* beside each value: a tangent, a bundle of tangents, a Jacobian and a Laplacian, the coefficients of a
series.  An operation maps values and parts to values and parts (:meth:`Mode.row`).  An operation that holds a program hands values and
parts to its program; what it needs to know of the parts for that is stated here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp

from dualrev._jax.avals import ShapedArray, is_differentiable, typeof

if TYPE_CHECKING:
    from dualrev.table.rows import Row

#: What a mode carries beside one value: a pytree of arrays; None where nothing is known to be nonzero.
Parts: TypeAlias = Any

#: Outputs of an operation, and the parts of each.
Carried: TypeAlias = tuple[list[jax.Array], Sequence[Parts]]


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
    leading: Any = 0

    @abstractmethod
    def row(self, row: Row, primals: Sequence[Any], parts: Sequence[Parts], params: dict[str, Any]) -> Any:
        """``(outs, parts out)`` of one operation, of whose operands some have parts."""

    @abstractmethod
    def zero(self, aval: Any) -> Parts:
        """The parts, in full, of a differentiable value that depends on no input."""

    def full(self, aval: Any) -> Parts:
        """The abstract values of :meth:`zero`."""
        return jax.tree.map(lambda x: ShapedArray(x.shape, x.dtype), jax.eval_shape(lambda: self.zero(aval)))

    def fill(self, parts: Parts, aval: Any) -> Parts:
        """``parts`` with zeros for what is None in them: what a loop carries and what branches return has one structure."""
        zero = self.zero(aval)
        if parts is None:
            return zero
        return jax.tree.map(lambda part, zeros: zeros if part is None else part, parts, zero, is_leaf=lambda x: x is None)

    def has_parts(self, aval: Any) -> bool:
        """Whether values of this type can have parts."""
        return is_differentiable(aval)

    def flatten(self, parts: Sequence[Parts]) -> tuple[list[Any], Hashable]:
        """The arrays of several values' parts, and what is static about them: their structure and types."""
        leaves, tree = jax.tree_util.tree_flatten(list(parts))
        return leaves, (tree, tuple([_strong(x if hasattr(x, "update") else typeof(x)) for x in leaves]))

    def unflatten(self, structure: Any, leaves: Sequence[Any]) -> list[Parts]:
        """Undo :meth:`flatten`."""
        found: list[Parts] = jax.tree_util.tree_unflatten(structure[0], list(leaves))
        return found

    def avals(self, structure: Any, in_avals: Sequence[Any]) -> list[Any]:
        """The abstract values of the arrays of parts that have this structure, of values with these abstract values."""
        return list(structure[1])

    def are_like(self, structure: Any) -> list[int | None]:
        """For each array of parts, which value it lies on the devices like, if any."""
        return [None] * len(structure[1])

    def slices(self, parts: Parts) -> Parts:
        """The parts of a stack of values, with the axis of the stack in front."""
        return self._moved(parts, lambda x, n: jnp.moveaxis(x, n, 0))

    def stacked(self, parts: Parts) -> Parts:
        """Undo :meth:`slices`."""
        return self._moved(parts, lambda x, n: jnp.moveaxis(x, 0, n))

    def specs(self, spec: Any, parts: Parts) -> list[Any]:
        """Of parts of a value that is sharded by a spec, the spec of each array."""
        found: list[Any] = []
        self._moved(parts, lambda x, n: found.append(type(spec)(*[None] * n, *spec)))
        return found

    def _moved(self, parts: Parts, move: Any) -> Parts:
        return jax.tree.map(lambda n, part: jax.tree.map(lambda x: move(x, n), part), self.leading, parts)


def _strong(aval: Any) -> Any:
    return aval.update(weak_type=False)
