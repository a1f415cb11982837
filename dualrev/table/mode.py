"""The interface of a forward mode: what every row, calls and loops included, needs to be evaluated under the mode.

A forward mode carries *parts* beside each value: a tangent, several tangents, a Jacobian and a Laplacian, the coefficients of a
series.  An operation maps values and parts to values and parts (:meth:`Mode.row`).  An operation that holds a program passes values and
parts to its program; for that, the mode declares the zero of its parts, their structure and their axes.
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
from dualrev._jax.sharding import partitions
from dualrev._jax.trees import PyTree

if TYPE_CHECKING:
    from dualrev.table.rows import Row

#: The parts of one value: a pytree of arrays, of a structure that the mode chooses; None for zero.
Parts: TypeAlias = Any

#: Outputs of an operation, and the parts of each.
Carried: TypeAlias = tuple[list[jax.Array], Sequence[Parts]]

#: What is static about the parts of several values, such as their structure and the types of their arrays: each mode has its own,
#: which can be hashed.
Structure: TypeAlias = Any


class Mode(ABC):
    """A forward mode of differentiation.

    Modes are compared and hashed as keys of caches: two that are equal give the same programs.  A mode states at least :meth:`row` and
    :meth:`zero`; ``papers/modes`` has two.

    >>> import jax.numpy as jnp
    >>> from dualrev.modes import Mode, evaluate
    >>> class Depth(Mode):
    ...     name = "depth"  # of operations, from the inputs
    ...     def row(self, row, primals, parts, params):
    ...         outs = row.bind(primals, params)
    ...         deepest = jnp.stack([p for p in parts if p is not None]).max()
    ...         return outs, [deepest + 1 for _ in outs]
    ...     def zero(self, aval):
    ...         return jnp.zeros((), int)
    >>> out, depth = evaluate(Depth(), lambda x: jnp.sin(x) * x + x, (3.0,), (0,))
    >>> int(depth)
    3
    """

    #: The name of the mode in errors.
    name: str
    #: Whether parts are tangents, so that :meth:`~dualrev.table.rows.Row.jvp` evaluates rows.
    pushes = False
    #: The number of axes that arrays of parts have in front of the axes of their value: one number, or a tree of numbers that is a
    #: prefix of the parts.
    leading: PyTree = 0

    @abstractmethod
    def row(self, row: Row, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried:
        """``(outs, parts out)`` of one operation, some operands of which have parts."""

    @abstractmethod
    def zero(self, aval: ShapedArray) -> Parts:
        """The parts of a differentiable value that depends on no input: zeros, and no None."""

    def full(self, aval: ShapedArray) -> Parts:
        """The abstract values of :meth:`zero`."""
        return jax.tree.map(lambda x: ShapedArray(x.shape, x.dtype), jax.eval_shape(lambda: self.zero(aval)))

    def common(self, several: Sequence[Parts], aval: ShapedArray) -> Parts:
        """Abstract parts of a structure that can hold each of these parts of a value, which may be abstract themselves."""
        return self.full(aval)

    def fill(self, parts: Parts, aval: ShapedArray, like: Parts = None) -> Parts:
        """``parts`` with zeros in place of each None: carries of loops and results of branches need one structure.

        ``like``: the structure, as :meth:`common` gives it; by default, that of :meth:`zero`.
        """
        zero = self.zero(aval)
        if parts is None:
            return zero
        return jax.tree.map(lambda part, zeros: zeros if part is None else part, parts, zero, is_leaf=lambda x: x is None)

    def ready(self, parts: Parts) -> Parts:
        """The parts as a pytree of arrays: what a mode has left for later is computed."""
        return parts

    def uniform(self, parts: Parts) -> Parts:
        """The parts in the structure that :meth:`zero` has, for operations that can take no other."""
        return self.ready(parts)

    def keeps_structure(self, parts: Sequence[Parts]) -> bool:
        """Whether :meth:`ready` would lose the structure of some of these parts: a program that is run once then runs in place."""
        return False

    def has_parts(self, aval: ShapedArray) -> bool:
        """Whether values of this type can have parts."""
        return is_differentiable(aval)

    def flatten(self, parts: Sequence[Parts]) -> tuple[list[jax.Array], Structure]:
        """The arrays of the parts of several values, and their static structure, with types."""
        leaves, tree = jax.tree_util.tree_flatten(list(parts))
        return leaves, (tree, tuple([_strong(x if isinstance(x, ShapedArray) else typeof(x)) for x in leaves]))

    def unflatten(self, structure: Structure, leaves: Sequence[jax.Array]) -> list[Parts]:
        """Undo :meth:`flatten`."""
        found: list[Parts] = jax.tree_util.tree_unflatten(structure[0], list(leaves))
        return found

    def avals(self, structure: Structure, in_avals: Sequence[ShapedArray]) -> list[ShapedArray]:
        """The abstract values of the arrays of parts, from their structure and the abstract values of the primals."""
        return list(structure[1])

    def are_like(self, structure: Structure) -> list[int | None]:
        """For each array of parts, the position of the value whose sharding it has; None if it has its own."""
        return [None] * len(structure[1])

    def slices(self, parts: Parts) -> Parts:
        """The parts of a stack of values, with the axis of the stack moved to the front."""
        return self._moved(parts, lambda x, n: jnp.moveaxis(x, n, 0))

    def stacked(self, parts: Parts) -> Parts:
        """Undo :meth:`slices`."""
        return self._moved(parts, lambda x, n: jnp.moveaxis(x, 0, n))

    def specs(self, spec: PartitionSpec, parts: Parts) -> list[PartitionSpec]:
        """The sharding spec of each array of parts, for a value with this spec."""
        found: list[PartitionSpec] = []
        self._moved(parts, lambda x, n: found.append(spec.update(partitions=(*[None] * n, *partitions(spec)))))
        return found

    def _moved(self, parts: Parts, move: Callable[[jax.Array, int], object]) -> Parts:
        if parts is None:
            return None
        return jax.tree.map(lambda n, part: jax.tree.map(lambda x: move(x, n), part), self.leading, parts)


def _strong(aval: ShapedArray) -> ShapedArray:
    strong: ShapedArray = aval.update(weak_type=False)
    return strong
