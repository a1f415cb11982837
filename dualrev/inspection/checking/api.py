"""``dr.check``: is the derivative of a function right at a point, and if not, where is it wrong?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, ParamSpec

import jax

from dualrev import errors
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTree
from dualrev.functional import checks
from dualrev.inspection.checking.limits import Limits, limits
from dualrev.inspection.checking.phases import Phases
from dualrev.inspection.checking.report import CheckReport, Severity
from dualrev.inspection.checking.subject import Subject

#: The arguments of a user's function.
P = ParamSpec("P")


def check(fun: Callable[P, PyTree], *, order: Literal[1, 2] = 2, seed: int = 0, near: float = 1e-5,
          surrogates: Severity = "note", most_steps: int = 64, most_operations: int = 600,
          most_calls: int = 4) -> Callable[P, CheckReport]:
    r"""Check the derivatives of a function at a point, and say in words what is wrong, and where.

    In random directions :math:`t, c`:  :math:`J t` by pushes against extrapolated central differences, input by input;
    :math:`\langle c, J t\rangle = \langle J^{\mathsf T} c, t\rangle`; the same for :math:`x \mapsto J(x) t` and
    :math:`x \mapsto J(x)^{\mathsf T} c`.  Single precision is evaluated in double precision where the function permits it.  Where
    something is wrong, each operation is checked by itself, into calls, branches and steps of loops, and the one to blame is named
    with the user's line.  Found are also: rules of ``jax.custom_jvp``, ``jax.custom_vjp``, ``dualrev.rule`` and of other libraries that
    differ from the derivative of what they are for; decisions (``abs``, ``max``, comparisons, ...) that flip at the point or near it;
    digits that single precision loses; inputs whose derivative is blocked by integers, rounding, ``argmax`` or ``stop_gradient``; NaN
    and infinities; functions that give two results for one argument.

    Args:
      fun: function of arrays or pytrees of them; those of integers, and leaves that are no arrays, stay as they are.
      order: the highest order of derivative to check.
      seed: seed of the random directions; the same seed gives the same report.
      near: the largest relative change of the inputs within which decisions are searched.
      surrogates: how severe it is that a rule differs from the derivative of its function on purpose: the function is constant around
        the point (a straight-through estimator of ``round``) or passes its argument on (a clipped or reversed gradient).  All other
        rules that differ are ``"wrong"``.
      most_steps: of each loop, so many steps are looked at operation by operation.
      most_operations: so many operations are looked at when the one to blame is searched.
      most_calls: a function with a rule is compared with its rule in so many calls from one line.

    Returns:
      A function with the parameters of ``fun`` that returns a :class:`~dualrev.inspection.checking.report.CheckReport`: ``.ok``,
      ``.findings``, ``.raise_if_wrong()``; printed, it is the findings in words.  Where a limit was reached, ``.left_out`` says what
      was not looked at and how to check it.

    Raises:
      TypeError: the arguments are traced: a check needs their values.  What ``fun`` itself raises is passed on.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> @jax.custom_jvp
    ... def cube(x):
    ...     return x ** 3
    >>> cube.defjvp(lambda primals, tangents: (cube(*primals), 2 * primals[0] ** 2 * tangents[0]))  # should be 3
    <function ...>
    >>> report = dr.check(lambda x, y: cube(x) * y)(2.0, 3.0)
    >>> report.ok
    False
    >>> [(f.kind, f.operation, f.input, f.mode) for f in report.findings]
    [('custom rule', 'cube', 'x', 'forward and reverse')]

    Source: [GriewankWalther2008, ch. 3]; [Ridders1982] for the differences.
    """
    checks.check_callable(fun)
    if order not in (1, 2):
        raise ValueError(f"check compares derivatives of order 1 or 2; got order={order!r}")
    if surrogates not in ("wrong", "warning", "note"):
        raise ValueError(f"surrogates must be 'wrong', 'warning' or 'note'; got {surrogates!r}")

    for name, limit in (("most_steps", most_steps), ("most_operations", most_operations), ("most_calls", most_calls)):
        if limit < 1:
            raise ValueError(f"{name} must be at least 1; got {limit!r}")

    @functools.wraps(fun)
    def checked(*args: P.args, **kwargs: P.kwargs) -> CheckReport:
        with errors.calling("check"), jax.debug_nans(False), jax.debug_infs(False):
            subject = Subject(fun, args, kwargs)
            if any(isinstance(x, Tracer) for x in subject.flat):
                raise TypeError(f"check of {subject.name} needs the values of its arguments; got traced ones. Call it outside of jit, "
                                "vmap and grad.")
            phases = Phases(subject, order, seed, near, surrogates)
            bounds = Limits(most_steps, most_operations, most_calls)
            token = limits.set(bounds)
            try:
                phases.run()
            finally:
                limits.reset(token)
        return CheckReport(subject.name, phases.findings, phases.done, tuple(bounds.reached.values()))

    return checked
