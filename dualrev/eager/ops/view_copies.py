"""Copies of views: ``transpose_copy`` is ``transpose``, with a storage of its own."""

from __future__ import annotations

from typing import Any

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.registry import FUNCTIONS, function, renamed

#: The functions, or methods, of which there are such copies.
_OF = ("as_strided", "detach", "diagonal", "expand", "permute", "select", "split", "split_with_sizes", "squeeze", "t", "transpose",
       "unbind", "unfold", "unsqueeze", "view", "view_as_complex", "view_as_real")


def _copied(name: str) -> None:
    def copy(input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        found = (FUNCTIONS[name] if name in FUNCTIONS else getattr(Tensor, name))(input, *args, **kwargs)
        return tuple([x.clone() for x in found]) if isinstance(found, (tuple, list)) else found.clone()

    function(renamed(copy, f"{name}_copy", f"As ``{name}``, with storages of its own."))


for _name in _OF:
    _copied(_name)


@function
def alias_copy(input: Tensor) -> Tensor:  # noqa: A002
    """A copy: as ``clone``."""
    return input.clone()


@function
def slice_copy(input: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:  # noqa: A002
    """A copy of the entries from ``start`` up to, and without, ``end`` along a dimension."""
    return input.transpose(0, dim)[start:end:step].transpose(0, dim).clone()
