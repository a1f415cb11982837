"""A part of a function that is differentiated in a mode of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

from dualrev._jax.avals import typeof
from dualrev._jax.new_primitives import region_bound
from dualrev.calls.region import region_p
from dualrev.programs.functions import Function, Traced, split_arguments

#: The arguments of a user's function, and what it returns.
P = ParamSpec("P")
Out = TypeVar("Out")


class region:
    r"""Differentiate a part of a function in a mode of its own: a decorator, and a ``with`` block.

    Around a region :math:`y = r(x)` the chain rule needs :math:`\partial r(x)` only.  ``"forward"``: under reverse mode the matrix is
    formed by pushes of the unit tangents of :math:`x`, all at once, and nothing inside is taped.  That suits many operations on few
    inputs (a solver, a simulation by a few parameters), and what has no pull, such as ``lax.while_loop``.  ``"reverse"`` is the
    mirror: under forward mode the matrix is formed by pulls of the unit cotangents of :math:`y`.  Under the mode that it names, a
    region is differentiated as it stands.

    - ``@dualrev.region(mode)`` above a function: its arguments and results are pytrees, and what it closes over is an input as well.
      It is traced, as under ``jit``; under ``vmap`` there is one matrix for each example.
    - ``with dualrev.region(mode):`` around statements, in which Python may look at values; the inputs are all values from outside
      that are used inside.  Under ``vmap`` inside the differentiated function there is one matrix for all examples.  Under forward
      mode a block in reverse mode is pushed through operation by operation.  In nested blocks, the innermost decides.

    The matrix has ``outputs × inputs`` entries, and so it is formed where one of the two is small.

    Args:
      mode: ``"forward"`` or ``"reverse"``.

    Raises:
      ValueError: another mode.
      TypeError: what is decorated is not a function, or an argument is not hashable and not an array.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> @dr.region("forward")
    ... def newton(a):
    ...     return jax.lax.while_loop(lambda s: abs(s**2 - a) > 1e-6, lambda s: (s + a / s) / 2, a)
    >>> [round(float(g), 3) for g in dr.grad(lambda w: newton(jnp.sum(w**2) + 1))(jnp.ones(5))]
    [0.408, 0.408, 0.408, 0.408, 0.408]

    Source: [GriewankWalther2008, ch. 10], preaccumulation.
    """

    def __init__(self, mode: Literal["forward", "reverse"]):
        if mode not in ("forward", "reverse"):
            raise ValueError(f"region: mode must be 'forward' or 'reverse'; got {mode!r}. Write @dualrev.region(\"forward\") above a "
                             'function, or `with dualrev.region("forward"):`')
        self.mode = mode

    def __enter__(self) -> None:
        region_bound.bind(mode=self.mode, enters=True)

    def __exit__(self, *_: object) -> None:
        region_bound.bind(mode=self.mode, enters=False)

    def __call__(self, fun: Callable[P, Out]) -> Callable[P, Out]:
        if not callable(fun):
            raise TypeError(f"region: expected a function; got {fun!r}")

        function = Function(fun)

        @functools.wraps(fun)
        def in_region(*args: P.args, **kwargs: P.kwargs) -> Out:
            flat, tree, fixed = split_arguments(args, kwargs)
            jaxpr, operands, finish = Traced(function.flat(tree, fixed), [typeof(x) for x in flat]).operation(flat)
            out: Out = finish(region_p.bind(*operands, jaxpr=jaxpr, axes=(), mode=self.mode))
            return out

        return in_region
