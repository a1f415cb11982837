"""Jacobians by elimination on the computational graph: ``jacobian(engine="elimination")``, and the plan of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from dualrev import errors
from dualrev._jax.avals import ShapedArray, convert_to, is_differentiable, tangent_aval, typeof
from dualrev._jax.jaxprs import jaxpr_as_fun, stage
from dualrev._jax.trees import PyTree
from dualrev.engines import reverse
from dualrev.engines.elimination.accumulate import jacobian_of
from dualrev.engines.elimination.graph import Graph, Linearized
from dualrev.engines.elimination.orders import Search, counted, order_of, predicted_ns
from dualrev.functional import checks
from dualrev.functional.checks import Argnums
from dualrev.functional.flat_calls import FlatCall
from dualrev.functional.gradients import Partial
from dualrev.options.settings import Request, current, using
from dualrev.programs.common_subexpressions import merged_graph
from dualrev.programs.partition import graph_of
from dualrev.time_model import time_in_words

#: An elimination order by its name, by how to look for one, or as positions among the intermediate values of the program.
Order: TypeAlias = Literal["forward", "reverse", "markowitz", "search"] | Search | Sequence[int]

#: An order in the form of a key.
OrderKey: TypeAlias = str | Search | tuple[int, ...]
#: How a Jacobian can be found.
JacobianEngine: TypeAlias = Literal["auto", "forward", "reverse", "elimination", "waist", "sparse"]

NAMES = ("forward", "reverse", "markowitz", "search")


def check_order(order: object, call: str) -> OrderKey:
    """An order in the form of a key."""
    if isinstance(order, Search):
        return order
    if isinstance(order, str):
        if order not in NAMES:
            raise ValueError(f"{call}: order must be one of {', '.join(map(repr, NAMES))}, a dr.Search, or a sequence of positions; "
                             f"got {order!r}")
        return order
    try:
        return tuple([int(i) for i in order])  # type: ignore[attr-defined]
    except TypeError:
        raise TypeError(f"{call}: order must be one of {', '.join(map(repr, NAMES))}, a dr.Search, or a sequence of positions; "
                        f"got {order!r} of type {type(order).__name__}") from None


def check_products(engine: str, avals: Sequence[ShapedArray], request: Request) -> None:
    """Refuse what a product of local Jacobians can't do."""
    if any(is_symbolic_dim(n) for a in avals for n in a.shape):
        raise ValueError(f"{errors.user_call.get()}: {engine} needs the lengths of all axes, and an input has a symbolic one; use "
                         "engine='forward' or engine='reverse'")
    if current.get().zero_wins or request.cotangent_dtype is not None:
        name = "zero_wins" if current.get().zero_wins else "cotangent_dtype"
        raise errors.not_honoured(name, f"engine='{engine}'", "it multiplies local Jacobians, and pulls no cotangents",
                                  "Use engine='reverse'.")


def blocks_of(call: FlatCall, flat: Sequence[jax.Array], request: Request,
              order: OrderKey) -> tuple[list[jax.Array], list[list[jax.Array]], Linearized]:
    """Everything the function returned, the blocks ``[output][input]`` of its Jacobian, and its graph."""
    avals = [typeof(x) for x in flat]
    check_products("elimination", avals, request)
    active = [is_differentiable(a) for a in avals]
    program = merged_graph(graph_of(stage(call, avals)))
    run = jaxpr_as_fun(program.computing(program.outvars))
    results, tape = reverse.linearize(run, flat, active, is_whole=True)
    tape.out_slots = tape.out_slots[: call.n_out]
    moving = [tangent_aval(a) for a, flag in zip(avals, active, strict=True) if flag]
    found, graph = jacobian_of(tape.pruned(), moving, lambda graph: order_of(graph, order))
    outs: list[jax.Array] = list(results)  # type: ignore[arg-type]  # no result is unknown
    blocks = []
    for out, row in zip(outs[: call.n_out], found, strict=True):
        values = iter(row)
        shape = jnp.shape(out)
        blocks.append([_fitted(next(values) if flag else None, (*shape, *a.shape), a) for a, flag in zip(avals, active, strict=True)])
    return outs, blocks, graph


def _fitted(block: jax.Array | None, shape: tuple[int, ...], aval: ShapedArray) -> jax.Array:
    """A block in the dtype of its input, as in jax."""
    if block is None:
        return jnp.zeros(shape, aval.dtype)
    if jnp.iscomplexobj(block) and not jnp.issubdtype(aval.dtype, jnp.complexfloating):
        block = lax.real(block)
    return convert_to(block, aval.update(shape=shape))


@dataclass(frozen=True)
class EliminationPlan:
    """How a Jacobian is accumulated by elimination: the order, and how many multiplications it takes.

    Attributes:
      order: the positions of the eliminated values among the intermediate values of the program, in the order of elimination; it can
        be given as ``order=`` for the same function and shapes.
      multiplications: products of scalar entries of edges as the literature counts them: one for each pair of entries that an
        elimination multiplies, also where an entry is 1 or -1, but none for slices, broadcasts and sums, which copy.
      nontrivial: the same without products in which a factor is known to be 1 or -1.
      seconds: the time that :mod:`dualrev.time_model` predicts for the products and sums of blocks.
      vertices: the operation, and the user's line, of each intermediate value.
      edges: the structure of each local Jacobian ``(source, target)``, as text.
    """

    order: tuple[int, ...]
    multiplications: int
    nontrivial: int
    seconds: float
    vertices: tuple[str, ...]
    edges: tuple[str, ...] = field(repr=False)
    _graph: Graph = field(repr=False)

    def count(self, order: Order) -> int:
        """The multiplications of another order for the same program."""
        return counted(self._graph, order_of(self._graph, check_order(order, "count")))[0]

    def __str__(self) -> str:
        lines = [f"{len(self.order)} intermediate values, {len(self.edges)} local Jacobians; "
                 f"{self.multiplications} multiplications, {self.nontrivial} of them not by 1 or -1, in about "
                 f"{time_in_words(self.seconds)}"]
        lines += [f"  {name}: {self.count(name)}" for name in ("forward", "reverse", "markowitz")]
        lines += [f"{k:4d}. {self.vertices[i]}" for k, i in enumerate(self.order)]
        return "\n".join(lines)


def eliminate(fun: Callable[..., PyTree], *args: PyTree, argnums: Argnums = 0, order: Order = "markowitz") -> EliminationPlan:
    r"""Plan the Jacobian of a function by elimination on its computational graph, without evaluating it.

    The graph has a vertex for each value of the program and an edge :math:`c_{ij} = \partial v_i / \partial v_j` for each operand.
    Eliminating :math:`v_j` adds :math:`c_{ij} c_{jk}` to :math:`c_{ik}` for all of its predecessors :math:`k` and successors :math:`i`;
    when the vertices between are gone, the Jacobian is left.

    Args:
      fun: function of arrays or pytrees of them.
      args: its arguments, of which shapes and dtypes alone are read.
      argnums: the arguments to differentiate.
      order: as in :func:`jacobian`.

    Returns:
      An :class:`~dualrev.functional.eliminated.EliminationPlan`; ``jacobian(fun, engine="elimination", order=plan.order)`` follows it.

    Raises:
      ValueError, TypeError: the order is none; an argument to differentiate is of an integer dtype; as :func:`jacobian`.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> plan = dr.eliminate(lambda x, y: jnp.sin(x * y) * x, 1.0, 2.0, argnums=(0, 1), order="reverse")
    >>> plan.multiplications, plan.order
    (3, (1, 0))

    Source: [GriewankWalther2008, ch. 10]; [LohoffNeftci2024].
    """
    with errors.calling("eliminate"):
        checks.check_callable(fun)
        key = check_order(order, "eliminate")
        positions = checks.normalize_argnums(argnums)
        request = Request.of("eliminate", {}, isinstance(positions, int))
        with using(request.settings):
            checks.check_leaves([leaf for leaf in jax.tree_util.tree_leaves(args) if not isinstance(leaf, jax.ShapeDtypeStruct)],
                                "arguments")
            avals, tree = jax.tree_util.tree_flatten(args)
            graphs: list[Linearized] = []

            def traced(*flat: jax.Array) -> list[jax.Array]:
                given = jax.tree_util.tree_unflatten(tree, flat)
                call, inputs = Partial("eliminate", fun, positions, given, {}).flat_call(False, request)
                for x in inputs:
                    if not is_differentiable(typeof(x)):
                        raise TypeError(f"eliminate requires real- or complex-valued inputs, but got {checks.dtype_of(x).name}. Name "
                                        "the arguments to differentiate by argnums; others may have any dtype.")
                outs, blocks, graph = blocks_of(call, inputs, request, key)
                graphs.append(graph)
                return [*outs, *[b for row in blocks for b in row]]

            jax.eval_shape(traced, *avals)
        found = graphs[-1].graph
        chosen = order_of(found, key)
        place = {v: i for i, v in enumerate(found.middle)}
        every, nontrivial = counted(found, chosen)
        names = tuple([graphs[-1].names[v] for v in found.middle])

        def spelled(v: int) -> str:
            return f"v{place[v]}" if v in place else f"{v}"

        edges = tuple([f"{spelled(p)} -> {spelled(s)}: {structure}" for p, s, structure in found.edges])
        return EliminationPlan(tuple([place[v] for v in chosen]), every, nontrivial, 1e-9 * predicted_ns(found, chosen), names, edges,
                               found)
