"""What a problem of GradBench is, and how its input is read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


class InputError(ValueError):
    """An input that does not fit the problem."""


class Fields:
    """The fields of an input object, checked as they are read."""

    def __init__(self, value: Any, path: str = ""):
        if not isinstance(value, Mapping):
            raise InputError(f"{path or 'input'} must be an object; got {_kind(value)}")
        self.value = value
        self.path = path

    def __getitem__(self, name: str) -> Any:
        if name not in self.value:
            raise InputError(f"input has no field {self.path}{name}")
        return self.value[name]

    def inside(self, name: str) -> Fields:
        return Fields(self[name], f"{self.path}{name}.")

    def integer(self, name: str, least: int = 0, most: int | None = None) -> int:
        value = self[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            raise InputError(f"{self.path}{name} must be a whole number; got {_kind(value)}")
        if value < least or (most is not None and value > most):
            raise InputError(f"{self.path}{name} must be at least {least}{'' if most is None else f' and at most {most}'}; "
                             f"got {value}")
        return int(value)

    def number(self, name: str) -> float:
        return float(self.array(name))

    def array(self, name: str, *shape: int | None) -> np.ndarray:
        """An array of floats; None stands for any length."""
        try:
            array = np.asarray(self[name])
        except ValueError:
            raise InputError(f"{self.path}{name} must be an array of shape {_wanted(shape)}; its rows differ in length") from None
        if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
            raise InputError(f"{self.path}{name} must have the shape {_wanted(shape)}; got {_wanted(array.shape)}")
        if array.size and array.dtype.kind not in "fiu":
            raise InputError(f"{self.path}{name} must hold numbers")
        return array.astype(np.float64)

    def indices(self, name: str, end: int, *shape: int | None, least: int = 0) -> np.ndarray:
        """An array of whole numbers below ``end``."""
        array = self.array(name, *shape)
        found = array.astype(np.int32)
        if np.any(found != array) or np.any(found < least) or np.any(found >= end):
            raise InputError(f"{self.path}{name} must hold whole numbers from {least} to {end - 1}")
        return found


def _kind(value: Any) -> str:
    return {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), str(value))


def _wanted(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if n is None else str(n) for n in shape)})" if shape else "() (a number)"


def as_json(result: Any, *_: Any) -> Any:
    """A pytree of arrays as numbers and lists."""
    return jax.tree.map(lambda x: np.asarray(x).tolist(), result)


@dataclass(frozen=True)
class Problem:
    """The functions of one eval.

    ``functions[name](ad)`` is a function of the arguments that ``read`` finds in an input; ``ad`` is a library whose calls have
    the names and signatures of jax's.  Arguments at ``static`` are numbers that shape the program.  ``write(result, *arguments)``
    is what is sent.
    """

    read: Callable[[Fields], tuple[Any, ...]]
    functions: Mapping[str, Callable[[Any], Callable[..., Any]]]
    static: tuple[int, ...] = ()
    write: Mapping[str, Callable[..., Any]] | None = None

    def compiled(self, name: str, ad: Any) -> Callable[..., Any]:
        return _compiled(self.functions[name], ad, self.static)

    def written(self, name: str, result: Any, arguments: tuple[Any, ...]) -> Any:
        return (self.write or {}).get(name, as_json)(result, *arguments)

    def on_device(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple([x if i in self.static else jax.device_put(x) for i, x in enumerate(arguments)])


@functools.cache
def _compiled(function: Callable[[Any], Callable[..., Any]], ad: Any, static: tuple[int, ...]) -> Callable[..., Any]:
    return jax.jit(function(ad), static_argnums=static)


def objective(function: Callable[..., Any]) -> Callable[[Any], Callable[..., Any]]:
    """A function that is not differentiated."""
    return lambda _: function
