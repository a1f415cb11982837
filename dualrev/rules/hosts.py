"""Arrays over several hosts: conversions between the local part of each host and the global array."""

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


# Both keep all entries: each is the adjoint of the other.
linear(join, from_whole)
linear(part, to_whole)
