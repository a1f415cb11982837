"""What a call of the functional face asks of the engines, beyond which one to use.

The settings in force are those of the innermost call that is running.  An engine's trace remembers those it was made under, and
so does what ``vjp`` and ``linearize`` return, so that nested calls do not see each other's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, Literal, NamedTuple, TypedDict

import jax
import jax.numpy as jnp

from dualrev._jax.avals import common_dtype, is_differentiable
from dualrev.options.schedules import Schedule, check_schedule

CustomVjpJvp = Literal["transpose", "differentiate_primal", "error"]
StackCotangents = Literal["auto", True, False]


class Options(TypedDict, total=False):
    """Options of every function that differentiates.

    - ``zero_wins`` (False): in a pull or push, the product of 0 and infinity is 0, and so is that of a zero tangent or cotangent
      and nan: what has no influence has none, however steep.  The gradient of ``where(x < 1, x, sqrt(x))`` at 0 is then 1, and that
      of a norm at 0 is 0.
    - ``custom_vjp_jvp`` ("transpose"): the push of a ``jax.custom_vjp`` function is ``"transpose"``, the transpose of the user's
      backward function; ``"differentiate_primal"``, that of the function without its rule; or ``"error"``, an error as in jax.
    - ``split_repeated`` (False): a pull through eigenvectors or singular vectors is right at repeated eigenvalues or singular values
      wherever the function has a derivative, also under ``jit`` and ``vmap``, where the default is NaN
      (see :mod:`dualrev.rules.linalg.spectral`).  All that is computed from the vectors then carries an infinitesimal along, which
      takes up to three times as long.
    - ``stack_cotangents`` ("auto"): where the cotangent of a loop constant is a sum of products over the steps, the factors are
      stacked and contracted once, after the loop.  ``"auto"`` does so where a step stacks no more bytes than the cotangent has, and
      all steps no more than the loop keeps anyway; True wherever possible; False never, which takes the least room, as all steps add
      to one sum (see :mod:`dualrev.calls.loops.sums_over_steps`).
    - ``loop_checkpoints`` (None): how many states of a ``while_loop`` whose length nobody knows are kept for its pull; by default as
      many as 64 MiB hold, at least 16 and at most 128 (see :mod:`dualrev.calls.loops.recompute`).
    - ``max_steps`` (None): the most steps that a ``while_loop`` may take.  Its pull then reads residuals of all steps, for which
      there is room from the beginning; a loop that goes on longer raises an error, even in a branch that ``vmap`` runs in vain.
    - ``schedule`` ("all"): what a pull keeps of each ``scan``: ``"all"`` residuals; ``"sqrt"``, the states before each of √n blocks of
      √n steps; ``Revolve(slots)``, so many states; or ``Bytes(n)``, what fits.  The rest is computed again (see
      :mod:`dualrev.options.schedules`).
    - ``cotangent_dtype`` (None): the dtype in which the cotangents of parameters accumulate and are returned, where it is wider than
      theirs; one for all, or a tree of them (None: their own) that is a prefix of what is differentiated.
    - ``non_float`` ("float0"): what becomes of leaves that are not floating-point or complex arrays.  ``"float0"`` is as in jax;
      with ``"none"`` integers, booleans, keys and leaves that are no arrays at all pass through, and their derivative is None.
    """

    zero_wins: bool
    custom_vjp_jvp: CustomVjpJvp
    split_repeated: bool
    stack_cotangents: StackCotangents
    loop_checkpoints: int | None
    max_steps: int | None
    schedule: Schedule
    cotangent_dtype: Any
    non_float: Literal["float0", "none"]


class Settings(NamedTuple):
    """What engines and rows read.  Equal settings are one object (see :func:`settings_of`)."""

    zero_wins: bool = False
    custom_vjp_jvp: CustomVjpJvp = "transpose"
    split_repeated: bool = False
    stack_cotangents: StackCotangents = "auto"
    loop_checkpoints: int | None = None
    max_steps: int | None = None
    schedule: Schedule = "all"


@functools.cache
def settings_of(*values: Any) -> Settings:
    return Settings(*values)


DEFAULT = settings_of(*Settings())

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


def under(settings: Settings, function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)`` with these settings in force."""
    if current.get() is settings:
        return function(*args)
    with using(settings):
        return function(*args)


class Wide:
    """Stands for True among the inputs that move where cotangents accumulate in a dtype of their own."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: Any):
        self.dtype = jnp.dtype(dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wide) and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return f"Wide({self.dtype.name})"


def widened(aval: Any, flag: Any) -> Any:
    """An abstract value in the dtype of its cotangents."""
    return aval.update(dtype=flag.dtype) if type(flag) is Wide else aval


class Request(NamedTuple):
    """The options of one call, checked.  ``is_single``: dtypes are given for one argument that is not wrapped in a tuple."""

    settings: Settings
    cotangent_dtype: Any
    keeps_all: bool

    @staticmethod
    def of(call: str, options: Any, is_single: bool = False) -> Request:
        if not options:
            return PLAIN
        known = Options.__annotations__
        for name in options:
            if name not in known:
                raise TypeError(f"{call}() got an unexpected keyword argument '{name}'; its options are engine, "
                                f"{', '.join(sorted(known))}")
        policy = options.get("custom_vjp_jvp", "transpose")
        if policy not in ("transpose", "differentiate_primal", "error"):
            raise ValueError(f"{call}: custom_vjp_jvp must be 'transpose', 'differentiate_primal' or 'error'; got {policy!r}")
        non_float = options.get("non_float", "float0")
        if non_float not in ("float0", "none"):
            raise ValueError(f"{call}: non_float must be 'float0' or 'none'; got {non_float!r}")
        zero_wins = options.get("zero_wins", False)
        if not isinstance(zero_wins, bool):
            raise TypeError(f"{call}: zero_wins must be True or False; got {zero_wins!r}")
        dtype = options.get("cotangent_dtype")
        split = options.get("split_repeated", False)
        if not isinstance(split, bool):
            raise TypeError(f"{call}: split_repeated must be True or False; got {split!r}")
        stack = options.get("stack_cotangents", "auto")
        if not (stack == "auto" or isinstance(stack, bool)):
            raise ValueError(f"{call}: stack_cotangents must be 'auto', True or False; got {stack!r}")
        counts = [options.get(name) for name in ("loop_checkpoints", "max_steps")]
        for name, count in zip(("loop_checkpoints", "max_steps"), counts, strict=True):
            if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
                raise TypeError(f"{call}: {name} must be None or a whole number; got {count!r}")
            if count is not None and count < 1:
                raise ValueError(f"{call}: {name} must be at least 1; got {count}")
        schedule = options.get("schedule", "all")
        check_schedule(call, schedule)
        dtypes = (dtype,) if is_single and dtype is not None else dtype
        settings = Settings(zero_wins=zero_wins, custom_vjp_jvp=policy, split_repeated=split, stack_cotangents=stack,
                            loop_checkpoints=counts[0], max_steps=counts[1], schedule=schedule)
        return Request(settings_of(*settings), dtypes, non_float == "none")

    def flags(self, tree: Any, avals: Any) -> list[Any]:
        """For each leaf, False, True or :class:`Wide`: whether it moves, and in which dtype its cotangents are kept."""
        moves = [is_differentiable(a) for a in avals]
        if self.cotangent_dtype is None:
            return list(moves)
        dtypes = _spread_dtypes(self.cotangent_dtype, tree)
        flags: list[Any] = []
        for aval, m, dtype in zip(avals, moves, dtypes, strict=True):
            wide = common_dtype(aval.dtype, dtype) if m and dtype is not None else None
            flags.append(Wide(wide) if wide is not None and wide != aval.dtype else m)
        return flags


#: The request of a call without options.
PLAIN = Request(DEFAULT, None, False)


def _spread_dtypes(given: Any, tree: Any) -> list[Any]:
    """A dtype or None for each leaf of a tree structure, of which ``given`` is a prefix; a dictionary may leave keys out."""
    result: list[Any] = [None] * tree.num_leaves

    def spread(given: Any, part: Any) -> None:
        if given is None:
            return
        if isinstance(given, dict) and isinstance(part, dict) and given.keys() <= part.keys():
            for key, dtype in given.items():
                spread(dtype, part[key])
        elif isinstance(given, (list, tuple)) and isinstance(part, (list, tuple)) and len(given) == len(part):
            for dtype, child in zip(given, part, strict=True):
                spread(dtype, child)
        elif isinstance(given, (dict, list, tuple)):
            raise ValueError("cotangent_dtype must be a dtype or a tree of them that is a prefix of the differentiated arguments, "
                             f"{tree}; got {given!r} for {jax.tree_util.tree_structure(part)}")
        elif jnp.issubdtype(given, jnp.inexact):
            for i in jax.tree_util.tree_leaves(part):
                result[i] = jnp.dtype(given)
        else:
            raise TypeError(f"cotangent_dtype must be a floating-point or complex dtype; got {given!r}")

    spread(given, jax.tree_util.tree_unflatten(tree, range(tree.num_leaves)))
    return result
