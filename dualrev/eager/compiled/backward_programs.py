"""Backward passes that come again and again run as one compiled program each.

A training loop records the same graph at each step.  The walk through such a graph is traced once, with stand-ins for its nodes;
afterwards one call takes the place of a call for each node.  Nothing is fused across operations: gradients are those of the walk, to
the last bit, so that they do not depend on how often a graph was seen.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import jax

from dualrev._jax import in_eager_context
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Record
from dualrev.eager.graph.backward_pass import Walk
from dualrev.eager.graph.node import Node

#: A graph is compiled when it comes for this time, or as many times as it has nodes: compiling takes as long as a thousand walks.
SEEN = 10
#: Larger graphs are walked.
NODES = 2000
#: So are those that save more: their time is that of the operations, and the walk lets go of what was saved node by node.
BYTES = 2 ** 24
#: How many graphs are counted, and how many programs are kept.
COUNTED, KEPT = 512, 64

_seen: dict[Any, int] = {}
_programs: dict[Any, Program | None] = {}
_lock = threading.Lock()


class Program:
    """A compiled walk: ``run(*saved, *gradients)``, for which targets its results are, and which nodes it pulls."""

    __slots__ = ("found", "pulled", "run")

    found: list[tuple[int, int]]
    pulled: list[int]
    run: Any


class Graph:
    """What the roots of a walk lead to: nodes count from 0, leaves down from -1, in the order in which they are met."""

    __slots__ = ("index", "key", "leaves", "nodes", "saved")

    def __init__(self, roots: Sequence[tuple[Any, Any]], captured: Any):
        #: All that a program depends on, shapes and dtypes by way of the records; None where nodes must be walked.
        self.key: tuple[Any, ...] | None = None
        index: dict[Any, int] = {}
        nodes: list[Node] = []
        leaves: list[Any] = []
        #: What nodes save, each array once.
        saved: list[Any] = []
        places: dict[int, int] = {}
        key: list[Any] = []
        self.index, self.nodes, self.leaves, self.saved = index, nodes, leaves, saved
        for (target, slot), _ in roots:
            if not isinstance(target, Node):
                return
            if target not in index:
                index[target] = len(nodes)
                nodes.append(target)
            key += (index[target], slot)
        for node in nodes:  # which grows meanwhile
            record, kept, checks, edges = node.record, node.saved, node.checks, node.edges
            if record is None or kept is None or node.hooked:
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
                target, slot = edges[i]
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


def replayed(walk: Walk, roots: Sequence[tuple[Any, Any]]) -> dict[Any, Any] | None:
    """What the walk would find, if there is a program for its graph."""
    if walk.create or mode.anomaly or mode.watcher is not None or not in_eager_context():
        return None
    graph = Graph(roots, walk.captured)
    key = graph.key
    if key is None:
        return None
    program = _programs.get(key)
    if program is None:
        if key in _programs or not _is_due(key, len(graph.nodes)):
            return None
        program = _compiled(graph, roots, walk.captured)
    if program is None:
        return None
    try:
        cts = program.run(*graph.saved, *[ct for _, ct in roots])
    except jax.errors.JaxRuntimeError:
        # A compiler that does not know of barriers, or has no room for all at once; if it is neither, the walk raises it again.
        _programs[key] = None
        return None
    nodes, leaves = graph.nodes, graph.leaves
    if not walk.retain:
        where = walk.where
        for k in program.pulled:
            node = nodes[k]
            if node.saved:
                node.saved, node.inputs, node.freed = None, None, where
    for (k, slot), ct in zip(program.found, cts, strict=True):
        if k >= 0:
            walk.found[(nodes[k], slot)] = ct
        else:
            leaf = leaves[~k]
            walk.found[(leaf, 0)] = walk.run_hooks(leaf._hooks, ct) if leaf._hooks else ct
    return walk.found


def _is_due(key: Any, n_nodes: int) -> bool:
    """Count a graph; whether it came often enough."""
    with _lock:
        n = _seen.get(key, 0) + 1
        if n >= max(SEEN, n_nodes):
            return True
        if len(_seen) >= COUNTED and key not in _seen:
            _seen.clear()
        _seen[key] = n
        return False


def _compiled(graph: Graph, roots: Sequence[tuple[Any, Any]], captured: Any) -> Program | None:
    """The program of a graph, kept; None if it is to be walked."""
    devices = {frozenset(x.devices()) for x in (*graph.saved, *[ct for _, ct in roots]) if isinstance(x, jax.Array)}
    size = sum(getattr(x, "nbytes", 0) for x in graph.saved)
    program = None if len(devices) != 1 or size > BYTES else _traced(graph, roots, captured, next(iter(devices)))
    with _lock:
        _seen.pop(graph.key, None)
        while len(_programs) >= KEPT:
            _programs.pop(next(iter(_programs)))
        _programs[graph.key] = program
    return program


#: On CPUs the compiler takes barriers away before it fuses, unless it is told to let them be.
_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


class _Leaf:
    """Stands for a leaf."""

    __slots__ = ()
    _hooks = None


class _Tracing(Walk):
    """A walk through stand-ins, each a whole of its own for the compiler."""

    def __init__(self, captured: Any):
        super().__init__(True, False, captured)
        add = self.add
        self.add = lambda a, b: jax.lax.optimization_barrier(add(a, b))
        self.pulled: list[Node] = []

    def pull(self, node: Node, cts: list[Any]) -> list[tuple[Any, Any]]:
        self.pulled.append(node)
        moved = super().pull(node, cts)
        return list(zip([edge for edge, _ in moved], jax.lax.optimization_barrier([ct for _, ct in moved]), strict=True))


def _traced(graph: Graph, roots: Sequence[tuple[Any, Any]], captured: Any, devices: Any) -> Program:
    index, n_saved, n_leaves = graph.index, len(graph.saved), len(graph.leaves)
    places = {id(x): place for place, x in enumerate(graph.saved)}
    # Nothing of the user's graph is kept: only records, and numbers.
    plan: list[tuple[int, Record, list[Any], list[int]]] = [
        (index[node], node.record, [None if e is None else (index[e[0]], e[1]) for e in node.edges],  # type: ignore[misc]
         [places[id(x)] for x in node.saved or ()])
        for node in sorted(graph.nodes, key=lambda node: node.number)]
    starts = [(index[target], slot) for (target, slot), _ in roots]
    goals = None if captured is None else [(index[target], slot) for target, slot in captured if target in index]
    program = Program()

    def backward(*args: Any) -> list[Any]:
        made: dict[int, Any] = {~i: _Leaf() for i in range(n_leaves)}
        for k, record, edges, at in plan:
            made[k] = Node(record, record.op.name, [None if e is None else (made[e[0]], e[1]) for e in edges], [args[p] for p in at],
                           (), None, record.n_out)
        names = {x: k for k, x in made.items()}
        walk = _Tracing(None if goals is None else {(made[k], slot): i for i, (k, slot) in enumerate(goals)})
        found = walk.through([((made[k], slot), ct) for (k, slot), ct in zip(starts, args[n_saved:], strict=True)])
        program.found = [(names[target], slot) for target, slot in found]
        program.pulled = [names[node] for node in walk.pulled]
        return list(found.values())

    program.run = jax.jit(backward, compiler_options=_BARRIERS if all(d.platform == "cpu" for d in devices) else None)
    return program
