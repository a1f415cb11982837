"""``engine="auto"``: which of several ways to the same derivative is predicted to be the fastest.

Each way is a function of the user's arguments.  It is traced on their shapes, priced by :mod:`dualrev.time_model`, and the cheapest is
called; the choice is kept for arguments of the same shapes.  While a program is traced, the trace of the way that was chosen is the
result of the call that made the choice.  The result is exactly that of the way that was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from dualrev import errors, time_model
from dualrev._jax.avals import is_array_like, typeof
from dualrev._jax.jaxprs import jaxpr_as_fun
from dualrev._jax.traces import Tracer, in_eager_context
from dualrev._jax.trees import PyTree

P = ParamSpec("P")
Result = TypeVar("Result")

#: With more inputs than this, pushes of all of them are not even considered.
MOST_PUSHES = 256
#: Predictions are not exact: the first way is kept unless another one's predicted time is less than this part of its own.
MARGIN = 0.75
#: What says that a way can't be taken, or that the function can't be traced: Python reads values, or an engine has no rule.
NOT_TRACED = (jax.errors.JAXTypeError, jax.errors.JAXIndexError, errors.MissingRuleError, errors.NoDerivativeError,
              errors.NonLinearError)
#: Choices that one function keeps.
MOST_CHOICES = 256


def n_entries(tree: PyTree) -> float:
    """The number of entries of all arrays; infinite where a length is a symbol."""
    shapes = [x.shape if hasattr(x, "shape") else typeof(x).shape for x in tree_leaves(tree) if hasattr(x, "shape") or is_array_like(x)]
    return sum(math.prod(n if isinstance(n, int) else math.inf for n in shape) for shape in shapes)


def has_few_inputs(positions: Sequence[int], *args: PyTree, **_: PyTree) -> bool:
    """Whether a push for each input is worth a thought."""
    return n_entries([args[i] for i in positions]) <= MOST_PUSHES


def fastest(ways: Mapping[str, Callable[P, Result]], fallback: Callable[P, Result], argnums: int | Sequence[int],
            is_asked: Callable[..., bool]) -> Callable[P, Result]:
    """A function that calls the way with the least predicted time, or the first way where none is clearly faster.

    ``fallback`` is called where ``is_asked(positions, *args, **kwargs)`` is False, and where no way can be traced (``NOT_TRACED``): it
    then raises its own error, or runs.
    """
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    chosen: dict[Hashable, str | None] = {}

    def automatic(*args: P.args, **kwargs: P.kwargs) -> Result:
        if not all(-len(args) <= i < len(args) for i in positions) or not is_asked(positions, *args, **kwargs):
            return fallback(*args, **kwargs)
        key = _key(args, kwargs)
        if key not in chosen:
            if len(chosen) >= MOST_CHOICES:
                chosen.clear()
            traces: dict[str, Traced] = {}
            name = chosen[key] = _choice(ways, positions, args, kwargs, traces)
            if name in traces and not in_eager_context():
                result: Result = traces[name]()
                return result
        name = chosen[key]
        return (fallback if name is None else ways[name])(*args, **kwargs)

    return automatic


def _key(args: tuple[PyTree, ...], kwargs: dict[str, Any]) -> Hashable:
    """Equal for calls that are traced to equal programs: shapes and dtypes of arrays, and all else itself or by its identity."""
    leaves, tree = tree_flatten((args, kwargs))
    return (tree, time_model.constants().name, *[typeof(x) if is_array_like(x) else _itself(x) for x in leaves])


def _itself(x: object) -> Hashable:
    try:
        hash(x)
    except TypeError:
        return id(x)
    return x


class Traced:
    """One way, traced on a call's arguments: a program, what it was traced on, and how its results make up the result."""

    def __init__(self, way: Callable[..., Any], positions: Sequence[int], args: tuple[PyTree, ...], kwargs: dict[str, Any]):
        leaves, tree = tree_flatten(tuple([args[i] for i in positions]))
        arrays = [i for i, x in enumerate(leaves) if is_array_like(x)]

        def on_arrays(*given: jax.Array) -> list[Any]:
            filled, all_args = list(leaves), list(args)
            for i, x in zip(arrays, given, strict=True):
                filled[i] = x
            for i, x in zip(positions, tree_unflatten(tree, filled), strict=True):
                all_args[i] = x
            results, self.out_tree = tree_flatten(way(*all_args, **kwargs))
            #: The results that are the same whatever the arguments; None in place of those that are traced.
            self.others = [None if isinstance(x, Tracer) else x for x in results]
            return [x for x in results if isinstance(x, Tracer)]

        self.operands = [leaves[i] for i in arrays]
        self.jaxpr = jax.make_jaxpr(on_arrays)(*self.operands)

    def __call__(self) -> Any:
        """The result, on the arguments that the way was traced on, without tracing it again."""
        found = iter(jaxpr_as_fun(self.jaxpr)(*self.operands))
        return tree_unflatten(self.out_tree, [next(found) if x is None else x for x in self.others])


def _choice(ways: Mapping[str, Callable[..., Any]], positions: Sequence[int], args: tuple[PyTree, ...],
            kwargs: dict[str, Any], traces: dict[str, Traced]) -> str | None:
    """The way with the least predicted time, or None if none can be traced; ``traces`` receives what was traced."""
    constants = time_model.constants()
    times: dict[str, float] = {}
    for name, way in ways.items():
        try:
            traces[name] = Traced(way, positions, args, kwargs)
        except NOT_TRACED:
            continue
        times[name] = time_model.time_of(traces[name].jaxpr, constants)
    usual = next(iter(ways))
    return min(times, key=lambda name: times[name] * (MARGIN if name == usual else 1.0), default=None)
