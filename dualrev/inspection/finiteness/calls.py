"""A user's call as a flat program: arrays and floats are its operands, everything else is held."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
from jax.tree_util import keystr, tree_flatten, tree_flatten_with_path, tree_leaves, tree_unflatten

from dualrev._jax.avals import is_array_like
from dualrev._jax.trees import PyTree, PyTreeDef


class Call:
    """The arguments of a call, split into operands (``arrays``, with ``names``) and what the program is made for."""

    def __init__(self, fun: Callable[..., PyTree], args: Sequence[PyTree], kwargs: dict[str, PyTree]):
        self.leaves, tree = tree_flatten((tuple(args), dict(kwargs)))
        self.tree: Any = tree  # its stubs know of no comparison
        self.fun = fun
        self.types = list(map(type, self.leaves))
        # A Python integer may be the length of a loop or an axis: it is held.
        self.positions = [i for i, x in enumerate(self.leaves) if not isinstance(x, (bool, int)) and is_array_like(x)]
        self.arrays = [self.leaves[i] for i in self.positions]

    @property
    def names(self) -> list[str]:
        """What the operands are called in the call, for reports."""
        paths = [path for path, _ in tree_flatten_with_path(tree_unflatten(self.tree, self.leaves))[0]]
        return [_argument(paths[i]) for i in self.positions]

    @property
    def key(self) -> Hashable:
        """What the program depends on beside shapes; raises TypeError where something held can't be compared."""
        operands = set(self.positions)
        held = tuple([(type(x), x) for i, x in enumerate(self.leaves) if i not in operands])
        key = (self.tree, tuple(self.positions), held)
        hash(key)
        return key

    def arrays_like(self, args: Sequence[PyTree], kwargs: dict[str, PyTree]) -> list[Any] | None:
        """The operands of another call, if its program is that of this one as far as it can be told at once."""
        leaves, tree = tree_flatten((tuple(args), kwargs))
        is_like = tree == self.tree and list(map(type, leaves)) == self.types and len(leaves) == len(self.positions)
        if not is_like:
            return None
        return leaves

    def __call__(self, *arrays: jax.Array) -> PyTree:
        filled = list(self.leaves)
        for i, x in zip(self.positions, arrays, strict=True):
            filled[i] = x
        args, kwargs = tree_unflatten(self.tree, filled)
        return self.fun(*args, **kwargs)

    def without_arrays(self) -> Call:
        """The same, to be kept: it holds no argument that is an operand."""
        kept: Call = object.__new__(Call)
        kept.__dict__.update(self.__dict__)
        kept.leaves = [None if i in set(self.positions) else x for i, x in enumerate(self.leaves)]
        kept.arrays = []
        return kept


def _argument(path: Sequence[Any]) -> str:
    """``argument 0['w']`` for a leaf of the arguments."""
    which, *rest = path
    if which.idx == 0:
        return f"argument {rest[0].idx}{keystr(tuple(rest[1:]))}"
    return f"argument {rest[0].key}{keystr(tuple(rest[1:]))}"


def result_names(result: PyTree) -> list[str]:
    """A name for each leaf of a result: ``the result``, or ``result[0]['w']``."""
    paths = [path for path, _ in tree_flatten_with_path(result)[0]]
    return [f"result{keystr(path)}" if path else "the result" for path in paths]


def check_results(result: PyTree, name: str) -> list[jax.Array]:
    """The leaves of a result, which must be arrays."""
    leaves = tree_leaves(result)
    for path, leaf in zip(result_names(result), leaves, strict=True):
        if not is_array_like(leaf):
            raise TypeError(f"where_nan looks at arrays; {name} returned {type(leaf).__name__} for {path}. Return arrays, numbers or "
                            "trees of them.")
    return leaves


def flat(result: PyTree) -> tuple[list[jax.Array], PyTreeDef]:
    return tree_flatten(result)
