"""Programs that are equal, and what is derived from one of them for all.

A function that is made anew at each call, such as the body of a loop, is traced anew each time, to a program of the same content.
:func:`identity` gives one object for all such programs.  Two programs are equal if they were traced from a function at the same line,
in the same context of jax, and have the same operations, on the same operands, with the same parameters.

What is derived from a program outlives the function that the program was traced from.  A program that may hold arrays is therefore
equal to itself alone: one with constants, or with a function among its parameters (a rule or a callback of the user's).
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Any, TypeAlias

import jax
import numpy as np

from dualrev._jax.calls import UNSPECIFIED
from dualrev._jax.custom_rules import WrappedFun
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, hoisted, trace_context
from dualrev._jax.library_functions import is_global_of_jax
from dualrev._jax.traces import Tracer

#: The number of contents that are known, and that of their equations: beyond, the one that was asked for longest ago is dropped.
CONTENTS_KEPT = 512
EQUATIONS_KEPT = 50_000

AnyJaxpr: TypeAlias = ClosedJaxpr | Jaxpr
ARRAYS = (jax.Array, np.ndarray)


class Content:
    """Stands for all programs of one content."""

    __slots__ = ("__weakref__", "n_eqns")

    def __init__(self, n_eqns: int):
        self.n_eqns = n_eqns


#: What is known of a program for as long as its owner lives: its content, or the program where it is equal to itself alone.
Identity: TypeAlias = Content | ClosedJaxpr | Jaxpr


class _Unshared(Exception):  # noqa: N818  (a signal)
    """The program may hold arrays, or holds what cannot be compared."""


class _Contents:
    """The newest contents."""

    def __init__(self) -> None:
        self.known: OrderedDict[Hashable, Content] = OrderedDict()
        self.n_eqns = 0
        self._lock = threading.RLock()

    def of(self, key: Hashable, n_eqns: int) -> Content:
        with self._lock:  # another thread may drop what this one has found
            found = self.known.get(key)
            if found is not None:
                self.known.move_to_end(key)
                return found
            made = self.known[key] = Content(n_eqns)
            self.n_eqns += n_eqns
            while len(self.known) > CONTENTS_KEPT or (self.n_eqns > EQUATIONS_KEPT and len(self.known) > 1):
                self.n_eqns -= self.known.popitem(last=False)[1].n_eqns
            return made


_contents = _Contents()

#: For each program that was asked for, its content; None where it is equal to itself alone.
_known: weakref.WeakKeyDictionary[AnyJaxpr, Content | None] = weakref.WeakKeyDictionary()


def identity(program: AnyJaxpr) -> Identity:
    """One object for all programs that are equal to this one."""
    try:
        found = _known[program]
    except KeyError:
        found = _find(program)
    return program if found is None else found


class Fingerprint:
    """What tells a program from others: its content, and the values that it closes over.

    Two are equal if they surely stand for the same program.  Values that are being traced are unknown in either.
    """

    def __init__(self, program: ClosedJaxpr):
        without, self.consts = hoisted(program)
        found = identity(without)
        #: None where the program is equal to itself alone.
        self.content = None if found is without else found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint) or self.content is None or self.content is not other.content:
            return False
        return all(map(_is_same, self.consts, other.consts))

    __hash__ = None  # type: ignore[assignment]


def _is_same(a: object, b: object) -> bool:
    if a is b or (isinstance(a, Tracer) and isinstance(b, Tracer)):
        return True
    if isinstance(a, Tracer) or isinstance(b, Tracer) or not isinstance(a, ARRAYS) or not isinstance(b, ARRAYS):
        return False
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.extended) or a.dtype != b.dtype:
        return False
    return bool(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=a.dtype.kind in "fc"))


def forget_contents() -> None:
    """Drop all contents: the table has changed, and so has what is derived from a program."""
    _contents.known.clear()
    _contents.n_eqns = 0
    _known.clear()


def _find(program: AnyJaxpr) -> Content | None:
    try:
        found = _contents.of(_content(program), len(program.eqns))
    except _Unshared:
        found = None
    _known[program] = found
    return found


def _content(program: AnyJaxpr) -> Hashable:
    """All of a program that its derivatives depend on, and that their messages name."""
    body: Jaxpr = getattr(program, "jaxpr", program)  # type: ignore[arg-type]
    if body.effects or getattr(program, "consts", None):
        raise _Unshared
    numbers: dict[Any, int] = {var: i for i, var in enumerate((*body.constvars, *body.invars))}
    n_in = len(numbers)
    eqns = []
    for eqn in body.eqns:
        ins = tuple([_literal(x) if type(x) is Literal else numbers[x] for x in eqn.invars])
        eqns.append((eqn.primitive, ins, _params(eqn), len(eqn.outvars), eqn.ctx, eqn.source_info.name_stack))
        for var in eqn.outvars:
            numbers[var] = len(numbers)
    outs = tuple([_literal(x) if type(x) is Literal else numbers[x] for x in body.outvars])
    avals = tuple([var.aval for var in (*body.constvars, *body.invars, *body.outvars)])
    return type(program), body.debug_info.func_src_info, trace_context(), n_in, avals, tuple(eqns), outs


def _is_one_of_its_kind(kind: type) -> bool:
    """Whether objects of a class are equal to themselves alone."""
    found: object = kind.__hash__
    return found is object.__hash__


def _params(eqn: JaxprEqn) -> tuple[Hashable, ...]:
    return tuple([(name, value if value is None or type(value) is int else _value(value, eqn)) for name, value in eqn.params.items()])


def _literal(literal: Literal) -> Hashable:
    """The bits of a number: 0 and -0 are not the same, and NaN is."""
    value = None if isinstance(literal.val, jax.Array) else np.asarray(literal.val)
    if value is None or value.dtype == object:
        raise _Unshared
    return type(literal.val), literal.aval, value.dtype, value.tobytes()


def _value(value: Any, eqn: JaxprEqn) -> Hashable:
    """A parameter: what is compared by value, programs, and collections of these."""
    kind = type(value)
    if value is None or kind is int or kind is str:
        return value  # type: ignore[no-any-return]
    if kind is bool or kind is bytes or isinstance(value, (np.dtype, type, Enum, jax.sharding.Mesh)):
        return kind, value
    if kind is float or kind is complex or isinstance(value, np.generic):
        return kind, np.asarray(value).tobytes()
    if isinstance(value, (tuple, list)):
        return kind, *[_value(x, eqn) for x in value]
    if isinstance(value, (ClosedJaxpr, Jaxpr)):
        found = identity(value)
        if found is value:
            raise _Unshared
        return found
    if value is UNSPECIFIED:
        return None
    if isinstance(value, WrappedFun):
        # The rule of a global function of jax's, such as ``relu``, is always the same.
        program = eqn.params.get("call_jaxpr")
        if program is not None and is_global_of_jax(program):
            return None
        raise _Unshared
    # Dimension numbers, shardings, symbolic sizes.
    if kind.__module__.startswith(("jax.", "jaxlib.")) and not _is_one_of_its_kind(kind) and not callable(value):
        try:
            hash(value)
        except TypeError:
            raise _Unshared from None
        return kind, value
    raise _Unshared
