"""``jax.checkpoint``: what a function's derivative needs is evaluated again instead of stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from dualrev._jax import remat_p
from dualrev.engines.staging import linearization_of, pushforward_of
from dualrev.linear_maps import LinearMap
from dualrev.rules.control import call, own_copy, splice


class RematMap(LinearMap):
    """The derivative of a checkpointed function: its inputs; the rest is evaluated again when it is needed."""

    __slots__ = ("active", "jaxpr", "prevent_cse", "primals")

    name = "checkpoint"

    def __init__(self, primals: Sequence[Any], jaxpr: Any, active: tuple[bool, ...], prevent_cse: bool):
        self.primals = primals
        self.jaxpr = jaxpr
        self.active = active
        self.prevent_cse = prevent_cse

    def inner_maps(self) -> list[LinearMap]:
        return [linearization_of(self.jaxpr, self.active, False, splice(self.name)).example()]

    def again(self, moving: Sequence[Any]) -> tuple[LinearMap, Sequence[Any]]:
        primals = self.primals
        if self.prevent_cse:  # tied to what moves, so that the evaluation is neither shared with the first nor moved before it
            primals, moving = lax.optimization_barrier((primals, tuple(moving)))
        _, linear_map, _ = linearization_of(self.jaxpr, self.active, False, splice(self.name))(primals)
        return linear_map, moving

    def push(self, *tangents: Any) -> tuple[Any, ...]:
        linear_map, moving = self.again(tangents)
        return linear_map.push(*moving)

    def pull(self, *cotangents: Any) -> tuple[Any, ...]:
        linear_map, moving = self.again(cotangents)
        return linear_map.pull(*moving)


jax.tree_util.register_pytree_node(
    RematMap, lambda m: ((m.primals,), (m.jaxpr, m.active, m.prevent_cse)), lambda aux, p: RematMap(p[0], *aux)
)


def _remat_forward(primals: Sequence[Any], tangents: Sequence[Any],
                   params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
    active = tuple([t is not None for t in tangents])
    push = pushforward_of(own_copy(params["jaxpr"]), active, splice("checkpoint"))

    def both(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        return push(primals, tangents)

    again = jax.checkpoint(both, prevent_cse=params["prevent_cse"], policy=params["policy"])
    return again(list(primals), list(tangents))


def _remat_reverse(primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                   is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
    jaxpr = own_copy(params["jaxpr"])
    if is_linear:
        return linearization_of(jaxpr, active, True, splice("checkpoint"))(primals)
    # What is staged here is kept as long as the original jaxpr lives, so it runs the copy.
    outs = remat_p.bind(*primals, **{**params, "jaxpr": jaxpr.jaxpr})
    linearization = linearization_of(jaxpr, active, False, splice("checkpoint"))
    return list(outs), RematMap(list(primals), jaxpr, active, bool(params["prevent_cse"])), linearization.active_outs


call(remat_p, ("jaxpr",), _remat_forward, _remat_reverse)
