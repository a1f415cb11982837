"""Forward mode on tensors: ``torch.autograd.forward_ad``."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from dualrev.eager.core.modes import mode
from dualrev.eager.graph.interception import apply_intercepted
from dualrev.eager.graph.tangents import tangent_of
from dualrev.eager.graph.tensor import Tensor

_levels = itertools.count(1)


class dual_level:
    """A block in which tensors may have tangents.

    >>> from dualrev import eager as torch
    >>> from dualrev.eager.autograd import forward_ad as fwAD
    >>> with fwAD.dual_level():
    ...     x = fwAD.make_dual(torch.tensor(3.0), torch.tensor(1.0))
    ...     fwAD.unpack_dual(x * x).tangent
    tensor(6.)
    """

    def __enter__(self) -> int:
        if mode.dual_level:
            raise RuntimeError("Nested forward mode AD is not supported at the moment\nnest dualrev.jvp instead")
        self._before = mode.handler
        mode.dual_level, mode.handler = next(_levels), apply_intercepted
        return mode.dual_level

    def __exit__(self, *_: object) -> None:
        mode.dual_level, mode.handler = 0, self._before


_entered: list[dual_level] = []


def enter_dual_level() -> int:
    """Open a level, as the start of a :class:`dual_level` block does."""
    block = dual_level()
    level = block.__enter__()
    _entered.append(block)
    return level


def exit_dual_level(*, level: int | None = None) -> None:
    """Close the level that :func:`enter_dual_level` has opened.

    Raises:
      RuntimeError: none is open, or another one.
    """
    if not _entered:
        raise RuntimeError("Dual level must be a positive number.\nno level is open; enter_dual_level() opens one")
    if level is not None and level != mode.dual_level:
        raise RuntimeError("Trying to exit a forward AD level that was not the last one that was created. This is not supported.")
    _entered.pop().__exit__()


class UnpackedDualTensor(NamedTuple):
    """A value and its tangent."""

    primal: Tensor
    tangent: Tensor | None


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """A tensor with a tangent.

    Raises:
      RuntimeError: outside ``dual_level``, or the tangent has another shape or dtype.
    """
    if not mode.dual_level:
        raise RuntimeError("Trying to create a dual Tensor for forward AD but no level exists, make sure to enter_dual_level() first.")
    if tensor.shape != tangent.shape or tensor.dtype != tangent.dtype:
        raise RuntimeError("Trying to set a forward gradient that has a different size than that of the original Tensor, this is not "
                           f"supported. Tensor is of size {list(tensor.shape)} while the given forward gradient is of size "
                           f"{list(tangent.shape)}.\ntheir dtypes are {tensor.dtype!r} and {tangent.dtype!r}")
    dual = tensor.view(tensor.shape)
    if tensor._view is None:
        dual._view = None  # its views are computed from it, with its tangent
    dual._tangent = (mode.dual_level, tangent)
    return dual


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """``(primal, tangent)`` of a tensor; None for one that has no tangent."""
    found = tangent_of(tensor)
    if found is None:
        return UnpackedDualTensor(tensor, None)
    primal = tensor.view(tensor.shape)
    primal._tangent = None
    return UnpackedDualTensor(primal, found)
