"""``checkpoint``: a function whose derivative stores less and evaluates again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import jax

from dualrev import checks
from dualrev.policies import Scheduled, min_cut
from dualrev.schedules import Schedule, check_schedule

Policy = Callable[..., Any] | Literal["auto"] | None


@overload
def checkpoint(fun: Callable[..., Any], *, policy: Policy = None, prevent_cse: bool | Sequence[bool] = True,
               static_argnums: int | tuple[int, ...] = (),
               schedule: Schedule | None = None) -> Callable[..., Any]: ...


@overload
def checkpoint(fun: None = None, *, policy: Policy = None, prevent_cse: bool | Sequence[bool] = True,
               static_argnums: int | tuple[int, ...] = (),
               schedule: Schedule | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...


def checkpoint(fun: Callable[..., Any] | None = None, *, policy: Policy = None, prevent_cse: bool | Sequence[bool] = True,
               static_argnums: int | tuple[int, ...] = (),
               schedule: Schedule | None = None) -> Callable[..., Any]:
    r"""A function with the same values, whose derivative stores what a policy says and evaluates the rest again.

    Of :math:`f = f_k \circ \dots \circ f_1` a pull needs every :math:`x_i = f_i(x_{i-1})`; from those that are stored it computes the
    others.

    Args:
      fun: the function; without one, a decorator is returned.
      policy: None stores the inputs alone; ``"auto"``, which is :data:`dualrev.policies.min_cut`, stores the fewest bytes from
        which the rest follows by cheap operations, and runs no expensive one twice; or one of ``jax.checkpoint_policies``, which
        stand in :mod:`dualrev.policies` as well.  Policies that offload store on the device.
      prevent_cse: whether the compiler is kept from merging the second evaluation with the first; not needed in the body of a scan.
      static_argnums: arguments that are not traced.
      schedule: what is kept of each scan in the function, ``"all"``, ``"sqrt"``, :class:`~dualrev.Revolve` or :class:`~dualrev.Bytes`;
        without a policy, everything outside the scans is then stored.

    Returns:
      The function.  ``jax``'s derivatives of it follow the same policy; ``"auto"`` then stores the results of expensive operations.

    Raises:
      TypeError: a policy that is neither a function nor ``"auto"``.
      ValueError: no schedule, or one in which not even one state of a scan fits.
      NonReplayableError: in reverse mode, an operation with an effect that must not happen twice.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> def waves(x):
    ...     for _ in range(10):
    ...         x = jnp.sin(x)
    ...     return x
    >>> x = jnp.ones(1000, "float32")
    >>> dr.linearize(waves, x)[1].residual_bytes, dr.linearize(dr.checkpoint(waves, policy="auto"), x)[1].residual_bytes
    (40000, 4000)

    Source: [Griewank & Walther 2008, ch. 12]; [Chen et al. 2016].
    """
    chosen = min_cut if isinstance(policy, str) and policy == "auto" else policy
    if chosen is not None and not callable(chosen):
        raise TypeError(f"checkpoint: policy must be None, 'auto' or a function such as those in dualrev.policies; got {policy!r}")
    if fun is None:
        return lambda fun: checkpoint(fun, policy=chosen, prevent_cse=prevent_cse, static_argnums=static_argnums, schedule=schedule)
    if schedule is not None:
        check_schedule("checkpoint", schedule)
        chosen = Scheduled(chosen or jax.checkpoint_policies.everything_saveable, schedule)
    checks.check_callable(fun)
    return jax.checkpoint(fun, policy=chosen, prevent_cse=prevent_cse, static_argnums=static_argnums)  # type: ignore[arg-type]
