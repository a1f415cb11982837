"""Reading of arguments by PyTorch's signatures, by position or by name, and the refusals of arguments that do not fit.

The first signature that the arguments fit is used.  Arguments that fit none are refused as PyTorch refuses them: with the expected type
of an argument and the type that it has, or with the list of signatures.
"""

from __future__ import annotations

import ast
import functools
import inspect
import keyword
from collections.abc import Callable
from typing import Any

import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.generator import Generator

#: numpy's names of some arguments, which PyTorch takes too.
ALSO = {"dim": ("axis",), "keepdim": ("keepdims",), "input": ("x", "a", "x1"), "other": ("x2",)}
#: The last arguments of most functions that make tensors.
OPTIONS = ("torch.dtype dtype = None, torch.layout layout = None, torch.device device = None, bool pin_memory = False, "
           "bool requires_grad = False")
#: The same, for functions that may write into a tensor.
OUT = f"Tensor out = None, {OPTIONS}"
_PYTHON_TYPES = (float, int, bool, complex)


class memory_format:
    """An order of entries in memory: accepted, without effect, for arrays of jax choose theirs."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"


class layout(memory_format):
    """The layout of a tensor: ``torch.strided`` holds every entry."""

    __slots__ = ()


contiguous_format, preserve_format = memory_format("contiguous_format"), memory_format("preserve_format")
channels_last, channels_last_3d = memory_format("channels_last"), memory_format("channels_last_3d")
strided, sparse_coo, sparse_csr = layout("strided"), layout("sparse_coo"), layout("sparse_csr")


def _single(x: Any, kinds: str) -> bool:
    """Whether it is an array without dimensions, of these kinds of dtypes, that requires no grad."""
    if isinstance(x, Tensor):
        return not x.requires_grad and array_of(x).ndim == 0 and array_of(x).dtype.kind in kinds
    return isinstance(x, (np.generic, np.ndarray)) and x.ndim == 0 and x.dtype.kind in kinds


def _is_int(x: Any) -> bool:
    return (isinstance(x, int) and not isinstance(x, bool)) or _single(x, "iu")


def _is_ints(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and (not x or _is_int(x[0]))


#: The checks of argument types, by the names that PyTorch's messages use.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "Any": lambda x: True,
    "Tensor": lambda x: isinstance(x, Tensor),
    "tuple of ints": _is_ints,
    "int": _is_int,
    "float": lambda x: isinstance(x, (float, int)) or _single(x, "biufV"),
    "Number": lambda x: isinstance(x, (float, int, complex)) or _single(x, "biufcV"),
    "bool": lambda x: isinstance(x, (bool, np.bool_)),
    "torch.dtype": lambda x: isinstance(x, (dtypes.dtype, np.dtype)) or x in _PYTHON_TYPES or (
        isinstance(x, type) and issubclass(x, np.generic)) or type(getattr(x, "dtype", None)) is np.dtype,  # numpy's and jax's, too
    "torch.device": lambda x: isinstance(x, (dtypes.device, str)) or _is_int(x),
    "torch.layout": lambda x: isinstance(x, layout),
    "torch.memory_format": lambda x: isinstance(x, memory_format),
    "torch.Generator": lambda x: isinstance(x, Generator),
}


class Argument:
    """One argument of a signature."""

    __slots__ = ("check", "default", "keyword_only", "may_be_none", "name", "names", "needed", "type")

    def __init__(self, text: str, keyword_only: bool):
        declared, _, default = text.partition(" = ")
        kind, _, self.name = declared.rpartition(" ")
        self.type = kind.removesuffix("?")
        self.names = (self.name, *ALSO.get(self.name, ()))
        self.needed = not default
        self.default = ast.literal_eval(default) if default else None
        self.may_be_none = default == "None" or kind.endswith("?")
        self.keyword_only = keyword_only
        self.check = _CHECKS[self.type]


class Signature:
    """The arguments of a function, in order: ``"int n, *, torch.dtype dtype = None"``."""

    def __init__(self, text: str):
        before, _, after = text.partition("*, ")
        self.text = text.replace("?", "")
        self.parameters = [Argument(p, False) for p in before.rstrip(", ").split(", ") if p]
        self.positions = len(self.parameters)
        self.parameters += [Argument(p, True) for p in after.split(", ") if p]
        self.least = sum(p.needed for p in self.parameters)
        self.variadic = self.positions == 1 and self.parameters[0].type == "tuple of ints"

    def read(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], raises: bool) -> dict[str, Any] | None:
        """The arguments by name, or None where they do not fit; with ``raises``, the refusal is raised."""
        n = len(args)
        found: dict[str, Any] = {}
        left = len(kwargs)
        if n > self.positions and not self.variadic:
            if raises:
                raise self._too_many(name, n)
            return None
        at = 0
        for i, p in enumerate(self.parameters):
            by_name = at >= n
            if by_name:
                key = next((k for k in p.names if k in kwargs), None) if left else None
                if key is None:
                    if not p.needed:
                        continue
                    if raises:
                        raise self._missing(name, i)
                    return None
                value, left = kwargs[key], left - 1
            else:
                if p.keyword_only:
                    if raises:
                        raise self._too_many(name, n)
                    return None
                value = args[at]
            if (value is None and p.may_be_none) or p.check(value):
                found[p.name] = value
            elif self.variadic and at == 0 and not by_name and _is_int(value):
                found[p.name], at = args, n
                continue
            elif raises and n > self.positions:
                raise self._too_many(name, n)
            elif raises:
                where = "" if by_name else f" (position {at + 1})"
                raise TypeError(f"{name}(): argument '{p.name}'{where} must be {p.type}, not {type(value).__name__}\n"
                                f"{name} takes ({self.text})")
            else:
                return None
            at += not by_name
        if left and raises:
            raise self._not_taken(name, args, kwargs)
        return None if left else found

    def _too_many(self, name: str, n: int) -> TypeError:
        few = f"from {self.least} to {self.positions}" if self.least != self.positions else str(self.positions)
        return TypeError(f"{name}() takes {few} positional argument{'s' if self.positions > 1 else ''} but {n} were given\n"
                         f"{name} takes ({self.text})")

    def _missing(self, name: str, i: int) -> TypeError:
        lack = [f'"{p.name}"' for p in self.parameters[i:] if p.needed]
        return TypeError(f"{name}() missing {len(lack)} required positional argument{'s' if len(lack) == 1 else ''}: "
                         f"{', '.join(lack)}\n{name} takes ({self.text})")

    def _not_taken(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError:
        known = {k for p in self.parameters for k in p.names}
        for key in kwargs:
            if key not in known:
                return TypeError(f"{name}() got an unexpected keyword argument '{key}'\n{name} takes ({self.text})")
        twice = next(k for p in self.parameters[: max(len(args), 1)] for k in p.names if k in kwargs)
        return TypeError(f"{name}() got multiple values for argument '{twice}'")


def read(name: str, signatures: list[Signature], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name, read by the first signature that they fit.

    Raises:
      TypeError: they fit none; in PyTorch's words.
    """
    for s in signatures:
        found = s.read(name, args, kwargs, len(signatures) == 1)
        if found is not None:
            return found
    n = len(args) + len(kwargs)
    likely = [s for s in signatures if s.least <= n <= len(s.parameters)]
    if len(likely) == 1:
        likely[0].read(name, args, kwargs, True)
    came = ", ".join([*[type(x).__name__ for x in args], *[f"{k}={type(x).__name__}" for k, x in kwargs.items()]])
    came += ", " if kwargs and not args else ""
    listed = "\n * ".join(f"({s.text})" for s in signatures)
    raise TypeError(f"{name}() received an invalid combination of arguments - got ({came}), but expected one of:\n * {listed}")


def taking(*texts: str, method: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: calls of the function are read by these signatures, which leave out the tensor of a method."""
    signatures = [Signature(text) for text in texts]

    def decorate(fun: Callable[..., Any]) -> Callable[..., Any]:
        name = fun.__name__
        if method:
            def called(*args: Any, **kwargs: Any) -> Any:
                return fun(args[0], **checked(name, read(name, signatures, args[1:], kwargs)))
        else:
            def called(*args: Any, **kwargs: Any) -> Any:
                return fun(**checked(name, read(name, signatures, args, kwargs)))

        called = functools.wraps(fun)(called)
        called.__dict__["__signature__"] = listed(signatures, method)
        return called

    return decorate


def listed(signatures: list[Signature], method: bool) -> inspect.Signature:
    """The longest signature, for ``inspect.signature``."""
    longest = max(signatures, key=lambda s: len(s.parameters))
    kinds, none = inspect.Parameter, inspect.Parameter.empty
    found = [kinds("self", kinds.POSITIONAL_OR_KEYWORD)] if method else []
    optional = False
    for p in longest.parameters:
        optional = not p.keyword_only and (optional or not p.needed)
        default = p.default if not p.needed or optional or p.keyword_only else none
        name = f"{p.name}_" if keyword.iskeyword(p.name) else p.name
        found.append(kinds(name, kinds.KEYWORD_ONLY if p.keyword_only else kinds.POSITIONAL_OR_KEYWORD, default=default))
    return inspect.Signature(found)


def checked(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Arguments without those about memory layout, which arrays of jax choose themselves.

    Raises:
      RuntimeError: a tensor that is not dense is asked for.
    """
    asked = found.pop("layout", None)
    if asked is not None and asked is not strided:
        raise RuntimeError(f"{name}(): layout={asked!r} is not offered\ntensors here hold every entry: torch.strided; "
                           "jax.experimental.sparse has arrays that do not")
    found.pop("pin_memory", None)
    found.pop("memory_format", None)
    for key, value in found.items():
        if key in ("size", "physical_layout"):
            found[key] = shape_from(name, value)
    return found


def shape_from(name: str, sizes: Any) -> tuple[int, ...]:
    """A shape; refused where a size is not an integer, or negative."""
    for i, s in enumerate(sizes):
        if not _is_int(s):
            raise TypeError(f"{name}(): argument 'size' failed to unpack the object at pos {i + 1} with error \"type must be tuple of "
                            f"ints,but got {type(s).__name__}\"\nthe sizes are {tuple(sizes)}")
    shape = tuple([int(s) for s in sizes])
    for s in shape:
        if s < 0:
            raise RuntimeError("zeros: Dimension size must be non-negative." if name == "zeros" else
                               f"Trying to create tensor with negative dimension {s}: {list(shape)}")
    return shape
