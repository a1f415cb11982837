"""Where arrays lie on a mesh, as far as their types say so."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
from jax.sharding import NamedSharding, PartitionSpec

from dualrev._jax.avals import ShapedArray, cotangent_aval, float0, typeof

T = TypeVar("T")

#: The name of an axis of a mesh: a string, or whatever somebody took for one.
AxisName: TypeAlias = Hashable


def spmd_axis_names() -> Sequence[AxisName]:
    """Mesh axes that a ``vmap`` around has taken for itself."""
    from jax._src.core import get_axis_env  # the named axes of the moment

    return tuple(get_axis_env().spmd_axis_names)


def varying(aval: ShapedArray) -> frozenset[AxisName]:
    """The mesh axes along which a value differs from shard to shard, as far as ``check_vma=True`` keeps track."""
    mat = getattr(aval, "mat", None)
    return frozenset() if mat is None else mat.varying


def vary_as(x: jax.Array, aval: ShapedArray) -> jax.Array:
    """``x``, typed as varying over all the mesh axes that ``aval`` varies over."""
    axes = varying(aval)
    return vary_over(x, axes) if axes else x


def vary_over(x: jax.Array, axes: frozenset[AxisName]) -> jax.Array:
    missing = tuple(sorted(axes - varying(typeof(x)), key=str)) if x.dtype != float0 else ()
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def tied(values: Sequence[jax.Array], to: Sequence[jax.Array | None]) -> tuple[list[jax.Array], tuple[jax.Array | None, ...]]:
    """All of them behind an optimization barrier, so that none of ``values`` is used before ``to`` are known.

    In ``shard_map``, jax 0.10 gives all operands of a barrier one type, which varies as any of them does; so there are several,
    of values that are typed alike.  One without any of ``to`` only keeps the compiler from using what it computed before.
    """
    both = [*values, *to]
    kinds = [None if x is None else getattr(typeof(x), "mat", None) for x in both]
    for kind in dict.fromkeys(kinds):
        places = [i for i, x in enumerate(both) if x is not None and kinds[i] == kind]
        for i, x in zip(places, jax.lax.optimization_barrier([both[i] for i in places]), strict=True):
            both[i] = x
    return both[: len(values)], tuple(both[len(values):])  # type: ignore[return-value]  # no value is None


def is_placed_alike(x: ShapedArray, y: ShapedArray) -> bool:
    """Whether two abstract values lie on a mesh in the same way, as far as types keep track of it."""
    return all(getattr(x, name, None) == getattr(y, name, None) for name in ("mat", "sharding"))


def explicit_sharding(aval: ShapedArray) -> NamedSharding | None:
    """The sharding of an abstract value where it is part of its type (the mesh has explicit axes), else None."""
    sharding = getattr(aval, "sharding", None)
    if sharding is None or sharding.mesh.empty or not sharding.mesh.explicit_axes:
        return None
    return sharding


def partitions(spec: PartitionSpec) -> tuple[Any, ...]:
    """The entries of a spec, one for each axis of the value: not those over whose sums it says something."""
    return tuple(spec.partitions if hasattr(spec, "partitions") else spec)


def is_sum(sharding: NamedSharding | None) -> bool:
    """Whether a sharding says over which axes of the mesh values are still to be summed, or were: cotangents have another."""
    return sharding is not None and bool(sharding.spec.unreduced or sharding.spec.reduced)


def as_cotangent(aval: ShapedArray) -> ShapedArray:
    """An abstract value in the sharding of its cotangents, inside ``shard_map`` too."""
    mat = getattr(aval, "mat", None)
    is_manual_sum = mat is not None and bool(mat.reduced or mat.unreduced)
    return cotangent_aval(aval) if is_manual_sum or is_sum(explicit_sharding(aval)) else aval


def cotangent_sharding(aval: ShapedArray) -> NamedSharding | None:
    """As :func:`explicit_sharding`, of cotangents."""
    return None if explicit_sharding(aval) is None else explicit_sharding(cotangent_aval(aval))


def in_mesh_context() -> bool:
    """Whether the user set a mesh."""
    return not jax.sharding.get_abstract_mesh().empty


def on_own_mesh(function: Callable[..., T], values: Sequence[jax.Array | None]) -> T:
    """``function(*values)`` where axes of the mesh that the values lie on may be of other types than in the context.

    ``auto_axes`` makes explicit axes automatic for a while; when what ran inside is pulled back, that is over.
    """
    for x in values:
        if x is not None:
            mesh = typeof(x).sharding.mesh
            if not mesh.empty and mesh != jax.sharding.get_abstract_mesh():
                with jax.sharding.use_abstract_mesh(mesh):
                    return function(*values)
    return function(*values)


def resharded(x: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    """``x`` with another explicit sharding; None leaves it where it is."""
    return x if sharding is None or typeof(x).sharding == sharding else jax.reshard(x, sharding)


def stacked_aval(aval: ShapedArray, n: int) -> ShapedArray:
    """The abstract value of ``n`` values along a new first axis."""
    sharding = explicit_sharding(aval)
    if sharding is None:
        return aval.update(shape=(n, *aval.shape))
    spec = sharding.spec.update(partitions=(None, *partitions(sharding.spec)))
    return aval.update(shape=(n, *aval.shape), sharding=sharding.update(spec=spec))


def sliced_aval(aval: ShapedArray) -> ShapedArray:
    """The abstract value of one of the values that are stacked along the first axis: undoes :func:`stacked_aval`."""
    sharding = explicit_sharding(aval)
    if sharding is None:
        return aval.update(shape=aval.shape[1:], weak_type=False)
    spec = sharding.spec.update(partitions=partitions(sharding.spec)[1:])
    return aval.update(shape=aval.shape[1:], weak_type=False, sharding=sharding.update(spec=spec))
