"""Where collectives, ``shard_map`` and what places values on a mesh are tested: they need several devices, or a named axis."""

from __future__ import annotations

from cases import Case

from dualrev._jax import primitive

CASES: list[Case] = []

#: Those that only some releases of jax have, or have by another name.
_SOME = ("pbroadcast_dynamic", "reduced_vary_cast", "vary_unreduced_cast", "reduced_vary_cast_p", "vary_unreduced_cast_p")
_SOME_PLACES = ("relayout", "with_memory_space_constraint")


def found(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if primitive(name) is not None)


ELSEWHERE = dict.fromkeys((
    "psum", "psum_invariant", "pvary", "pmax", "pmin", "all_gather", "all_gather_invariant", "all_gather_reduced", "all_to_all",
    "ragged_all_to_all", "ppermute", "reduce_scatter", "unreduced_reduce_scatter", "unreduced_psum", "preduced", "pbroadcast",
    "axis_index", "shard_map", *found(_SOME)), "test_collective.py")
ELSEWHERE |= dict.fromkeys(("sharding_constraint", "layout_constraint", "reshard", "inspect_sharding", *found(_SOME_PLACES)),
                           "test_placement.py")
