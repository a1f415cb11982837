"""``predict``: what a user's function costs, before it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev._jax.avals import is_array_like
from dualrev._jax.source_lines import line_of
from dualrev._jax.trees import PyTree
from dualrev.time_model.machine import Constants
from dualrev.time_model.machine import constants as current
from dualrev.time_model.pricing import Cost, cost_of_jaxpr


@dataclass(frozen=True)
class Line:
    """A part of a prediction: the seconds of one operation on one line of the user's program."""

    seconds: float
    operation: str
    where: str


@dataclass(frozen=True)
class Prediction:
    """What one call of a compiled function is predicted to take, and what it consists of.

    Attributes:
      seconds: of one call.
      kernels: that are launched, those of loops once for each step.
      bytes: that are read and written.
      flops: of sums and products, those of libraries included.
      transcendentals: entries of elementwise functions that are more than a sum or a product.
      calls: of libraries: products of matrices, factorizations, sorts.
      lines: what takes the time, by operation and line of the program; what takes most comes first.
      constants: those that the prediction was made with.

    >>> import jax.numpy as jnp
    >>> from dualrev import time_model
    >>> found = time_model.predict(lambda x: jnp.sum(jnp.sin(x)), jnp.ones(1000))
    >>> found.seconds > 0, found.calls
    (True, 0.0)
    """

    seconds: float
    kernels: float
    bytes: float
    flops: float
    #: Entries of elementwise functions that are more than a sum or a product.
    transcendentals: float
    #: Calls of libraries: products of matrices, factorizations, sorts.
    calls: float
    #: What takes most comes first.
    lines: tuple[Line, ...]
    constants: Constants

    def __str__(self) -> str:
        total = sum(line.seconds for line in self.lines) or 1.0
        shown = [f"{100 * line.seconds / total:5.1f} %  {time_in_words(line.seconds):>9}  {line.operation:20} {line.where}"
                 for line in self.lines[:10]]
        more = [f"and {len(self.lines) - 10} more"] if len(self.lines) > 10 else []
        return "\n".join([
            f"{time_in_words(self.seconds)} on {self.constants.name}: {self.kernels:,.0f} kernels, {self.calls:,.0f} calls, "
            f"{self.bytes:,.0f} bytes, {self.flops:,.0f} flops, {self.transcendentals:,.0f} transcendentals", *shown, *more])


def time_in_words(seconds: float) -> str:
    """A time with three digits and a unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def predict(fun: Callable[..., PyTree], *args: PyTree, constants: Constants | None = None, **kwargs: PyTree) -> Prediction:
    """Predict the time of ``jax.jit(fun)(*args)`` on the current backend, from the traced program: nothing is compiled or run.

    Args:
      fun: function of arrays or pytrees of them; a gradient, say.
      args, kwargs: its arguments, or :class:`jax.ShapeDtypeStruct` in place of arrays.
      constants: those to use; by default, :func:`dualrev.time_model.constants` of the current backend.

    Returns:
      A :class:`Prediction`; ``print`` shows what takes the time, by operation and line.

    Raises:
      TypeError: ``fun`` is not callable.

    >>> import jax.numpy as jnp
    >>> from dualrev import time_model
    >>> time_model.predict(lambda x: jnp.sum(jnp.sin(x)), jnp.ones(1000)).transcendentals
    1000.0
    """
    if not callable(fun):
        raise TypeError(f"predict: expected a function; got {fun!r}")
    chosen = constants or current()
    leaves, tree = tree_flatten((args, kwargs))
    arrays = [i for i, x in enumerate(leaves) if is_array_like(x) or isinstance(x, jax.ShapeDtypeStruct)]

    def on_arrays(*given: jax.Array) -> PyTree:
        filled = list(leaves)
        for i, x in zip(arrays, given, strict=True):
            filled[i] = x
        args, kwargs = tree_unflatten(tree, filled)
        return fun(*args, **kwargs)

    cost = cost_of_jaxpr(jax.make_jaxpr(on_arrays)(*[leaves[i] for i in arrays]), chosen)
    return Prediction(cost.seconds, cost.kernels, cost.nbytes, cost.flops, cost.transcendentals, cost.calls, _lines(cost), chosen)


def _lines(cost: Cost) -> tuple[Line, ...]:
    """The seconds of each operation on each line, the most first."""
    totals: dict[tuple[str, str], float] = {}
    for eqn, seconds, _ in cost.by_equation.values():
        key = (str(eqn.primitive), line_of(eqn.source_info))
        totals[key] = totals.get(key, 0.0) + seconds
    return tuple([Line(seconds, *key) for key, seconds in sorted(totals.items(), key=lambda item: -item[1]) if seconds > 0])
