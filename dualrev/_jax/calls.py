"""``jit``, ``cond``, ``scan`` and ``while``: their primitives, and how the layout of their parameters differs between releases."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeVar

import jax
from jax._src.named_sharding import UNSPECIFIED as UNSPECIFIED  # the sharding that leaves the choice to the compiler
from jax.extend.core.primitives import cond_p as cond_p
from jax.extend.core.primitives import jit_p as jit_p
from jax.extend.core.primitives import scan_p as scan_p
from jax.extend.core.primitives import while_p as while_p

from dualrev._jax.avals import JAX_VERSION
from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev._jax.primitives import Params

if JAX_VERSION >= (0, 11):
    from jax._src import flattree as _flattree  # the tree of inputs among the parameters of a scan

T = TypeVar("T")


def scan_layout(params: Params) -> tuple[int, int]:
    """``(number of constants, number of carries)`` of a scan: since 0.11 they stand in a tree of inputs, ``ft_in``."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _xs = params["ft_in"].unpack()
    return len(list(consts)), len(list(carry))


def scan_with(params: Params, jaxpr: ClosedJaxpr, n_consts: int, n_carry: int) -> Params:
    """The settings of a scan with another body, of so many constants and carries."""
    if "num_consts" in params:
        return dict(params, jaxpr=jaxpr, num_consts=n_consts, num_carry=n_carry)
    ins = [_flattree.nones(n) for n in (n_consts, n_carry, len(jaxpr.in_avals) - n_consts - n_carry)]
    outs = [_flattree.nones(n) for n in (n_carry, len(jaxpr.out_avals) - n_carry)]
    return dict(params, jaxpr=jaxpr, ft_in=_flattree.pack(tuple(ins)), ft_out=_flattree.pack(tuple(outs)))


def bind_jit(like: Params, jaxpr: ClosedJaxpr, args: Sequence[jax.Array], name: str, in_like: Sequence[int | None],
             out_like: Sequence[int | None]) -> list[jax.Array]:
    """Bind the jit primitive on a new jaxpr, keeping the settings of an existing call.

    ``in_like[i]`` is the operand of the old call whose sharding and layout the new operand ``i`` has, or None for a new one;
    ``out_like`` likewise.  Donation is dropped: an operand may be a residual as well.
    """
    def pick(old: Sequence[T], which: Sequence[int | None], default: T) -> tuple[T, ...]:
        return tuple(default if i is None else old[i] for i in which)

    params = dict(
        like,
        jaxpr=jaxpr,
        name=name,
        in_shardings=pick(like["in_shardings"], in_like, UNSPECIFIED),
        out_shardings=pick(like["out_shardings"], out_like, UNSPECIFIED),
        in_layouts=pick(like["in_layouts"], in_like, None),
        out_layouts=pick(like["out_layouts"], out_like, None),
        donated_invars=(False,) * len(in_like),
    )
    return jit_p.bind(*args, **params)


@functools.cache
def inlined() -> Params:
    """The settings of a jit call that asks to be spliced into the program around it, and for nothing else."""
    (eqn,) = jax.make_jaxpr(jax.jit(lambda x: x))(1.0).eqns
    inline = eqn.params["inline"]
    return dict(eqn.params, inline=True if isinstance(inline, bool) else type(inline).JAX_EARLY)


def is_inlined(params: Params) -> bool:
    """Whether a jit call asks to be spliced into the program around it; ``inline`` is an enumeration since 0.11."""
    inline = params["inline"]
    return inline is True or getattr(inline, "name", "") == "JAX_EARLY"


def has_explicit_layout(params: Params) -> bool:
    """Whether a jit call fixes a sharding, a layout or a compiler option that a plain ``jax.jit`` would lose."""
    return (
        any(s is not UNSPECIFIED for s in (*params["in_shardings"], *params["out_shardings"]))
        or any(layout is not None for layout in (*params["in_layouts"], *params["out_layouts"]))
        or bool(params["compiler_options_kvs"])
    )
