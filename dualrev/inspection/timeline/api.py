"""``timeline``: live bytes over the course of a derivative, beside what checkpoint policies would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dualrev import errors
from dualrev._jax.trees import PyTree
from dualrev.calls.derived_programs import apart
from dualrev.functional.checks import check_callable, name_of
from dualrev.inspection.timeline.courses import Course, Timeline
from dualrev.inspection.timeline.tracing import POLICIES, Policy, life_under
from dualrev.inspection.tracing import Call


def timeline(f: Callable[..., PyTree], *args: PyTree, policies: Mapping[str, Policy] | None = None,
             progress: Callable[[str], object] | None = None, **kwargs: PyTree) -> Timeline:
    r"""Live bytes over the course of forward and pull, and what checkpoint policies would make of them.

    Reverse mode keeps of :math:`f = f_k \circ \dots \circ f_1` what the pull of each :math:`f_i` reads, from the time at which it is
    made until the pull has come back to it.  The programs of forward and pull are traced, not run, and each array lives from the
    operation that makes it to the last that reads it: as the program is written, before a compiler fuses and reorders it.  Reshapes
    and broadcasts take no memory, a loop is one operation with the peak of its step, inputs live throughout.

    A policy is that of one checkpoint around the whole function: less is kept in between, and the pull first computes all of it again,
    so that the peak moves more than it falls.  It falls where parts of the function have checkpoints of their own, which
    ``"default"`` shows.

    Args:
      f: a function of arrays or pytrees of them.
      args, kwargs: its arguments, or ``jax.ShapeDtypeStruct`` in place of arrays.
      policies: names and policies as :func:`dualrev.checkpoint` takes them, each applied to the whole function, or ``"default"`` for
        the function as it is.  If omitted: the function as it is, everything saved, nothing saved,
        :data:`dualrev.policies.min_cut`, and products of matrices alone (``dots_saveable``).
      progress: called with the name of each policy before it is traced.

    Returns:
      A :class:`~dualrev.inspection.timeline.courses.Timeline`: a notebook shows the plot, ``.save("f.svg")`` and ``.save("f.png")``
      write it, ``print`` gives the peaks, ``.courses[policy].live`` are the bytes, ``.to_dict()`` all of it.

    Raises:
      TypeError: ``f`` is not a function, no argument holds an array, or a policy is none.
      ValueError: ``policies`` is empty.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> def f(x):
    ...     for _ in range(10):
    ...         x = jnp.sin(x)
    ...     return x
    >>> found = dr.timeline(f, jax.ShapeDtypeStruct((1000,), "float32"))
    >>> {name: course.kept_bytes for name, course in found.courses.items()}["default"]
    36000
    >>> found.courses["nothing saved"].kept_bytes, found.courses["nothing saved"].peak_part
    (0, 'pull')

    Source: [GriewankWalther2008, ch. 12].
    """
    chosen = POLICIES if policies is None else dict(policies)
    if not chosen:
        raise ValueError("timeline: policies is empty; give at least one, such as {'default': 'default'}")
    for name, policy in chosen.items():
        if not (policy is None or policy in ("default", "auto") or callable(policy)):
            raise TypeError(f"timeline: the policy {name!r} must be 'default', 'auto', None or a function such as those in "
                            f"dualrev.policies; got {policy!r}")
    with errors.calling("timeline"), apart():
        check_callable(f)
        call = Call("timeline", f, args, kwargs)
        courses, inputs = {}, 0
        for name, policy in chosen.items():
            if progress is not None:
                progress(name)
            life = life_under(call, policy)
            courses[name] = Course.of(life)
            inputs = inputs or life.before
    return Timeline(name_of(f), inputs, courses)
