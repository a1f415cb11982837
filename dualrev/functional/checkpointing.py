"""``checkpoint``: a function whose derivative stores less and evaluates again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Literal, ParamSpec, TypeAlias, TypeVar, overload

import jax

from dualrev._jax import checkpoints
from dualrev._jax.trees import PyTree
from dualrev.calls.checkpoint_policies import Scheduled, min_cut
from dualrev.functional import checks
from dualrev.options.schedules import Schedule, check_schedule

#: What may be asked for: a policy, the automatic one, or none, which stores the inputs alone.
Policy: TypeAlias = checkpoints.Policy | Literal["auto"] | None

#: The arguments of a user's function, and what it returns.
P = ParamSpec("P")
Out = TypeVar("Out")


@overload
def checkpoint(fun: Callable[P, Out], *, policy: Policy = None, prevent_cse: bool | Sequence[bool] = True,
               static_argnums: int | tuple[int, ...] = (), static_argnames: str | Iterable[str] = (), concrete: bool = False,
               schedule: Schedule | None = None) -> Callable[P, Out]: ...


@overload
def checkpoint(fun: None = None, *, policy: Policy = None, prevent_cse: bool | Sequence[bool] = True,
               static_argnums: int | tuple[int, ...] = (), static_argnames: str | Iterable[str] = (), concrete: bool = False,
               schedule: Schedule | None = None) -> Callable[[Callable[P, Out]], Callable[P, Out]]: ...


@overload
def checkpoint(fun: Callable[..., PyTree], *, policy: Policy = None, prevent_cse: bool | Sequence[bool] = True,
               static_argnums: int | tuple[int, ...] = (), static_argnames: str | Iterable[str] = (), concrete: bool = False,
               schedule: Schedule | None = None) -> Callable[..., PyTree]: ...


def checkpoint(fun: Callable[P, Out] | None = None, *, policy: Policy = None, prevent_cse: bool | Sequence[bool] = True,
               static_argnums: int | tuple[int, ...] = (), static_argnames: str | Iterable[str] = (), concrete: bool = False,
               schedule: Schedule | None = None) -> Callable[P, Out] | Callable[[Callable[P, Out]], Callable[P, Out]]:
    r"""A function with the same values, whose derivative stores what a policy says and evaluates the rest again.

    Of :math:`f = f_k \circ \dots \circ f_1` a pull needs every :math:`x_i = f_i(x_{i-1})`; from those that are stored it computes the
    others.

    Args:
      fun: the function; without one, a decorator is returned.
      policy: None stores the inputs alone; ``"auto"``, which is :data:`dualrev.policies.min_cut`, stores the fewest bytes from
        which the rest follows by cheap operations, and runs no expensive one twice; ``policies.min_cut(objective="time")``, which
        stores or computes again whichever the time model says is faster; or one of ``jax.checkpoint_policies``, which
        stand in :mod:`dualrev.policies` as well.  What a policy offloads is stored in the host's memory, and fetched for the pull.
      prevent_cse: whether the compiler is kept from merging the second evaluation with the first; not needed in the body of a scan.
      static_argnums: positions of arguments that are not traced.
      static_argnames: names of arguments that are not traced, whether they are given by position or by keyword.
      concrete: accepted for compatibility; must be False.  An argument of which the function needs the number is a static one.
      schedule: what is kept of each scan in the function, ``"all"``, ``"sqrt"``, :class:`~dualrev.Revolve` or :class:`~dualrev.Bytes`;
        without a policy, everything outside the scans is then stored.

    Returns:
      The function.  ``jax``'s derivatives of it follow the same policy; ``"auto"`` then stores the results of expensive operations.

    Raises:
      TypeError: a policy that is neither a function nor ``"auto"``; names that are not strings.
      ValueError: a name that is not an argument's; a static argument that is not hashable; no schedule,
        or one in which not even one state of a scan fits.
      NonReplayableError: in reverse mode, an operation with an effect that must not happen twice.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> def waves(x):
    ...     for _ in range(10):
    ...         x = jnp.sin(x)
    ...     return x
    >>> x = jnp.ones(1000, "float32")
    >>> dr.linearize(waves, x)[1].residual_bytes, dr.linearize(dr.checkpoint(waves, policy="auto"), x)[1].residual_bytes
    (40000, 4000)

    Source: [GriewankWalther2008, ch. 12]; [ChenEtAl2016].
    """
    chosen = min_cut if isinstance(policy, str) and policy == "auto" else policy
    if chosen is not None and not callable(chosen):
        raise TypeError(f"checkpoint: policy must be None, 'auto' or a function such as those in dualrev.policies; got {policy!r}")
    if fun is None:
        return lambda fun: checkpoint(fun, policy=chosen, prevent_cse=prevent_cse, static_argnums=static_argnums,
                                      static_argnames=static_argnames, concrete=concrete, schedule=schedule)
    if concrete:
        raise NotImplementedError("checkpoint: concrete=True is not supported, as in jax since 0.8.2. Name the arguments of which the "
                                  "function needs the numbers in static_argnums or static_argnames.")
    if schedule is not None:
        check_schedule("checkpoint", schedule)
        chosen = Scheduled(chosen or jax.checkpoint_policies.everything_saveable, schedule)
    checks.check_callable(fun)
    if names := _names(static_argnames):
        return _by_name(fun, names, static_argnums, lambda fun, numbers: jax.checkpoint(
            fun, policy=chosen, prevent_cse=prevent_cse, static_argnums=numbers))  # type: ignore[arg-type]
    return jax.checkpoint(fun, policy=chosen, prevent_cse=prevent_cse, static_argnums=static_argnums)  # type: ignore[arg-type]


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"checkpoint: static_argnames must be a string or several; got {name!r}")
    return names


def _by_name(fun: Callable[..., Out], names: tuple[str, ...], static_argnums: int | tuple[int, ...],
             checkpointed: Callable[[Callable[..., Out], tuple[int, ...]], Callable[..., Out]]) -> Callable[..., Out]:
    """A checkpointed function of which arguments with these names are static, however they are given.

    ``jax.checkpoint`` takes names too, and traces them all the same, in 0.10 as in 0.12.
    """
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):  # a callable that does not tell: names are those of keywords
        parameters = [inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in names:
        if not takes_any and name not in [p.name for p in parameters]:
            raise ValueError(f"checkpoint: static_argnames has {name!r}, which is not an argument of {checks.name_of(fun)}; its "
                             f"arguments are {', '.join(p.name for p in parameters)}")
    places = [i for i, p in enumerate(parameters) if p.name in names and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    @functools.lru_cache(maxsize=64)
    def specialized(static: tuple[tuple[str, Hashable], ...], numbers: tuple[int, ...]) -> Callable[..., Out]:
        return checkpointed(functools.partial(fun, **dict(static)) if static else fun, numbers)

    @functools.wraps(fun)
    def by_name(*args: PyTree, **kwargs: PyTree) -> Out:
        static = tuple([(name, kwargs.pop(name)) for name in names if name in kwargs])
        for name, value in static:
            try:
                hash(value)
            except TypeError:
                raise ValueError(f"checkpoint: the static argument {name!r} must be hashable; got {value!r} of type "
                                 f"{type(value).__name__}") from None
        positional = [i for i in places if i < len(args) and i not in numbers and i - len(args) not in numbers]
        return specialized(static, (*numbers, *positional))(*args, **kwargs)

    return by_name
