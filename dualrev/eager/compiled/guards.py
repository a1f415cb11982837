"""What Python decided while a step was traced, to notice when it would decide otherwise."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from dualrev.eager.graph.node import changes
from dualrev.eager.graph.tensor import Tensor

#: Functions of these packages read nothing that a user changes.
_LIBRARIES = {"dualrev", "jax", "jaxlib", "numpy", "optax", "torch", "builtins"}
_PLAIN = (int, float, complex, str, bytes, type(None))


def _kept(x: Any) -> Any:
    """What stands for a value: itself if it is plain, otherwise which object it is; Ellipsis where changes are not noticed."""
    if isinstance(x, _PLAIN):
        return x
    if isinstance(x, tuple):
        parts = tuple([_kept(part) for part in x])
        return ... if ... in parts else parts
    if isinstance(x, (Tensor, types.FunctionType)) or hasattr(type(x), "named_parameters"):
        return weakref.ref(x)
    return ...


def _same(now: Any, then: Any) -> bool:
    """Whether a value is as it was; 1 is not 1.0, nor 0.0 minus zero."""
    if then is ... or now is then:
        return True
    if type(then) is weakref.ref:
        return then() is now
    kept = _kept(now)
    return type(kept) is type(then) and repr(kept) == repr(then)


def functions(fun: Any) -> Iterator[types.FunctionType]:
    """The user's functions that make up a callable."""
    while isinstance(fun, functools.partial):
        fun = fun.func
    fun = getattr(fun, "__func__", fun)
    if isinstance(fun, types.FunctionType) and (fun.__module__ or "").partition(".")[0] not in _LIBRARIES:
        yield fun


class Names:
    """The names from outside that functions read, and what they stood for."""

    def __init__(self) -> None:
        self._seen: set[Any] = set()
        #: ``(its name, how to read it, what it was)``.
        self.found: list[tuple[str, Callable[[], Any], Any]] = []

    def add(self, fun: Any) -> None:
        """The names of a callable, and of the functions that it calls by a name."""
        for f in functions(fun):
            if f in self._seen:
                continue
            self._seen.add(f)
            for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
                self._note(name, functools.partial(_content, cell))
            for name in _names(f.__code__):
                if name in f.__globals__:
                    self._note(name, functools.partial(f.__globals__.get, name))

    def _note(self, name: str, read: Callable[[], Any]) -> None:
        value = read()
        kept = _kept(value)
        if kept is not ...:
            self.found.append((name, read, kept))
        self.add(value)

    def changed(self) -> str | None:
        """A name that stands for something else now."""
        for name, read, then in self.found:
            if not _same(read(), then):
                return f"the variable '{name}'"
        return None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet set
        return ...


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)


class Guards:
    """The modules, names and settings that a step has met, as they were."""

    def __init__(self, step: Callable[..., Any]):
        self.names = Names()
        self.names.add(step)
        self.modules: dict[int, tuple[Any, dict[str, Any]]] = {}
        #: ``(optimizer, how many parameters its groups had)``, and settings that are fixed in the program.
        self.optimizers: list[tuple[Any, list[int]]] = []
        self.settings: list[tuple[dict[str, Any], str, Any, Any]] = []
        self._count = -1

    def module(self, m: Any) -> None:
        """A module is about to run."""
        if id(m) not in self.modules:
            self.modules[id(m)] = m, _looks(m)
            self.names.add(type(m).forward)

    def optimizer(self, o: Any, numbers: tuple[str, ...]) -> None:
        """An optimizer is about to step; of its numbers, which the program takes, it is fixed whether they are zero."""
        self.optimizers.append((o, [len(g["params"]) for g in o.param_groups]))
        for g in o.param_groups:
            self.settings += [(g, k, bool if k in numbers else None, bool(v) if k in numbers else v) for k, v in g.items()
                              if k not in ("params", "lr", "initial_lr") and not isinstance(v, Tensor)]

    def changed(self) -> str | None:
        """What is not as it was; None if all is."""
        found = self.names.changed()
        if found is not None:
            return found
        for group, name, of, then in self.settings:
            if (group[name] if of is None else of(group[name])) != then:
                return f"the setting '{name}' of an optimizer"
        for o, sizes in self.optimizers:
            if [len(g["params"]) for g in o.param_groups] != sizes:
                return "the groups of an optimizer"
        if self._count == changes.count:
            return None
        before = changes.count
        for m, looks in self.modules.values():
            now = _looks(m)
            for name, then in looks.items():
                if name not in now or not _same(now[name], then):
                    return f"'{name}' of the module {type(m).__name__}"
            if len(now) != len(looks):
                return f"'{next(k for k in now if k not in looks)}' of the module {type(m).__name__}"
        self._count = before
        return None


def _looks(m: Any) -> dict[str, Any]:
    """What decides how a module runs: its attributes, members and hooks."""
    found = {}
    for name, x in m.__dict__.items():
        if name.endswith("_hooks"):
            found[name] = tuple(x)
        elif name in ("_parameters", "_buffers", "_modules"):
            found.update({key: None if member is None else weakref.ref(member) for key, member in x.items()})
        elif (kept := _kept(x)) is not ...:
            found[name] = kept
    return found
