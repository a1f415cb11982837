"""``while``: loops whose number of steps is known only after they have run.

A push is a loop that also carries tangents.  For a pull the loop is *recorded* if the length of the buffers is known: on concrete
values the loop runs once to count its steps, or the user gives a bound, ``max_steps``.  Otherwise it is *checkpointed*, in the memory
of ``loop_checkpoints`` states and of the residuals of one block of steps (see :mod:`dualrev.calls.loops.recompute`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from dualrev import errors
from dualrev._jax.avals import is_differentiable
from dualrev._jax.calls import while_p
from dualrev._jax.jaxprs import ClosedJaxpr, jaxpr_as_fun, stage
from dualrev._jax.primitives import Params
from dualrev._jax.traces import is_eager
from dualrev._jax.trees import PyTree
from dualrev.calls.call_rows import CallRow, own_copy, splice
from dualrev.calls.derived_programs import cached
from dualrev.calls.evaluation import Pushforward, carried_parts, pushforward_of
from dualrev.calls.linearization import Linearization, StagedMap, linearization_of
from dualrev.calls.loops.body import Body, Pull, active_carry, loop_of, only, size_of, spread
from dualrev.calls.loops.counted_while import as_scan
from dualrev.calls.loops.outside_references import with_values
from dualrev.calls.loops.recompute import Go, kept_avals, pull_record, pull_sweep, record, sizes, sweep
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangents, Tape
from dualrev.linear.zeros import Tangent
from dualrev.options.settings import Active, current
from dualrev.programs.jaxprs import reads
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Expansion, Linearized, Operand, Unknown, aval_of, register

#: On concrete values, the most memory for the residuals of all steps; a loop that needs more is checkpointed.
RECORD_BYTES = 2**30


T = TypeVar("T")

#: Constants of the condition, constants of the body, initial carries, and the residuals that are the same at all steps.
Operands: TypeAlias = tuple[Sequence[jax.Array], Sequence[jax.Array], Sequence[jax.Array], Sequence[jax.Array]]


def _groups(values: Sequence[T], params: Params) -> tuple[list[T], list[T], list[T]]:
    """The constants of the condition, those of the body, and the initial carries."""
    i = params["cond_nconsts"]
    j = i + params["body_nconsts"]
    return list(values[:i]), list(values[i:j]), list(values[j:])


def _condition(jaxpr: ClosedJaxpr, consts: Sequence[jax.Array]) -> Go:
    """The condition as a function of the carries."""
    test = jaxpr_as_fun(jaxpr)
    return lambda carry: test(*consts, *carry)[0]


def _finished(carry: Sequence[jax.Array], go: Go, max_steps: int | None) -> list[jax.Array]:
    """The final carries; where a bounded loop has not finished, NaN and an error."""
    if max_steps is None:
        return list(carry)
    unfinished = go(carry)
    jax.debug.callback(errors.check_finished, unfinished, max_steps=max_steps)
    return [jnp.where(unfinished, jnp.nan, x).astype(x.dtype) if is_differentiable(aval_of(x)) else x for x in carry]


def _evaluate(mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts],
              params: Params) -> Carried:
    cond_consts, body_consts, init = _groups(primals, params)
    _, consts_p, init_p = _groups(parts, params)
    avals = params["body_jaxpr"].in_avals[len(body_consts):]

    def filled(parts: Sequence[Parts]) -> list[Parts]:
        return [mode.fill(p, a, like) for p, a, like in zip(parts, avals, likes, strict=True) if like is not None]

    def derive(carried: Sequence[Parts]) -> Pushforward:
        return pushforward_of(params["body_jaxpr"], mode.flatten([*consts_p, *carried])[1], splice("while"), mode)

    push, likes = carried_parts(mode, derive, init_p, avals)
    on_carry = [like is not None for like in likes]
    go = _condition(params["cond_jaxpr"], cond_consts)
    max_steps = current.get().max_steps

    def step(state: PyTree) -> PyTree:
        carry, carry_p, n = state
        outs, found = push([*body_consts, *carry], [*consts_p, *spread(carry_p, on_carry)])
        return outs, filled(found), n + 1

    def goes_on(state: PyTree) -> jax.Array:
        return go(state[0]) if max_steps is None else go(state[0]) & (state[2] < max_steps)

    carry, carry_p, _ = lax.while_loop(goes_on, step, (init, filled(init_p), jnp.int32(0)))
    return _finished(carry, go, max_steps), spread(carry_p, on_carry)


class WhileMap(LinearMap):
    """The derivative of a while loop that has run: its operands, and in ``held`` what the :meth:`pull` of a subclass reads.

    ``n_cond`` is the number of active constants of the condition.  Their derivative is zero: the number of steps is piecewise constant.
    """

    __slots__ = ("body", "cond_jaxpr", "held", "n_cond", "operands")

    name = "while"

    def __init__(self, operands: Operands, held: tuple[Any, ...], body: Body, cond_jaxpr: ClosedJaxpr, n_cond: int):
        self.operands = operands
        self.held = held
        self.body = body
        self.cond_jaxpr = cond_jaxpr
        self.n_cond = n_cond

    def inner_maps(self) -> list[LinearMap]:
        return [self.body.linearization.example()]

    def push(self, *tangents: Tangent) -> Tangents:
        body, values = self.body, iter(tangents[self.n_cond:])
        cond_consts, consts, init, once = self.operands
        consts_t = [next(values) for flag in body.on_consts if flag]
        init_t = spread([next(values) for flag in body.on_init if flag], body.on_init)
        go = _known_condition(self.cond_jaxpr, cond_consts, body)
        consts = body.step_consts(consts)

        def step(state: PyTree) -> PyTree:
            carry, carry_t = state
            carry, _, residual = body.step(consts, carry, ())
            kept = [residual(source) for source in body.kept]
            step_map = StagedMap(body.linearization, body.residuals(once, kept, body.last(carry)))
            return carry, body.start_tangents(step_map.push(*consts_t, *carry_t))

        _, outs_t = lax.while_loop(lambda state: go(state[0]), step, (list(init), body.start_tangents(init_t)))
        return tuple(spread(outs_t, body.on_carry))

    def _results(self, pull: Pull, carry_ct: Sequence[jax.Array], consts_ct: Sequence[jax.Array]) -> Tangents:
        """The results of a pull, from the cotangents of initial carries and constants."""
        return (*[None] * self.n_cond, *spread(consts_ct, pull.to_consts), *pull.to_init(carry_ct))

    def reached(self, cotangents: Sequence[bool], n_in: int) -> Sequence[bool]:
        return [*[False] * self.n_cond, *self.body.reached(cotangents)]


class RecordedWhile(WhileMap):
    """``held``: the residuals of the steps, those of the last step among the final carries, the number of steps, and the length."""

    __slots__ = ()

    def tape(self) -> Tape:
        return self.body.tape(self.operands[-1], self.held[0])

    def pull(self, *cotangents: Tangent) -> Tangents:
        buffers, last, n, length = self.held
        once = self.operands[-1]
        pull = Pull(self.body, cotangents, (), length, size_of([*once, *buffers]))
        carry_ct, sums, _ = pull_record(pull, once, buffers, last, n, length, pull.start, pull.no_sums())
        return self._results(pull, carry_ct, pull.sums_to_consts(once, sums))


class CheckpointedWhile(WhileMap):
    """``held``: the stored states, the numbers of steps and of blocks, and the length of a block."""

    __slots__ = ()

    def pull(self, *cotangents: Tangent) -> Tangents:
        checkpoints, steps, blocks, block = self.held
        _, consts, _, once = self.operands
        pull = Pull(self.body, cotangents, (), block, size_of(checkpoints.slots))
        carry_ct, consts_ct, _ = pull_sweep(pull, once, self.body.step_consts(consts), checkpoints, steps, blocks, block, pull.start)
        return self._results(pull, carry_ct, consts_ct)


def _register(kind: type[WhileMap]) -> None:
    # The last entry of ``held`` is static: the length of buffers, or of a block.
    jax.tree_util.register_pytree_node(
        kind,
        lambda m: ((m.operands, m.held[:-1]), (m.held[-1], m.body, m.cond_jaxpr, m.n_cond)),
        lambda aux, children: kind(children[0], (*children[1], aux[0]), *aux[1:]),
    )


_register(RecordedWhile)
_register(CheckpointedWhile)


def _known_condition(jaxpr: ClosedJaxpr, consts: Sequence[jax.Array], body: Body) -> Go:
    """The condition as a function of the known carries.  In a linear program it does not read the others."""
    test = _condition(jaxpr, consts)
    fill = [None if known else zeros.filler(a) for a, known in zip(body.carry_avals, body.known_carry, strict=True)]
    return lambda carry: test([x if f is None else f  # type: ignore[misc]  # each is known or filled
                               for x, f in zip(spread(carry, body.known_carry), fill, strict=True)])


def _linearize(primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool,
               steps: int | None = None) -> tuple[list[Operand], LinearMap, Sequence[bool]]:
    """``steps``: the length of the buffers, if it is known."""
    cond_consts, consts, init = _groups(primals, params)
    on_cond, on_consts, on_init = map(tuple, _groups(active, params))
    jaxpr = params["body_jaxpr"]
    linearization, on_carry = active_carry(
        lambda jaxpr, on_carry: linearization_of(jaxpr, (*on_consts, *on_carry), is_linear, splice("while"), is_step=True),
        jaxpr, on_init)
    body, once, step_consts = Body.of(loop_of(jaxpr, "while_loop"), linearization, consts, (on_consts, on_init, ()), tuple(on_carry),
                                      steps)
    if is_linear:
        read = reads(params["cond_jaxpr"])[len(cond_consts):]
        if any(type(x) is Unknown for x in cond_consts) or any(r and m for r, m in zip(read, on_carry, strict=True)):
            raise errors.not_linear(while_p)
    cond_jaxpr = own_copy(params["cond_jaxpr"])
    known_cond_consts = [x for x in cond_consts if not isinstance(x, Unknown)]
    go = _known_condition(cond_jaxpr, known_cond_consts, body)
    known_consts = [x for x in consts if not isinstance(x, Unknown)]
    known_init: list[Any] = only(init, body.known_carry)
    max_steps = current.get().max_steps
    length = steps if steps is not None and steps * size_of(kept_avals(body)) <= RECORD_BYTES else max_steps
    operands, n_cond = (known_cond_consts, known_consts, known_init, once), sum(map(bool, on_cond))
    linear_map: WhileMap
    if length is not None:
        carry, n, buffers = record(body, step_consts, known_init, lambda carry, n: go(carry) & (n < length), length)
        linear_map = RecordedWhile(operands, (buffers, body.last(carry), n, length), body, cond_jaxpr, n_cond)
    else:
        n_kept, block = sizes(body)
        carry, n, blocks, checkpoints = sweep(body, step_consts, known_init, go, n_kept, block)
        linear_map = CheckpointedWhile(operands, (checkpoints, n, blocks, block), body, cond_jaxpr, n_cond)
    if steps is None:
        carry = _finished(carry, go, max_steps)
    outs = [Unknown(a) if x is None else x for x, a in zip(spread(carry, body.known_carry), body.carry_avals, strict=True)]
    active_outs = [on and is_differentiable(a) for on, a in zip(on_carry, jaxpr.out_avals, strict=True)]
    return outs, linear_map, active_outs


def _together(params: Params) -> Params:
    """The loop of a batch whose members finish at different steps: it runs while any member does; finished members keep their carry.

    ``vmap`` gives such a loop a condition that is an array.  The body takes the constants of the condition too.
    """
    cond_jaxpr, body_jaxpr, n_cond, n_body = (
        params[name] for name in ("cond_jaxpr", "body_jaxpr", "cond_nconsts", "body_nconsts"))

    def make() -> tuple[ClosedJaxpr, ClosedJaxpr]:
        test, step = jaxpr_as_fun(cond_jaxpr), jaxpr_as_fun(body_jaxpr)

        def body(*args: jax.Array) -> list[jax.Array]:
            consts, carry = args[: n_cond + n_body], args[n_cond + n_body:]
            (runs,) = test(*consts[:n_cond], *carry)
            new = step(*consts[n_cond:], *carry)
            return [lax.select(lax.broadcast_in_dim(runs, y.shape, range(runs.ndim)), y, x) for x, y in zip(carry, new, strict=True)]

        def condition(*args: jax.Array) -> list[jax.Array]:
            return [jnp.any(test(*args)[0])]

        avals = [*cond_jaxpr.in_avals[:n_cond], *body_jaxpr.in_avals]
        return stage(condition, cond_jaxpr.in_avals), stage(body, avals)

    condition, body = cached((cond_jaxpr, body_jaxpr), "together", make)
    return dict(params, cond_jaxpr=condition, body_jaxpr=body, body_nconsts=n_cond + n_body)


class WhileRow(CallRow):
    """A while loop.

    On concrete values the steps are counted first, unless the user asks for stored states; the length of the buffers is the next
    power of two.
    """

    takes_parts = "arrays"

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        if params["cond_jaxpr"].out_avals[0].shape:
            n, params = params["cond_nconsts"], _together(params)
            primals, parts = [*primals[:n], *primals], [*[None] * n, *parts]
        if self._says_itself(primals, mode.flatten(parts)[0]):
            return self.evaluate(mode, primals, parts, params)
        return super().through(mode, primals, parts, params)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Linearized:
        if params["body_jaxpr"].effects and (expansion := with_values(while_p, primals, params)) is not None:
            return expansion
        if params["cond_jaxpr"].out_avals[0].shape:
            n, params = params["cond_nconsts"], _together(params)
            primals, active = [*primals[:n], *primals], (*[False] * n, *active)
        if not is_linear and not is_eager(primals) and (counted := as_scan(primals, params)) is not None:
            return counted
        if is_linear or not is_eager(primals):
            linearize = self.reverse if self._says_itself(primals, ()) else super().linearize
            return linearize(primals, active, params, is_linear)
        steps = None if current.get().loop_checkpoints is not None else self._room(primals, params)
        held = {name: own_copy(value) if name in self.jaxprs else value for name, value in params.items()}

        def linearizer(_: object, primals: Sequence[Operand], active: tuple[Active, ...],
                       is_linear: bool) -> tuple[Sequence[Operand], Tape]:
            outs, linear_map, active_outs = _linearize(primals, active, held, is_linear, steps)
            return outs, Tape.of(linear_map, sum(map(bool, active)), active_outs)

        key = (*self._key(("record", active), primals, params), steps)
        linearization = cached(self.owners(params), key, lambda: Linearization(
            self._run(held), [aval_of(x) for x in primals], active, is_linear, splice("while"), linearizer))
        return linearization(primals)

    def _says_itself(self, primals: Sequence[Operand], leaves: Sequence[jax.Array]) -> bool:
        """Whether the check of ``max_steps`` stands outside a compiled program, whose error would be one of the compiler's."""
        return current.get().max_steps is not None and not is_eager((*primals, *leaves))

    def _room(self, primals: Sequence[Operand], params: Params) -> int:
        """The length of the buffers for the residuals of all steps."""
        max_steps = current.get().max_steps
        n = int(self._counter(primals, params)(*primals))
        if max_steps is not None:
            errors.check_finished(n > max_steps, max_steps)
        return 1 << max(n - 1, 0).bit_length()

    def _counter(self, primals: Sequence[Operand], params: Params) -> Callable[..., jax.Array]:
        """The function from operands to the number of steps; it stops counting one step after ``max_steps``."""
        max_steps = current.get().max_steps
        held = {name: own_copy(value) if name in self.jaxprs else value for name, value in params.items()}

        def count(*primals: jax.Array) -> jax.Array:
            cond_consts, consts, init = _groups(primals, held)
            go, body = _condition(held["cond_jaxpr"], cond_consts), jaxpr_as_fun(held["body_jaxpr"])

            def goes_on(state: PyTree) -> jax.Array:
                return go(state[0]) if max_steps is None else go(state[0]) & (state[1] <= max_steps)

            return lax.while_loop(goes_on, lambda state: (body(*consts, *state[0]), state[1] + 1), (init, jnp.int32(0)))[1]

        return cached(self.owners(params), self._key("count", primals, params), lambda: jax.jit(count))


register(WhileRow(while_p, ("body_jaxpr", "cond_jaxpr"), _evaluate, _linearize))
