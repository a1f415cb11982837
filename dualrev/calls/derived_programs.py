"""Derived programs: how a traced function runs and is bound, and the cache of all programs that are derived from others.

A :class:`Program` is a traced flat function.  On concrete values it runs compiled; under a trace it is bound as one ``jit`` call, or
inlined.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import jax

from dualrev._jax.calls import bind_jit, has_explicit_layout, inlined, is_inlined
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr
from dualrev._jax.primitives import Params
from dualrev._jax.source_lines import at_no_line
from dualrev._jax.traces import is_batching, is_eager
from dualrev.options.settings import DEFAULT, Active, Settings, current
from dualrev.programs.jaxprs import check_operands, replayer, runner
from dualrev.programs.shared import Identity, forget_contents, identity
from dualrev.table.mode import Mode

if TYPE_CHECKING:
    from dualrev.calls.evaluation import Pushforward
    from dualrev.calls.linearization import Linearization

#: The number of derivative programs in the cache; each is also dropped with the program that it was derived from.
PROGRAMS_KEPT = 2048

#: The latest request for a linearization, and the result: the jaxpr, active inputs, ``is_linear``, settings, and the linearization.
Recent: TypeAlias = tuple[weakref.ref[ClosedJaxpr], tuple[Active, ...], bool, Settings, "weakref.ref[Linearization]"]

#: The latest request for a push, and the result: the jaxpr, the structure of parts, the mode, settings, and the push.
RecentPush: TypeAlias = tuple[weakref.ref[ClosedJaxpr], Hashable, Mode, Settings, "weakref.ref[Pushforward]"]

T = TypeVar("T")


class Wrapper:
    """How a program is bound under a trace: with the settings of the call that it replaces, or inlined (``like`` is None).

    ``bind`` binds the primitive of that call, as :func:`~dualrev._jax.calls.bind_jit` does for ``jit``.
    """

    __slots__ = ("_hash", "bind", "inline", "is_plain", "key", "like", "name", "recent", "recent_push")

    def __init__(self, name: str, like: Params | None, bind: Callable[..., list[jax.Array]] = bind_jit):
        self.name = name
        self.like = like
        self.bind = bind
        self.key = (name, bind, None if like is None else tuple(like.items()))
        self._hash = hash(self.key)
        #: The parameter ``inline`` of the call that this is the wrapper of.
        self.inline: object = None
        #: The latest requests for a linearization and a push of the jaxpr that is bound so.
        self.recent: Recent | None = None
        self.recent_push: RecentPush | None = None
        #: Whether a plain ``jax.jit`` does the same on concrete values.
        self.is_plain = like is None or (bind is bind_jit and not has_explicit_layout(like))

    def fits(self, params: Params) -> bool:
        """Whether a ``jit`` call has these settings."""
        return all(params[name] is value or params[name] == value for name, value in self.key[2] or ())

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Wrapper) and self.key == other.key)

    def __hash__(self) -> int:
        return self._hash


class Program:
    """A closed jaxpr to be called with flat values.

    ``in_like`` and ``out_like``: for each operand and result, the operand or result of the original call whose layout it shares.
    """

    __slots__ = ("_compiled", "_replay", "in_like", "jaxpr", "name", "out_like", "wrapper")

    def __init__(self, jaxpr: ClosedJaxpr, wrapper: Wrapper, name: str, in_like: Sequence[int | None], out_like: Sequence[int | None]):
        self.jaxpr = jaxpr
        self.wrapper = wrapper
        self.name = name
        self.in_like = in_like
        self.out_like = out_like
        self._compiled: Callable[..., list[jax.Array]] | None = None
        self._replay: Callable[..., list[jax.Array]] | None = None

    def __call__(self, args: Sequence[jax.Array]) -> list[jax.Array]:
        like = self.wrapper.like
        if self.wrapper.is_plain and is_eager(args):
            if self._compiled is None:
                run = runner(self.jaxpr, self.name)

                def program(*args: jax.Array) -> list[jax.Array]:
                    return run(*args)

                program.__name__ = self.name
                self._compiled = jax.jit(program)
            return self._compiled(*args)
        check_operands(self.jaxpr, args, self.name)
        if like is None:
            if is_batching():  # one call for vmap to look up, whose batched program it has cached
                return bind_jit(inlined(), self.jaxpr, args, self.name, [None] * len(args), [None] * len(self.jaxpr.out_avals))
            if self._replay is None:
                self._replay = replayer(self.jaxpr)
            return self._replay(*args)
        return self.wrapper.bind(like, self.jaxpr, args, self.name, self.in_like, self.out_like)


# ------------------------------------------------------------------------------------------------------------------- cache

#: A program that others are derived from.
Owner: TypeAlias = ClosedJaxpr | Jaxpr

#: For each owner, or the content that it shares with others, by key: the other owners, and the value.
_cache: weakref.WeakKeyDictionary[Identity, dict[Hashable, tuple[tuple[weakref.ref[Identity], ...], Any]]] = weakref.WeakKeyDictionary()
_order: deque[tuple[weakref.ref[Identity], Hashable]] = deque()


#: What sets programs apart that are derived within a :func:`apart`; None elsewhere.
setting_apart: ContextVar[object | None] = ContextVar("setting_apart", default=None)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Derived programs in the block are not shared with those of equal content elsewhere, whose lines of the user's are others."""
    token = setting_apart.set(object())
    try:
        yield
    finally:
        setting_apart.reset(token)


def cached(owners: Owner | tuple[Owner, ...], key: Hashable, make: Callable[[], T]) -> T:
    """``make()``, kept for as long as the owners live and it is among the newest ``PROGRAMS_KEPT``.

    Equal programs (:func:`~dualrev.programs.shared.identity`) are one owner.  Neither the key nor the value may refer to an owner, or
    neither would ever be freed.
    """
    first, *others = map(identity, owners if isinstance(owners, tuple) else (owners,))
    held = _cache.setdefault(first, {})
    if others:
        key = (key, *map(id, others))
    if (settings := current.get()) is not DEFAULT:
        key = (key, settings)
    if (nonce := setting_apart.get()) is not None:
        key = (key, nonce)
    found = held.get(key)
    if found is not None:
        references, value = found
        if all(reference() is other for reference, other in zip(references, others, strict=True)):
            return value
    with at_no_line():
        value = make()
    held[key] = (tuple(map(weakref.ref, others)), value)
    _order.append((weakref.ref(first), key))
    if len(_order) > PROGRAMS_KEPT:
        reference, old_key = _order.popleft()
        old_owner = reference()
        if old_owner is not None and old_owner in _cache:
            _cache[old_owner].pop(old_key, None)
    return value


_last_wrapper: weakref.WeakKeyDictionary[ClosedJaxpr, Wrapper] = weakref.WeakKeyDictionary()


def wrapper_of(params: Params) -> Wrapper:
    """The wrapper of a ``jit`` call: that of the latest call of the same jaxpr if it fits, since comparing is cheaper than hashing."""
    found = _last_wrapper.get(params["jaxpr"])
    if found is None or not (found.inline is params["inline"] and found.name == params["name"] if found.like is None
                             else found.fits(params)):
        # Without the jaxpr: a value that is cached for as long as the jaxpr lives must not keep it alive.
        settings = {name: value for name, value in params.items() if name != "jaxpr"}
        found = _last_wrapper[params["jaxpr"]] = Wrapper(params["name"], None if is_inlined(params) else settings)
        found.inline = params["inline"]
    return found


def forget_programs() -> None:
    """Drop every derived program: a row that it was derived from is no longer the one in force."""
    _cache.clear()
    _order.clear()
    _last_wrapper.clear()
    forget_contents()
