"""The options of a call of the functional interface, except ``engine``.

An option is stated once, as a field of :class:`Settings`, or of :class:`CallSettings` if only the functional interface reads it.  The
field gives the check of its values and its line in :class:`~dualrev.options.keywords.Options`, the type of keyword options, which
``python -m tests.keywords`` writes.

The current settings are those of the innermost running call.  An engine's trace keeps the settings that it was created under, and so
do the results of ``vjp`` and ``linearize``, so that nested calls do not read each other's.
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
    """The options that engines and rows read.  Equal settings are one object (see :func:`settings_of`): comparison is by identity."""

    zero_wins: bool = option(False, """
        in a pull or push, the product of 0 and infinity is 0, and so is the product of a zero tangent or cotangent and nan: a value
        that does not influence the result has derivative 0 even where a factor is infinite.  The gradient of
        ``where(x < 1, x, sqrt(x))`` at 0 is then 1, and that of a norm at 0 is 0.""")
    custom_vjp_jvp: CustomVjpJvp = option("transpose", """
        the push of a ``jax.custom_vjp`` function is ``"transpose"``, the transpose of the user's backward function;
        ``"differentiate_primal"``, the push of the function without its rule; or ``"error"``, an error as in jax.""")
    split_repeated: bool = option(False, """
        a pull through eigenvectors or singular vectors is right at repeated eigenvalues or singular values wherever the function has
        a derivative, also under ``jit`` and ``vmap``, where the default is NaN (see :mod:`dualrev.rules.linalg.spectral`).  Everything
        that is computed from the vectors then carries an infinitesimal part, which takes up to three times as long.""")
    stack_cotangents: Literal["auto", True, False] = option("auto", """
        where the cotangent of a loop constant is a sum of products over the steps, the factors are stacked and contracted once,
        after the loop.  ``"auto"`` does so if a step stacks no more bytes than the cotangent has, and all steps no more than the
        residuals of the loop; True does so wherever possible; False never, which takes the least memory, as all steps add to one
        sum (see :mod:`dualrev.calls.loops.sums_over_steps`).""")
    recompute_residuals: Literal["auto", True, False] = option("auto", """
        which residuals of a loop's steps are stored.  ``"auto"``: those that the time model finds cheaper to store than to compute
        again in the pull; True, the fewest bytes from which the others follow by cheap operations, or an error where nothing can
        be computed again as it depends on callbacks, effects or collectives; False, all of them, apart from those of a part
        under ``checkpoint``, whose policy decides (see :mod:`dualrev.calls.loops.storing`).""")
    fuse_loops: Literal["auto", True, False] = option("auto", """
        whether the loops of a derivative become one kernel each, where they are compiled for a single CPU and their steps are small:
        ``"auto"``, those that consist of operations of which it is known that the compiler can write them into one function, on the
        releases of jaxlib on which that was tried (0.10 and 0.12); True, the same on any release; False, where the compiler does so
        by itself.  Loops over few numbers get several times faster, most of all on jax 0.10.  It rests on an attribute of XLA's own
        (see :mod:`dualrev.calls.loops.one_kernel`).""")
    loop_checkpoints: int | None = option(None, """
        the number of states of a ``while_loop`` that are kept for its pull; by default as many as fit into 64 MiB, at least 16
        and at most 128, and residuals of all steps where the length is known (see :mod:`dualrev.calls.loops.recompute`).""")
    max_steps: int | None = option(None, """
        the most steps that a ``while_loop`` may take.  Residuals of that many steps are then allocated, and the pull reads them; a
        longer loop raises an error, even in a branch that ``vmap`` runs although it is not taken.  Not with
        ``loop_checkpoints``, which stores states instead.""")
    schedule: Schedule = option("all", """
        what is kept of each ``scan`` for its pull: ``"all"`` residuals; ``"sqrt"``, the states before each of √n blocks of √n
        steps; ``Revolve(slots)``, ``slots`` states; or ``Bytes(n)``, as much as fits into ``n`` bytes.  The rest is recomputed (see
        :mod:`dualrev.options.schedules`).""", check_schedule)

    def replace(self, **changes: Unpack[Options]) -> Settings:
        """The settings with some of them changed."""
        return _interned(*[changes.get(name, getattr(self, name)) for name in _DEFAULTS])

    def __reduce__(self) -> tuple[Callable[..., Settings], tuple[object, ...]]:
        # Settings that are copied or unpickled are the one object that they were.
        return _interned, tuple([getattr(self, name) for name in _DEFAULTS])


@dataclass(frozen=True, slots=True, eq=False)
class CallSettings(Settings):
    """All options of a call: those that engines and rows read, and those that the functional interface reads itself."""

    cotangent_dtype: PyTree = option(None, """
        the dtype in which the cotangents of parameters accumulate and are returned, where it is wider than theirs; one for all, or a
        tree of them (None: their own) that is a prefix of what is differentiated.""", checked_later)
    non_float: Literal["float0", "none"] = option("float0", """
        how leaves are treated that are not floating-point or complex arrays.  ``"float0"`` is as in jax; with ``"none"`` integers,
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

#: The current settings.
current: ContextVar[Settings] = ContextVar("settings", default=DEFAULT)


class using:
    """``with using(settings):`` makes these settings the current ones."""

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
    """``function(*args)`` with these settings as the current ones."""
    if current.get() is settings:
        return function(*args)
    with using(settings):
        return function(*args)


class Wide:
    """Marks an active input whose cotangents accumulate in another dtype than its own."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: DTypeLike):
        self.dtype = jnp.dtype(dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wide) and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return f"Wide({self.dtype.name})"


#: Whether an input is active, that is, differentiated; a :class:`Wide` is true, and has the dtype in which cotangents accumulate.
Active = bool | Wide


def widened(aval: ShapedArray, flag: Active) -> ShapedArray:
    """An abstract value with the dtype in which its cotangents accumulate."""
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
        if asked.max_steps is not None and asked.loop_checkpoints is not None:
            raise ValueError(f"{call}: max_steps={asked.max_steps} stores the residuals of every step of a while_loop, and "
                             f"loop_checkpoints={asked.loop_checkpoints} stores that many states instead: give one of them")
        dtype = asked.cotangent_dtype
        dtypes = (dtype,) if is_single and dtype is not None else dtype
        return Request(settings_of(**options), dtypes, asked.non_float == "none")

    def flags(self, tree: PyTreeDef, avals: Sequence[ShapedArray]) -> list[Active]:
        """For each leaf, whether it is active, and how its cotangents accumulate."""
        active = [is_differentiable(a) for a in avals]
        if self.cotangent_dtype is None:
            return list(active)
        dtypes = _dtype_of_each(self.cotangent_dtype, tree)
        flags: list[Active] = []
        for aval, is_active, dtype in zip(avals, active, dtypes, strict=True):
            wide = common_dtype(aval.dtype, dtype) if is_active and dtype is not None else None
            flags.append(Wide(wide) if wide is not None and wide != aval.dtype else is_active)
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
