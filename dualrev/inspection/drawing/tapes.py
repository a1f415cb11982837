"""A tape as items, and what it keeps at each operation of a program."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

import jax
from jax.tree_util import tree_leaves

from dualrev._jax.source_lines import line_of
from dualrev.inspection.drawing.items import Item
from dualrev.linear.maps import LinearMap, Tape
from dualrev.linear.residuals import nbytes_of
from dualrev.linear.sources import as_called


def items_of(linear_map: LinearMap) -> list[Item]:
    """The operations of a linear map: those of its tape, joined by the tangents that they hand on, or the maps that it is made of.

    An array belongs to the first operation that keeps it.
    """
    items = list(_read(linear_map, "", {id(x): x for x in tree_leaves(linear_map)}))
    return items[0].children if len(items) == 1 and items[0].children and items[0].own_stored == 0 else items


def _read(linear_map: LinearMap, line: str, arrays: dict[int, object]) -> Iterator[Item]:
    """The items of a map; ``arrays`` are those of the whole map that no item has kept yet."""
    if isinstance(linear_map, Tape):
        for (entry, ins, outs), source in zip(linear_map.entries, linear_map.sources, strict=True):
            own = (line_of(source) if source is not None else "") or line
            called = as_called(entry, source)
            parts = list(_read(entry if called is None else called, own, arrays))
            if called is None:
                for inner in [inner for part in parts for inner in part.walk()]:
                    inner.line = own
            elif called.name != entry.name:  # what runs it compiled, un-jitted, has a name of its own
                parts[0].calls += (entry.name,)
            item = _simplified(parts[0]) if len(parts) == 1 else Item(entry.name, children=parts, line=own)
            item.reads, item.writes = frozenset(ins), frozenset(slot for slot in outs if slot is not None)
            yield item
        return
    item = Item(linear_map.name, line=line, name=linear_map.name)
    if (stated := linear_map.kept()) is not None:
        for x, op, own in stated:
            kept = _new([x], arrays)
            if op == item.label and (own or line) == line:
                _keep(item, kept)
            elif kept:
                part = Item(op, line=own or line, name=op)
                _keep(part, kept)
                item.children.append(part)
    else:
        if (tape := linear_map.tape()) is not None:
            item.children = list(_read(tape, line, arrays))
        elif (inner := linear_map.inner_maps()) is not None:
            item.children = [part for one in inner for part in _read(one, line, arrays)]
        _keep(item, _new(tree_leaves(linear_map), arrays))
    yield item


def _simplified(item: Item) -> Item:
    """A call of one operation is that operation: that of ``jnp.add`` is an addition."""
    if len(item.children) == 1 and not item.own_stored and (not item.children[0].children or item.children[0].label == item.label):
        only = item.children[0]
        only.calls += (*item.calls, item.name)
        return _simplified(only)
    return item


def _new(leaves: Sequence[object], arrays: dict[int, object]) -> list[jax.Array]:
    """Those that nothing has kept before, each once."""
    return [x for x in leaves if arrays.pop(id(x), None) is not None and hasattr(x, "nbytes")]  # type: ignore[misc]


def _keep(item: Item, arrays: Sequence[jax.Array]) -> None:
    item.own_stored += sum(map(nbytes_of, arrays))
    if arrays:
        largest = max(arrays, key=nbytes_of)
        more = f" and {len(arrays) - 1} more" if len(arrays) > 1 else ""
        item.out = f"keeps {largest.dtype}[{', '.join(map(str, largest.shape))}]{more}"


def attach(items: Sequence[Item], linear_map: LinearMap) -> int:
    """Give the operations of a program the bytes that the tape keeps there; the bytes that belong to none of them come back.

    Entries of a tape stand in the order of the program, with the name and line of their operations: each belongs to the next operation
    with both.  What a rule of the user's keeps belongs to the next operation of its line, and what has no line to the one operation
    of its name, if there is only one.
    """
    inside = [inner for item in items for inner in item.walk()]
    places: dict[tuple[str, str], list[int]] = {}
    for k, inner in enumerate(inside):
        if inner.name:  # a scope or a side of a loop keeps nothing by itself
            for key in ((inner.name, inner.line), ("", inner.line), (inner.name, "any")):
                places.setdefault(key, []).append(k)
    place, left = 0, 0
    for entry in [inner for item in items_of(linear_map) for inner in item.walk() if inner.own_stored or not inner.children]:
        names = (entry.name, *entry.calls)
        found = next((places[name, entry.line] for name in names if (name, entry.line) in places), None)
        if found is None and entry.own_stored and entry.line:
            found = places.get(("", entry.line))
        if found is None and entry.own_stored:
            found = next((ks for name in names if len(ks := places.get((name, "any"), [])) == 1), None)
        if found is None:
            left += entry.own_stored
            continue
        k = found[min(bisect.bisect_left(found, place), len(found) - 1)]
        inside[k].own_stored += entry.own_stored
        place = k + 1 if inside[k].name in names else k
    return left
