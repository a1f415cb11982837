"""Pictures of the graph that backward walks."""

from __future__ import annotations

import html
from typing import Any

from dualrev.eager import dtypes
from dualrev.eager.node import Node
from dualrev.eager.tensors import Tensor, array_of

_COLORS = {"op": "#e8eef7", "leaf": "#dff0d8", "output": "#fbe3d6"}
_WIDTH, _HEIGHT, _GAP = 190, 44, 26


class Picture:
    """A drawn graph: ``svg`` and ``dot`` are its texts; a notebook shows it by itself.

    ``nodes`` are ``(kind, lines of text)``, with kind op, leaf or output; ``edges`` are pairs of places in it, from inputs to outputs.
    """

    def __init__(self, nodes: list[tuple[str, list[str]]], edges: list[tuple[int, int]], saved_bytes: int):
        self.nodes = nodes
        self.edges = edges
        self.saved_bytes = saved_bytes

    @property
    def dot(self) -> str:
        """The graph in the language of Graphviz."""
        lines = ["digraph {", "  node [shape=box, style=filled, fontname=monospace];"]
        for i, (kind, text) in enumerate(self.nodes):
            label = "\\n".join(text).replace('"', "'")
            lines.append(f'  n{i} [label="{label}", fillcolor="{_COLORS[kind]}"];')
        return "\n".join([*lines, *[f"  n{a} -> n{b};" for a, b in self.edges], "}"])

    def _layout(self) -> list[tuple[float, float]]:
        """The middle of each box: a row for each distance from the leaves."""
        level = [0] * len(self.nodes)
        for a, b in sorted(self.edges, key=lambda e: e[1]):  # nodes are numbered from inputs to outputs
            level[b] = max(level[b], level[a] + 1)
        for i in range(len(level) - 1, -1, -1):  # leaves stand right above what uses them
            uses = [level[b] for a, b in self.edges if a == i]
            if self.nodes[i][0] == "leaf" and uses:
                level[i] = min(uses) - 1
        rows: dict[int, int] = {}
        places = []
        for row in level:
            places.append(((rows.setdefault(row, 0) + 0.5) * (_WIDTH + _GAP), (row + 0.5) * (_HEIGHT + 2 * _GAP)))
            rows[row] += 1
        return places

    @property
    def svg(self) -> str:
        """The graph as a picture."""
        places = self._layout()
        width = max([x for x, _ in places], default=0) + (_WIDTH + _GAP) / 2
        height = max([y for _, y in places], default=0) + _HEIGHT
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
                 f'height="{height:.0f}" font-family="monospace" font-size="11">']
        for a, b in self.edges:
            (x1, y1), (x2, y2) = places[a], places[b]
            parts.append(f'<line x1="{x1:.0f}" y1="{y1 + _HEIGHT / 2:.0f}" x2="{x2:.0f}" y2="{y2 - _HEIGHT / 2:.0f}" stroke="#888"/>')
        for (x, y), (kind, text) in zip(places, self.nodes, strict=True):
            parts.append(f'<rect x="{x - _WIDTH / 2:.0f}" y="{y - _HEIGHT / 2:.0f}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" '
                         f'fill="{_COLORS[kind]}" stroke="#555"/>')
            for k, line in enumerate(text):
                top = y - 6 * (len(text) - 1) + 12 * k + 4
                parts.append(f'<text x="{x:.0f}" y="{top:.0f}" text-anchor="middle">{html.escape(line)}</text>')
        return "\n".join([*parts, "</svg>"])

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str) -> None:
        """Write a file: Graphviz where its name ends with .dot, otherwise SVG."""
        with open(path, "w") as file:
            file.write(self.dot if str(path).endswith(".dot") else self.svg)


def _bytes(n: int) -> str:
    return f"{n} B" if n < 1024 else f"{n / 1024:.1f} KiB" if n < 1024 ** 2 else f"{n / 1024 ** 2:.1f} MiB"


def draw(y: Tensor) -> Picture:
    """A picture of how a tensor was computed: operations, shapes, leaves that require grad, bytes saved for backward.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> picture = torch.graph.draw((x * x).sum())
    >>> [text[0] for _, text in picture.nodes]
    ['leaf', 'MulBackward0', 'SumBackward0', 'output']
    """
    root = y.grad_fn
    found: list[Node] = []
    leaves: dict[int, Tensor] = {}
    seen: set[int] = set()
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        found.append(node)
        for edge in node.edges:
            if edge is not None and isinstance(edge[0], Node):
                waiting.append(edge[0])
            elif edge is not None:
                leaves[id(edge[0])] = edge[0]
    found.sort(key=lambda n: n.number)
    if root is None:
        leaves[id(y)] = y
    nodes: list[tuple[str, list[str]]] = []
    place: dict[int, int] = {}
    for leaf in leaves.values():
        place[id(leaf)] = len(nodes)
        nodes.append(("leaf", ["leaf" + (f" {leaf.name}" if leaf.name else ""), _described(leaf)]))
    edges = []
    for node in found:
        place[id(node)] = len(nodes)
        size = sum(x.nbytes for x in (*(node.saved or ()), *(node.inputs or ())) if hasattr(x, "nbytes"))
        shapes = ", ".join(_shape(a) for a in node.record.out_avals) if node.record is not None else ""
        nodes.append(("op", [node.name(), shapes, f"saves {_bytes(size)}" if node.freed is None else "freed"]))
        edges += [(place[id(e[0])], place[id(node)]) for e in node.edges if e is not None]
    nodes.append(("output", ["output", _described(y)]))
    edges.append((place[id(root if root is not None else y)], len(nodes) - 1))
    arrays = {id(x): x for n in found for x in (*(n.saved or ()), *(n.inputs or ())) if hasattr(x, "nbytes")}
    return Picture(nodes, edges, sum(x.nbytes for x in arrays.values()))


def _shape(aval: Any) -> str:
    return f"{dtypes.of(aval.dtype).name}{list(aval.shape)}"


def _described(t: Tensor) -> str:
    return _shape(array_of(t)) + (" requires_grad" if t.requires_grad else "")
