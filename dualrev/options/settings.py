"""What a call of the functional face asks of the engines, beyond which one to use.

An option is stated once, as a field of :class:`Settings`, or of :class:`CallSettings` where the functional face reads it.  Its check
follows from the field, and so does its line in :class:`~dualrev.options.keywords.Options`, the type of keyword options, which
``python -m tests.keywords`` writes.

The settings in force are those of the innermost call that is running.  An engine's trace remembers those it was made under, and
so does what ``vjp`` and ``linearize`` return, so that nested calls do not see each other's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, Unpack

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dualrev._jax.avals import DType, ShapedArray, common_dtype, is_differentiable
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.options.fields import checked_later, checks_of, defaults_of, option
from dualrev.options.keywords import Options as Options  # the types of options, for those who read them here
from dualrev.options.schedules import Schedule, check_schedule

CustomVjpJvp = Literal["transpose", "differentiate_primal", "error"]


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """What engines and rows read.  Equal settings are one object (see :func:`settings_of`), compared and hashed as such."""

    zero_wins: bool = option(False, """
        in a pull or push, the product of 0 and infinity is 0, and so is that of a zero tangent or cotangent and nan: what has no
        influence has none, however steep.  The gradient of ``where(x < 1, x, sqrt(x))`` at 0 is then 1, and that of a norm at 0
        is 0.""")
    custom_vjp_jvp: CustomVjpJvp = option("transpose", """
        the push of a ``jax.custom_vjp`` function is ``"transpose"``, the transpose of the user's backward function;
        ``"differentiate_primal"``, that of the function without its rule; or ``"error"``, an error as in jax.""")
    split_repeated: bool = option(False, """
        a pull through eigenvectors or singular vectors is right at repeated eigenvalues or singular values wherever the function has
        a derivative, also under ``jit`` and ``vmap``, where the default is NaN (see :mod:`dualrev.rules.linalg.spectral`).  All that
        is computed from the vectors then carries an infinitesimal along, which takes up to three times as long.""")
    stack_cotangents: Literal["auto", True, False] = option("auto", """
        where the cotangent of a loop constant is a sum of products over the steps, the factors are stacked and contracted once,
        after the loop.  ``"auto"`` does so where a step stacks no more bytes than the cotangent has, and all steps no more than the
        loop keeps anyway; True wherever possible; False never, which takes the least room, as all steps add to one sum (see
        :mod:`dualrev.calls.loops.sums_over_steps`).""")
    loop_checkpoints: int | None = option(None, """
        how many states of a ``while_loop`` whose length nobody knows are kept for its pull; by default as many as 64 MiB hold, at
        least 16 and at most 128 (see :mod:`dualrev.calls.loops.recompute`).""")
    max_steps: int | None = option(None, """
        the most steps that a ``while_loop`` may take.  Its pull then reads residuals of all steps, for which there is room from the
        beginning; a loop that goes on longer raises an error, even in a branch that ``vmap`` runs in vain.""")
    schedule: Schedule = option("all", """
        what a pull keeps of each ``scan``: ``"all"`` residuals; ``"sqrt"``, the states before each of √n blocks of √n steps;
        ``Revolve(slots)``, so many states; or ``Bytes(n)``, what fits.  The rest is computed again (see
        :mod:`dualrev.options.schedules`).""", check_schedule)

    def replace(self, **changes: Unpack[Options]) -> Settings:
        """The settings with some of them changed."""
        return _interned(*[changes.get(name, getattr(self, name)) for name in _DEFAULTS])

    def __reduce__(self) -> tuple[Callable[..., Settings], tuple[object, ...]]:
        # Settings that are copied or unpickled are the one object that they were.
        return _interned, tuple([getattr(self, name) for name in _DEFAULTS])


@dataclass(frozen=True, slots=True, eq=False)
class CallSettings(Settings):
    """All that a call may ask: what engines and rows read, and what the functional face reads itself."""

    cotangent_dtype: PyTree = option(None, """
        the dtype in which the cotangents of parameters accumulate and are returned, where it is wider than theirs; one for all, or a
        tree of them (None: their own) that is a prefix of what is differentiated.""", checked_later)
    non_float: Literal["float0", "none"] = option("float0", """
        what becomes of leaves that are not floating-point or complex arrays.  ``"float0"`` is as in jax; with ``"none"`` integers,
        booleans, keys and leaves that are no arrays at all pass through, and their derivative is None.""")


_DEFAULTS = defaults_of(Settings)
_CHECKS = checks_of(CallSettings)


@functools.cache
def _interned(*values: Any) -> Settings:
    return Settings(*values)


def settings_of(**options: Unpack[Options]) -> Settings:
    """The settings with these values, and the defaults of the others."""
    return _interned(*[options.get(name, default) for name, default in _DEFAULTS.items()])


DEFAULT = settings_of()

T = TypeVar("T")

#: The settings in force.
current: ContextVar[Settings] = ContextVar("settings", default=DEFAULT)


class using:
    """``with using(settings):`` puts settings in force."""

    __slots__ = ("_settings", "_token")

    def __init__(self, settings: Settings):
        self._settings = settings
        self._token: Token[Settings] | None = None

    def __enter__(self) -> None:
        self._token = current.set(self._settings)

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            current.reset(self._token)


def under(settings: Settings, function: Callable[..., T], *args: object) -> T:
    """``function(*args)`` with these settings in force."""
    if current.get() is settings:
        return function(*args)
    with using(settings):
        return function(*args)


class Wide:
    """Says of an active input that its cotangents accumulate in a dtype of their own."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: DTypeLike):
        self.dtype = jnp.dtype(dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wide) and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return f"Wide({self.dtype.name})"


#: Whether an input is active, that is, differentiated; and, where the answer is :class:`Wide`, how its cotangents accumulate.
Active = bool | Wide


def widened(aval: ShapedArray, flag: Active) -> ShapedArray:
    """An abstract value in the dtype of its cotangents."""
    return aval.update(dtype=flag.dtype) if type(flag) is Wide else aval


class Request(NamedTuple):
    """The options of one call, checked.  ``is_single``: dtypes are given for one argument that is not wrapped in a tuple."""

    settings: Settings
    cotangent_dtype: PyTree
    keeps_all: bool

    @staticmethod
    def of(call: str, options: Options, is_single: bool = False) -> Request:
        if not options:
            return PLAIN
        for name, value in options.items():
            check = _CHECKS.get(name)
            if check is None:
                raise TypeError(f"{call}() got an unexpected keyword argument '{name}'; its options are engine, "
                                f"{', '.join(sorted(_CHECKS))}")
            check(call, value)
        asked = CallSettings(**options)
        dtype = asked.cotangent_dtype
        dtypes = (dtype,) if is_single and dtype is not None else dtype
        return Request(settings_of(**options), dtypes, asked.non_float == "none")

    def flags(self, tree: PyTreeDef, avals: Sequence[ShapedArray]) -> list[Active]:
        """For each leaf, whether it is active, and how its cotangents accumulate."""
        moves = [is_differentiable(a) for a in avals]
        if self.cotangent_dtype is None:
            return list(moves)
        dtypes = _dtype_of_each(self.cotangent_dtype, tree)
        flags: list[Active] = []
        for aval, m, dtype in zip(avals, moves, dtypes, strict=True):
            wide = common_dtype(aval.dtype, dtype) if m and dtype is not None else None
            flags.append(Wide(wide) if wide is not None and wide != aval.dtype else m)
        return flags


#: The request of a call without options.
PLAIN = Request(DEFAULT, None, False)


def _dtype_of_each(given: PyTree, tree: PyTreeDef) -> list[DType | None]:
    """A dtype or None for each leaf of a tree structure, of which ``given`` is a prefix; a dictionary may leave keys out."""
    result: list[DType | None] = [None] * tree.num_leaves

    def assign(given: PyTree, part: PyTree) -> None:
        if given is None:
            return
        if isinstance(given, dict) and isinstance(part, dict) and given.keys() <= part.keys():
            for key, dtype in given.items():
                assign(dtype, part[key])
        elif isinstance(given, (list, tuple)) and isinstance(part, (list, tuple)) and len(given) == len(part):
            for dtype, child in zip(given, part, strict=True):
                assign(dtype, child)
        elif isinstance(given, (dict, list, tuple)):
            raise ValueError("cotangent_dtype must be a dtype or a tree of them that is a prefix of the differentiated arguments, "
                             f"{tree}; got {given!r} for {jax.tree_util.tree_structure(part)}")
        elif jnp.issubdtype(given, jnp.inexact):
            for i in jax.tree_util.tree_leaves(part):
                result[i] = jnp.dtype(given)
        else:
            raise TypeError(f"cotangent_dtype must be a floating-point or complex dtype; got {given!r}")

    assign(given, jax.tree_util.tree_unflatten(tree, range(tree.num_leaves)))
    return result
