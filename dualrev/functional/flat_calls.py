"""A user's function of pytrees as a call of flat arrays, and its derivative as a flat linear map, by either engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import is_array_like, typeof
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.calls.entry_by_entry import Together, may_be_traced, takes_entries
from dualrev.engines import reverse, sweeps
from dualrev.functional import checks
from dualrev.functional.checks import Flags
from dualrev.functional.passthrough import Through
from dualrev.functional.results import Structure
from dualrev.linear.maps import LinearMap, Tape
from dualrev.options.settings import Request
from dualrev.programs.functions import as_arrays

Engine: TypeAlias = Literal["forward", "reverse"]
#: An engine, or the one that the time model says is faster.
AnyEngine: TypeAlias = Literal["auto", "forward", "reverse"]
#: How a Hessian can be found.
HessianEngine: TypeAlias = Literal["auto", "forward", "reverse", "sparse"]


class FlatCall:
    """A user's function of flat arguments; it keeps the structure of its latest result.

    With ``through``, leaves that are not differentiated are neither among the flat arguments nor in ``out_tree``.
    """

    __slots__ = ("aux_tree", "fun", "has_aux", "in_tree", "n_out", "n_passed", "out_tree", "through")

    def __init__(self, fun: Callable[..., PyTree], in_tree: PyTreeDef, has_aux: bool, through: Through | None = None):
        self.fun = fun
        self.in_tree = in_tree
        self.has_aux = has_aux
        self.through = through
        self.n_passed = 0

    def __call__(self, *flat: jax.Array) -> list[jax.Array]:
        through = self.through
        result = self.fun(*(tree_unflatten(self.in_tree, flat) if through is None else through.arguments(flat)))
        aux: list[jax.Array] = []
        if self.has_aux:
            checks.check_pair(result)
            result, extra = result
            aux, self.aux_tree = tree_flatten(extra)
        if through is not None:
            outs, self.out_tree, passed = through.results(result)
            self.n_out, self.n_passed = len(outs), len(passed)
            return outs + passed + aux
        outs, self.out_tree = tree_flatten(result)
        for out in outs:
            if not isinstance(out, (jax.Array, Tracer)) and not is_array_like(out):
                checks.check_leaves(result, "outputs")
        self.n_out = len(outs)
        return outs + aux

    def finish(self, results: Sequence[jax.Array]) -> tuple[PyTree, PyTree]:
        """``(output, aux)`` as the function returned them."""
        outs, passed, aux = (results[: self.n_out], results[self.n_out: self.n_out + self.n_passed],
                             results[self.n_out + self.n_passed:])
        out = tree_unflatten(self.out_tree, outs) if self.through is None else self.through.assembled(outs, passed)
        return out, tree_unflatten(self.aux_tree, aux) if self.has_aux else None


def prepare(fun: Callable[..., PyTree], args: tuple[PyTree, ...], has_aux: bool, request: Request,
            what: str) -> tuple[FlatCall, list[jax.Array]]:
    """A function as a flat call, and its flat arguments that are arrays."""
    through = Through(args) if request.keeps_all else None
    if through is not None:
        args = through.reduced
    checks.check_leaves(args, what)
    flat, in_tree = tree_flatten(args)
    return FlatCall(fun, in_tree, has_aux, through), as_arrays(flat)


def linearize_flat(call: FlatCall, flat: Sequence[jax.Array], engine: Engine, request: Request, chunk_size: int | None = None,
                   in_nzs: Flags | None = None) -> tuple[list[jax.Array], LinearMap, Structure]:
    """Everything the function returned, and the linear map of its outputs, by either engine."""
    avals = [typeof(x) for x in flat]
    active = request.flags(call.in_tree, avals)
    if in_nzs is not None:
        moving = checks.spread_flags(in_nzs, call.in_tree, errors.user_call.get(), "in_nzs")
        active = [flag if moves else False for flag, moves in zip(active, moving, strict=True)]
    linear_map: LinearMap
    results: list[jax.Array]
    if engine == "reverse":
        results, tape = reverse.linearize(call, flat, active, is_whole=True)  # type: ignore[assignment]  # no result is unknown
        if takes_entries(tape) and may_be_traced(flat) and (together := Together(call, flat)).is_worth_it:
            results, tape = reverse.linearize(together, flat, active, is_whole=True)  # type: ignore[assignment]  # as above
        if len(results) > call.n_out:
            tape = Tape(tape.entries, tape.n_slots, tape.in_slots, tape.out_slots[: call.n_out], tape.wide,
                        tape.sources).pruned()
        linear_map = tape
    else:
        results, linear_map = sweeps.dense_map(call, flat, active, chunk_size)
    out_avals = [typeof(x) for x in results[: call.n_out]]
    return results, linear_map, Structure(checks.name_of(call.fun), call.in_tree, avals, active, call.out_tree, out_avals)
