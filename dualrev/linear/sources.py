"""Lines of the user's for what a call keeps.

Un-jitted calls of programs of equal content share their linearization, at the lines of the first one.  What a call's own program says
is found by tracing it once more, when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.tree_util import tree_flatten, tree_unflatten

from dualrev._jax.source_lines import SourceInfo
from dualrev.linear.maps import LinearMap


class SourceOfCall(SourceInfo):
    """Where a call stands, and how to trace its linear map once more: ``trace(*call)``.

    :func:`~dualrev.engines.retracing.source_of_call` makes one for each un-jitted call on a tape.
    """

    __slots__ = ("call", "found", "trace")  # filled by whoever makes one: a call of Python's less for each call on a tape

    call: tuple[Any, ...]
    trace: Callable[..., LinearMap | None]
    found: LinearMap | None

    def again(self) -> LinearMap | None:
        """The linear map, traced once more."""
        if self.found is None:
            self.found = self.trace(*self.call)
        return self.found


def as_called(linear_map: LinearMap, source: SourceInfo | None) -> LinearMap | None:
    """A map with the lines of its own call, if it is that of one; None where tracing the call again gives another map."""
    if not isinstance(source, SourceOfCall):
        return linear_map
    again = source.again()
    if again is None:
        return None
    leaves, (like, structure) = tree_flatten(linear_map)[0], tree_flatten(again)
    if [_type(x) for x in leaves] != [_type(x) for x in like]:
        return None
    found: LinearMap = tree_unflatten(structure, leaves)
    return found


def _type(x: object) -> tuple[object, object]:
    return getattr(x, "shape", None), getattr(x, "dtype", None)
