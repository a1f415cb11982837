"""Programs that run on the shards of arrays: the first operation with a bad result, on any device.

Values on shards can't leave ``shard_map``; whether they are bad can: the program runs once more, and returns that beside its results.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dualrev._jax.avals import ShapedArray
from dualrev._jax.jaxprs import DropVar, JaxprEqn, Var, is_literal
from dualrev._jax.shard_maps import bind_shard_map
from dualrev.inspection.finiteness.entries import Kind, first_bad, holds_floats
from dualrev.inspection.finiteness.evaluated import closed
from dualrev.inspection.finiteness.origins import Arrived, Found, Origin, Place
from dualrev.programs.jaxprs import behind


def first_on_shards(eqn: JaxprEqn, operands: Sequence[jax.Array], kind: Kind, place: Place) -> list[Found] | None:
    """The first operation of a ``shard_map`` whose result is bad and whose operands are not; None where flags do not tell."""
    jaxpr = closed(eqn.params["jaxpr"])
    body = jaxpr.jaxpr
    axes = tuple(sorted(eqn.params["newly_manual_axes"]))
    spec = PartitionSpec(axes)
    bad = jnp.isnan if kind == "nan" else jnp.isinf
    flagged: list[Var] = []

    def flags(*shards: jax.Array) -> tuple[list[jax.Array], list[PartitionSpec]]:
        env = dict(zip((*body.constvars, *body.invars), (*jaxpr.consts, *shards), strict=True))
        found: list[jax.Array] = []
        flagged.clear()

        def flag(var: Var) -> None:
            if isinstance(var.aval, ShapedArray) and not isinstance(var, DropVar) and holds_floats(env[var]):
                flagged.append(var)
                found.append(jnp.any(bad(env[var]))[None])

        for var in body.invars:
            flag(var)
        for inner in body.eqns:
            values = [atom.val if is_literal(atom) else env[atom] for atom in inner.invars]
            out = inner.primitive.bind(*values, **inner.primitive.get_bind_params(inner.params))
            env.update(zip(inner.outvars, out if inner.primitive.multiple_results else [out], strict=True))
            for var in inner.outvars:
                flag(var)
        return found, [spec] * len(found)

    results = jax.jit(lambda *args: bind_shard_map(flags, args, eqn.params["in_specs"], eqn.params))(*operands)
    is_bad = {var: bool(np.asarray(found).any()) for var, found in zip(flagged, results, strict=True)}
    for position, inner in enumerate(body.eqns):
        if inner not in behind(body.eqns, body.outvars):
            continue
        made = [j for j, var in enumerate(inner.outvars) if is_bad.get(var)]
        if made and not any(is_bad.get(atom) for atom in inner.invars if not is_literal(atom)):
            return [Origin(inner, place.at(position), kind, made[0], (), jaxpr)]
    arrived = [(i, at) for i, x in enumerate(operands) if (at := first_bad(x, kind)) is not None]
    return [Arrived(i, at, kind) for i, at in arrived] or None
