"""Dimensions moved, merged and split by a pattern of names: ``torch.func.rearrange``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.joining import stack

#: One side of a pattern: for each dimension the names of its factors, and None for all dimensions that have no name.
_Side = list[list[str] | None]


def _side(pattern: str, text: str) -> _Side:
    found: _Side = []
    group: list[str] | None = None
    for word in text.replace("(", " ( ").replace(")", " ) ").replace("…", "...").split():
        if word == "(":
            if group is not None:
                raise ValueError(f"Invalid pattern {pattern!r}: a group inside a group")
            group = []
        elif word == ")":
            if group is None:
                raise ValueError(f"Invalid pattern {pattern!r}: a group ends that did not begin")
            found.append(group)
            group = None
        elif word.isdigit() and word != "1":
            raise ValueError("rearrange only supports unnamed axes of size 1")
        elif word not in ("...", "1") and not word.isidentifier():
            raise ValueError(f"Invalid axis identifier: {word}\nit stands in {pattern!r}")
        elif group is not None:
            group += [] if word == "1" else [word]
        else:
            found.append(None if word == "..." else [] if word == "1" else [word])
    if group is not None:
        raise ValueError(f"Invalid pattern {pattern!r}: a group does not end")
    names = _names(found)
    if len(set(names)) < len(names):
        raise ValueError(f"Invalid pattern {pattern!r}: a name stands twice on one side")
    return found


def _names(side: _Side) -> list[str]:
    return [name for names in side for name in (["..."] if names is None else names)]


def _without_dots(side: _Side, others: list[str]) -> list[list[str]]:
    """A side with a name for each of the other dimensions."""
    groups = [group for names in side for group in ([[one] for one in others] if names is None else [names])]
    return [[one for name in names for one in (others if name == "..." else [name])] for names in groups]


def rearrange(tensor: Tensor | Sequence[Tensor], pattern: str, **axes_lengths: int) -> Tensor:
    """A tensor with its dimensions moved, merged and split as a pattern says; several tensors are stacked first.

    Args:
      pattern: ``"batch (h w) c -> batch c h w"``: names of dimensions, in parentheses the factors of one; ``...`` is all others, and
        ``1`` a dimension of size 1.
      axes_lengths: the sizes of names that do not follow from the shape.

    Raises:
      ValueError: the sides of the pattern do not have the same names, or sizes do not fit the shape.

    >>> from dualrev import eager as torch
    >>> torch.func.rearrange(torch.arange(6), "(a b) -> b a", a=2)
    tensor([[0, 3],
            [1, 4],
            [2, 5]])
    """
    x = tensor if isinstance(tensor, Tensor) else stack(list(tensor))
    left, arrow, right = pattern.partition("->")
    if not arrow:
        raise ValueError(f"Invalid pattern {pattern!r}: it has no '->'")
    before, after = _side(pattern, left), _side(pattern, right)
    alone = set(_names(before)) ^ set(_names(after))
    if alone:
        raise ValueError(f"Identifiers only on one side of rearrange expression (should be on both): {alone}")
    if any(names is not None and "..." in names for names in before):
        raise ValueError(f"Invalid pattern {pattern!r}: on its left side ... stands in a group")
    n_others = x.ndim - sum(names is not None for names in before)
    if n_others < 0 or (n_others and None not in before):
        raise ValueError(f"Number of dimensions in pattern ({len(before)}) must be equal to the number of dimensions in the tensor "
                         f"({x.ndim})")
    others = [f"...{i}" for i in range(n_others)]
    sizes = dict(axes_lengths)
    flat: list[str] = []
    shape = list(x.shape)
    for names in _without_dots(before, others):
        n = shape.pop(0)
        unknown = [name for name in names if name not in sizes]
        known = math.prod([sizes[name] for name in names if name in sizes])
        if len(unknown) > 1 or (n % known if unknown else n != known):
            raise ValueError(f"The sizes {sizes} do not give a dimension of size {n} as {' '.join(names) or '1'} of {pattern!r}")
        sizes.update(dict.fromkeys(unknown, n // known))
        flat += names
    groups = _without_dots(after, others)
    moved = x.reshape([sizes[name] for name in flat]).permute([flat.index(name) for names in groups for name in names])
    return moved.reshape([math.prod([sizes[name] for name in names]) for names in groups])
