"""Arrays over several hosts: what a host holds, and the whole that the hosts hold together."""

from __future__ import annotations

from jax import Array
from jax.sharding import Mesh, PartitionSpec

from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import host_array_primitives
from dualrev.table.forms import linear

join, part = host_array_primitives()


def from_whole(ct: Array, _: ShapedArray, *, global_mesh: Mesh, pspec: PartitionSpec) -> Array:
    return part.bind(ct, global_mesh=global_mesh, pspec=pspec)


def to_whole(ct: Array, _: ShapedArray, *, global_mesh: Mesh, pspec: PartitionSpec) -> Array:
    return join.bind(ct, global_mesh=global_mesh, pspec=pspec)


# The same entries, held otherwise: each takes the other's cotangents back.
linear(join, from_whole)
linear(part, to_whole)
