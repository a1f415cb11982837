"""The derivative rules that users attach with ``jax.custom_jvp`` and ``jax.custom_vjp``.

They reach an engine through its trace's ``process_custom_*`` hooks, as flat functions.  A JVP rule is a pushforward, whose
pull is found by transposing it; a VJP rule is an adjoint, whose push is found by transposing that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from dualrev import errors, zeros
from dualrev._jax import SymbolicZero, call_bwd, forget, is_differentiable, tangent_aval, typeof
from dualrev.engines import reverse
from dualrev.linear_maps import LinearMap, Tangents
from dualrev.settings import CustomVjpJvp, current


def differentiable(outs: Sequence[Any]) -> list[bool]:
    return [is_differentiable(typeof(out)) for out in outs]


def _to_rule(t: Any, aval: Any, symbolic_zeros: bool) -> Any:
    """A tangent or cotangent as a user's rule expects it."""
    if t is not None:
        return t
    return SymbolicZero(tangent_aval(aval)) if symbolic_zeros else zeros.zeros_of(tangent_aval(aval))


def _from_rule(t: Any) -> Any:
    return None if type(t) is SymbolicZero else zeros.drop_float0(t)


def call_jvp(jvp: Any, primals: Sequence[Any], tangents: Sequence[Any], symbolic_zeros: bool) -> tuple[list[Any], list[Any]]:
    """``(outs, tangents out)`` from a user's JVP rule."""
    given = [_to_rule(t, typeof(x), symbolic_zeros) for x, t in zip(primals, tangents, strict=True)]
    results = list(jvp.call_wrapped(*primals, *given))
    half = len(results) // 2
    return results[:half], [_from_rule(t) for t in results[half:]]


def linearize_push(push: Callable[[Sequence[Any], Sequence[Any]], tuple[list[Any], list[Any]]], primals: Sequence[Any],
                   active: Sequence[bool]) -> tuple[list[Any], LinearMap, list[bool]]:
    """Outputs and linear map of a pushforward, by running it on tangents that are known as symbols only."""
    outs: list[Any] = []
    which: list[bool] = []
    avals = [tangent_aval(typeof(x)) for x, moves in zip(primals, active, strict=True) if moves]

    def flat(*moving: Any) -> list[Any]:
        tangents = iter(moving)
        all_tangents = [next(tangents) if moves else None for moves in active]
        primals_out, tangents_out = push(primals, all_tangents)
        outs.extend(primals_out)
        which.extend(t is not None for t in tangents_out)
        return [t for t in tangents_out if t is not None]

    tape = reverse.transpose(flat, avals)
    slots = iter(tape.out_slots)
    tape.out_slots = tuple([next(slots) if moves else None for moves in which])
    return outs, tape, [slot is not None for slot in tape.out_slots]


def linearize_jvp(jvp: Any, primals: Sequence[Any], active: Sequence[bool],
                  symbolic_zeros: bool) -> tuple[list[Any], LinearMap, list[bool]]:
    """Outputs and linear map of a user's JVP rule."""
    return linearize_push(lambda xs, ts: call_jvp(jvp, xs, ts, symbolic_zeros), primals, active)


def call_once_more(fun: Any, args: Sequence[Any]) -> list[Any]:
    """A user's function, of which the forward function runs as well."""
    outs = list(fun.call_wrapped(*args))
    forget(fun)
    return outs


class AdjointMap(LinearMap):
    """The linear map of a user's VJP rule: residuals and the backward function."""

    __slots__ = ("active", "bwd", "in_avals", "out_avals", "policy", "pusher", "residuals", "symbolic_zeros")

    name = "custom_vjp_call"

    def __init__(self, residuals: Sequence[Any], bwd: Any, active: tuple[bool, ...], in_avals: tuple[Any, ...],
                 out_avals: tuple[Any, ...], symbolic_zeros: bool, policy: CustomVjpJvp):
        self.residuals = residuals
        self.policy = policy
        #: What pushes, where it is not the transpose of the backward function.
        self.pusher: LinearMap | None = None
        self.bwd = bwd
        self.active = active
        self.in_avals = in_avals
        self.out_avals = out_avals
        self.symbolic_zeros = symbolic_zeros

    def pull(self, *cotangents: Any) -> Tangents:
        given = [_to_rule(ct, aval, self.symbolic_zeros) for ct, aval in zip(cotangents, self.out_avals, strict=True)]
        cts = call_bwd(self.bwd, self.residuals, given)
        return tuple([_from_rule(ct) for ct, moves in zip(cts, self.active, strict=True) if moves])

    def push(self, *tangents: Any) -> Tangents:
        if self.policy == "error":
            raise errors.custom_vjp_pushed()
        if self.pusher is not None:
            return self.pusher.push(*tangents)
        moving = [i for i, aval in enumerate(self.out_avals) if is_differentiable(aval)]

        def pull(*cts: Any) -> list[Any]:
            given: list[Any] = [None] * len(self.out_avals)
            for i, ct in zip(moving, cts, strict=True):
                given[i] = ct
            pulled = self.pull(*given)
            avals = [aval for aval, moves in zip(self.in_avals, self.active, strict=True) if moves]
            return [zeros.instantiate(ct, aval) for ct, aval in zip(pulled, avals, strict=True)]

        tape = reverse.transpose(pull, [tangent_aval(self.out_avals[i]) for i in moving])
        found = dict(zip(moving, tape.pull(*tangents), strict=True))
        return tuple([found.get(i) for i in range(len(self.out_avals))])


jax.tree_util.register_pytree_node(
    AdjointMap,
    lambda m: ((m.residuals, m.pusher), (m.bwd, m.active, m.in_avals, m.out_avals, m.symbolic_zeros, m.policy)),
    lambda aux, children: _restored(AdjointMap(children[0], *aux), children[1]),
)


def _restored(linear_map: AdjointMap, pusher: LinearMap | None) -> AdjointMap:
    linear_map.pusher = pusher
    return linear_map


def call_fwd(fwd: Any, bwd: Any, out_trees: Any, primals: Sequence[Any], active: Sequence[bool],
             symbolic_zeros: bool) -> tuple[list[Any], AdjointMap]:
    """Outputs and linear map of a user's VJP rule; inputs that are residuals are not copied."""
    flags = [part for x, moves in zip(primals, active, strict=True) for part in (x, bool(moves))]
    results = list(fwd.call_wrapped(*flags))
    _, residual_tree, forwarded = out_trees()
    n_new = residual_tree.num_leaves - sum(source is not None for source in forwarded)
    new, outs = iter(results[:n_new]), results[n_new:]
    residuals = [next(new) if source is None else primals[source] for source in forwarded]
    in_avals = tuple([typeof(x) for x in primals])
    out_avals = tuple([typeof(x) for x in outs])
    return outs, AdjointMap(residuals, bwd, tuple(active), in_avals, out_avals, symbolic_zeros, current.get().custom_vjp_jvp)
