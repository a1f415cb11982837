r"""Jacobians through the waist of a program: ``jacobian(engine="waist")``.

Where all that depends on the inputs goes through few numbers :math:`w` once, as in the middle of an autoencoder,
:math:`\partial f = \partial_w f \cdot \partial_x w`.  The right factor takes a pull for each number of the waist, the left one a push
for each, and one product of matrices gives the rest, where a sweep takes a pass for each input or output.

Source: [GriewankWalther2008, ch. 10.2], preaccumulation across a narrow cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from dualrev import errors
from dualrev._jax.avals import convert_to, is_differentiable, tangent_aval, typeof
from dualrev._jax.jaxprs import Var, is_literal, jaxpr_as_fun, stage
from dualrev.engines import reverse, sweeps
from dualrev.functional.eliminated import check_products
from dualrev.functional.flat_calls import FlatCall
from dualrev.linear import zeros
from dualrev.options.settings import Request
from dualrev.programs.jaxprs import behind
from dualrev.programs.partition import Graph, graph_of


@dataclass(frozen=True)
class Waist:
    """A cut of a program before one of its equations: what crosses it and depends on the inputs, and what else crosses it."""

    graph: Graph
    place: int
    values: list[Var]
    others: list[Var]

    @property
    def size(self) -> int:
        return sum(map(_size, self.values))


def _size(v: Var) -> int:
    size: int = v.aval.size  # type: ignore[attr-defined]  # it is an array
    return size


def narrowest(graph: Graph) -> Waist | None:
    """The cut between two equations that the fewest numbers cross; None where there is no cut, or a value that is no array."""
    if len(graph.eqns) < 2 or any(eqn.effects for eqn in graph.eqns):
        return None
    made: dict[Var, int] = dict.fromkeys(graph.invars, -1)
    active = {v for v in graph.invars if is_differentiable(v.aval)}
    last: dict[Var, int] = {}
    for i, eqn in enumerate(graph.eqns):
        ins = [x for x in eqn.invars if not is_literal(x)]
        last.update((x, i) for x in ins)
        made.update((v, i) for v in eqn.outvars)
        if not active.isdisjoint(ins):
            active.update(v for v in eqn.outvars if is_differentiable(v.aval))
    last.update((x, len(graph.eqns)) for x in graph.outvars if not is_literal(x))
    change = [0] * (len(graph.eqns) + 2)
    for v, until in last.items():
        if v in active:  # it crosses the cuts before equations made + 1 to until
            change[made[v] + 1] += _size(v)
            change[until + 1] -= _size(v)
    width, best, place = 0, -1, 0
    for i in range(len(graph.eqns)):
        width += change[i]
        if i and (best < 0 or width < best):
            best, place = width, i
    crossing = [v for v, until in last.items() if v in made and made[v] < place <= until]
    return Waist(graph, place, [v for v in crossing if v in active], [v for v in crossing if v not in active])


def blocks_of(call: FlatCall, flat: Sequence[jax.Array], request: Request,
              chunk_size: int | None) -> tuple[list[jax.Array], list[list[jax.Array]]]:
    """Everything the function returned, and the blocks ``[output][input]`` of its Jacobian."""
    check_products("waist", [typeof(x) for x in flat], request)
    waist = narrowest(graph_of(stage(call, [typeof(x) for x in flat])))
    if waist is None:
        raise ValueError(f"{errors.user_call.get()}: engine='waist' cuts a program of two operations or more, without effects, in two; "
                         "use engine='auto'")
    graph, n = waist.graph, len(waist.values)
    between = [*waist.values, *waist.others]
    first = graph.program(behind(graph.eqns[: waist.place], between), graph.invars, between)
    second = graph.program(graph.eqns[waist.place:], between, graph.outvars)
    held, tape = reverse.linearize(jaxpr_as_fun(first), flat, [True] * len(flat), is_whole=True)
    tape.out_slots = tape.out_slots[:n]
    tape = tape.pruned()
    in_avals = [tangent_aval(typeof(x)) for x in flat]
    between_avals = [tangent_aval(v.aval) for v in waist.values]  # type: ignore[arg-type]  # all are arrays

    def pull(*cotangents: jax.Array) -> list[jax.Array]:
        return [zeros.fit(ct, a) for ct, a in zip(tape.pull(*cotangents), in_avals, strict=True)]

    right = sweeps.rows(sweeps.sweep(pull, between_avals, chunk_size), in_avals, between_avals)
    held_arrays: list[jax.Array] = list(held)  # type: ignore[arg-type]  # no result is unknown
    results, left = sweeps.push_columns(jaxpr_as_fun(second), held_arrays, range(n), lambda: call.n_out, chunk_size)
    blocks = []
    for out, row in zip(results[: call.n_out], left, strict=True):
        aval = tangent_aval(typeof(out))
        blocks.append([jnp.reshape(convert_to(_product(row, [of[i] for of in right], aval.size, a.size), aval), (*aval.shape, *a.shape))
                       for i, a in enumerate(in_avals)])
    return results, blocks


def _product(row: Sequence[jax.Array], column: Sequence[jax.Array], m: int, n: int) -> jax.Array:
    """The product of a row of blocks with a column of blocks, as a flat array."""
    if not row:
        return jnp.zeros((m * n,))
    parts = [jnp.reshape(x, (m, x.size // m if m else 0)) for x in row]
    left = parts[0] if len(parts) == 1 else lax.concatenate(parts, 1)
    below = [jnp.reshape(lax.convert_element_type(x, left.dtype), (x.size // n if n else 0, n)) for x in column]
    right = below[0] if len(below) == 1 else lax.concatenate(below, 0)
    return lax.dot(left, right, precision=lax.Precision.HIGHEST)
