"""Forward mode on tensors: ``torch.autograd.forward_ad``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from dualrev import errors
from dualrev._jax import is_differentiable, typeof
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.graph.views import path_op, put_op
from dualrev.engines.staging import Pushforward, Wrapper
from dualrev.settings import DEFAULT, under

_levels = itertools.count(1)


class dual_level:
    """A block in which dual numbers live.

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
        self._before = mode.special
        mode.dual_level, mode.special = next(_levels), True
        return mode.dual_level

    def __exit__(self, *_: object) -> None:
        mode.dual_level, mode.special = 0, self._before


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
        dual._view = None  # views of it come from it, with its tangent
    dual._tangent = (mode.dual_level, tangent)
    return dual


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """``(primal, tangent)`` of a tensor; None for one that has no tangent."""
    found = tangent_of(tensor)
    return UnpackedDualTensor(tensor if found is None else tensor.view(tensor.shape)._replaced(), found)


def _replaced(self: Tensor) -> Tensor:
    self._tangent = None
    return self


Tensor._replaced = _replaced  # type: ignore[attr-defined]


def tangent_of(t: Any) -> Tensor | None:
    """The tangent of a tensor at the level that is open."""
    if not isinstance(t, Tensor):
        return None
    if t._tangent is not None and t._tangent[0] == mode.dual_level:
        return t._tangent[1]
    view = t._view
    if view is not None and (whole := tangent_of(view.base)) is not None:
        return _quietly(path_op(view.path), whole)
    return None


def changed(t: Tensor, tangent: Tensor | None) -> None:
    """A tensor has got another value in place, with this tangent: what it is a view of has it too."""
    level, view = mode.dual_level, t._view
    if view is None or (t._tangent is not None and t._tangent[0] == level):
        t._tangent = None if tangent is None else (level, tangent)
        return
    whole = tangent_of(view.base)
    if whole is None and tangent is None:
        return
    if whole is None:
        whole = wrap(jnp.zeros_like(array_of(view.base)))
    part = wrap(jnp.zeros_like(array_of(t))) if tangent is None else tangent
    view.base._tangent = (level, _quietly(put_op(view.path), whole, part))


def _quietly(op: Op, *args: Tensor) -> Any:
    """An operation on tangents, which have none themselves."""
    level, special = mode.dual_level, mode.special
    mode.dual_level, mode.special = 0, bool(mode.packers or mode.watcher)
    try:
        return apply(op, args)
    finally:
        mode.dual_level, mode.special = level, special


def push_op(op: Op, active: tuple[bool, ...]) -> Op:
    """Values and tangents of an operation, as one operation of values and tangents."""
    found = op._pushes.get(active)
    if found is None:
        n = len(active)

        def push(*flat: Any) -> list[Any]:
            with errors.calling("forward_ad"):
                pushforward = under(DEFAULT, Pushforward, op.flat, [typeof(x) for x in flat[:n]], active, Wrapper(op.name, None))
            given = iter(flat[n:])
            outs, tangents = pushforward(flat[:n], [next(given) if a else None for a in active])
            return [*outs, *[jnp.zeros_like(x) if t is None else t for x, t in zip(outs, tangents, strict=True)]]

        found = op._pushes[active] = Op(op.name, push, many=True, promotes=False)
    return found


def push(op: Op, args: Sequence[Any]) -> Any:
    """Run an operation on tensors of which some have tangents."""
    tangents = [tangent_of(a) for a in args]
    level, special = mode.dual_level, mode.special
    mode.dual_level, mode.special = 0, bool(mode.packers or mode.watcher)
    try:
        if all(t is None for t in tangents):
            return apply(op, args)
        active = tuple([t is not None for t in tangents])
        results = apply(push_op(op, active), [*args, *[t for t in tangents if t is not None]])
    finally:
        mode.dual_level, mode.special = level, special
    n = len(results) // 2
    for out, t in zip(results[:n], results[n:], strict=True):
        if is_differentiable(typeof(array_of(out))):
            out._tangent = (level, t)
    return tuple(results[:n]) if op.many else results[0]
