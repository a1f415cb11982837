"""Windows of arrays that the steps of a loop read and write, where they lie next to each other along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray
from dualrev._jax.jaxprs import Atom, JaxprEqn, Var, is_literal

#: Operations that read a window of their first operand, and that write one.
READS, WRITES = (lax.dynamic_slice_p, lax.gather_p), (lax.dynamic_update_slice_p, lax.scatter_p)


def aval_of(atom: Atom) -> ShapedArray:
    """The type of an array in a program."""
    aval: ShapedArray = atom.aval  # type: ignore[assignment]  # the operands of these operations are arrays
    return aval


def written_by(eqn: JaxprEqn) -> Atom:
    """What an operation in ``WRITES`` writes."""
    return eqn.invars[1 if eqn.primitive is lax.dynamic_update_slice_p else 2]


@dataclass(frozen=True)
class Places:
    """A box of an array, of which each step has one slice: along ``axis``, from ``start[axis]`` on, or backwards."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    axis: int
    is_reversed: bool

    def read(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The slices of all steps, each of this shape, stacked along a first axis."""
        ends = [i + n for i, n in zip(self.start, self.shape, strict=True)]
        found = x if x.shape == self.shape else lax.slice(x, self.start, ends)
        order = [self.axis, *(i for i in range(x.ndim) if i != self.axis)]
        found = found if self.axis == 0 else lax.transpose(found, order)
        found = lax.rev(found, (0,)) if self.is_reversed else found
        return lax.reshape(found, (found.shape[0], *shape))

    def write(self, x: jax.Array, stack: jax.Array) -> jax.Array:
        """``x`` with the slices of all steps in their places."""
        stack = lax.reshape(stack, (self.shape[self.axis], *(n for i, n in enumerate(self.shape) if i != self.axis)))
        stack = lax.rev(stack, (0,)) if self.is_reversed else stack
        order = [*range(1, self.axis + 1), 0, *range(self.axis + 1, x.ndim)]
        stack = stack if self.axis == 0 else lax.transpose(stack, order)
        return stack if x.shape == self.shape else lax.dynamic_update_slice(x, stack, [np.int32(i) for i in self.start])

    def meets(self, other: Places) -> bool:
        """Whether two boxes have an entry in common."""
        return all(a < b + m and b < a + n for a, n, b, m in zip(self.start, self.shape, other.start, other.shape, strict=True))


def places_of(starts: np.ndarray, sizes: Sequence[int], shape: Sequence[int]) -> Places | None:
    """The box of windows that begin at ``starts``, an array (steps, axes), where it has one entry of an axis for each step."""
    length = len(starts)
    if np.any(starts < 0) or np.any(starts + np.asarray(sizes) > np.asarray(shape)):
        return None
    moving = [i for i in range(len(sizes)) if length > 1 and starts[0, i] != starts[1, i]]
    if len(moving) != 1 or sizes[moving[0]] != 1:
        return None
    (axis,) = moving
    by = int(starts[1, axis]) - int(starts[0, axis])
    expected = np.broadcast_to(starts[0], starts.shape).copy()
    expected[:, axis] += by * np.arange(length)
    if by not in (1, -1) or not np.array_equal(starts, expected):
        return None
    return Places(tuple(map(int, starts.min(0))), tuple([length if i == axis else int(n) for i, n in enumerate(sizes)]), axis, by == -1)


class Windows:
    """The windows that equations of a body read or write, from what is known of their indices."""

    def __init__(self, known: dict[Var, np.ndarray], length: int):
        self.known = known
        self.length = length

    def values(self, atom: Atom) -> np.ndarray | None:
        if is_literal(atom):
            return np.broadcast_to(np.asarray(atom.val), (self.length, *np.shape(atom.val)))
        return self.known.get(atom)

    def of(self, eqn: JaxprEqn) -> Places | None:
        """The window of a slice, a gather of one window, or a write of one window; None where it is not known."""
        x = aval_of(eqn.invars[0])
        if eqn.primitive is lax.dynamic_slice_p:
            return self._at(eqn.invars[1:], eqn.params["slice_sizes"], x)
        if eqn.primitive is lax.dynamic_update_slice_p:
            return self._at(eqn.invars[2:], aval_of(eqn.invars[1]).shape, x)
        if eqn.primitive not in (lax.gather_p, lax.scatter_p) or len(aval_of(eqn.invars[1]).shape) != 1:
            return None
        numbers = eqn.params["dimension_numbers"]
        is_gather = eqn.primitive is lax.gather_p
        if not is_gather and eqn.params["update_jaxpr"] is not None:  # `.at[i].apply`: what is written depends on what stands there
            return None
        batching = numbers.operand_batching_dims
        where = numbers.start_index_map if is_gather else numbers.scatter_dims_to_operand_dims
        if is_gather:
            sizes = eqn.params["slice_sizes"]
        else:
            inserted, window = numbers.inserted_window_dims, iter(aval_of(eqn.invars[2]).shape)
            sizes = [1 if i in inserted else next(window) for i in range(len(x.shape))]
        indices = self.values(eqn.invars[1])
        if batching or indices is None:
            return None
        starts = np.zeros((self.length, len(x.shape)), np.int64)
        starts[:, list(where)] = indices
        return places_of(starts, sizes, x.shape)

    def _at(self, atoms: Sequence[Atom], sizes: Sequence[int], x: ShapedArray) -> Places | None:
        found = [self.values(atom) for atom in atoms]
        if not found or any(v is None for v in found):
            return None
        starts = np.stack(found, 1).astype(np.int64)  # type: ignore[arg-type]  # none is None
        return places_of(np.clip(starts, 0, np.asarray(x.shape) - np.asarray(sizes)), sizes, x.shape)
