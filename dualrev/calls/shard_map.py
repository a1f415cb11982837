"""``shard_map`` and what places values on a mesh.

The derivative of a sharded program is a ``shard_map`` of the derivative of the program that each device runs.  Residuals leave the
first ``shard_map`` and enter the second along a new leading axis, which is sharded over the mesh axes over which they vary.

The derivative of a value that is replicated over devices depends on ``check_vma``.  With it, types state the axes over which a value
varies: a replicated value is one variable, ``pvary`` copies it, and its transpose sums the cotangents.  Without it, each device has
variables of its own, and the sums are taken at the edges of the program: a replicated operand is copied to ``n`` devices, so the ``n``
cotangents are summed; a replicated result is the mean of ``n`` equal results, so each has ``1/n`` of the cotangent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
from jax import lax
from jax.sharding import PartitionSpec

from dualrev import errors
from dualrev._jax.avals import ShapedArray, cotangent_aval, tangent_aval, typeof
from dualrev._jax.jaxprs import jaxpr_out_avals, stage
from dualrev._jax.primitives import Params, primitive
from dualrev._jax.shard_maps import OnShards, bind_shard_map, rebind_shard_map
from dualrev._jax.sharding import AxisName, spmd_axis_names, vary_as
from dualrev._jax.traces import Tracer
from dualrev.calls.call_rows import own_copy, splice
from dualrev.calls.evaluation import pushforward_of
from dualrev.calls.linearization import Linearization, linearization_of
from dualrev.engines import reverse
from dualrev.engines.forward import TANGENTS
from dualrev.engines.parts import evaluate
from dualrev.linear.maps import LinearMap, Tangents, Tape
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.table.forms import alongside, linear
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Operand, Pushed, Row, Taped, Unknown, aval_of, register, zero

#: The parameters that the shard_maps of a derivative take from the original one.
SETTINGS = ("mesh", "check_vma", "newly_manual_axes")


#: The specs of residuals, of active operands and of results, and the settings.
Layout: TypeAlias = tuple[tuple[PartitionSpec, ...], tuple[PartitionSpec, ...], tuple[PartitionSpec, ...], tuple[tuple[str, Any], ...]]

T = TypeVar("T")


def _only(values: Sequence[T], flags: Sequence[Active]) -> list[T]:
    return [x for x, flag in zip(values, flags, strict=True) if flag]


def _axes_of(spec: PartitionSpec) -> set[AxisName]:
    """The mesh axes that a spec names."""
    names: set[AxisName] = set(spec.unreduced)
    for entry in spec:
        names.update(() if entry is None else entry if isinstance(entry, tuple) else (entry,))
    return names


def _manual_axes(settings: Params) -> tuple[AxisName, ...]:
    """The mesh axes over which a ``shard_map`` splits values, in the order of the mesh."""
    taken = spmd_axis_names()
    return tuple(name for name in settings["mesh"].axis_names if name in settings["newly_manual_axes"] and name not in taken)


def _copies(spec: PartitionSpec, settings: Params) -> tuple[AxisName, ...]:
    """The axes over which values of a spec are replicated, where types do not state it."""
    if settings["check_vma"]:
        return ()
    named = _axes_of(spec)
    return tuple(name for name in _manual_axes(settings) if name not in named)


def _residual_spec(x: jax.Array, settings: Params) -> PartitionSpec:
    """The spec of a residual with its new leading axis."""
    if not settings["check_vma"]:
        return PartitionSpec(_manual_axes(settings))
    # A value that varies over the axes of an enclosing shard_map does so inside and outside this one.
    mat, new = typeof(x).mat, settings["newly_manual_axes"]
    names = tuple(name for name in settings["mesh"].axis_names if name in mat.varying & new)
    return PartitionSpec(names or None, unreduced=mat.unreduced & new, reduced=mat.reduced & new)


class ShardMap(LinearMap):
    """The derivative of a ``shard_map``: the linearization of the program of each device, and residuals sharded over the mesh."""

    __slots__ = ("layout", "linearization", "residuals")

    name = "shard_map"

    def __init__(self, residuals: Sequence[jax.Array], linearization: Linearization | Unstaged, layout: Layout):
        self.residuals = residuals
        self.linearization = linearization
        self.layout = layout

    def inner_maps(self) -> list[LinearMap]:
        return [self.linearization.example()]

    def _apply(self, direction: str, vectors: Sequence[Tangent], specs: Sequence[PartitionSpec],
               result_specs: Sequence[PartitionSpec], finish: Callable[[jax.Array, int], jax.Array]) -> Tangents:
        """A push or a pull, shard by shard; ``finish(t, i)`` is applied to result ``i`` on each device."""
        residual_specs, _, _, settings = self.layout
        n = len(self.residuals)
        present = [t is not None for t in vectors]
        which: list[bool] = []

        def program(*args: jax.Array) -> tuple[list[jax.Array], list[PartitionSpec]]:
            residuals = [lax.squeeze(x, (0,)) if kind == "new" else x
                         for x, (kind, _) in zip(args[:n], self.linearization.residual_sources, strict=True)]
            values = iter(args[n:])
            given = [next(values) if p else None for p in present]
            results = self.linearization.apply(direction, residuals, tuple(given))
            which[:] = [t is not None for t in results]
            return [finish(t, i) for i, t in enumerate(results) if t is not None], _only(result_specs, which)

        results = iter(bind_shard_map(program, [*self.residuals, *[t for t in vectors if t is not None]],
                                      [*residual_specs, *_only(specs, present)], dict(settings)))
        return tuple([next(results) if is_nonzero else None for is_nonzero in which])

    def push(self, *tangents: Tangent) -> Tangents:
        _, in_specs, out_specs, _ = self.layout
        avals = [tangent_aval(a) for a in self.linearization.out_avals]
        return self._apply("push", tangents, in_specs, out_specs, lambda t, i: vary_as(t, avals[i]))

    def pull(self, *cotangents: Tangent) -> Tangents:
        _, in_specs, out_specs, settings_ = self.layout
        settings = dict(settings_)
        lin = self.linearization
        avals = [cotangent_aval(a) for a, flag in zip(lin.in_avals, lin.active, strict=True) if flag]
        in_specs, out_specs = tuple([spec.to_ct_spec() for spec in in_specs]), tuple([spec.to_ct_spec() for spec in out_specs])

        def share(ct: Tangent, spec: PartitionSpec) -> Tangent:
            n = math.prod(settings["mesh"].shape[name] for name in _copies(spec, settings))
            return ct if ct is None or n == 1 else lax.div(ct, lax.full_like(ct, n))

        def collect(ct: jax.Array, i: int) -> jax.Array:
            copies = _copies(in_specs[i], settings)
            return lax.psum(ct, copies) if copies else vary_as(ct, avals[i])

        shares = [share(ct, spec) for ct, spec in zip(cotangents, out_specs, strict=True)]
        return self._apply("pull", shares, out_specs, in_specs, collect)


jax.tree_util.register_pytree_node(
    ShardMap, lambda m: (tuple(m.residuals), (m.linearization, m.layout)), lambda aux, residuals: ShardMap(residuals, *aux)
)


class Unstaged:
    """Takes the place of a :class:`Linearization` where the function is not jitted and cannot be staged.

    Such a function may branch on a value that is equal on all devices.
    """

    def __init__(self, run: OnShards, active: tuple[Active, ...]):
        self.run = run
        self.active = active

    def __call__(self, *args: jax.Array) -> Sequence[jax.Array]:
        outs, self.out_specs = self.run(*args)
        return outs

    def evaluate(self, args: Sequence[Operand]) -> tuple[Sequence[Operand], list[jax.Array]]:
        outs, tape = reverse.linearize(self, args, self.active)
        leaves, self.treedef = jax.tree_util.tree_flatten(tape)
        self.constants = [None if isinstance(x, Tracer) else x for x in leaves]
        new = [x for x in leaves if isinstance(x, Tracer)]
        self.residual_sources = [("new", i) for i in range(len(new))]
        self.in_avals, self.out_avals = [typeof(x) for x in args], [typeof(x) for x in outs]
        self.active_outs = tuple([slot is not None for slot in tape.out_slots])
        self.known_outs = [True] * len(outs)
        return outs, new  # type: ignore[return-value]  # a tracer is an array

    def tape(self, residuals: Sequence[jax.Array]) -> Tape:
        values = iter(residuals)
        tape: Tape = jax.tree_util.tree_unflatten(self.treedef, [next(values, None) if x is None else x for x in self.constants])
        return tape

    def example(self) -> Tape:
        return self.tape(())

    def apply(self, direction: str, residuals: Sequence[jax.Array], vectors: Tangents) -> Tangents:
        results: Tangents = getattr(self.tape(residuals), direction)(*vectors)
        return results


class ShardMapRow(Row):
    """``shard_map``; without ``jit`` it runs one operation at a time, as jax's does."""

    kind = "call"
    takes_parts = "uniform"

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried:
        leaves, structure = mode.flatten(parts)
        structure_out: list[Any] = []
        n, in_specs = len(primals), params["in_specs"]
        specs = [spec for p, own in zip(parts, in_specs, strict=True) for spec in mode.specs(own, p)]

        def program(*args: jax.Array) -> tuple[list[jax.Array], list[PartitionSpec]]:
            shards = mode.unflatten(structure, args[n:])
            if "run" in params:
                fun = Unstaged(params["run"], tuple([p is not None for p in parts]))
                outs, parts_out = evaluate(mode, fun, args[:n], shards)
                out_specs = fun.out_specs
            else:
                within = mode.flatten(shards)[1]  # the structure has the types of shards, not of whole arrays
                outs, parts_out = pushforward_of(own_copy(params["jaxpr"]), within, splice("shard_map"), mode)(args[:n], shards)
                out_specs = params["out_specs"]
            found, structure_out[:] = [], [len(outs), mode.flatten(parts_out)[1]]
            found_specs: list[PartitionSpec] = []
            for x, p, spec in zip(outs, parts_out, out_specs, strict=True):
                found += [vary_as(leaf, typeof(x)) for leaf in mode.flatten([p])[0]]
                found_specs += mode.specs(spec, p)
            return [*outs, *found], [*out_specs, *found_specs]

        results = bind_shard_map(program, [*primals, *leaves], [*in_specs, *specs], params)
        n_out, structure = structure_out
        return results[:n_out], mode.unflatten(structure, results[n_out:])

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        return self.through(TANGENTS, primals, tangents, params)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Taped:
        if is_linear and "run" in params:
            raise errors.not_linear(self.primitive)
        in_specs = params["in_specs"]
        known = [type(x) is not Unknown for x in primals]
        made: list[Any] = []

        def program(*args: jax.Array) -> tuple[list[jax.Array], list[PartitionSpec]]:
            linearization: Any
            if "run" in params:
                linearization = Unstaged(params["run"], active)
            else:
                linearization = linearization_of(own_copy(params["jaxpr"]), active, is_linear, splice("shard_map"))
            outs, new = linearization.evaluate(args)
            out_specs = linearization.out_specs if "run" in params else params["out_specs"]
            new_specs = [_residual_spec(x, params) for x in new]
            made[:] = [linearization, out_specs, new_specs]
            return [*outs, *[lax.expand_dims(x, (0,)) for x in new]], [*_only(out_specs, linearization.known_outs), *new_specs]

        given = [x for x in primals if not isinstance(x, Unknown)]
        results = bind_shard_map(program, given, _only(in_specs, known), params)
        linearization, out_specs, new_specs = made
        n_known = sum(linearization.known_outs)
        outs: list[Operand] = [*results[:n_known]]
        if is_linear:
            staged = stage(lambda *args: rebind_shard_map(params, args), [aval_of(x) for x in primals])
            values, avals = iter(results), jaxpr_out_avals(staged)
            outs = [next(values) if k else Unknown(a) for k, a in zip(linearization.known_outs, avals, strict=True)]
        pools: dict[str, tuple[Sequence[Any], Sequence[PartitionSpec]]]
        pools = {"in": (primals, in_specs), "out": (outs, out_specs), "new": (results[n_known:], new_specs)}
        found = [(pools[kind][0][i], pools[kind][1][i]) for kind, i in linearization.residual_sources]
        settings = tuple([(name, params[name]) for name in SETTINGS])
        layout = (tuple([spec for _, spec in found]), tuple(_only(in_specs, active)), tuple(out_specs), settings)
        return outs, ShardMap([x for x, _ in found], linearization, layout), linearization.active_outs


register(ShardMapRow(primitive("shard_map")))


# ------------------------------------------------------------------------------------------------------------------- placing

# A tangent is placed like its operand.  Where the place is part of a type, a cotangent returns to the place of the operand.


def unreshard(ct: jax.Array, x: ShapedArray, *, concrete_mesh: Any) -> jax.Array:
    """The adjoint of ``reshard``."""
    sharding = cotangent_aval(x).sharding
    with jax.sharding.use_abstract_mesh(sharding.mesh):
        return reshard.bind(ct, dst_sharding=sharding, concrete_mesh=concrete_mesh)


def back_to_memory(operands: Sequence[Any], _: Sequence[int], back: bool, *, memory_space: Any) -> Params:
    return dict(memory_space=operands[0].memory_space if back else memory_space)


def back_to_layout(operands: Sequence[Any], _: Sequence[int], back: bool, *, dst_layout: Any) -> Params:
    return dict(dst_layout=operands[0].layout if back else dst_layout)


reshard = primitive("reshard")
alongside(primitive("sharding_constraint"))
alongside(primitive("layout_constraint"))
linear(reshard, unreshard)
for name, params_of in (("with_memory_space_constraint", back_to_memory), ("relayout", back_to_layout)):  # since 0.11
    if (found := primitive(name)) is not None:
        alongside(found, params_of)
zero(primitive("inspect_sharding"))
