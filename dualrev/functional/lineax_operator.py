"""A linear map as an operator of lineax; this module needs lineax only when it is called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
from jax.tree_util import Partial, tree_flatten, tree_map, tree_unflatten

from dualrev._jax.avals import ShapedArray
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.functional.results import Structure, single

if TYPE_CHECKING:
    import lineax


class Map(Protocol):
    """A linear map between pytrees, and its transpose."""

    @property
    def T(self) -> Map: ...

    def __matmul__(self, value: PyTree, /) -> PyTree: ...


def operator(linear_map: Map, s: Structure, tags: object) -> lineax.AbstractLinearOperator:
    """``linear_map @ v`` and ``linear_map.T @ u`` as a lineax operator."""
    argument = single(s.in_tree)
    ins = _structure(s.in_tree if argument is None else argument, s.in_avals, s)
    outs = _structure(s.out_tree, s.out_avals, s)
    return operator_class()(Partial(_apply, linear_map), Partial(_apply, linear_map.T), ins, outs, tags)


def _apply(linear_map: Map, value: PyTree) -> PyTree:
    return linear_map @ value


def _conjugated(function: Callable[[PyTree], PyTree], value: PyTree) -> PyTree:
    return tree_map(jnp.conj, function(tree_map(jnp.conj, value)))


def _structure(tree: PyTreeDef, avals: Sequence[ShapedArray], s: Structure) -> PyTree:
    if not all(jnp.issubdtype(a.dtype, jnp.inexact) for a in avals):
        raise TypeError(f"lineax has operators between floating-point or complex arrays only; the linear map is {s}")
    return tree_unflatten(tree, [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals])


@functools.cache
def operator_class() -> type:
    """The operator's class: lineax's operator of a function, with a transpose that is known."""
    try:
        import equinox
        import lineax
    except ImportError as error:
        raise ImportError("to_lineax needs the library lineax, which is not installed: pip install lineax") from error

    class MapOperator(lineax.FunctionLinearOperator):  # type: ignore[misc, unused-ignore]  # inherits how lineax reads tags
        transposed_fn: Callable[[PyTree], PyTree]
        output_structure: tuple[tuple[jax.ShapeDtypeStruct, ...], PyTreeDef] = equinox.field(static=True)

        def __init__(self, fn: Callable[[PyTree], PyTree], transposed_fn: Callable[[PyTree], PyTree], ins: PyTree, outs: PyTree,
                     tags: object):
            super().__init__(fn, ins, tags, closure_convert=False)
            self.transposed_fn = transposed_fn
            leaves, tree = tree_flatten(outs)
            self.output_structure = tuple(leaves), tree

        def transpose(self) -> MapOperator:
            if lineax.is_symmetric(self):
                return self
            return MapOperator(self.transposed_fn, self.fn, self.out_structure(), self.in_structure(), lineax.transpose_tags(self.tags))

        def out_structure(self) -> PyTree:
            leaves, tree = self.output_structure
            return tree_unflatten(tree, leaves)

    @lineax.conj.register(MapOperator)  # type: ignore[untyped-decorator, unused-ignore]
    def _(operator: MapOperator) -> MapOperator:
        return MapOperator(Partial(_conjugated, operator.fn), Partial(_conjugated, operator.transposed_fn), operator.in_structure(),
                           operator.out_structure(), operator.tags)

    return MapOperator
