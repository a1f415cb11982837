"""Functions of arrays as one program each: traced at each call, and evaluated by numpy, or compiled once for all that are equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_unflatten

from dualrev._jax.jaxprs import ClosedJaxpr, hoisted, jaxpr_as_fun
from dualrev._jax.traces import Tracer, in_eager_context
from dualrev.eager.core.caches import PROGRAM, caches
from dualrev.eager.core.evaluation import aval_of, fixed, is_on_host, traced
from dualrev.eager.core.modes import mode
from dualrev.programs.shared import identity

_programs = caches.table(PROGRAM)


class _Known:
    """A block in which operations on known values are evaluated at once, also while a program is being traced."""

    def __enter__(self) -> None:
        self._before, mode.known = mode.known, True

    def __exit__(self, *_: object) -> None:
        mode.known = self._before


def evaluated(fun: Callable[..., Any], args: Sequence[Any], unknown: Sequence[Any]) -> Any:
    """``fun(*args)``, as one program of the arrays that are ``unknown`` while it is traced; the others have their values.

    ``unknown`` holds for each argument a prefix of its tree, with None for the parts that are known.
    """
    leaves, tree = tree_flatten(tuple(args))
    flags = _flags(unknown, args)
    if flags is None or not in_eager_context() or not all(
            isinstance(x, (np.ndarray, jax.Array)) and not isinstance(x, Tracer) for x, flag in zip(leaves, flags, strict=True)
            if flag):
        return fun(*args)
    out_trees = []

    def flat(*values: Any) -> list[Any]:
        given = iter(values)
        outs = fun(*tree_unflatten(tree, [next(given) if flag else x for x, flag in zip(leaves, flags, strict=True)]))
        out_leaves, out_tree = tree_flatten(outs)
        out_trees.append(out_tree)
        return out_leaves

    given = [x for x, flag in zip(leaves, flags, strict=True) if flag]
    with _Known():
        program, consts = hoisted(traced(flat, [aval_of(x) for x in given]))
    operands = [*consts, *given]
    run = _evaluation(program, all(is_on_host(x) for x in operands))
    return tree_unflatten(out_trees[0], run(*operands))


def _flags(unknown: Sequence[Any], args: Sequence[Any]) -> list[bool] | None:
    """For each leaf of the arguments, whether it is unknown; None where the prefixes do not fit."""
    try:
        found = tree_map(lambda d, part: tree_map(lambda _: d is not None, part), tuple(unknown), tuple(args),
                         is_leaf=lambda d: d is None)
    except ValueError:
        return None
    return tree_leaves(found)


def _evaluation(program: ClosedJaxpr, on_host: bool) -> Callable[..., Sequence[Any]]:
    """The evaluation of a program, the same one for equal programs."""
    key = identity(program), on_host
    run = _programs.get(key)
    if run is None:
        run = _programs.keep(key, fixed(jaxpr_as_fun(program), program.in_avals, on_host)[1])
    return run
