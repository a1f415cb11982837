"""A call on a tape, traced once more: for the lines of its own program."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import jax
from jax.tree_util import tree_leaves

from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.jaxprs import stage
from dualrev._jax.primitives import Params
from dualrev._jax.source_lines import SourceInfo
from dualrev._jax.traces import Tracer
from dualrev.linear.maps import LinearMap
from dualrev.linear.sources import SourceOfCall
from dualrev.options.settings import Active, Settings, under
from dualrev.table.rows import Operand, Row, Unknown

#: The abstract value of an array, without a call of Python's; a number of Python's has none.
_aval = operator.attrgetter("aval")


def _again(row: Row, avals: Sequence[ShapedArray], active: tuple[Active, ...], params: Params,
           settings: Settings) -> LinearMap | None:
    """The linear map of a call of a program on operands of these types."""
    found: list[LinearMap | None] = []

    def traced(*primals: jax.Array) -> list[jax.Array]:
        result = under(settings, row.linearize, primals, active, params, False)
        found.append(result[1] if isinstance(result, tuple) else None)
        return [x for x in tree_leaves(found[0]) if isinstance(x, Tracer)]

    stage(traced, avals)
    return found[0]


def source_of_call(source: SourceInfo | None, row: Row, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                   settings: Settings) -> SourceInfo | None:
    """Where a call of a program stands; of one on arrays, with what traces it again.

    Each un-jitted call comes here, so that nothing is called that is not needed.
    """
    if source is None:
        return source
    for x in primals:
        if isinstance(x, (Tracer, Unknown)):
            return source
    try:
        avals = tuple(map(_aval, primals))
    except AttributeError:
        avals = tuple(map(typeof, primals))
    made: SourceOfCall = object.__new__(SourceOfCall)
    made.traceback, made.name_stack, made.found = source.traceback, source.name_stack, None
    made.trace, made.call = _again, (row, avals, active, params, settings)
    return made
