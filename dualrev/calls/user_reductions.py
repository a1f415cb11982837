"""Reductions by an operation of the user's, whole or over windows, and functions applied in place.

The operation is a program on scalars.  A reduction is evaluated as a tree: the operation is applied to all pairs of a level at once.
The derivative is that of the tree, a program over operations that have rows.  Neighbours are paired with neighbours, so the operation
need be associative only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev import errors
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, stage
from dualrev._jax.primitives import Params, Primitive, primitive
from dualrev.calls.call_rows import splice
from dualrev.calls.derived_programs import cached
from dualrev.calls.evaluation import pushforward_of
from dualrev.calls.linearization import linearization_of
from dualrev.engines.forward import TANGENTS
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.programs.jaxprs import on_shards
from dualrev.rules.index import cannot_collide, read
from dualrev.table.choosing import ByParameterRow
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Linearized, Operand, Pushed, Row, aval_of, register, rows

Arrays: TypeAlias = list[jax.Array]

#: The user's operation on arrays: entry by entry, all operands at once.
Operation: TypeAlias = Callable[[Arrays, Arrays], Arrays]


# ------------------------------------------------------------------------------------------------------------- the tree


class Level(NamedTuple):
    """Pairs to combine, and entries without a partner to keep, by their places in the level below."""

    left: np.ndarray
    right: np.ndarray
    alone: np.ndarray


def tree(lists: np.ndarray) -> tuple[list[Level], np.ndarray]:
    """The levels that combine each list of places, in order, and where each list's result stands in the last one.

    ``lists[j]`` ends with -1 where it is shorter than others; the place of an empty list is -1.  What several lists combine is
    combined once: windows that overlap share their subtrees, as sums over windows of doubling width do.
    """
    levels = []
    while lists.shape[1] > 1:
        if lists.shape[1] % 2:
            lists = np.pad(lists, ((0, 0), (0, 1)), constant_values=-1)
        left, right = lists[:, ::2], lists[:, 1::2]
        is_pair, is_alone = right >= 0, (left >= 0) & (right < 0)
        base = int(lists.max(initial=0)) + 1
        pairs, pair_of = np.unique(left[is_pair] * base + right[is_pair], return_inverse=True)
        alone, alone_of = np.unique(left[is_alone], return_inverse=True)
        levels.append(Level(pairs // base, pairs % base, alone))
        lists = np.full(left.shape, -1)
        lists[is_pair] = pair_of.reshape(-1)
        lists[is_alone] = len(pairs) + alone_of.reshape(-1)
    return levels, lists[:, 0] if lists.shape[1] else np.full(len(lists), -1)


def pick(x: jax.Array, places: np.ndarray) -> jax.Array:
    """``x`` at places along its first axis: a slice where they are evenly spaced."""
    n = len(places)
    step = int(places[1] - places[0]) if n > 1 else 1
    if n and step > 0 and np.array_equal(places, places[0] + step * np.arange(n)):
        return lax.slice_in_dim(x, int(places[0]), int(places[-1]) + 1, step)
    return x.at[places].get(mode="promise_in_bounds")


def along_first(operation: Operation, xs: Arrays, lists: np.ndarray) -> Arrays:
    """Each list of places along the first axis combined to one; lists are not empty."""
    levels, results = tree(lists)
    for level in levels:
        combined = operation([pick(x, level.left) for x in xs], [pick(x, level.right) for x in xs])
        xs = [lax.concatenate([y, pick(x, level.alone)], 0) if len(level.alone) else y for x, y in zip(xs, combined, strict=True)]
    return [pick(x, results) for x in xs]


def entry_by_entry(jaxpr: ClosedJaxpr) -> Operation:
    """The user's operation on arrays."""
    scalars = on_shards(jaxpr)

    def operation(lefts: Arrays, rights: Arrays) -> Arrays:
        shape = rights[0].shape
        if 0 in shape:
            return rights
        axes = [0 if x.ndim else None for x in lefts] + [0] * len(rights)
        flat = [lax.reshape(x, (math.prod(shape),)) if x.ndim or i >= len(lefts) else x for i, x in enumerate((*lefts, *rights))]
        return [lax.reshape(out, shape) for out in jax.vmap(scalars, in_axes=tuple(axes))(*flat)]

    return operation


# ---------------------------------------------------------------------------------------------------------- the programs


def reduction(operation: Operation, operands: Arrays, initials: Arrays, *, dimensions: Sequence[int]) -> Arrays:
    """``initial · x₁ · x₂ · ...``, in the order of the entries."""
    shape = operands[0].shape
    reduced = sorted(dimensions)
    kept = [i for i in range(len(shape)) if i not in reduced]
    rest = tuple([shape[i] for i in kept])
    n = math.prod([shape[i] for i in reduced])
    if not n:
        return [lax.broadcast(initial, rest) for initial in initials]
    xs = [lax.reshape(lax.transpose(x, (*reduced, *kept)), (n, *rest)) for x in operands]
    return operation(initials, [lax.squeeze(x, (0,)) for x in along_first(operation, xs, np.arange(n)[None])])


def windows(n: int, size: int, stride: int, padding: tuple[int, int], base_dilation: int, dilation: int) -> np.ndarray:
    """The places of the entries in each window along one axis, without padding and without the holes of a dilation."""
    low, high = padding
    base = (n - 1) * base_dilation + 1 if n else 0
    count = max(0, (low + base + high - (size - 1) * dilation - 1) // stride + 1)
    place = np.arange(count)[:, None] * stride + np.arange(size) * dilation - low
    is_entry = (place >= 0) & (place < base) & (place % base_dilation == 0)
    places = np.where(is_entry, place // base_dilation, -1)
    return np.take_along_axis(places, np.argsort(~is_entry, 1, kind="stable"), 1)


def windowed_reduction(operation: Operation, operands: Arrays, initials: Arrays, *, window_dimensions: Sequence[int],
                       window_strides: Sequence[int], padding: Sequence[tuple[int, int]], base_dilation: Sequence[int],
                       window_dilation: Sequence[int]) -> Arrays:
    """Axis by axis, the last axis first, since a window is a box.  Padding takes no part in the reduction and has no derivative."""
    shape = operands[0].shape
    lists = [windows(*of_axis) for of_axis in zip(shape, window_dimensions, window_strides, padding, base_dilation, window_dilation,
                                                  strict=True)]
    holds_any = [places[:, 0] >= 0 for places in lists]
    out_shape = [len(places) for places in lists]
    if not all(holds.any() for holds in holds_any):
        return [lax.broadcast(initial, out_shape) for initial in initials]
    xs = operands
    for axis in reversed(range(len(shape))):
        to_front = [axis, *[i for i in range(len(shape)) if i != axis]]
        xs = along_first(operation, [lax.transpose(x, to_front) for x in xs], lists[axis][holds_any[axis]])
        xs = [lax.transpose(x, np.argsort(to_front)) for x in xs]
    xs = operation(initials, xs)
    for axis, holds in enumerate(holds_any):
        if not holds.all():  # windows of padding alone have the initial value
            place = np.where(holds, np.cumsum(holds) - 1, np.count_nonzero(holds))
            ends = [lax.broadcast(initial, [1 if i == axis else n for i, n in enumerate(xs[0].shape)]) for initial in initials]
            xs = [jnp.take(lax.concatenate([x, end], axis), place, axis) for x, end in zip(xs, ends, strict=True)]
    return xs


def application(operation: Callable[[jax.Array], jax.Array], x: jax.Array, indices: jax.Array, updates: jax.Array, *,
                dimension_numbers: lax.ScatterDimensionNumbers, indices_are_sorted: bool, unique_indices: bool,
                mode: lax.GatherScatterMode) -> jax.Array:
    """``x`` with a function applied to some entries, one after the other; all at once if no index is repeated.

    At a repeated index the function is applied repeatedly.
    """

    def apply(x: jax.Array, indices: jax.Array, updates: Any, numbers: lax.ScatterDimensionNumbers, is_sorted: bool) -> jax.Array:
        entries = read(x, indices, updates, numbers, is_sorted, True, mode)
        return lax.scatter(x, indices, operation(entries), numbers, indices_are_sorted=is_sorted, unique_indices=True, mode=mode)

    numbers = dimension_numbers
    if cannot_collide(indices, numbers, unique_indices):
        return apply(x, indices, updates, numbers, indices_are_sorted)
    batch = sorted(numbers.scatter_indices_batching_dims)
    steps = [i for i in range(indices.ndim - 1) if i not in batch]
    places = [i for i in range(updates.ndim) if i not in numbers.update_window_dims]  # those of the axes of indices
    removed = [places[i] for i in steps]
    numbers = numbers._replace(
        update_window_dims=tuple([i - sum(r < i for r in removed) for i in numbers.update_window_dims]),
        scatter_indices_batching_dims=tuple([batch.index(i) for i in numbers.scatter_indices_batching_dims]))
    one = jax.ShapeDtypeStruct([n for i, n in enumerate(updates.shape) if i not in removed], updates.dtype)
    in_turn = lax.transpose(indices, (*steps, *batch, indices.ndim - 1))
    in_turn = lax.reshape(in_turn, (math.prod([indices.shape[i] for i in steps]), *in_turn.shape[len(steps):]))
    return lax.scan(lambda x, index: (apply(x, index, one, numbers, False), None), x, in_turn)[0]


# -------------------------------------------------------------------------------------------------------------- the rows


class UserOperationRow(Row):
    """An operation that holds a program on scalars: its derivative is that of an equivalent program on arrays."""

    kind = "call"
    takes_parts = "arrays"
    #: The parameters that hold the program and its constants, and parameters without meaning for a derivative.
    jaxpr, consts, ignored = "jaxpr", "consts", ("computation",)

    def __init__(self, primitive: Primitive, program: Callable[..., Any]):
        super().__init__(primitive)
        self.program = program

    def flat(self, jaxpr: ClosedJaxpr, operands: Sequence[jax.Array], settings: Params) -> Arrays:
        n = len(operands) // 2
        outs: Arrays = self.program(entry_by_entry(jaxpr), list(operands[:n]), list(operands[n:]), **settings)
        return outs

    def stand_in(self, primals: Sequence[Operand], params: Params) -> ClosedJaxpr:
        """The equivalent program, traced once."""
        jaxpr = params[self.jaxpr]
        settings = {name: value for name, value in params.items() if name not in (self.jaxpr, self.consts, *self.ignored)}
        avals = tuple([aval_of(x) for x in primals])

        def make() -> ClosedJaxpr:
            # Until 0.12 a windowed reduction has an open jaxpr, with its constants in another parameter.
            body: Jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # type: ignore[assignment]
            closed = ClosedJaxpr(body, list(params.get(self.consts, getattr(jaxpr, "consts", ()))))
            return stage(lambda *operands: self.flat(closed, operands, settings), avals)

        return cached(jaxpr, (str(self.primitive), avals, tuple(settings.items())), make)

    def check(self, active: Sequence[Active]) -> None:
        """Refuse an active initial value."""
        if any(active[len(active) // 2:]):
            raise errors.no_derivative(self.primitive, "A reduction has no derivative by its initial value, which is the identity of "
                                       "the operation and may be used any number of times.",
                                       "Reduce with the identity, and combine the result with the other value.")

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried:
        self.check([p is not None for p in parts])
        structure = mode.flatten(parts)[1]
        return pushforward_of(self.stand_in(primals, params), structure, splice(self.primitive), mode)(primals, parts)

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        return self.through(TANGENTS, primals, tangents, params)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        self.check(active)
        return linearization_of(self.stand_in(primals, params), active, is_linear, splice(self.primitive))(primals)


class ApplyRow(UserOperationRow):
    """A scatter that holds a function, which is applied in place."""

    jaxpr, consts = "update_jaxpr", "update_consts"

    def flat(self, jaxpr: ClosedJaxpr, operands: Sequence[jax.Array], settings: Params) -> Arrays:
        operation = entry_by_entry(jaxpr)
        return [self.program(lambda x: operation([x], [x])[0], *operands, **settings)]

    def check(self, active: Sequence[Active]) -> None:
        pass


register(UserOperationRow(lax.reduce_p, reduction))
register(UserOperationRow(primitive("reduce_window"), windowed_reduction))
register(ByParameterRow(rows[lax.scatter_p], ApplyRow(lax.scatter_p, application), lambda params: params[ApplyRow.jaxpr] is not None))
