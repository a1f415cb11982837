"""Meshes of plans: which are allowed, and whether arguments lie on the one that a plan was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding

from dualrev._jax.traces import Tracer

#: Names of axes, and their sizes.
Shape = Mapping[Any, int]


def spelled(mesh: Mesh | Shape) -> str:
    """A mesh as its axes and sizes."""
    shape = mesh.shape if isinstance(mesh, Mesh) else mesh
    return ", ".join(f"{name!r}: {size}" for name, size in shape.items()) or "no axes"


def check(name: str, mesh: object) -> None:
    """Refuse what colours can't be spread over."""
    if not isinstance(mesh, Mesh):
        raise TypeError(f"{name}: mesh must be a jax.sharding.Mesh, as jax.make_mesh returns; got {mesh!r} of type "
                        f"{type(mesh).__name__}")
    for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True):
        if kind is not AxisType.Auto:
            raise ValueError(f"{name}: axis {axis!r} of the mesh, of size {mesh.shape[axis]}, is of the kind {kind.name}; colours are "
                             "spread over axes of the kind Auto: jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(names))")


def check_same(name: str, planned: Shape, mesh: Mesh | None) -> None:
    """Refuse another mesh than the one that a plan was made for."""
    if mesh is None or dict(mesh.shape) != dict(planned):
        got = "none" if mesh is None else spelled(mesh)
        raise ValueError(f"{name}: the plan is for a mesh with axes {spelled(planned)}; got {got}. Give such a mesh, or make the plan "
                         "again")


def check_arrays(name: str, mesh: Mesh, arrays: Sequence[jax.Array]) -> None:
    """Refuse arguments, and a mesh that the user set, that differ from a plan's mesh."""
    context = jax.sharding.get_abstract_mesh()
    if not context.empty and dict(context.shape) != dict(mesh.shape):
        raise ValueError(f"{name}: the plan is for a mesh with axes {spelled(mesh)}, and the mesh that was set has "
                         f"{spelled(context.shape)}. Make the plan again with the mesh that is used now")
    devices = set(mesh.devices.flat)
    for i, x in enumerate(arrays):
        sharding: Any = None if isinstance(x, Tracer) else getattr(x, "sharding", None)
        if sharding is None or not getattr(x, "committed", True) or sharding.device_set == devices:
            continue
        found: Shape | None = sharding.mesh.shape if isinstance(sharding, NamedSharding) else None
        where = f"{len(sharding.device_set)} device(s)" if found is None else f"a mesh with axes {spelled(found)}"
        raise ValueError(f"{name}: the plan is for a mesh with axes {spelled(mesh)}, and array {i} of the arguments, of shape "
                         f"{x.shape}, lies on {where}. Put it on the plan's mesh with jax.device_put, or make the plan again")
