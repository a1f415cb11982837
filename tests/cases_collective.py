"""Where collectives, ``shard_map`` and what places values on a mesh are tested: they need several devices, or a named axis."""

from __future__ import annotations

from cases import Case
from releases import here

CASES: list[Case] = []

#: Those that only some releases of jax have, or have by another name.
_SOME = ("pbroadcast_dynamic", "reduced_vary_cast", "vary_unreduced_cast", "reduced_vary_cast_p", "vary_unreduced_cast_p")
_SOME_PLACES = ("relayout", "with_memory_space_constraint")


ELSEWHERE = dict.fromkeys((
    "psum", "psum_invariant", "pvary", "pmax", "pmin", "all_gather", "all_gather_invariant", "all_gather_reduced", "all_to_all",
    "ragged_all_to_all", "ppermute", "reduce_scatter", "unreduced_reduce_scatter", "unreduced_psum", "preduced", "pbroadcast",
    "axis_index", "shard_map", *filter(here, _SOME)), "test_collective.py")
ELSEWHERE |= dict.fromkeys(("sharding_constraint", "layout_constraint", "reshard", "inspect_sharding", *filter(here, _SOME_PLACES)),
                           "test_placement.py")
