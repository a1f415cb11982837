"""The residuals of a linear map, array by array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dualrev._jax.avals import ArrayLike
from dualrev._jax.source_lines import line_of
from dualrev._jax.trees import PyTreeDef
from dualrev.linear.maps import Kept, LinearMap, Tape
from dualrev.linear.sources import as_called

Kind = Literal["input", "output", "constant", "intermediate"]


@dataclass(frozen=True)
class Residual:
    """One array that a linear map keeps alive.

    ``op`` is the operation that keeps it (of what a checkpoint saved, the one that made it), and ``line`` where the user called it.
    ``kind`` is what the array is to the differentiated function; ``name`` which input or output.
    """

    nbytes: int
    shape: tuple[int, ...]
    dtype: str
    op: str
    line: str
    kind: Kind
    name: str


def nbytes_of(x: object) -> int:
    return int(getattr(x, "nbytes", 0))


def size(n: int) -> str:
    """A number of bytes in words."""
    for unit, bytes_each in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n >= bytes_each:
            return f"{n / bytes_each:.3g} {unit}"
    return f"{n} B"


class Residuals(list[Residual]):
    """Residuals in the order of the program; as text, a table of them with the largest first and equal ones in one row."""

    @property
    def nbytes(self) -> int:
        return sum(r.nbytes for r in self)

    def __rich__(self) -> Table:
        made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), title_justify="left",
                     title=f"{size(self.nbytes)} in {len(self):,} array{'' if len(self) == 1 else 's'}")
        for header, justify in (("bytes", "right"), ("array", "left"), ("kept by", "left"), ("what", "left"), ("line", "left")):
            made.add_column(header, justify=justify, overflow="fold")  # type: ignore[arg-type]
        rows = Counter(self)
        for r, count in sorted(rows.items(), key=lambda row: -row[0].nbytes * row[1]):
            array = f"{r.dtype}[{', '.join(map(str, r.shape))}]"
            arrays = f"{count} x {array}" if count > 1 else array
            made.add_row(size(r.nbytes * count), arrays, r.op, f"{r.kind} {r.name}".strip(), r.line)
        return made

    def __repr__(self) -> str:
        out = Console(width=140, no_color=True, highlight=False)
        with out.capture() as text:
            out.print(self.__rich__())
        return "\n".join(line.rstrip() for line in text.get().splitlines())


class InAndOut(Protocol):
    """The structures of what a function takes and returns."""

    @property
    def in_tree(self) -> PyTreeDef: ...

    @property
    def out_tree(self) -> PyTreeDef: ...


class Origins:
    """Which arrays are a function's inputs and outputs, by identity: they are not kept alive for it."""

    __slots__ = ("ins", "outs", "structure")

    def __init__(self, ins: Sequence[ArrayLike], outs: Sequence[ArrayLike], structure: InAndOut):
        self.ins = [id(x) for x in ins]
        self.outs = [id(x) for x in outs]
        self.structure = structure

    def named(self) -> dict[int, tuple[Kind, str]]:
        s = self.structure
        found: dict[int, tuple[Kind, str]] = dict(zip(self.outs, [("output", path) for path in _paths(s.out_tree)], strict=True))
        return found | dict(zip(self.ins, [("input", path) for path in _paths(s.in_tree)], strict=True))


def _paths(tree: PyTreeDef) -> list[str]:
    places = jax.tree_util.tree_unflatten(tree, range(tree.num_leaves))
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(places)]


def kept(linear_map: LinearMap, line: str = "") -> Iterator[Kept]:
    """``(array, operation, line)`` of each residual: as the map says (:meth:`LinearMap.kept`), or else as its tape does."""
    if isinstance(linear_map, Tape):
        for (entry, _, _), source in zip(linear_map.entries, linear_map.sources, strict=True):
            own = (line_of(source) if source is not None else "") or line
            if (called := as_called(entry, source)) is not None:
                yield from kept(called, own)
            else:
                yield from [(x, op, own) for x, op, _ in kept(entry, own)]
    elif (stated := linear_map.kept()) is not None:
        yield from [(x, op, own or line) for x, op, own in stated]
    else:
        if (tape := linear_map.tape()) is not None:
            yield from kept(tape, line)
        # Arrays that several operations share, and those that no entry of the inner tape has named.
        yield from [(x, linear_map.name, line) for x in jax.tree_util.tree_leaves(linear_map)]


def residuals_of(linear_map: LinearMap, origins: Origins | None) -> Residuals:
    """The arrays of a linear map, each once, by the first operation that keeps it."""
    arrays = {id(x): x for x in jax.tree_util.tree_leaves(linear_map)}
    named = {} if origins is None else origins.named()
    found = Residuals()
    for x, op, line in kept(linear_map):
        if arrays.pop(id(x), None) is not None and hasattr(x, "nbytes"):
            kind, name = named.get(id(x), ("intermediate" if isinstance(x, jax.Array) else "constant", ""))
            found.append(Residual(nbytes_of(x), tuple(x.shape), str(x.dtype), op, line, kind, name))
    return found
