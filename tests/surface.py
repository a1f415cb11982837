"""The public names of dualrev with their signatures, as one text: ``python -m tests.surface`` writes it to ``tests/surface.txt``.

A name is public if it is in ``__all__`` of one of ``MODULES``, a public member of such a class or of one that such a function returns
(``RETURNED``), an option of the calls that differentiate, or a name of the imperative face that PyTorch has.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import pathlib
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from dualrev.options.keywords import Options

FILE = pathlib.Path(__file__).with_name("surface.txt")
#: By the name under which users write them.
MODULES = {
    "dualrev": "dualrev", "dualrev.cotangents": "dualrev.inspection.taps.cotangents",
    **{name: name for name in ("dualrev.errors", "dualrev.estimators", "dualrev.modes", "dualrev.oracle", "dualrev.policies",
                               "dualrev.problems", "dualrev.sparse", "dualrev.testing", "dualrev.time_model")}}
#: Classes that users meet as results, by the module that defines them.
RETURNED = {
    "dualrev.functional.linearized": ("Linearized",), "dualrev.functional.results": ("LinearTranspose", "Pullback"),
    "dualrev.functional.eliminated": ("EliminationPlan",), "dualrev.functional.ways": ("Way",),
}
#: Whose names are PyTorch's; their signatures are compared with PyTorch's in tests/eager.
IMPERATIVE = ("", "amp", "autograd", "cuda", "distributions", "fft", "func", "linalg", "models", "nn", "nn.functional", "nn.init",
              "nn.utils", "optim", "optim.lr_scheduler", "random", "special", "testing", "utils", "utils.data")


def annotation(form: Any) -> str:
    if isinstance(form, str):
        return form
    if isinstance(form, typing.ForwardRef):
        return form.__forward_arg__
    return form.__name__ if isinstance(form, type) else str(form).replace("typing.", "")


def default(value: Any) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return str(value) if isinstance(value, enum.Enum) else repr(value)


def signature(of: Any) -> str:
    """Parameters with their kinds, defaults and annotations, the same on every release of Python."""
    found = inspect.signature(of)
    parts: list[str] = []
    kinds = [p.kind for p in found.parameters.values()]
    for i, p in enumerate(found.parameters.values()):
        if p.kind is p.KEYWORD_ONLY and p.VAR_POSITIONAL not in kinds and kinds.index(p.KEYWORD_ONLY) == i:
            parts.append("*")
        star = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        form = "" if p.annotation is p.empty else f": {annotation(p.annotation)}"
        parts.append(f"{star}{p.name}{form}" + ("" if p.default is p.empty else f" = {default(p.default)}"))
        if p.kind is p.POSITIONAL_ONLY and kinds[i + 1: i + 2] != [p.POSITIONAL_ONLY]:
            parts.append("/")
    back = "" if found.return_annotation is found.empty else f" -> {annotation(found.return_annotation)}"
    return f"({', '.join(parts)}){back}"


def members(cls: type) -> Iterator[str]:
    """A line for each public attribute, property and method that dualrev defines, inherited ones included."""
    names = {name for base in cls.__mro__ if base.__module__.startswith("dualrev") for name in base.__dict__}
    for name in sorted(name for name in names if not name.startswith("_")):
        value = inspect.getattr_static(cls, name)
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        yield f".{name}{signature(value)}" if inspect.isfunction(value) else f".{name}"


def described(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, ModuleType):
        yield f"{name}: module"
    elif isinstance(value, type):
        yield f"class {name}{'' if issubclass(value, BaseException) else signature(value)}"
        yield from (f"class {name}{line}" for line in members(value))
    elif inspect.isfunction(value):
        yield f"{name}{signature(value)}"
    else:
        yield f"{name}: {type(value).__name__ if hasattr(type(value), '__name__') else 'value'}"


def lines() -> Iterator[str]:
    for name, path in MODULES.items():
        module = importlib.import_module(path)
        for public in sorted(module.__all__):
            yield from described(f"{name}.{public}", getattr(module, public))
    for path, classes in RETURNED.items():
        for cls in classes:
            yield from described(f"{path}.{cls}", getattr(importlib.import_module(path), cls))
    yield from (f"option {name}: {annotation(form)}" for name, form in sorted(Options.__annotations__.items()))
    for folder in IMPERATIVE:
        module = importlib.import_module(f"dualrev.eager.{folder}".rstrip("."))
        yield f"{module.__name__}: {' '.join(sorted(imperative(module)))}"


def imperative(module: ModuleType) -> Iterator[str]:
    """Public names that are dualrev's own or imported on purpose, modules apart."""
    for name in getattr(module, "__all__", None) or dir(module):
        value = getattr(module, name)
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in ("annotations", "TYPE_CHECKING"):
            yield name


def text() -> str:
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
