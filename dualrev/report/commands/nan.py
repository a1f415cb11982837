"""``python -m dualrev nan module:function --args ...``: where a NaN in a function or its gradient came from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dualrev._jax.trees import PyTree
from dualrev.functional.api import vjp
from dualrev.inspection.finiteness.report import NanReport
from dualrev.inspection.finiteness.where_nan import where_nan
from dualrev.report.commands.arguments import Parser
from dualrev.report.measure import flatten
from dualrev.report.targets import find


def run(words: Sequence[str]) -> int:
    """The command; 0 where all is finite, 1 where a NaN (or an infinity) was found."""
    parser = Parser(prog="python -m dualrev nan", description="Evaluate a function, then its gradient (that of the sum of its "
                    "outputs, by all floats in its arguments), and tell what made the first NaN or infinity in their results.",
                    epilog="exit status: 0 if all results are finite; 1 if one is not; 2 if the function or its arguments do not fit.")
    parser.add_argument("function", metavar="module:function", help="a JAX function: module:function or path/to/file.py:function")
    parser.add_argument("--args", metavar="EXPRESSIONS", help="its arguments, as Python expressions: \"jnp.zeros(3), 2.0\"")
    parser.add_argument("--nan-only", action="store_true", help="infinite results are no fault")
    parser.add_argument("--value-only", action="store_true", help="look at the function alone, not at its gradient")
    parser.add_argument("--x64", action="store_true", help="compute in float64; by default as JAX does")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
    options = parser.parse_args(words)
    if options.x64:
        jax.config.update("jax_enable_x64", True)
    target = find(options.function, options.args)
    infinities = not options.nan_only
    with target.failures_in_words():
        reports = {"function": where_nan(target.function, infinities=infinities)(*target.args, **target.kwargs)}
        if not reports["function"].found and not options.value_only:
            flat = flatten(target.function, target.args, target.kwargs)
            reports["gradient"] = where_nan(_gradient(flat.function), infinities=infinities)(*flat.primals)
    if options.json:
        print(json.dumps({what: _as_json(report) for what, report in reports.items()}, indent=2))
    else:
        for what, report in reports.items():
            print(str(dataclasses.replace(report, name=target.name if what == "function" else f"gradient of {target.name}")))
    return 1 if any(reports.values()) else 0


def _gradient(function: Callable[..., Sequence[jax.Array]]) -> Callable[..., PyTree]:
    def gradient(*inputs: jax.Array) -> PyTree:
        outs, pull = vjp(function, *inputs)
        return pull(tuple([jnp.ones_like(x) for x in outs]))

    return gradient


def _as_json(report: NanReport) -> dict[str, object]:
    """What is told of the operation, with the names of the report's attributes."""
    made, became = report.made, report.became
    return {"found": report.found, "kind": report.kind, "result": report.result, "index": list(report.index),
            "made": made and dataclasses.asdict(made), "became": became and dataclasses.asdict(became)}
