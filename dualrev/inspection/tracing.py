"""A call of a user's function as a function of its arrays, which can be traced without running it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.tree_util import keystr, tree_flatten_with_path, tree_unflatten

from dualrev._jax.avals import ShapedArray, is_array_like, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, stage
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTree
from dualrev.inspection.anew import as_written
from dualrev.programs.functions import as_arrays


class Call:
    """A function and its arguments: ``function`` takes the arrays among them, ``leaves`` are these, and ``names`` what they are called.

    ``call`` is the public function that asks, for messages.
    ``jax.ShapeDtypeStruct`` may stand for an array; other leaves, such as strings, are held fixed.
    """

    def __init__(self, call: str, fun: Callable[..., PyTree], args: Sequence[PyTree], kwargs: dict[str, PyTree]):
        self.call = call
        self.fun = fun
        found, tree = tree_flatten_with_path((tuple(args), kwargs))
        values = [leaf for _, leaf in found]
        places = [k for k, x in enumerate(values) if is_array_like(x) or isinstance(x, jax.ShapeDtypeStruct)]
        if not places:
            raise TypeError(f"{call}: expected arguments that hold arrays; got {'none' if not values else 'no array among them'}")

        written = as_written(fun)

        def on_arrays(*arrays: Any) -> PyTree:
            filled = list(values)
            for k, x in zip(places, arrays, strict=True):
                filled[k] = x
            given, named = tree_unflatten(tree, filled)
            return written(*given, **named)

        on_arrays.__name__ = str(getattr(fun, "__name__", type(fun).__name__))
        self.function: Callable[..., PyTree] = on_arrays
        self.leaves: list[Any] = [x if isinstance(x, jax.ShapeDtypeStruct) else as_arrays([x])[0] for x in (values[k] for k in places)]
        parameters = _positional(fun)
        self.names: list[str] = [_name(found[k][0], parameters) for k in places]

    @property
    def is_concrete(self) -> bool:
        """Whether the function can be run on its arguments."""
        return not any(isinstance(x, (jax.ShapeDtypeStruct, Tracer)) for x in self.leaves)

    @property
    def avals(self) -> list[ShapedArray]:
        return [ShapedArray(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else typeof(x) for x in self.leaves]

    def staged(self, fun: Callable[..., Any]) -> ClosedJaxpr:
        """The program of a function of the arrays."""
        try:
            return stage(fun, self.avals)
        except jax.errors.ConcretizationTypeError as error:
            error.add_note(f"{self.call} traces the function, and Python control flow reads its arguments: write lax.cond. "
                           "dr.draw(dr.linearize(f, x)[1]) draws what was evaluated.")
            raise


def _positional(fun: Callable[..., PyTree]) -> list[str]:
    try:
        found = inspect.signature(fun).parameters.values()
    except (TypeError, ValueError):  # a callable that does not tell
        return []
    return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _name(path: Sequence[Any], parameters: Sequence[str]) -> str:
    """``w`` or ``params['w']``, by the name of the parameter."""
    side, which, *rest = path
    key = which.key if side.idx == 1 else parameters[which.idx] if which.idx < len(parameters) else f"argument {which.idx}"
    return f"{key}{keystr(tuple(rest))}"
