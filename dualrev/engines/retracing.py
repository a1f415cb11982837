"""A call on a tape, traced once more: for the lines of its own program."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.tree_util import tree_leaves

from dualrev._jax.avals import typeof
from dualrev._jax.jaxprs import stage
from dualrev._jax.primitives import Params
from dualrev._jax.source_lines import SourceInfo
from dualrev._jax.traces import Tracer
from dualrev.linear.maps import LinearMap
from dualrev.linear.sources import SourceOfCall
from dualrev.options.settings import Active, Settings, under
from dualrev.table.rows import Operand, Row, Unknown


def source_of_call(source: SourceInfo, row: Row, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                   settings: Settings) -> SourceInfo:
    """Where a call of a program stands; of one on arrays, what traces it again."""
    if any(isinstance(x, (Tracer, Unknown)) for x in primals):
        return source
    avals = [x.aval if isinstance(x, jax.Array) else typeof(x) for x in primals]

    def again() -> LinearMap | None:
        found: list[LinearMap | None] = []

        def traced(*primals: jax.Array) -> list[jax.Array]:
            result = under(settings, row.linearize, primals, active, params, False)
            found.append(result[1] if isinstance(result, tuple) else None)
            return [x for x in tree_leaves(found[0]) if isinstance(x, Tracer)]

        stage(traced, avals)
        return found[0]

    return SourceOfCall(source, again)
