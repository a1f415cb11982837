"""What jax wraps around the functions of a rule that a user attached: a program's parameter is the wrapped form."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

from jax._src.core import Trace
from jax._src.interpreters.partial_eval import _memoize
from jax._src.linear_util import DebugInfo, EqualStore, Store, WrappedFun
from jax._src.util import Unhashable

#: What a store holds follows from the function that it belongs to; a trace that has ended says nothing of the rule.
_SAYS_NOTHING = (Trace, Store, EqualStore)
_MEMOIZED: CodeType = _memoize(lambda: None).__code__
#: What the functions that users attached rules to consist of, by the names of their classes.
_RULED = {("jax._src.custom_derivatives", "custom_jvp"): ("fun", "nondiff_argnums", "jvp", "symbolic_zeros"),
          ("jax._src.custom_derivatives", "custom_vjp"): ("fun", "nondiff_argnums", "fwd", "bwd", "symbolic_zeros")}


def rule_parts(value: object) -> tuple[Any, ...] | None:
    """What one of jax's own wrappers consists of; None where it is none of them, or one that is not known here."""
    if isinstance(value, _SAYS_NOTHING):
        return ()
    if isinstance(value, WrappedFun):
        return value.f, *value.transforms, value.in_type, getattr(value, "params", ())
    if isinstance(value, DebugInfo):
        return value.func_src_info, value.arg_names
    if isinstance(value, Unhashable):
        return (value.val,)
    if isinstance(value, FunctionType) and value.__code__ is _MEMOIZED:
        cells = dict(zip(_MEMOIZED.co_freevars, value.__closure__ or (), strict=True))
        return (cells["fn"].cell_contents,)
    attributes = _RULED.get((type(value).__module__, type(value).__name__))
    return None if attributes is None else tuple([getattr(value, name, None) for name in attributes])
