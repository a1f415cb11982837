"""Where a program holds a function: every module's names, and what hangs on them.

:class:`Search` looks into imported modules for given objects, by identity: names of the module; attributes of its classes, also as
``staticmethod`` and ``classmethod``; defaults and closures of functions; ``functools.partial``; dicts, lists and tuples.  Each
:class:`Place` can be changed and put back.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from types import BuiltinFunctionType, CellType, FrameType, FunctionType, ModuleType
from typing import Any, Protocol, TypeAlias, TypeVar

#: How many containers, wrappers and closures deep a place may lie below a name of a module.
DEPTH = 4

T = TypeVar("T")
K = TypeVar("K")


@dataclasses.dataclass(eq=False)
class Place:
    """Something that holds ``before`` and can hold ``after``."""

    name: str
    module: str
    where: str
    before: object
    after: object
    read: Callable[[], object]
    write: Callable[[object], None]

    def replace(self) -> None:
        self.write(self.after)

    def restore(self) -> None:
        """Put ``before`` back, unless someone else has put another object there meanwhile."""
        if self.read() is self.after:
            self.write(self.before)


#: The functions that read and write a place.
Access: TypeAlias = tuple[Callable[[], object], Callable[[object], None]]

#: What makes the functions that read and write a place, and its two arguments: the owner, and a key, of any types that go together.
Slot: TypeAlias = tuple[Callable[[Any, Any], Access], object, object]

#: A path as its parent and a last piece; only those of places are ever spelled out.
Path: TypeAlias = tuple["Path | str", str]

#: Of an object that is looked for, by its id: its name, and what comes in its place.
Targets: TypeAlias = Mapping[int, tuple[str, object]]

#: How to look at an object of a type, which is that of the second argument.
Way: TypeAlias = Callable[["Search", Any, Path, Slot, int], None]


def spelled(path: Path | str) -> str:
    pieces: list[str] = []
    while isinstance(path, tuple):
        path, piece = path
        pieces.append(piece)
    return "".join([path, *reversed(pieces)])


class Wrapper(Protocol):
    """What ``jax.jit`` returns."""

    __wrapped__: Callable[..., object]


class Search:
    """One walk over modules: the places found, and what can't be changed, with the reason.

    What belongs to a module that ``is_protected`` is not looked into.  ``remark`` may give a reason why a function, or a module that a
    module holds, stays as it is.
    """

    def __init__(self, targets: Targets, is_protected: Callable[[str], bool],
                 remark: Callable[[FunctionType | ModuleType], str | None]):
        self.targets = targets
        self.is_protected = functools.cache(is_protected)
        self.remark = remark
        self.places: list[Place] = []
        self.left: dict[str, str] = {}
        self.module = ""
        self.seen: set[int] = {id(sys.modules)}
        self.ways = dict(_WAYS)

    def modules(self, modules: Iterable[tuple[str, object]], *, deep: bool = True) -> Search:
        """Look at modules, by name; without ``deep``, at their own names alone."""
        namespaces = {id(namespace): (name, namespace) for name, module in modules
                      if type(namespace := _namespace(module)) is dict and id(namespace) not in self.seen}
        self.seen.update(namespaces)  # where one is held like any other dict, it is still its module's
        for name, namespace in namespaces.values():
            if self.is_protected(name):
                continue
            self.module = name
            depth = 0 if deep and name.split(".")[0] not in sys.stdlib_module_names else DEPTH
            for key, value in list(namespace.items()):
                self.look(value, (name, f".{key}"), (_item, namespace, key), depth)
        return self

    def look(self, value: object, path: Path, slot: Slot, depth: int) -> None:
        """Note a value that is looked for, or what it holds; ``slot`` is where it stands."""
        kind = type(value)
        try:
            way = self.ways[kind]
        except KeyError:
            way = self.ways[kind] = _way(kind)
        if way is not None and depth <= DEPTH:
            way(self, value, path, slot, depth)

    def is_found(self, value: object, path: Path, slot: Slot, before: object = None,
                 wrap: Callable[[object], object] | None = None) -> bool:
        """Whether a value is looked for; if so it is a place (``before``, if that is what stands in the slot)."""
        found = self.targets.get(id(value))
        if found is None:
            return False
        name, new = found
        if slot is _NOWHERE:
            self.left[spelled(path)] = f"{name} is wrapped there, in an object that keeps it"
        else:
            old, new = (value, new) if wrap is None else (before, wrap(new))
            self.places.append(Place(name, self.module, spelled(path), old, new, *slot[0](*slot[1:])))
        return True

    def is_new(self, value: object, depth: int) -> bool:
        """Whether to look into an object, which happens once."""
        if depth == DEPTH or id(value) in self.seen:
            return False
        self.seen.add(id(value))
        return True

    def function(self, function: FunctionType, path: Path, slot: Slot, depth: int) -> None:
        if self.is_found(function, path, slot):
            return
        reason = self.remark(function)
        if reason is not None:
            self.left.setdefault(spelled(path), reason)
            return
        cells, defaults, keywords = function.__closure__, function.__defaults__, function.__kwdefaults__
        wrapped = getattr(function, "__wrapped__", None)
        if not (cells or defaults or keywords or wrapped is not None) or not self.is_new(function, depth):
            return
        if not self.is_protected(function.__globals__.get("__name__") or ""):
            if defaults:
                self.in_tuple(defaults, (path, ".__defaults__"), (_attribute, function, "__defaults__"), depth)
            for key, value in list((keywords or {}).items()):
                self.look(value, (path, f".__kwdefaults__[{key!r}]"), (_item, keywords, key), depth + 1)
            for name, cell in zip(function.__code__.co_freevars, cells or (), strict=False):
                try:
                    value = cell.cell_contents
                except ValueError:  # not assigned yet
                    continue
                self.look(value, (path, f".__closure__[{name!r}]"), (_cell, cell, None), depth + 1)
        if id(wrapped) not in self.targets:  # what is there for introspection alone may stay
            self.look(wrapped, path, _NOWHERE, depth + 1)

    def class_(self, cls: type, path: Path, slot: Slot, depth: int) -> None:
        if self.is_found(cls, path, slot) or self.is_protected(str(vars(cls).get("__module__"))) or not self.is_new(cls, depth):
            return
        for key, member in list(vars(cls).items()):
            self.look(member, (path, f".{key}"), (_member, cls, key), depth + 1)

    def mapping(self, value: dict[object, object], path: Path, slot: Slot, depth: int) -> None:
        if self.is_new(value, depth):
            for key, item in list(value.items()):
                self.look(item, (path, f"[{key!r}]" if type(key) in (str, int) else "[...]"), (_item, value, key), depth + 1)

    def sequence(self, value: list[object], path: Path, slot: Slot, depth: int) -> None:
        if self.is_new(value, depth):
            for i, item in enumerate(list(value)):
                self.look(item, (path, f"[{i}]"), (_item, value, i), depth + 1)

    def method(self, value: staticmethod[..., object] | classmethod[object, ..., object], path: Path, slot: Slot, depth: int) -> None:
        if not self.is_found(value.__func__, path, slot, value, type(value)):
            self.look(value.__func__, path, _NOWHERE, depth)

    def in_property(self, value: property, path: Path, slot: Slot, depth: int) -> None:
        for function in (value.fget, value.fset, value.fdel):
            self.look(function, path, _NOWHERE, depth)

    def partial_method(self, value: functools.partialmethod[object], path: Path, slot: Slot, depth: int) -> None:
        self.look(value.func, (path, ".func"), (_attribute, value, "func"), depth)

    def field(self, value: dataclasses.Field[object], path: Path, slot: Slot, depth: int) -> None:
        self.look(value.default, (path, ".default"), (_attribute, value, "default"), depth + 1)

    def wrapper(self, value: Wrapper, path: Path, slot: Slot, depth: int) -> None:
        self.look(value.__wrapped__, path, _NOWHERE, depth)

    def held_module(self, value: ModuleType, path: Path, slot: Slot, depth: int) -> None:
        reason = self.remark(value)
        if reason is not None:
            self.left[spelled(path)] = reason

    def in_tuple(self, value: tuple[object, ...], path: Path, slot: Slot, depth: int) -> None:
        """A tuple is replaced as a whole, by one that has the new objects."""
        names: list[str] = []
        if depth == DEPTH:
            return
        new = self.rebuilt(value, path, names, depth)
        for i, name in enumerate(names):  # one write changes them all; each is listed
            read, write = slot[0](*slot[1:])
            self.places.append(Place(name, self.module, spelled(path), value, new, read, write if i == 0 else _ignore))

    def rebuilt(self, value: tuple[object, ...], path: Path, names: list[str], depth: int) -> tuple[object, ...]:
        items: list[object] = []
        for i, item in enumerate(value):
            if id(item) in self.targets:
                name, item = self.targets[id(item)]
                names.append(name)
            elif type(item) is tuple:
                item = self.rebuilt(item, path, names, depth)
            elif type(item) not in _ATOMS:
                self.look(item, (path, f"[{i}]"), _NOWHERE, depth + 1)
            items.append(item)
        return tuple(items)

    def partial(self, value: functools.partial[object], path: Path, slot: Slot, depth: int) -> None:
        """``functools.partial`` objects are changed in place, whoever else holds them."""
        if self.is_new(value, depth):
            self.look(value.func, (path, ".func"), (_partial_state, value, 0), depth)
            if value.args:
                self.in_tuple(value.args, (path, ".args"), (_partial_state, value, 1), depth)
            for key, item in list(value.keywords.items()):
                self.look(item, (path, f".keywords[{key!r}]"), (_item, value.keywords, key), depth + 1)

    def unchangeable(self, value: set[object] | frozenset[object] | tuple[object, ...], path: Path, slot: Slot, depth: int) -> None:
        kind = next(base for base in (set, frozenset, tuple) if isinstance(value, base))
        held = sorted({self.targets[id(x)][0] for x in kind.__iter__(value) if id(x) in self.targets})  # type: ignore[arg-type]
        if held:
            self.left[spelled(path)] = f"a {type(value).__name__} holds {', '.join(held)}, and can't be changed where it stands"


#: For each type, how to look at an object of it; None for those that hold nothing.
_WAYS: dict[type, Way | None] = {
    FunctionType: Search.function, dict: Search.mapping, list: Search.sequence, tuple: Search.in_tuple, set: Search.unchangeable,
    frozenset: Search.unchangeable, staticmethod: Search.method, classmethod: Search.method, property: Search.in_property,
    functools.partialmethod: Search.partial_method, dataclasses.Field: Search.field}


def _way(kind: type) -> Way | None:
    for base, way in ((type, Search.class_), ((set, frozenset, tuple), Search.unchangeable), (functools.partial, Search.partial),
                      (ModuleType, Search.held_module)):
        if issubclass(kind, base):
            return way
    return Search.wrapper if kind.__name__ == "PjitFunction" else None  # what jax.jit returns


def are_held_deeper(values: tuple[object, ...], by: Iterable[object]) -> bool:
    """Whether anything else than names of modules, running functions and ``by`` may hold one of the values."""
    known = {id(values), *map(id, by), *[id(_namespace(module)) for module in list(sys.modules.values())]}
    return gc.get_freeze_count() > 0 or any(
        id(holder) not in known and type(holder) is not FrameType for holder in gc.get_referrers(*values))


def objects_holding(targets: Mapping[int, T], is_protected: Callable[[str], bool]) -> Iterator[tuple[object, str, T]]:
    """``(object, attribute, value)`` for objects of classes written in Python that hold one of the targets, given by id."""
    known = {id(_namespace(module)) for module in list(sys.modules.values())}
    holders = [holder for holder in gc.get_referrers(*targets.values()) if id(holder) not in known]
    dicts = {id(holder) for holder in holders if type(holder) is dict}
    owners = gc.get_referrers(*[holder for holder in holders if type(holder) is dict]) if dicts else []
    for holder in [*holders, *[owner for owner in owners if id(_namespace(owner)) in dicts]]:
        cls = type(holder)
        if cls.__flags__ & _HEAP_TYPE and not issubclass(cls, (type, ModuleType, dict)) and not is_protected(cls.__module__):
            for attribute, value in list((_namespace(holder) or {}).items()):
                if id(value) in targets:
                    yield holder, attribute, value


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was made while the program ran

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), BuiltinFunctionType})


def _ignore(_: object) -> None:
    """Writes to a place through an alias."""


def _nowhere(owner: object, key: object) -> Access:
    return lambda: None, _ignore


#: The slot of an object that is looked through and can't be replaced itself.
_NOWHERE: Slot = (_nowhere, None, None)


def _namespace(module: object) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = object.__getattribute__(module, "__dict__")  # a lazy module's own __getattribute__ would import it
        return found
    except AttributeError:
        return None


def _partial_state(partial: functools.partial[object], i: int) -> Access:
    def write(new: object) -> None:
        state = list(partial.__reduce__()[2])
        state[i] = new
        partial.__setstate__(tuple(state))  # type: ignore[attr-defined]

    return lambda: partial.__reduce__()[2][i], write


def _item(container: MutableMapping[K, object], key: K) -> Access:
    def read() -> object:
        try:
            return container[key]
        except LookupError:
            return None

    return read, functools.partial(container.__setitem__, key)


def _member(cls: type, key: str) -> Access:
    return lambda: vars(cls).get(key), functools.partial(type.__setattr__, cls, key)


def _attribute(owner: object, key: str) -> Access:
    return functools.partial(getattr, owner, key, None), functools.partial(setattr, owner, key)


def _cell(cell: CellType, _: None) -> Access:
    def read() -> object:
        try:
            return cell.cell_contents
        except ValueError:  # emptied meanwhile
            return None

    return read, functools.partial(setattr, cell, "cell_contents")
