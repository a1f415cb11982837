"""Drawings of the graph."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Mapping
from typing import Protocol

import jax

from dualrev._jax.avals import ShapedArray
from dualrev.eager.core import dtypes
from dualrev.eager.graph.node import Node
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.inspection.pictures.layers import layered

_COLORS = {"op": "#e8eef7", "leaf": "#dff0d8", "output": "#fbe3d6"}
#: The text's font size, the width of a letter and the height of a line.
_SIZE, _LETTER, _LINE = 11, 6.9, 14


class Named(Protocol):
    """A module."""

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]: ...


class Picture:
    """A drawn graph: ``svg`` and ``dot`` are its texts; a notebook shows it by itself.

    ``nodes`` are ``(kind, lines of text)``, with kind op, leaf or output; ``edges`` are pairs of indices into ``nodes``, from producer
    to consumer.
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

    @property
    def svg(self) -> str:
        """The graph as a picture."""
        sizes = [(max(map(len, text)) * _LETTER + 16, len(text) * _LINE + 12.0) for _, text in self.nodes]
        places, routes, (width, height) = layered(sizes, self.edges, lambda i: self.nodes[i][0] == "leaf")
        note = f"{_bytes(self.saved_bytes)} are saved for backward"
        width, height = max(width, len(note) * _LETTER + 24), height + 2 * _LINE
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
                 f'height="{height:.0f}" font-family="monospace" font-size="{_SIZE}">',
                 f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
                 '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
                 '<path d="M0 1 L8 4 L0 7 z" fill="#777"/></marker></defs>']
        for route in routes:
            curve = f"M{route[0][0]:.1f} {route[0][1]:.1f}"
            for (x1, y1), (x2, y2) in itertools.pairwise(route):
                middle = (y1 + y2) / 2
                curve += f" C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
            parts.append(f'<path d="{curve}" fill="none" stroke="#777" marker-end="url(#tip)"/>')
        for (x, y), (w, h), (kind, text) in zip(places, sizes, self.nodes, strict=True):
            parts.append(f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5" '
                         f'fill="{_COLORS[kind]}" stroke="#555"/>')
            for k, line in enumerate(text):
                bold = ' font-weight="bold"' if k == 0 else ""
                parts.append(f'<text x="{x:.1f}" y="{y - h / 2 + 6 + _LINE * (k + 0.75):.1f}" text-anchor="middle"{bold}>'
                             f'{html.escape(line)}</text>')
        parts.append(f'<text x="12" y="{height - 8:.0f}" fill="#555">{note}</text>')
        return "\n".join([*parts, "</svg>"])

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str) -> None:
        """Write a file: Graphviz where its name ends with .dot, otherwise SVG."""
        with open(path, "w") as file:
            file.write(self.dot if str(path).endswith(".dot") else self.svg)


def _bytes(n: int) -> str:
    return f"{n} B" if n < 1024 else f"{n / 1024:.1f} KiB" if n < 1024 ** 2 else f"{n / 1024 ** 2:.1f} MiB"


def draw(y: Tensor, params: Mapping[str, Tensor] | Named | None = None) -> Picture:
    """A picture of how a tensor was computed: operations, shapes, leaves that require grad, bytes saved for backward.

    Args:
      y: the tensor from which backward would start.
      params: the names of leaves, from a module or a dictionary of tensors; other leaves show their ``name``, if they have one.

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
    if params is not None and not isinstance(params, Mapping):
        params = dict(params.named_parameters())
    names = {id(t): name for name, t in (params or {}).items()}
    nodes: list[tuple[str, list[str]]] = []
    place: dict[int, int] = {}
    for leaf in leaves.values():
        place[id(leaf)] = len(nodes)
        name = names.get(id(leaf), leaf.name)
        nodes.append(("leaf", ["leaf" + (f" {name}" if name else ""), *_described(leaf)]))
    edges = []
    for node in found:
        place[id(node)] = len(nodes)
        size = sum(x.nbytes for x in (*(node.saved or ()), *(node.inputs or ())) if hasattr(x, "nbytes"))
        shapes = [_shape(a) for a in node.record.out_avals] if node.record is not None else []
        shapes = shapes if len(shapes) <= 4 else [*shapes[:3], f"{len(shapes) - 3} more"]
        nodes.append(("op", [node.name(), *shapes, f"saves {_bytes(size)}" if node.freed is None else "freed"]))
        edges += [(place[id(e[0])], place[id(node)]) for e in node.edges if e is not None]
    nodes.append(("output", ["output", *_described(y)]))
    edges.append((place[id(root if root is not None else y)], len(nodes) - 1))
    arrays = {id(x): x for n in found for x in (*(n.saved or ()), *(n.inputs or ())) if hasattr(x, "nbytes")}
    return Picture(nodes, edges, sum(x.nbytes for x in arrays.values()))


def _shape(aval: jax.Array | ShapedArray) -> str:
    return f"{dtypes.of(aval.dtype).name}{list(aval.shape)}"


def _described(t: Tensor) -> list[str]:
    return [_shape(array_of(t)), *(["requires_grad"] if t.requires_grad else [])]
