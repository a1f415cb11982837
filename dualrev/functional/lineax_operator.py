"""A linear map as an operator of lineax; this module needs lineax only when it is called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial, tree_flatten, tree_map, tree_unflatten

from dualrev.functional.results import Structure, single


def operator(linear_map: Any, s: Structure, tags: Any) -> Any:
    """``linear_map @ v`` and ``linear_map.T @ u`` as a lineax operator."""
    argument = single(s.in_tree)
    ins = _structure(s.in_tree if argument is None else argument, s.in_avals, s)
    outs = _structure(s.out_tree, s.out_avals, s)
    return operator_class()(Partial(_apply, linear_map), Partial(_apply, linear_map.T), ins, outs, tags)


def _apply(linear_map: Any, value: Any) -> Any:
    return linear_map @ value


def _conjugated(function: Callable[[Any], Any], value: Any) -> Any:
    return tree_map(jnp.conj, function(tree_map(jnp.conj, value)))


def _structure(tree: Any, avals: Any, s: Structure) -> Any:
    if not all(jnp.issubdtype(a.dtype, jnp.inexact) for a in avals):
        raise TypeError(f"lineax has operators between floating-point or complex arrays only; the linear map is {s}")
    return tree_unflatten(tree, [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals])


@functools.cache
def operator_class() -> Any:
    """The operator's class: lineax's operator of a function, with a transpose that is known."""
    try:
        import equinox
        import lineax
    except ImportError as error:
        raise ImportError("to_lineax needs the library lineax, which is not installed: pip install lineax") from error

    class MapOperator(lineax.FunctionLinearOperator):  # type: ignore[misc]  # inherits how lineax reads tags
        transposed_fn: Callable[[Any], Any]
        output_structure: Any = equinox.field(static=True)

        def __init__(self, fn: Any, transposed_fn: Any, ins: Any, outs: Any, tags: Any):
            super().__init__(fn, ins, tags, closure_convert=False)
            self.transposed_fn = transposed_fn
            leaves, tree = tree_flatten(outs)
            self.output_structure = tuple(leaves), tree

        def transpose(self) -> Any:
            if lineax.is_symmetric(self):
                return self
            return MapOperator(self.transposed_fn, self.fn, self.out_structure(), self.in_structure(), lineax.transpose_tags(self.tags))

        def out_structure(self) -> Any:
            leaves, tree = self.output_structure
            return tree_unflatten(tree, leaves)

    @lineax.conj.register(MapOperator)
    def _(operator: Any) -> Any:
        return MapOperator(Partial(_conjugated, operator.fn), Partial(_conjugated, operator.transposed_fn), operator.in_structure(),
                           operator.out_structure(), operator.tags)

    return MapOperator
