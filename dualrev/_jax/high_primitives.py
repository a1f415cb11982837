"""jax's primitives that hold their operation as an object (``jax.experimental.hijax``): which derivatives its class states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import hijax as _hijax
from jax.tree_util import tree_leaves, tree_structure, tree_unflatten

from dualrev._jax.avals import cotangent_aval, tangent_aval
from dualrev._jax.custom_rules import SymbolicZero, Zero, is_symbolic_zero
from dualrev._jax.libraries import is_of_jax

#: The class that others derive theirs from: the name since 0.11, and that before.
_BASE: type = getattr(_hijax, "HiPrim", None) or _hijax.VJPHiPrimitive
#: Classes of jax's whose objects hold the rules of a user.
_HOLDERS: tuple[type, ...] = tuple([c for name in ("CustomVJPTraced", "CustomJVPTraced") if (c := getattr(_hijax, name, None))])
#: jax's class for an operation under ``vmap``, of releases that have it.
_BATCHED: tuple[type, ...] = tuple([c for name in ("VmapOf",) if (c := getattr(_hijax, name, None))])


def _within(operation: Any) -> Any:
    """The operation itself, of one under ``vmap``."""
    found: Any = operation
    while isinstance(found, _BATCHED):
        found = vars(found)["prim"]
    return found


def states(operation: Any, *names: str) -> bool:
    """Whether the class of an operation states one of these methods itself.

    What jax derives for it is not read (``vjp_fwd, vjp_bwd_retval = vjp_from_jvp``), nor are rules of jax's own operations.
    """
    operation = _within(operation)
    own = isinstance(operation, _HOLDERS)
    if not own and is_of_jax(type(operation).__module__):
        return False
    found = [getattr(type(operation), name, None) for name in names]
    return any(f is not None and f is not getattr(_BASE, name, None) and (own or not is_of_jax(getattr(f, "__module__", "") or ""))
               for f, name in zip(found, names, strict=True))


def is_custom_vjp(operation: Any) -> bool:
    """Whether it is a call of a ``jax.custom_vjp`` function: its push is the transpose of its backward function."""
    return isinstance(_within(operation), getattr(_hijax, "CustomVJPTraced", ()))


def evaluate_with_residuals(operation: Any, method: str, primals: Sequence[jax.Array],
                            active: Sequence[bool]) -> tuple[list[jax.Array], Any]:
    """The results and the residuals of ``vjp_fwd`` or ``lin``; residuals of a structure of their own follow in a tuple."""
    given = tree_unflatten(operation.in_tree, list(primals))
    outs, residuals, *rest = getattr(operation, method)(tree_unflatten(operation.in_tree, list(active)), *given)
    structured = rest[1] if len(rest) > 1 else None
    return _leaves(operation, outs), (residuals,) if structured is None else (residuals, structured)


def pull(operation: Any, residuals: Any, cotangents: Sequence[jax.Array | SymbolicZero],
         active: Sequence[bool]) -> list[jax.Array | Zero | None]:
    """The cotangents of all operands, by the backward method that the operation states; None for operands that are not active."""
    from jax._src.interpreters.ad import NullAccum, ValAccum

    cts = tree_unflatten(operation.out_tree, [Zero(ct.aval) if type(ct) is SymbolicZero else ct for ct in cotangents])
    if len(residuals) == 1 and (isinstance(operation, _BATCHED) or states(operation, "vjp_bwd_retval")):
        return list(operation.in_tree.flatten_up_to(operation.vjp_bwd_retval(*residuals, cts)))
    accumulators = [(ValAccum if flag else NullAccum)(cotangent_aval(tangent_aval(aval)))
                    for aval, flag in zip(operation.in_avals_flat, active, strict=True)]
    operation.vjp_bwd(*residuals, cts, *tree_unflatten(operation.in_tree, accumulators))
    return [accumulator.freeze() if flag else None for accumulator, flag in zip(accumulators, active, strict=True)]


def push(operation: Any, primals: Sequence[jax.Array], tangents: Sequence[jax.Array | None]) -> tuple[list[jax.Array], list[Any]]:
    """Results and their tangents, by ``jvp``, or else by ``lin`` and ``linearized``; a tangent of None is zero."""
    given = [Zero(tangent_aval(aval)) if t is None else t for aval, t in zip(operation.in_avals_flat, tangents, strict=True)]
    moving = tree_unflatten(operation.in_tree, given)
    if states(operation, "jvp"):
        outs, moved = operation.jvp(tree_unflatten(operation.in_tree, list(primals)), moving)
        found = _leaves(operation, outs)
    else:
        found, residuals = evaluate_with_residuals(operation, "lin", primals, [t is not None for t in tangents])
        moved = operation.linearized(*residuals, *moving)
    flat: list[Any] = operation.out_tree.flatten_up_to(moved)
    return found, [None if is_symbolic_zero(t) else t for t in flat]


def expand(operation: Any) -> Callable[..., list[jax.Array]]:
    """The operation as a program of others."""
    return lambda *args: _leaves(operation, operation.expand(*tree_unflatten(operation.in_tree, list(args))))


def _leaves(operation: Any, outs: Any) -> list[jax.Array]:
    if (found := tree_structure(outs)) != operation.out_tree:
        raise TypeError(f"a rule of {type(operation).__name__} returns results of the structure {found}; expected "
                        f"{operation.out_tree}, that of out_aval")
    leaves: list[jax.Array] = tree_leaves(outs)
    return leaves

