"""The programs of forward and pull of a call, under a checkpoint policy, traced and not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from dualrev._jax import checkpoints
from dualrev._jax.avals import float0, is_differentiable, typeof
from dualrev._jax.jaxprs import stage
from dualrev._jax.trees import PyTree
from dualrev.calls.checkpoint_policies import min_cut
from dualrev.functional.api import vjp
from dualrev.functional.checkpointing import checkpoint
from dualrev.inspection.timeline.liveness import Life, life_of
from dualrev.inspection.tracing import Call
from dualrev.linear.zeros import zeros_of

#: A policy of ``dualrev.checkpoint``; ``"default"`` is the function as it is.
Policy: TypeAlias = checkpoints.Policy | str | None

#: What is compared: the function as it is, and inside one checkpoint.
POLICIES: dict[str, Policy] = {
    "default": "default",
    "everything saved": jax.checkpoint_policies.everything_saveable,
    "nothing saved": None,
    "min_cut": min_cut,
    "dots only": jax.checkpoint_policies.dots_saveable,
}


def life_under(call: Call, policy: Policy) -> Life:
    """Live bytes over the course of forward and pull."""
    fun: Callable[..., PyTree] = call.function if policy == "default" else checkpoint(call.function, policy=policy)  # type: ignore[arg-type]
    met: list[Any] = []

    def forward(*leaves: Any) -> list[Any]:
        out, pull = vjp(fun, *leaves)
        residuals, tree = tree_flatten(pull)
        outs, out_tree = tree_flatten(out)
        met[:] = [tree, out_tree, [typeof(x) for x in outs], [typeof(x) for x in residuals]]
        return [*outs, *residuals]

    first = call.staged(forward)
    tree, out_tree, out_avals, kept = met

    def backward(*given: Any) -> list[Any]:
        cotangents = iter(given[len(kept):])
        cts = [next(cotangents) if is_differentiable(a) else zeros_of(a.to_tangent_aval()) for a in out_avals]
        pulled = tree_unflatten(tree, given[: len(kept)])(tree_unflatten(out_tree, cts))
        return [x for x in tree_leaves(pulled) if getattr(x, "dtype", float0) != float0]

    second = stage(backward, [*kept, *[a.to_tangent_aval() for a in out_avals if is_differentiable(a)]])
    return life_of(first, second, len(out_avals))
