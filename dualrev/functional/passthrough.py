"""Leaves that are not differentiated and pass through: integers, booleans, keys, and whatever is no array at all.

With ``non_float="none"`` such leaves of arguments reach the function as they are, those of results come back as they are, and in
trees of derivatives have None in their places.  None is an empty tree, so that a tree of derivatives has active leaves only.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from dualrev._jax.avals import is_array_like, is_differentiable, typeof
from dualrev._jax.trees import PyTree, PyTreeDef


def moves(x: object) -> bool:
    """Whether a leaf is an array (or a number) that can be differentiated."""
    return is_array_like(x) and is_differentiable(typeof(x))


class Through:
    """The arguments and results of one call, split into active leaves and leaves that pass through."""

    __slots__ = ("_in_leaves", "_in_tree", "_out_leaves", "_out_tree", "reduced")

    def __init__(self, args: tuple[PyTree, ...]):
        self._in_leaves, self._in_tree = tree_flatten(args)
        #: The arguments with None for what passes through.
        self.reduced: tuple[PyTree, ...] = tree_unflatten(self._in_tree, [x if moves(x) else None for x in self._in_leaves])

    def arguments(self, flat: Sequence[jax.Array]) -> tuple[PyTree, ...]:
        """The arguments, with these values for the active leaves."""
        values = iter(flat)
        args: tuple[PyTree, ...] = tree_unflatten(self._in_tree, [next(values) if moves(x) else x for x in self._in_leaves])
        return args

    def results(self, result: PyTree) -> tuple[list[jax.Array], PyTreeDef, list[jax.Array]]:
        """``(active leaves, their tree, arrays that pass through)`` of what the function returned."""
        leaves, self._out_tree = tree_flatten(result)
        self._out_leaves = [("moving", None) if moves(x) else ("array", None) if is_array_like(x) else ("object", x) for x in leaves]
        kinds = [kind for kind, _ in self._out_leaves]
        tree = tree_structure(tree_unflatten(self._out_tree, [0 if kind == "moving" else None for kind in kinds]))
        moving = [x for x, kind in zip(leaves, kinds, strict=True) if kind == "moving"]
        return moving, tree, [x for x, kind in zip(leaves, kinds, strict=True) if kind == "array"]

    def assembled(self, moving: Sequence[jax.Array], arrays: Sequence[jax.Array]) -> PyTree:
        """What the function returned, from evaluated leaves."""
        pools = {"moving": iter(moving), "array": iter(arrays)}
        return tree_unflatten(self._out_tree, [x if kind == "object" else next(pools[kind]) for kind, x in self._out_leaves])
