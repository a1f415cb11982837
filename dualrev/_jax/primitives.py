"""Primitives of jax by name."""

from __future__ import annotations

import functools
import importlib.util
import sys
from types import ModuleType
from typing import Any, TypeAlias

from jax._src.ad_util import add_any_p as add_any_p  # jax's sum of cotangents; appears in traced programs
from jax.extend.core import Primitive as Primitive
from jax.interpreters.batching import fancy_primitive_batchers as _batching_rules  # all rules of vmap, whatever they are given

#: What an equation says besides its operands: each primitive has parameters of its own.
Params: TypeAlias = dict[str, Any]


def primitive(name: str) -> Any:
    """The primitive of this name, or None where this release of jax has none.

    For primitives without a public name, and those that only some releases have (``log2``, ``one_minus_square`` and
    ``polynomial`` came with 0.12).
    """
    found = _primitives().get(name)
    if found is None and "jax.experimental.sparse" in sys.modules:
        found = _sparse_primitives().get(name)
    return found


def has_batching_rule(primitive: Primitive) -> bool:
    """Whether ``vmap`` takes operations of a primitive."""
    return primitive in _batching_rules


def host_array_primitives() -> tuple[Primitive, Primitive]:
    """The primitives that make one array of those that hosts hold, and back, for programs that have imported their module."""
    from jax.experimental import multihost_utils

    return multihost_utils.host_local_array_to_global_array_p, multihost_utils.global_array_to_host_local_array_p


def kernel_primitives() -> tuple[Primitive, Primitive, Primitive]:
    """The call of a Pallas kernel, and its masked reads and writes, for programs that have one: importing their module takes time."""
    from jax._src.pallas.pallas_call import pallas_call_p
    from jax._src.pallas.primitives import load_p, swap_p

    return pallas_call_p, load_p, swap_p


@functools.cache
def _sparse_primitives() -> dict[str, Primitive]:
    """The primitives of sparse arrays, for programs that use them: importing their modules takes time."""
    from jax.experimental.sparse import api, bcoo, bcsr, coo, csr, linalg

    return {str(value): value for module in (api, bcoo, bcsr, coo, csr, linalg) for value in vars(module).values()
            if isinstance(value, Primitive)}


def _seldom_imported() -> list[ModuleType]:
    """Small modules that jax itself does not import, those that this release has."""
    names = ("jax._src.buffer_callback", "jax._src.compute_on", "jax._src.program_order", "jax._src.shard_alike",
             "jax.experimental.fused", "jax.experimental.scheduling_groups")
    return [importlib.import_module(name) for name in names if importlib.util.find_spec(name) is not None]


@functools.cache
def _primitives() -> dict[str, Primitive]:
    from jax._src import (
        ad_checkpoint,
        ad_util,
        callback,
        checkify,
        core,
        custom_batching,
        custom_derivatives,
        debugging,
        dispatch,
        ffi,
        hijax,
        pjit,
        random,
        shard_map,
        xla_metadata,
    )
    from jax._src.core import Primitive
    from jax._src.lax import ann, control_flow, convolution, fft, lax, linalg, other, parallel, slicing, special
    from jax._src.lax import windowed_reductions as windowed
    from jax._src.lax.control_flow import solves
    from jax._src.random import prng
    from jax._src.state import discharge
    from jax._src.state import primitives as state

    modules: tuple[ModuleType, ...] = (
        core, ad_checkpoint, ad_util, debugging, dispatch, random, prng, lax, slicing, control_flow, windowed, convolution, ann, linalg,
        fft, other, parallel, special, solves, state, discharge, pjit, shard_map, callback, checkify, custom_batching,
        custom_derivatives, ffi, hijax, xla_metadata, *_seldom_imported())
    return {str(value): value for module in modules for value in vars(module).values() if isinstance(value, Primitive)}
