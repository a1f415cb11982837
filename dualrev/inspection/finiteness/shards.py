"""Programs that run on the shards of arrays, taken apart: the values of every shard, stacked along new leading axes.

Values on shards can't leave ``shard_map`` otherwise.  There is one leading axis for each ``shard_map`` around a value, as long as the
part of the mesh that it is for.  An operation that no other shard takes part in is looked at on one shard, as outside; a collective one
runs on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, DropVar, JaxprEqn, Var, is_literal, jaxpr_as_fun, stage
from dualrev._jax.primitives import Params
from dualrev._jax.shard_maps import bind_shard_map, off_mesh, without_axes
from dualrev.inspection.finiteness.entries import Entry, Kind, is_bad
from dualrev.inspection.finiteness.evaluated import Evaluated, View, bind, closed

#: The parameters of the ``shard_map`` operations around a program, outermost first.
Maps = tuple[Params, ...]


def axes_of(params: Params) -> tuple[str, ...]:
    """The axes of the mesh over which a ``shard_map`` splits values."""
    return tuple(name for name in params["mesh"].axis_names if name in params["newly_manual_axes"])


def _sizes(params: Params) -> tuple[int, ...]:
    return tuple(params["mesh"].shape[name] for name in axes_of(params))


def on_shards(maps: Maps, fun: Callable[..., Sequence[jax.Array]], stacked: Sequence[jax.Array]) -> list[jax.Array]:
    """A function of the values of one shard, run on all of them: operands and results are stacked."""
    if not maps:
        return list(fun(*stacked))
    spec = PartitionSpec(axes_of(maps[0]))

    def program(*shards: jax.Array) -> tuple[list[jax.Array], list[PartitionSpec]]:
        found = [lax.expand_dims(x, (0,)) for x in on_shards(maps[1:], fun, [lax.squeeze(x, (0,)) for x in shards])]
        return found, [spec] * len(found)

    return bind_shard_map(program, stacked, [spec] * len(stacked), dict(maps[0], check_vma=False))


def split(maps: Maps, params: Params, operands: Sequence[jax.Array]) -> list[jax.Array]:
    """The shards of the operands of a ``shard_map``, which stands in others; stacked."""
    spec = PartitionSpec(axes_of(params))

    def shards(*operands: jax.Array) -> list[jax.Array]:
        return bind_shard_map(lambda *xs: ([lax.expand_dims(x, (0,)) for x in xs], [spec] * len(xs)), operands, params["in_specs"],
                              dict(params, check_vma=False))

    return list(jax.jit(lambda *xs: on_shards(maps, shards, xs))(*operands))


class OnShards(Evaluated):
    """A program on shards, with the values of everything in it on every shard."""

    def __init__(self, jaxpr: ClosedJaxpr, stacked: Sequence[jax.Array], maps: Maps):
        body = jaxpr.jaxpr
        self.maps = maps
        self.arrange(jaxpr)
        made: list[Var] = []

        def everything(*shards: jax.Array) -> list[jax.Array]:
            env: dict[Var, Any] = dict(zip((*body.constvars, *body.invars), (*jaxpr.consts, *shards), strict=True))
            for eqn in body.eqns:
                env.update(zip(eqn.outvars, bind(eqn, *[x.val if is_literal(x) else env[x] for x in eqn.invars]), strict=True))
            made[:] = [v for v in env if isinstance(v.aval, ShapedArray) and not isinstance(v, DropVar)]
            return [jnp.asarray(env[v]) for v in made]

        values = jax.jit(lambda *xs: on_shards(maps, everything, xs))(*stacked)
        self.values = dict(zip(made, values, strict=True))
        self.counts = [math.prod(_sizes(params)) for params in maps]

    def value(self, atom: Atom) -> jax.Array:
        found = super().value(atom)
        return jnp.broadcast_to(found, (*self.counts, *found.shape)) if is_literal(atom) else found

    def view(self, eqn: JaxprEqn, operands: Sequence[jax.Array], entry: Entry, out: jax.Array) -> View:
        depth = len(self.maps)
        shard, at = entry[:depth], entry[depth:]
        alone, one = [self._one(x, shard) for x in operands], self._one(out, shard)
        where = self.coordinates(shard)
        names = {name for params in self.maps for name in axes_of(params)}
        if not is_collective(eqn, names):
            here = off_mesh(eqn)
            compiled = jax.jit(lambda *given: list(bind(here, *given)))
            return View(here, alone, lambda given: compiled(*given), at, shard, (), alone, one, where)

        together = jax.jit(lambda *xs: on_shards(self.maps, lambda *shards: bind(eqn, *shards), xs))
        return View(eqn, operands, lambda given: together(*given), entry, (), self.maps, alone, one, where)

    @staticmethod
    def _one(x: jax.Array, shard: Entry) -> jax.Array:
        one = x[shard]
        is_plain = not jax.dtypes.issubdtype(one.dtype, jax.dtypes.extended)
        return jnp.asarray(np.asarray(one)) if is_plain else jax.device_put(one, jax.local_devices()[0])

    def coordinates(self, shard: Entry) -> dict[str, int]:
        """Where a shard stands on the mesh."""
        found: dict[str, int] = {}
        for params, number in zip(self.maps, shard, strict=True):
            found.update(zip(axes_of(params), map(int, np.unravel_index(number, _sizes(params))), strict=True))
        return found


def is_collective(eqn: JaxprEqn, names: set[str]) -> bool:
    """Whether an operation, or one that it holds, names an axis of the mesh or maps over shards."""
    return eqn.primitive.name == "shard_map" or _names_one_of(eqn.params, names)


def _names_one_of(held: Any, names: set[str]) -> bool:
    if isinstance(held, str):
        return held in names
    if isinstance(held, dict):
        return any(_names_one_of(x, names) for x in held.values())
    if isinstance(held, (tuple, list, set, frozenset)):
        return any(_names_one_of(x, names) for x in held)
    if hasattr(held, "eqns"):
        return any(is_collective(eqn, names) for eqn in closed(held).jaxpr.eqns)
    return False


def shard_of_result(maps: Maps, params: Params, spec: PartitionSpec, out: jax.Array, entry: Entry, kind: Kind) -> Entry | None:
    """The entry of the stacked shards of a result that is an entry of the result; ``entry`` is bad in it."""
    depth = len(maps)
    local = out.shape[depth + 1:]
    axes, sizes = axes_of(params), _sizes(params)
    fixed: dict[str, Any] = {}
    at: list[int] = []
    for i, (index, names) in enumerate(zip(entry[depth:], _names(spec, len(local)), strict=True)):
        block, inside = divmod(index, local[i])
        if names:
            fixed.update(zip(names, np.unravel_index(block, [params["mesh"].shape[n] for n in names]), strict=True))
        at.append(inside)
    for number in range(math.prod(sizes)):
        where = dict(zip(axes, np.unravel_index(number, sizes), strict=True))
        if all(where.get(name, 0) == i for name, i in fixed.items()) and is_bad(out, (*entry[:depth], number, *at), kind):
            return (*entry[:depth], number, *at)
    return None


def entry_of_operand(maps: Maps, params: Params, spec: PartitionSpec, local: Sequence[int], entry: Entry) -> Entry:
    """The entry of an operand of a ``shard_map`` that is an entry of the stacked shards, which have the shape ``local``."""
    depth = len(maps)
    where = dict(zip(axes_of(params), map(int, np.unravel_index(entry[depth], _sizes(params))), strict=True))
    found: list[int] = []
    for index, size, names in zip(entry[depth + 1:], local, _names(spec, len(local)), strict=True):
        shape = [params["mesh"].shape[n] for n in names]
        block = int(np.ravel_multi_index([where.get(n, 0) for n in names], shape)) if names else 0
        found.append(block * size + index)
    return (*entry[:depth], *found)


def _names(spec: PartitionSpec, ndim: int) -> list[tuple[str, ...]]:
    """For each axis of an array, the axes of the mesh that split it."""
    found = [() if x is None else x if isinstance(x, tuple) else (x,) for x in spec]
    return [*found, *[()] * (ndim - len(found))]


def stacked_program(jaxpr: ClosedJaxpr, mesh: jax.sharding.AbstractMesh, stacked: Sequence[jax.Array]) -> ClosedJaxpr:
    """A program of one shard as a program of the operands of all, on devices that are arranged like the mesh."""
    devices = np.array(jax.devices()[: math.prod(mesh.axis_sizes)]).reshape(mesh.axis_sizes)
    whole = jax.sharding.Mesh(devices, mesh.axis_names, axis_types=(jax.sharding.AxisType.Auto,) * len(mesh.axis_names))
    maps: Maps = ({"mesh": whole, "newly_manual_axes": frozenset(mesh.manual_axes), "check_vma": False},)
    plain = closed(without_axes(jaxpr))
    return stage(lambda *xs: on_shards(maps, jaxpr_as_fun(plain), xs), [typeof(x) for x in stacked])


def as_one_loop(eqn: JaxprEqn, n_consts: int, n_state: int, maps: Maps) -> Callable[..., list[jax.Array]]:
    """A ``scan`` in which shards meet, as a function of stacked operands: a loop whose step runs on all of them."""
    depth, body, params = len(maps), eqn.params["jaxpr"], eqn.params

    def run(*stacked: jax.Array) -> list[jax.Array]:
        consts, start = stacked[:n_consts], list(stacked[n_consts:n_consts + n_state])
        arrays = [jnp.moveaxis(x, depth, 0) for x in stacked[n_consts + n_state:]]

        def step(state: list[jax.Array], slices: list[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
            out = on_shards(maps, jaxpr_as_fun(body), [*consts, *state, *slices])
            return out[:n_state], out[n_state:]

        end, rows = lax.scan(step, start, arrays, length=params["length"], reverse=params["reverse"])
        return [*end, *[jnp.moveaxis(x, 0, depth) for x in rows]]

    return run


def as_one_while(eqn: JaxprEqn, maps: Maps) -> Callable[..., list[jax.Array]]:
    """The same of a ``while``, which goes on for as long as one shard does: where shards meet, all take the same steps."""
    n_test, n_consts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    body, going = eqn.params["body_jaxpr"], eqn.params["cond_jaxpr"]

    def run(*stacked: jax.Array) -> list[jax.Array]:
        test, consts, start = stacked[:n_test], stacked[n_test:n_test + n_consts], list(stacked[n_test + n_consts:])
        found: list[jax.Array] = lax.while_loop(
            lambda state: jnp.any(on_shards(maps, jaxpr_as_fun(going), [*test, *state])[0]),
            lambda state: on_shards(maps, jaxpr_as_fun(body), [*consts, *state]), start)
        return found

    return run
