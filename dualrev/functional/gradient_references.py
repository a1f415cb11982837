"""Pulls that add to mutable references: gradients that accumulate over micro-batches without an array for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_differentiable, is_reference
from dualrev._jax.references import held_aval, is_unwanted, is_wanted, was_added, was_left_out
from dualrev._jax.trees import PyTree

if TYPE_CHECKING:
    from dualrev.functional.results import Pullback


def pull_into(pull: Pullback, wanted: tuple[PyTree, ...]) -> Callable[[PyTree], tuple[PyTree, ...]]:
    """The pull, with what is wanted of each cotangent; see :meth:`~dualrev.functional.results.Pullback.with_refs`."""
    s = pull.structure
    with errors.calling("vjp"):
        leaves, tree = tree_flatten_with_path(wanted)
        if tree != s.in_tree:
            raise ValueError(f"vjp: with_refs takes one entry for each array of the primals of {s.name}, whose structure is "
                             f"{s.in_tree}; got {tree}. None is no entry: pass jax.ad.GradValue() or jax.ad.DontWant()")
        for (path, entry), aval in zip(leaves, s.ct_avals, strict=True):
            _check(entry, aval, keystr(path))

    def pulled(cotangent: PyTree) -> tuple[PyTree, ...]:
        found: list[object] = []
        for (_, entry), ct in zip(leaves, tree_leaves(pull(cotangent)), strict=True):
            if _is_reference(entry):
                jax.ref.addupdate(entry, (), ct)
                found.append(was_added())
            else:
                found.append(was_left_out() if is_unwanted(entry) else ct)
        cotangents: tuple[PyTree, ...] = tree_unflatten(s.in_tree, found)
        return cotangents

    return pulled


def _is_reference(entry: object) -> bool:
    return hasattr(entry, "aval") and is_reference(entry.aval)


def _check(entry: object, aval: ShapedArray, place: str) -> None:
    if _is_reference(entry):
        found = held_aval(entry)
        if found.shape != aval.shape or found.dtype != aval.dtype:
            raise ValueError(f"vjp: with_refs{place} is a reference to {found.str_short()}, and the cotangent that is added to it is "
                             f"{aval.str_short()}. Make the reference with the shape and dtype of the primal")
    elif not (is_wanted(entry) or is_unwanted(entry)) and is_differentiable(aval):
        raise TypeError(f"vjp: with_refs{place} must be a mutable reference (jax.new_ref(...)), which the cotangent is added to, "
                        f"jax.ad.GradValue(), which returns it, or jax.ad.DontWant(); got {entry!r}")
