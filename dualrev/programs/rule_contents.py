"""What the function of a user's rule computes, as a key: equal keys are of functions that surely compute the same.

A rule is a function in a parameter of a program.  It is traced when the program is differentiated, so that two programs are equal only
if their rules are: by their code, and by all that the code can read.  That is followed through closures, defaults and global names, and
compared by value, at each request anew: a name may since stand for something else.  Functions of jax and NumPy are taken as they are.
Whatever is not surely constant, such as an array or an object of the user's, makes the rule equal to itself alone.
"""

from __future__ import annotations

import builtins
import dis
import functools
from collections.abc import Hashable
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import jax
import numpy as np

from dualrev._jax.avals import AbstractValue
from dualrev._jax.rule_parts import rule_parts

#: Packages whose modules and global functions do not change.
_CONSTANT = frozenset(("jax", "jaxlib", "numpy", "math", "cmath", "functools", "operator", "itertools", "typing", "collections"))
#: The most values that are followed for one rule.
_MOST = 400


class NotKnownError(Exception):
    """The function may read what cannot be compared."""


def content_of(function: object) -> Hashable:
    """What a function computes; NotKnownError where that is not surely known."""
    return _Reader().read(function)


#: Functions by which code reads what its names do not tell.
_UNTOLD = frozenset(("__import__", "eval", "exec", "globals", "input", "locals", "open", "vars"))


@functools.lru_cache(maxsize=512)
def _names(code: CodeType) -> tuple[str, ...] | None:
    """The names that code, and the functions that it makes, may look up among globals; None where there may be others."""
    found = dict.fromkeys(code.co_names)
    if _UNTOLD & found.keys() or any(step.opname == "IMPORT_NAME" for step in dis.get_instructions(code)):
        return None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _names(constant)
            if inner is None:
                return None
            found |= dict.fromkeys(inner)
    return tuple(found)


def _package(name: str | None) -> str:
    return (name or "").split(".")[0]


class _Reader:
    def __init__(self) -> None:
        #: The functions and objects that were met, in order: one that leads back to itself is told by its place.
        self.met: dict[int, int] = {}
        self.held: list[object] = []

    def read(self, value: Any) -> Hashable:
        kind = type(value)
        if value is None or kind in (int, str, bool, bytes):
            return kind, value
        if kind in (float, complex) or isinstance(value, np.generic):
            return kind, np.asarray(value).tobytes()
        if kind in (tuple, list):
            return kind, *[self.read(x) for x in value]
        if kind is dict:
            return kind, *[(self.read(k), self.read(v)) for k, v in value.items()]
        if isinstance(value, Enum):
            return kind, value.name, self.read(value.value)
        if isinstance(value, (np.dtype, AbstractValue, jax.tree_util.PyTreeDef, CodeType)):
            return kind, value
        return self._followed(value)

    def _followed(self, value: Any) -> Hashable:
        if id(value) in self.met:
            return "met", self.met[id(value)]
        if len(self.met) >= _MOST:
            raise NotKnownError
        self.met[id(value)] = len(self.met)
        self.held.append(value)
        parts = rule_parts(value)
        if parts is not None:
            return type(value), *[self.read(x) for x in parts]
        if isinstance(value, functools.partial):
            return "partial", self.read(value.func), self.read(value.args), self.read(value.keywords)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, ModuleType):
            return self._constant(value, value.__name__)
        if isinstance(value, (type, BuiltinFunctionType)):
            return self._constant(value, value.__module__)
        # Compiled functions, of jax or of the user, and callables of jax and NumPy.
        inner = getattr(value, "__wrapped__", None)
        if _package(type(value).__module__) not in _CONSTANT or not callable(value):
            raise NotKnownError
        return (type(value), self.read(inner)) if inner is not None else self._constant(value, getattr(value, "__module__", None))

    def _constant(self, value: Any, module: str | None) -> Hashable:
        if _package(module) not in (*_CONSTANT, builtins.__name__):
            raise NotKnownError
        return type(value), getattr(value, "__qualname__", getattr(value, "__name__", None)), module, id(value)

    def _function(self, function: FunctionType) -> Hashable:
        code, names = function.__code__, function.__globals__
        package = _package(names.get("__name__"))
        closed = []
        for cell in function.__closure__ or ():
            try:
                closed.append(cell.cell_contents)
            except ValueError:  # a variable that is not set yet
                raise NotKnownError from None
        found = [self.read(x) for x in (closed, function.__defaults__, function.__kwdefaults__)]
        if package in _CONSTANT:
            return code, code.co_filename, *found
        if package == "dualrev":  # whose functions hold what is being differentiated
            raise NotKnownError
        attributes = {name: x for name, x in vars(function).items() if name != "__wrapped__"}
        looked_up = _names(code)
        if looked_up is None:
            raise NotKnownError
        read = {name: names[name] for name in looked_up if name in names}
        return code, code.co_filename, *found, self.read(attributes), self.read(read)
