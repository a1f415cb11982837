"""``shard_map``: how it is bound, and what reaches a trace when it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
from jax.api_util import debug_info as _debug_info  # names in error messages of wrapped functions
from jax.sharding import PartitionSpec

from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, Jaxpr, JaxprEqn, JaxprEqnContext, Var, is_literal, stage
from dualrev._jax.primitives import Params, primitive
from dualrev._jax.trees import PyTree

if TYPE_CHECKING:
    from jax._src.tree_util import FlatTree

#: A function of shards: its results, and how each lies on the mesh.
OnShards: TypeAlias = Callable[..., tuple[Sequence[jax.Array], Sequence[PartitionSpec]]]


def _flat_tree() -> Callable[[PyTree], FlatTree]:
    """What jax's own functions of shards return is a flat tree with the specs beside it; it has a module of its own since 0.11."""
    try:
        from jax._src.flattree import flatten
    except ImportError:
        from jax._src.tree_util import FlatTree

        return FlatTree.flatten
    return flatten


def bind_shard_map(fun: OnShards, args: Sequence[jax.Array], in_specs: Sequence[PartitionSpec], like: Params) -> list[jax.Array]:
    """Run ``fun`` on each shard, with the mesh and the settings of an existing ``shard_map``.

    ``fun`` returns its results and a spec for each, which need not be known before it has run: the public ``jax.shard_map`` asks
    for them first.
    """
    flatten = _flat_tree()

    def flat(*shards: jax.Array) -> FlatTree:
        results, specs = fun(*shards)
        return flatten(list(results)).with_aux(tuple(specs))

    info = _debug_info("shard_map", fun, args, {}).with_unknown_names()
    settings = {name: like[name] for name in ("mesh", "check_vma", "newly_manual_axes")}
    return list(primitive("shard_map").bind(*args, subfuns=(flat,), in_specs=tuple(in_specs), debug_info=info, **settings))


def rebind_shard_map(params: Params, args: Sequence[jax.Array]) -> list[jax.Array]:
    """Bind a ``shard_map`` by what :func:`stage_shard_map` made of it."""
    shard_map = primitive("shard_map")
    assert shard_map is not None
    if "run" in params:
        return bind_shard_map(params["run"], args, params["in_specs"], params)
    return list(shard_map.bind(*args, **shard_map.get_bind_params(params)))


def stage_shard_map(fun: Callable[..., FlatTree], args: Sequence[jax.Array],
                    settings: Params) -> tuple[list[jax.Array], Params, Callable[[Sequence[jax.Array]], FlatTree]]:
    """``(operands, parameters, pack)`` of a ``shard_map`` that arrives at a trace as a function.

    The operands are what the function closes over and then ``args``; the parameters hold a jaxpr and the specs of its results,
    and ``pack`` arranges results as whoever bound the function expects them.  A function whose control flow reads values cannot be
    staged: the parameters hold ``run`` instead, which returns results and specs when it is run on shards.
    """
    bound: list[FlatTree] = []

    def bind(*args: jax.Array) -> list[jax.Array]:
        bound[:] = [primitive("shard_map").bind(*args, subfuns=(fun,), **settings)]
        return list(bound[0])

    def run(*shards: jax.Array) -> tuple[list[jax.Array], Sequence[PartitionSpec]]:
        results, specs = fun(*shards).unpack_aux()
        bound[:] = [results]
        return list(results), specs

    try:
        jaxpr = stage(bind, [typeof(x) for x in args])
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError, jax.errors.TracerArrayConversionError):
        return list(args), dict(settings, run=run), lambda results: bound[0].update(results)
    (eqn,) = jaxpr.jaxpr.eqns
    found = dict(zip((*jaxpr.jaxpr.constvars, *jaxpr.jaxpr.invars), (*jaxpr.consts, *args), strict=True))
    operands = [atom.val if is_literal(atom) else found[atom] for atom in eqn.invars]
    return operands, eqn.params, bound[0].update


def without_axes(jaxpr: ClosedJaxpr | Jaxpr) -> ClosedJaxpr | Jaxpr:
    """A program that runs on shards, with types that do not state over which axes of the mesh values vary.

    Such a program can be taken apart: with types, some operations may follow on values of some kinds only.  Equations keep their lines.
    """
    body: Jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # type: ignore[arg-type]
    known: dict[Var, Atom] = {}

    def plain(atom: Atom) -> Atom:
        if is_literal(atom):
            return atom
        if atom not in known:
            aval = atom.aval
            known[atom] = type(atom)(ShapedArray(aval.shape, aval.dtype, aval.weak_type) if type(aval) is ShapedArray else aval)
        return known[atom]

    eqns: list[JaxprEqn] = []
    invars, constvars = [plain(v) for v in body.invars], [plain(v) for v in body.constvars]
    for eqn in body.eqns:
        if eqn.primitive.name in _CASTS:
            known[eqn.outvars[0]] = plain(eqn.invars[0])
            continue
        name, more = _UNTYPED.get(eqn.primitive.name, ("", {}))
        params = {**{key: _without_axes(held) for key, held in eqn.params.items()}, **more}
        eqns.append(eqn.replace(primitive=primitive(name) if name else eqn.primitive, params=params,
                                invars=[plain(v) for v in eqn.invars], outvars=[plain(v) for v in eqn.outvars]))  # type: ignore[misc]  # results are no literals
    made = body.replace(constvars=constvars, invars=invars, outvars=[plain(v) for v in body.outvars], eqns=eqns)
    return made if made is jaxpr or not hasattr(jaxpr, "consts") else ClosedJaxpr(made, jaxpr.consts)


#: What changes types only.
_CASTS = ("pvary", "reduced_vary_cast", "reduced_vary_cast_p", "vary_unreduced_cast", "vary_unreduced_cast_p")
#: Operations of typed programs, and those of others that compute the same.
_UNTYPED: dict[str, tuple[str, Params]] = {
    "psum_invariant": ("psum", {"axis_index_groups": None}),
    "all_gather_invariant": ("all_gather", {"axis_index_groups": None}),
}


def _without_axes(held: Any) -> Any:
    """The same of the programs in a parameter."""
    if hasattr(held, "eqns"):
        return without_axes(held)
    if isinstance(held, tuple):
        found = [_without_axes(x) for x in held]
        return type(held)(*found) if hasattr(held, "_fields") else tuple(found)
    return held


def off_mesh(eqn: JaxprEqn) -> JaxprEqn:
    """An equation of a program on shards, to be evaluated on one shard outside of ``shard_map``: its context has no mesh."""
    nowhere = jax.sharding.AbstractMesh((), ())
    with eqn.ctx.manager, jax.sharding.use_abstract_mesh(nowhere):
        context = JaxprEqnContext()
    params = {key: nowhere if key == "ctx_mesh" else _off_mesh(held) for key, held in eqn.params.items()}
    return eqn.replace(ctx=context, params=params)


def _off_mesh(held: Any) -> Any:
    if hasattr(held, "eqns"):
        body: Jaxpr = getattr(held, "jaxpr", held)
        made = body.replace(eqns=[off_mesh(eqn) for eqn in body.eqns])
        return ClosedJaxpr(made, held.consts) if hasattr(held, "consts") else made
    if isinstance(held, tuple):
        found = [_off_mesh(x) for x in held]
        return type(held)(*found) if hasattr(held, "_fields") else tuple(found)
    return held
