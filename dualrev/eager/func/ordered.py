"""Dictionaries that keep the order of their keys as trees: jax sorts those of a plain ``dict``, PyTorch does not."""

from __future__ import annotations

from typing import Any

from jax.tree_util import DictKey, register_pytree_with_keys, tree_map


class Ordered(dict[Any, Any]):
    """A dictionary whose leaves come in the order of its keys."""


register_pytree_with_keys(Ordered, lambda d: ([(DictKey(k), x) for k, x in d.items()], tuple(d)),
                          lambda keys, values: Ordered(zip(keys, values, strict=True)),
                          lambda d: (list(d.values()), tuple(d)))


def ordered(tree: Any) -> Any:
    """A tree with :class:`Ordered` in place of plain dictionaries."""
    return tree_map(lambda x: Ordered({k: ordered(y) for k, y in x.items()}) if type(x) is dict else x, tree,
                    is_leaf=lambda x: type(x) is dict)


def plain(tree: Any) -> Any:
    """A tree with plain dictionaries in place of :class:`Ordered`."""
    return tree_map(lambda x: {k: plain(y) for k, y in x.items()} if type(x) is Ordered else x, tree,
                    is_leaf=lambda x: type(x) is Ordered)


def aligned(tree: Any, like: Any) -> Any:
    """A tree whose dictionaries have the order of those of another one, where they have the same keys."""
    if type(tree) is Ordered and isinstance(like, dict) and tree.keys() == like.keys():
        return Ordered({k: aligned(tree[k], like[k]) for k in like})
    if type(tree) in (list, tuple) and isinstance(like, (list, tuple)) and len(tree) == len(like):
        return type(tree)([aligned(a, b) for a, b in zip(tree, like, strict=True)])
    return tree
