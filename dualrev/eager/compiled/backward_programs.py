"""Backward passes of recurring graphs, each run as one compiled program.

A training loop records the same graph at each step.  The backward pass of such a graph is traced once, with stand-ins for its nodes;
later, one call of the program replaces a call of a pull for each node.  Nothing is fused across operations: the gradients are those
of the node-by-node pass, to the last bit, so that they do not depend on how often a graph was seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from dualrev._jax.traces import in_eager_context
from dualrev.eager.core.caches import PROGRAM, caches
from dualrev.eager.core.evaluation import compiled
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Record
from dualrev.eager.graph.backward_pass import BackwardPass, Captured, Gradients, Place, Roots, Target
from dualrev.eager.graph.node import Node
from dualrev.eager.graph.tensor import Cotangent, Tensor

#: A graph is compiled when it was seen this many times, or as many times as it has nodes: compiling takes as long as a thousand passes.
SEEN = 10
#: Graphs with more nodes are visited node by node.
NODES = 2000
#: So are graphs that save more bytes: the operations take most of their time, and saved values are freed node by node.
BYTES = 2 ** 24

#: How often graphs were seen, and the programs of those that were seen often; None for graphs that are visited node by node.
_seen = caches.table(2)
_programs = caches.table(PROGRAM)
_lock = threading.Lock()


class Program:
    """A compiled backward pass: ``run(*saved, *gradients)``, the targets of its results, and the nodes whose pulls it holds."""

    __slots__ = ("found", "pulled", "run")

    found: list[tuple[int, int]]
    pulled: list[int]
    run: Callable[..., Sequence[jax.Array]]


class Graph:
    """The part of the graph below the roots, as numbers: nodes from 0 up, leaves from -1 down, in the order of discovery."""

    __slots__ = ("index", "key", "leaves", "nodes", "saved")

    def __init__(self, roots: Roots, captured: Captured):
        #: All that a program depends on, shapes and dtypes through the records; None where nodes must be visited one by one.
        self.key: tuple[Hashable, ...] | None = None
        index: dict[Target, int] = {}
        nodes: list[Node] = []
        leaves: list[Tensor] = []
        #: The saved values, each array once.
        saved: list[Any] = []
        places: dict[int, int] = {}
        key: list[Hashable] = []
        self.index, self.nodes, self.leaves, self.saved = index, nodes, leaves, saved
        for (target, slot), _ in roots:
            if not isinstance(target, Node):
                return
            if target not in index:
                index[target] = len(nodes)
                nodes.append(target)
            key += (index[target], slot)
        for node in nodes:  # the list grows meanwhile
            record, kept, checks, edges = node.record, node.saved, node.checks, node.edges
            if record is None or kept is None or node.hooked or record.is_small:
                return
            for i in range(1, len(checks), 3):
                if checks[i].version != checks[i + 1]:
                    return
            key.append(record)
            for x in kept:
                place = places.get(id(x))
                if place is None:
                    place = places[id(x)] = len(saved)
                    saved.append(x)
                key.append(place)
            for i in record.positions:
                target, slot = edges[i]  # type: ignore[misc]  # an active input has an edge
                k = index.get(target)
                if k is None:
                    if isinstance(target, Node):
                        k = len(nodes)
                        nodes.append(target)
                    else:
                        leaves.append(target)
                        k = -len(leaves)
                    index[target] = k
                key += (k, slot)
        if len(nodes) > NODES:
            return
        if captured is not None:
            key.append(tuple([(index.get(target), slot) for target, slot in captured]))
        self.key = tuple(key)


def replayed(backward_pass: BackwardPass, roots: Roots) -> Gradients | None:
    """The gradients of a backward pass, by the program of its graph; None if there is none."""
    if backward_pass.create or mode.anomaly or mode.watcher is not None or not in_eager_context():
        return None
    graph = Graph(roots, backward_pass.captured)
    key = graph.key
    if key is None:
        return None
    program = _programs.get(key)
    if program is None:
        if key in _programs or not _is_due(key, len(graph.nodes)):
            return None
        program = _compiled(graph, roots, backward_pass.captured)
    if program is None:
        return None
    try:
        cts = program.run(*graph.saved, *[ct for _, ct in roots])
    except jax.errors.JaxRuntimeError:
        # The compiler has no barriers, or not enough memory for the whole; any other error comes again node by node.
        _programs[key] = None
        return None
    nodes, leaves = graph.nodes, graph.leaves
    if not backward_pass.retain:
        where = backward_pass.where
        for k in program.pulled:
            node = nodes[k]
            if node.saved:
                node.saved, node.inputs, node.freed = None, None, where
    for (k, slot), ct in zip(program.found, cts, strict=True):
        if k >= 0:
            backward_pass.found[(nodes[k], slot)] = ct
        else:
            leaf = leaves[~k]
            backward_pass.found[(leaf, 0)] = backward_pass.run_hooks(leaf._hooks, ct) if leaf._hooks else ct
    return backward_pass.found


def _is_due(key: Hashable, n_nodes: int) -> bool:
    """Count a graph, and return whether it was seen often enough."""
    with _lock:
        n = _seen.get(key, 0) + 1
        if n >= max(SEEN, n_nodes):
            return True
        _seen.keep(key, n)
        return False


def _compiled(graph: Graph, roots: Roots, captured: Captured) -> Program | None:
    """Compile the program of a graph and keep it; None if the graph is to be visited node by node."""
    devices = {frozenset(x.devices()) for x in (*graph.saved, *[ct for _, ct in roots]) if isinstance(x, jax.Array)}
    size = sum(getattr(x, "nbytes", 0) for x in graph.saved)
    program = None if len(devices) != 1 or size > BYTES else _traced(graph, roots, captured, next(iter(devices)))
    with _lock:
        _seen.pop(graph.key, None)
        return _programs.keep(graph.key, program)


#: On CPUs the compiler removes barriers before it fuses, unless it is told not to.
_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


class _Leaf:
    """A stand-in for a leaf."""

    __slots__ = ()
    _hooks = None


class _Tracing(BackwardPass):
    """A backward pass over stand-ins; barriers keep the compiler from fusing across nodes."""

    def __init__(self, captured: Captured):
        super().__init__(True, False, captured)
        add = self.add
        self.add = lambda a, b: jax.lax.optimization_barrier(add(a, b))
        self.visited: list[Node] = []

    def pull(self, node: Node, cts: list[Cotangent | None]) -> list[tuple[Place, Any]]:
        self.visited.append(node)
        pulled = super().pull(node, cts)
        return list(zip([edge for edge, _ in pulled], jax.lax.optimization_barrier([ct for _, ct in pulled]), strict=True))


def _traced(graph: Graph, roots: Roots, captured: Captured, devices: frozenset[jax.Device]) -> Program:
    """The program of a graph; jax traces and compiles it when it first runs."""
    index, n_saved, n_leaves = graph.index, len(graph.saved), len(graph.leaves)
    places = {id(x): place for place, x in enumerate(graph.saved)}
    # Only records and numbers are kept, nothing of the user's graph.
    plan: list[tuple[int, Record, list[tuple[int, int] | None], list[int]]] = [
        (index[node], node.record, [None if e is None else (index[e[0]], e[1]) for e in node.edges],  # type: ignore[misc]
         [places[id(x)] for x in node.saved or ()])
        for node in sorted(graph.nodes, key=lambda node: node.number)]
    starts = [(index[target], slot) for (target, slot), _ in roots]
    goals = None if captured is None else [(index[target], slot) for target, slot in captured if target in index]
    program = Program()

    def backward(*args: jax.Array) -> list[jax.Array]:
        made: dict[int, Any] = {~i: _Leaf() for i in range(n_leaves)}
        for k, record, edges, at in plan:
            made[k] = Node(record, record.op.name, [None if e is None else (made[e[0]], e[1]) for e in edges], [args[p] for p in at],
                           (), None, record.n_out)
        names = {x: k for k, x in made.items()}
        backward_pass = _Tracing(None if goals is None else {(made[k], slot): i for i, (k, slot) in enumerate(goals)})
        found = backward_pass.visit([((made[k], slot), ct) for (k, slot), ct in zip(starts, args[n_saved:], strict=True)])
        program.found = [(names[target], slot) for target, slot in found]
        program.pulled = [names[node] for node in backward_pass.visited]
        return list(found.values())

    program.run = compiled(backward, compiler_options=_BARRIERS if all(d.platform == "cpu" for d in devices) else None)
    return program
