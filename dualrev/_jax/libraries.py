"""Primitives that other libraries define: whose they are, and what derivative was registered for them."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from importlib import metadata
from types import CellType
from typing import Any, NamedTuple, TypeAlias

from dualrev._jax.primitives import Primitive

#: A rule as jax keeps it: each kind is called in a way of its own.
Rule: TypeAlias = Callable[..., Any]


class ForeignRules(NamedTuple):
    """What another library registered with jax for a primitive of its own; None for what it did not."""

    jvp: Rule | None  # (primals, tangents, **params) -> (outs, tangents out)
    linearization: Rule | None  # (is_vjp, which move, *primals, **params) -> outs and a function of tangents
    transpose: Rule | None  # (cotangents, *operands, **params) -> cotangents; linear operands are `undefined`
    fancy_transpose: Rule | None  # the same, with an `accumulator` for each linear operand, which it adds to
    undefined: type
    accumulator: type


def foreign_rules(primitive: Primitive) -> ForeignRules | None:
    """The rules of a primitive that another library defined, or None where jax defined it: its own rules are never read."""
    module = owner_of(primitive)
    if module is None or is_of_jax(module):
        return None
    from jax._src.interpreters.ad import (
        UndefinedPrimal,
        ValAccum,
        fancy_transposes,
        primitive_jvps,
        primitive_linearizations,
        primitive_transposes,
    )

    return ForeignRules(primitive_jvps.get(primitive), primitive_linearizations.get(primitive), primitive_transposes.get(primitive),
                        fancy_transposes.get(primitive), UndefinedPrimal, ValAccum)

_owners: weakref.WeakKeyDictionary[Primitive, str] = weakref.WeakKeyDictionary()


def owner_of(primitive: Primitive) -> str | None:
    """The module that defines a primitive, or None if that cannot be told.

    It is one that holds the primitive under a name, and of several the one that its functions are from.  A primitive that no module
    holds is from where its functions are, which jax may have wrapped.
    """
    found = _owners.get(primitive)
    if found is None:
        modules = [(name, getattr(module, "__dict__", {})) for name, module in list(sys.modules.items())]
        holding = [name for name, members in modules if any(x is primitive for x in list(members.values()))]
        functions = [name for name in _modules_of(primitive) if not is_of_jax(name)]
        candidates = [*filter(is_of_jax, holding), *[name for name in functions if name in holding], *holding, *functions]
        if candidates:
            found = _owners[primitive] = candidates[0]
    return found


def is_own(primitive: Primitive, module: str) -> bool:
    """Whether the code of ``module`` may speak for a primitive: it, its package, or code that is installed nowhere defines it.

    False for jax's primitives, for those of another installed library, and where it cannot be told who defines one.
    """
    owner = owner_of(primitive)
    if owner is None or is_of_jax(owner):
        return False
    package = owner.split(".")[0]
    return package == module.split(".")[0] or package not in distributions()


@functools.cache
def distributions() -> dict[str, list[str]]:
    """Which installed distributions a top-level module comes from."""
    return {module: sorted(set(names)) for module, names in metadata.packages_distributions().items()}


def is_of_jax(module: str) -> bool:
    """Whether a module is one of jax's own."""
    return module.split(".")[0] in ("jax", "jaxlib")

#: Modules whose functions say nothing of who defined a primitive that they implement.
_OF_ALL = frozenset(["builtins", "functools", "numpy"])


def _modules_of(primitive: Primitive) -> Iterator[str]:
    """The modules of the functions that define a primitive, and of those that they wrap."""
    waiting: list[object] = [getattr(primitive, "abstract_eval", None), getattr(primitive, "impl", None)]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen or not (callable(found) or isinstance(found, (list, tuple))):
            continue
        seen.add(id(found))
        if isinstance(found, (list, tuple)):
            waiting.extend(found)
            continue
        module = getattr(found, "__module__", None)
        if isinstance(module, str) and module.split(".")[0] not in _OF_ALL:
            yield module
        if isinstance(found, functools.partial):
            waiting += [found.func, *found.args]
        waiting.append(getattr(found, "__wrapped__", None))
        waiting += [cell.cell_contents for cell in getattr(found, "__closure__", None) or () if _is_filled(cell)]


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (a cell of a variable that has no value yet raises)
    except ValueError:
        return False
    return True
