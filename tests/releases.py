"""Primitives that only some releases of jax have.

What tests a primitive runs wherever the primitive is to be, and fails where it is not: nothing is left out because it was not found.
"""

from __future__ import annotations

from dualrev._jax.avals import JAX_VERSION

#: The release that a primitive came with.
SINCE = {
    **dict.fromkeys(("log2", "one_minus_square", "polynomial"), (0, 12)),
    **dict.fromkeys(("reduced_vary_cast", "vary_unreduced_cast", "relayout", "with_memory_space_constraint"), (0, 11)),
    **dict.fromkeys(("pbroadcast_dynamic", "program_order"), (0, 12)),
}
#: The release that no longer has it, at times as it has another name there.
UNTIL = {**dict.fromkeys(("reduced_vary_cast_p", "vary_unreduced_cast_p"), (0, 11)),
         **dict.fromkeys(("call", "closed_call", "shard_alike"), (0, 12))}


def here(name: str) -> bool:
    """Whether this release of jax is to have a primitive."""
    return SINCE.get(name, (0,)) <= JAX_VERSION and (name not in UNTIL or UNTIL[name] > JAX_VERSION)
