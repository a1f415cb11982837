"""Guards of a compiled step: what Python decided by while the step was traced, and whether it has changed."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from dualrev.eager.core.hooks import changes
from dualrev.eager.graph.tensor import Tensor

#: Packages whose functions are not searched for names: they read nothing that a user changes.
_LIBRARIES = {"dualrev", "jax", "jaxlib", "numpy", "optax", "torch", "builtins"}
_PLAIN = (int, float, complex, str, bytes, type(None))


def _kept(x: Any) -> Any:
    """A value to compare later: itself if it is plain, otherwise a reference; Ellipsis where changes are not checked."""
    if isinstance(x, _PLAIN):
        return x
    if isinstance(x, tuple):
        parts = tuple([_kept(part) for part in x])
        return ... if ... in parts else parts
    if isinstance(x, (Tensor, types.FunctionType)) or hasattr(type(x), "named_parameters"):
        return weakref.ref(x)
    return ...


def _same(now: Any, then: Any) -> bool:
    """Whether a value is as it was; 1 differs from 1.0, and 0.0 from -0.0."""
    if then is ... or now is then:
        return True
    if type(then) is weakref.ref:
        return then() is now
    kept = _kept(now)
    return type(kept) is type(then) and repr(kept) == repr(then)


def functions(fun: Any) -> Iterator[types.FunctionType]:
    """The user's function in a callable, if there is one."""
    while isinstance(fun, functools.partial):
        fun = fun.func
    fun = getattr(fun, "__func__", fun)
    if isinstance(fun, types.FunctionType) and (fun.__module__ or "").partition(".")[0] not in _LIBRARIES:
        yield fun


class Names:
    """The global and nonlocal names that functions read, and their values."""

    def __init__(self) -> None:
        self._seen: set[Any] = set()
        #: ``(name, function that reads it, its value)``.
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
        """A name that has another value now, in words; None if there is none."""
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
    """The modules, names and settings that a step has read, as they were."""

    def __init__(self, step: Callable[..., Any]):
        self.names = Names()
        self.names.add(step)
        self.modules: dict[int, tuple[Any, dict[str, Any]]] = {}
        #: ``(optimizer, the number of parameters of each group)``, and settings that are static in the program.
        self.optimizers: list[tuple[Any, list[int]]] = []
        self.settings: list[tuple[dict[str, Any], str, Any, Any]] = []
        self._count = -1

    def module(self, m: Any) -> None:
        """A module is about to run."""
        if id(m) not in self.modules:
            self.modules[id(m)] = m, _state_of(m)
            self.names.add(type(m).forward)

    def optimizer(self, o: Any, numbers: tuple[str, ...]) -> None:
        """An optimizer is about to step; its numbers are inputs of the program, but whether they are zero is static."""
        self.optimizers.append((o, [len(g["params"]) for g in o.param_groups]))
        for g in o.param_groups:
            self.settings += [(g, k, bool if k in numbers else None, bool(v) if k in numbers else v) for k, v in g.items()
                              if k not in ("params", "lr", "initial_lr") and not isinstance(v, Tensor)]

    def changed(self) -> str | None:
        """Something that has changed, in words; None if nothing has."""
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
        for m, state in self.modules.values():
            now = _state_of(m)
            for name, then in state.items():
                if name not in now or not _same(now[name], then):
                    return f"'{name}' of the module {type(m).__name__}"
            if len(now) != len(state):
                return f"'{next(k for k in now if k not in state)}' of the module {type(m).__name__}"
        self._count = before
        return None


def _state_of(m: Any) -> dict[str, Any]:
    """The attributes, members and hooks of a module, which decide how it runs."""
    found = {}
    for name, x in m.__dict__.items():
        if name.endswith("_hooks"):
            found[name] = tuple(x)
        elif name in ("_parameters", "_buffers", "_modules"):
            found.update({key: None if member is None else weakref.ref(member) for key, member in x.items()})
        elif (kept := _kept(x)) is not ...:
            found[name] = kept
    return found
