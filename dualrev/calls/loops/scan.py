"""``scan``: loops of known length.

The pull of a scan is a scan in the opposite direction.  Residuals are stacked over the steps only if they change from step to step and
no stack exists: the arrays and the stacked results of the scan are not copied, and a loop-invariant residual is stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.calls import scan_layout, scan_p, scan_with
from dualrev._jax.jaxprs import jaxpr_as_fun
from dualrev._jax.primitives import Params
from dualrev._jax.sharding import sliced_aval, stacked_aval
from dualrev._jax.traces import Tracer, is_unjitted
from dualrev._jax.trees import PyTree
from dualrev.calls.call_rows import CallRow, splice
from dualrev.calls.derived_programs import cached
from dualrev.calls.evaluation import Pushforward, carried_parts, pushforward_of
from dualrev.calls.linearization import StagedMap, linearization_of
from dualrev.calls.loops.body import Body, Pull, active_carry, loop_of, only, size_of, spread
from dualrev.calls.loops.by_counter import by_counter
from dualrev.calls.loops.hoisting import hoisted
from dualrev.calls.loops.known_indices import is_integer
from dualrev.calls.loops.one_kernel import as_one_kernel
from dualrev.calls.loops.outside_references import with_values
from dualrev.calls.loops.packing import Step, packed
from dualrev.calls.loops.recompute import Checkpoints, Slices, pull_sweep, schedule_sizes, sweep_scan
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents, Tape
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Expansion, Linearized, Operand, Taped, Unknown, register

T = TypeVar("T")

#: The settings of a scan as items of a dictionary, which can be hashed.
Settings: TypeAlias = tuple[tuple[str, Any], ...]


class Layout:
    """How the operands and results of a scan are grouped."""

    def __init__(self, params: Params):
        self.jaxpr = params["jaxpr"]
        self.n_consts, self.n_carry = scan_layout(params)
        self.settings = {name: params[name] for name in ("length", "reverse", "unroll")}

    def groups(self, values: Sequence[T]) -> tuple[list[T], list[T], list[T]]:
        """Constants, carries, and arrays or stacked results."""
        i, j = self.n_consts, self.n_consts + self.n_carry
        return list(values[:i]), list(values[i:j]), list(values[j:])


def _scan(step: Step, init: PyTree, xs: PyTree, settings: Params) -> tuple[PyTree, PyTree]:
    """``lax.scan``, also where the length is a symbol, as in an exported program: ``lax.scan`` takes that from arrays only."""
    if isinstance(settings["length"], int):
        return as_one_kernel(lambda init, xs: lax.scan(step, init, xs, **settings), init, xs)
    counter = lax.iota("int32", settings["length"])
    return lax.scan(lambda carry, x: step(carry, x[0]), init, (xs, counter), reverse=settings["reverse"], unroll=settings["unroll"])


def _evaluate(mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts],
              params: Params) -> Carried:
    layout = Layout(params)
    consts, init, xs = layout.groups(primals)
    consts_p, init_p, xs_p = layout.groups(parts)
    xs_p = [mode.slices(p) for p in xs_p]
    avals = layout.jaxpr.in_avals[layout.n_consts: layout.n_consts + layout.n_carry]

    def derive(carried: Sequence[Parts]) -> Pushforward:
        return pushforward_of(layout.jaxpr, mode.flatten([*consts_p, *carried, *map(slice_of, xs_p)])[1], splice("scan"), mode)

    def filled(parts: Sequence[Parts]) -> list[Parts]:
        return [mode.fill(p, a, like) for p, a, like in zip(parts, avals, likes, strict=True) if like is not None]

    push, likes = carried_parts(mode, derive, init_p, avals)
    on_carry = [like is not None for like in likes]
    on_ys = push.active_outs[layout.n_carry:]

    def body(carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        (c, c_p), (x, x_p) = carry, x
        outs, found = push([*consts, *c, *x], [*consts_p, *spread(c_p, on_carry), *x_p])
        return (outs[: layout.n_carry], filled(found[: layout.n_carry])), (outs[layout.n_carry:], only(found[layout.n_carry:], on_ys))

    (carry, carry_p), (ys, ys_p) = _scan(body, (init, filled(init_p)), (xs, xs_p), layout.settings)
    return [*carry, *ys], [*spread(carry_p, on_carry), *spread([mode.stacked(p) for p in ys_p], on_ys)]


def slice_of(parts: Parts) -> Parts:
    """The abstract values of the parts of a slice, from the parts of the stack."""
    return jax.tree.map(lambda x: sliced_aval(typeof(x)), parts)


def _shifted(stack: jax.Array, value: jax.Array, settings: Params, at_start: bool) -> jax.Array:
    """The stack shifted by one step: with ``value`` at one end, and without the entry at the other."""
    value = lax.broadcast_in_dim(value, (1, *value.shape), range(1, value.ndim + 1))
    start = 0 if at_start else 1
    both = lax.concatenate([value, stack] if at_start else [stack, value], 0)
    return lax.slice_in_dim(both, start, start + settings["length"])


class ScanMap(LinearMap):
    """The derivative of a scan: the body's linearization, with residuals that are stored once or stacked over the steps.

    ``last``: the residuals of the last step that are final carries; of other steps, the next step stores them.
    """

    __slots__ = ("body", "last", "once", "settings", "stacked")

    name = "scan"

    def __init__(self, once: Sequence[jax.Array], stacked: Sequence[jax.Array], last: Sequence[jax.Array], body: Body,
                 settings: Settings):
        self.once = once
        self.stacked = stacked
        self.last = last
        self.body = body
        self.settings = settings

    def inner_maps(self) -> list[LinearMap]:
        return [self.body.linearization.example()]

    def tape(self) -> Tape:
        return self.body.tape(self.once, self.stacked)

    def shifted(self) -> list[jax.Array]:
        """Stacks of the residuals of each step that the next step stores."""
        settings = dict(self.settings)
        return [_shifted(x, last, settings, at_start=settings["reverse"])
                for x, last in zip(self.body.following(self.stacked), self.last, strict=True)]

    def push(self, *tangents: Tangent) -> Tangents:
        body, n_carry = self.body, self.body.n_carry
        values = iter(tangents)
        consts_t = [next(values) for flag in body.on_consts if flag]
        init_t = spread([next(values) for flag in body.on_init if flag], body.on_init)
        xs_t = [next(values) for flag in body.on_xs if flag]
        present = [t is not None for t in xs_t]
        on_ys = body.linearization.results_of(
            "push", [*(t is not None for t in consts_t), *(True for is_active in body.on_carry if is_active), *present])[n_carry:]

        def step(carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            x_t, stacked, following = x
            step_map = StagedMap(body.linearization, body.residuals(self.once, stacked, following))
            outs = step_map.push(*consts_t, *carry, *spread(x_t, present))
            return body.start_tangents(outs[:n_carry]), only(outs[n_carry:], on_ys)

        slices = only(xs_t, present), list(self.stacked), self.shifted()
        carry, ys = _scan(step, body.start_tangents(init_t), slices, dict(self.settings))
        return (*spread(carry, body.on_carry), *spread(ys, on_ys))

    def pull(self, *cotangents: Tangent) -> Tangents:
        body, settings = self.body, dict(self.settings)
        carry_ct, all_ys_ct = cotangents[: body.n_carry], cotangents[body.n_carry:]
        ys_ct = [ct for ct in all_ys_ct if ct is not None]
        on_ys, room = [ct is not None for ct in all_ys_ct], size_of([*self.once, *self.stacked])
        pull = Pull(body, carry_ct, on_ys, settings["length"], room, is_whole=True)

        def step(carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry_ct, totals, following = carry
            y_ct, stacked = x
            carry_ct, x_ct, terms, new = pull.step(carry_ct, y_ct, body.residuals(self.once, stacked, following))
            return (carry_ct, pull.add(totals, terms), body.following(stacked)), (x_ct, new)

        settings["reverse"] = not settings["reverse"]
        start = pull.start, pull.no_totals(), list(self.last)
        packed_step, packed_start, unpack = packed(step, start, pull.plan.packs_carries)
        end, (xs_ct, new) = _scan(packed_step, packed_start, (ys_ct, list(self.stacked)), settings)
        carry_ct, totals, _ = unpack(end)
        consts_ct = pull.finish(body.residuals(self.once, self.stacked, self.shifted()), totals, new, ys_ct)
        return (*spread(consts_ct, pull.to_consts), *pull.to_init(carry_ct), *spread(xs_ct, pull.to_xs))

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        return self.body.reached(cotangents)


jax.tree_util.register_pytree_node(
    ScanMap,
    lambda m: ((m.once, m.stacked, m.last), (m.body, m.settings)),
    lambda aux, children: ScanMap(*children, *aux),
)


class CheckpointedScan(LinearMap):
    """The derivative of a scan of which a few states are stored (see :mod:`dualrev.calls.loops.recompute`).

    ``operands``: constants, initial carries, arrays, and the residuals that are the same at all steps.
    """

    __slots__ = ("block", "body", "checkpoints", "operands", "settings")

    name = "scan"

    def __init__(self, operands: tuple[Sequence[jax.Array], ...], checkpoints: Checkpoints, body: Body, block: int,
                 settings: Settings):
        self.operands = operands
        self.checkpoints = checkpoints
        self.body = body
        self.block = block
        self.settings = settings

    def inner_maps(self) -> list[LinearMap]:
        return [self.body.linearization.example()]

    def push(self, *tangents: Tangent) -> Tangents:
        consts, init, xs, once = self.operands
        carry, _, stacked = _run(self.body, self.body.step_consts(consts), init, xs, dict(self.settings))
        return ScanMap(once, stacked, self.body.last(carry), self.body, self.settings).push(*tangents)

    def pull(self, *cotangents: Tangent) -> Tangents:
        body, settings, block = self.body, dict(self.settings), self.block
        consts, _, xs, once = self.operands
        length = settings["length"]
        carry_ct, ys_ct = cotangents[: body.n_carry], cotangents[body.n_carry:]
        pull = Pull(body, carry_ct, [ct is not None for ct in ys_ct], block, size_of(self.checkpoints.slots))
        xs_ct = [zeros.zeros_of(stacked_aval(a, length)) for a in pull.slice_avals]
        order = (lambda i: length - 1 - i) if settings["reverse"] else (lambda i: i)
        slices = Slices(xs, [ct for ct in ys_ct if ct is not None], xs_ct, order)
        n_blocks = -(-length // block)
        init_ct, consts_ct, xs_ct = pull_sweep(pull, once, body.step_consts(consts), self.checkpoints, length, n_blocks, block,
                                               pull.start, slices)
        return (*spread(consts_ct, pull.to_consts), *pull.to_init(init_ct), *spread(xs_ct, pull.to_xs))

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        return self.body.reached(cotangents)


jax.tree_util.register_pytree_node(
    CheckpointedScan,
    lambda m: ((m.operands, m.checkpoints), (m.body, m.block, m.settings)),
    lambda aux, children: CheckpointedScan(*children, *aux),
)


def _run(body: Body, consts: Sequence[jax.Array], init: Sequence[jax.Array], xs: Sequence[jax.Array],
         settings: Params) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """Run a scan: the known final carries and results, and the stacks of the residuals in ``body.kept``."""
    n_inputs, n_carry = body.n_consts + body.n_carry, body.n_carry
    # Slices and stacked results have stacks; so has a carry, before or after the step, that is also a result.
    given = body.stacked_carries
    made = [source for source in body.kept if source not in given and
            (source[0] == "new" or source[1] < (n_inputs if source[0] == "in" else n_carry))]

    def step(carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        carry, ys, residual = body.step(consts, carry, x)
        return carry, (ys, [residual(source) for source in made])

    carry, (ys, stacks) = _scan(step, list(init), list(xs), settings)
    found = dict(zip(made, stacks, strict=True))
    found |= {("in", n_inputs + i): x for i, x in enumerate(spread(xs, body.known_xs))}
    found |= {("out", n_carry + i): y for i, y in enumerate(spread(ys, body.linearization.known_outs[n_carry:]))}
    carry_in: list[Any] = spread(init, body.known_carry)
    for (kind, i), (j, is_behind) in given.items():
        stack = found["out", j]
        found[kind, i] = _shifted(stack, carry_in[i - body.n_consts], settings, not settings["reverse"]) if is_behind else stack
    return carry, ys, [found[source] for source in body.kept]


def _reverse(primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
             is_linear: bool) -> Taped:
    layout = Layout(params)
    consts, init, xs = layout.groups(primals)
    on_consts, on_init, on_xs = groups = tuple(map(tuple, layout.groups(active)))
    linearization, on_carry = active_carry(
        lambda jaxpr, on_carry: linearization_of(jaxpr, (*on_consts, *on_carry, *on_xs), is_linear, splice("scan"), is_step=True),
        layout.jaxpr, on_init)
    body, once, step_consts = Body.of(loop_of(layout.jaxpr, "scan"), linearization, consts, groups, tuple(on_carry),
                                      layout.settings["length"])
    known_consts = [x for x in consts if not isinstance(x, Unknown)]
    known_init: list[Any] = only(init, body.known_carry)
    known_xs = [x for x in xs if not isinstance(x, Unknown)]
    settings = tuple(layout.settings.items())
    chosen = schedule_sizes(body, layout.settings["length"])
    linear_map: LinearMap
    if chosen is None:
        carry, ys, stacked = _run(body, step_consts, known_init, known_xs, layout.settings)
        linear_map = ScanMap(once, stacked, body.last(carry), body, settings)
    else:
        n_kept, block = chosen
        carry, ys, checkpoints = sweep_scan(body, step_consts, known_init, known_xs, n_kept, block, layout.settings)
        linear_map = CheckpointedScan((known_consts, known_init, known_xs, once), checkpoints, body, block, settings)
    found = [*spread(carry, body.known_carry), *spread(ys, linearization.known_outs[layout.n_carry:])]
    out_avals = [*layout.jaxpr.out_avals[: layout.n_carry], *_stacked_avals(layout)]
    outs = [Unknown(a) if x is None else x for x, a in zip(found, out_avals, strict=True)]
    return outs, linear_map, [*on_carry, *linearization.active_outs[layout.n_carry:]]


def _stacked_avals(layout: Layout) -> list[ShapedArray]:
    return [stacked_aval(a, layout.settings["length"]) for a in layout.jaxpr.out_avals[layout.n_carry:]]


class ScanRow(CallRow):
    """A scan.  What it computes from active constants alone is differentiated once, before it; what it reads and writes entry by entry
    at known places becomes slices where it is linearized.
    """

    takes_parts = "arrays"

    def _hoisted(self, active: Sequence[Active], params: Params) -> Expansion | None:
        """The scan as a program that computes invariants first, or None if it has none that are worth it.

        A scan of no steps keeps them: their pull may be infinite where no step reads them.
        """
        layout, jaxpr, length = Layout(params), params["jaxpr"], params["length"]
        if not isinstance(length, int) or length < 2:
            return None
        on_consts = tuple(map(bool, active[: layout.n_consts]))
        found = cached(jaxpr, ("hoisted", on_consts), lambda: hoisted(jaxpr, on_consts))
        if found is None:
            return None
        before, body = found
        settings = scan_with(params, body, layout.n_consts + len(before.out_avals), layout.n_carry)
        first = jaxpr_as_fun(before)

        def run(*operands: jax.Array) -> Sequence[jax.Array]:
            consts = operands[: layout.n_consts]
            results: Sequence[jax.Array] = scan_p.bind(*consts, *first(*consts), *operands[layout.n_consts:], **settings)
            return results

        return Expansion(None, run)

    def _by_counter(self, primals: Sequence[Operand], active: Sequence[Active], params: Params) -> Expansion | None:
        """The scan with slices in place of entries, or None if it has no entries at known places."""
        layout, jaxpr, length = Layout(params), params["jaxpr"], params["length"]
        if not isinstance(length, int) or length < 2:
            return None
        start = {i: np.asarray(x) for i, x in enumerate(layout.groups(primals)[1])
                 if isinstance(x, (int, np.ndarray, np.generic, jax.Array)) and not isinstance(x, Tracer) and np.shape(x) == ()
                 and is_integer(jaxpr.in_avals[layout.n_consts + i])}
        if not start:
            return None
        on_consts = tuple(map(bool, active[: layout.n_consts]))
        key = ("by counter", on_consts, tuple([(i, int(x)) for i, x in start.items()]), length, params["reverse"])
        starts = {i: x.astype(jaxpr.in_avals[layout.n_consts + i].dtype) for i, x in start.items()}
        found = cached(jaxpr, key, lambda: by_counter(
            jaxpr, (layout.n_consts, layout.n_carry), on_consts, starts, length, params["reverse"]))
        if found is None:
            return None
        n_carry, n_ys = found.n_carry, len(jaxpr.out_avals) - layout.n_carry
        settings = scan_with(params, found.body, layout.n_consts, n_carry)

        def run(*operands: jax.Array) -> Sequence[jax.Array]:
            consts, init, xs = layout.groups(operands)
            results = scan_p.bind(*consts, *found.start(init), *xs, *found.slices(consts, init), **settings)
            return [*found.carries(init, results[:n_carry], results[n_carry + n_ys:]), *results[n_carry: n_carry + n_ys]]

        return Expansion(None, run)

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        expansion = None if is_unjitted() else self._hoisted([p is not None for p in parts], params)
        return expansion or super().through(mode, primals, parts, params)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        expansion = with_values(scan_p, primals, params) if params["jaxpr"].effects else None
        if expansion is None and not is_unjitted():
            expansion = self._by_counter(primals, active, params) or self._hoisted(active, params)
        return expansion or super().linearize(primals, active, params, is_linear)


register(ScanRow(scan_p, ("jaxpr",), _evaluate, _reverse))
