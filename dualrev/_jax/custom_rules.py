"""The carriers of rules that users attach with ``jax.custom_jvp`` and ``jax.custom_vjp``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax._src.ad_util import SymbolicZero as SymbolicZero  # zeros that reach custom rules with symbolic_zeros=True
from jax._src.ad_util import Zero as Zero  # a None that a backward function returns; zeros that reach rules of libraries
from jax._src.custom_derivatives import custom_jvp_call_p as custom_jvp_call_p  # carries a user's jax.custom_jvp rule
from jax._src.custom_derivatives import custom_vjp_call_p as custom_vjp_call_p  # carries a user's jax.custom_vjp rule
from jax._src.linear_util import WrappedFun as WrappedFun  # a function as it reaches a trace, flattened
from jax._src.linear_util import wrap_init as _wrap_init  # custom rule primitives take wrapped functions
from jax.api_util import debug_info as _debug_info  # names in error messages of wrapped functions
from jax.extend.core import DebugInfo  # likewise, where they are written out

from dualrev._jax.avals import JAX_VERSION, cotangent_aval, tangent_aval, typeof

if TYPE_CHECKING:
    from typing_extensions import TypeIs


def bind_custom_jvp(fun: Callable[..., list[jax.Array]], jvp: Callable[..., list[jax.Array | SymbolicZero]],
                    args: Sequence[jax.Array], whose: str | None = None) -> list[jax.Array]:
    """Bind jax's call-with-a-pushforward primitive: ``jvp(*primals, *tangents)`` returns primals then tangents, flat.

    Tangents that are zero arrive, and may leave, as :class:`SymbolicZero`.  ``whose`` names the user's function, as
    ``name at file:line``, for whoever reads the program.

    The primitive is the carrier that every jax trace knows; whoever differentiates it asks its own trace.
    """
    info = _debug_info("dualrev rule", fun, args, {})
    info = info if whose is None else info._replace(func_src_info=whose)
    return custom_jvp_call_p.bind(*args, subfuns=(_wrap_init(fun, debug_info=info), _wrap_init(jvp, debug_info=info)),
                                  symbolic_zeros=True)


def bind_identity(name: str, bwd: Callable[..., Sequence[jax.Array]], residuals: Sequence[jax.Array],
                  args: Sequence[jax.Array]) -> list[jax.Array]:
    """Bind jax's call-with-a-backward-function primitive: the results are ``args``, and ``bwd(residuals, cotangents)`` gives their
    cotangents from those of the results.  ``name`` stands in messages for the function and its backward function.

    Zeros arrive as arrays, of float0 for integers.  Since 0.11 a backward function returns what it logs, too.
    """
    n = len(residuals)
    tree = jax.tree_util.tree_structure([0] * len(args))
    trees = (tree, jax.tree_util.tree_structure([0] * n), tuple(range(n)))  # the residuals are the first operands

    def same(*operands: jax.Array) -> list[jax.Array]:
        return list(operands[n:])

    def forward(*operands: jax.Array | bool) -> list[jax.Array | bool]:
        return list(operands[2 * n:: 2])  # each operand is followed by whether it is active

    def backward(*given: jax.Array) -> list[Zero | jax.Array] | tuple[list[Zero | jax.Array], None]:
        zeros: list[Zero | jax.Array] = [Zero(cotangent_aval(tangent_aval(typeof(x)))) for x in given[:n]]
        cts = [*zeros, *bwd(given[:n], given[n:])]
        return (cts, None) if JAX_VERSION >= (0, 11) else cts

    info = DebugInfo("custom_vjp", name, None, None)
    functions = tuple([_wrap_init(f, debug_info=info) for f in (same, forward, backward)])
    return list(custom_vjp_call_p.bind(*residuals, *args, subfuns=functions, out_trees=lambda: trees, symbolic_zeros=False))


def wrapped(fun: Callable[..., list[Any]], name: str) -> WrappedFun:
    """A flat function in the form in which rules reach a trace; ``name`` stands in messages."""
    return _wrap_init(fun, debug_info=DebugInfo("custom_vjp", name, None, None))


def call_bwd(bwd: WrappedFun, residuals: Sequence[jax.Array],
             cotangents: Sequence[jax.Array | SymbolicZero]) -> list[jax.Array | None]:
    """Call the flattened backward function of a ``custom_vjp``; since 0.11 it returns ``(cotangents, logs)``.

    A None that the user returned arrives as a zero of a class of jax's own, and is None again.
    """
    result = bwd.call_wrapped(*residuals, *cotangents)
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], (list, tuple)):
        result = result[0]
    return [None if is_symbolic_zero(ct) else ct for ct in result]


def is_symbolic_zero(x: object) -> TypeIs[Zero | SymbolicZero]:
    """Whether ``x`` is one of jax's two kinds of zero that are no arrays."""
    return type(x) is Zero or type(x) is SymbolicZero


def forget(fun: WrappedFun) -> None:
    """Forget what a wrapped function stored of its results' structure, as if it had not been called.

    Of the function and the forward function of a custom_vjp, jax expects one to be called, once.
    """
    for store in fun.stores:
        if store is not None:
            store.reset()
