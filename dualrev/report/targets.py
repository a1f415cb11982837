"""A function of the user that the command line names: ``module:function`` or ``path/to/file.py:function``, and its arguments."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.trees import PyTree
from dualrev.report.measure import Flat, UnfitFunctionError, flatten

T = TypeVar("T")


class InputError(Exception):
    """What the user typed does not fit; the message says what to type."""


def load(target: str) -> tuple[Callable[..., PyTree], ModuleType]:
    """The function that ``module:function`` or ``file.py:function`` names, and its module."""
    module_name, colon, function_name = target.rpartition(":")
    if not colon or not module_name or not function_name:
        raise InputError(f"'{target}' names no function; type module:function or path/to/file.py:function")
    module = _load_file(Path(module_name)) if module_name.endswith(".py") else _load_module(module_name)
    found: object = module
    for part in function_name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{module_name} has no function '{function_name}'; {_choices(module)}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{target} is not a function but {_a(type(found).__name__)}; {_choices(module)}")
    return found, module


def _load_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(f"importing {name} failed: {_told(error)}") from error
        hint = f"; did you mean {name}.py:...?" if Path(f"{name}.py").exists() else ""
        raise InputError(f"there is no module '{name}' here (in {os.getcwd()} or installed); "
                         f"type an importable module or path/to/file.py before the colon{hint}") from error
    except Exception as error:
        raise InputError(f"importing {name} failed: {_told(error)}") from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no file '{path}'; type path/to/file.py:function")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem if path.stem not in sys.modules else f"__{path.stem}__"  # a file named random.py must not replace random
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"importing {path} failed: {_told(error)}") from error
    return module


def _choices(module: ModuleType) -> str:
    names = [name for name, x in vars(module).items() if inspect.isroutine(x) and not name.startswith("_")
             and getattr(x, "__module__", None) == module.__name__]
    return f"its functions are: {', '.join(names)}" if names else "it has no function of its own"


def _a(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def evaluate(expressions: str, module: ModuleType) -> tuple[tuple[PyTree, ...], dict[str, PyTree]]:
    """Positional and keyword arguments from the text of a call's parentheses."""
    example = 'write Python expressions, such as --args "jnp.ones(3), 2.0"'
    try:
        tree = ast.parse(f"collect({expressions}\n)", "--args", "eval")
        reason = "" if isinstance(tree.body, ast.Call) and isinstance(tree.body.func, ast.Name) else "unmatched ')'"
    except SyntaxError as error:
        reason = error.msg
    if reason:
        raise InputError(f"--args \"{expressions}\" is not valid Python ({reason}); {example}")
    scope = {**vars(module), "jnp": jnp, "np": np, "jax": jax, "collect": lambda *args, **kwargs: (args, kwargs)}
    try:
        args, kwargs = eval(compile(tree, "--args", "eval"), scope)
    except Exception as error:
        raise InputError(f"--args \"{expressions}\" failed: {type(error).__name__}: {_first_line(error)}; {example}") from error
    return args, kwargs


def call_signature(function: Callable[..., PyTree]) -> inspect.Signature | None:
    """The parameters, without annotations: what the user has to type."""
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    return inspect.Signature([p.replace(annotation=p.empty) for p in found.parameters.values()])


@dataclass(frozen=True)
class Target:
    """A function that the user named, and the arguments that ``--args`` gives.

    Attributes:
      name: ``module:function``; ``call`` has the function with its parameters, for messages.
    """

    function: Callable[..., PyTree]
    args: tuple[PyTree, ...]
    kwargs: dict[str, PyTree]
    module: ModuleType
    name: str
    call: str

    @contextlib.contextmanager
    def failures_in_words(self) -> Iterator[None]:
        """Whatever the user's function raises becomes an :class:`InputError` with the line of the user's code."""
        try:
            yield
        except InputError:
            raise
        except UnfitFunctionError as error:
            raise InputError(f"{self.call} can't be compared: {error}") from error
        except Exception as error:
            raise InputError(f"{self.call} failed: {_told(error, getattr(self.module, '__file__', None))}") from error


def find(target: str, expressions: str | None) -> Target:
    """The function and its arguments, from the words of the command line."""
    function, module = load(target)
    signature = call_signature(function)
    place, _, function_name = target.rpartition(":")
    call = f"{function_name}{'(...)' if signature is None else signature}"
    if expressions is None:
        if signature is not None and not signature.parameters:
            raise InputError(f"{call} takes no arguments, so there is nothing to differentiate by; give it a float parameter")
        raise InputError(f"{call} needs arguments; give them as Python expressions, such as --args \"jnp.ones(3), 2.0\"")
    args, kwargs = evaluate(expressions, module)
    if signature is not None:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(f"--args \"{expressions}\" does not fit {call}: {error}") from error
    name = f"{Path(place).stem if place.endswith('.py') else place}:{function_name}"
    return Target(function, args, kwargs, module, name, call)


def study(target: str, expressions: str | None, by: Callable[[str, Flat], T]) -> T:
    """What ``by`` finds out about the user's function, of all floats in its arguments."""
    found = find(target, expressions)
    with found.failures_in_words():
        return by(found.name, flatten(found.function, found.args, found.kwargs))


_NOT_THE_USERS = tuple(
    str(Path(str(folder)).resolve()) + os.sep
    for folder in (Path(__file__).parents[1], *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), *site.getsitepackages())
)


def _told(error: BaseException, own_file: str | None = None) -> str:
    """``Type: message (file:line)`` of an exception in the user's code, in one line."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({Path(error.filename).name}:{error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == own_file or not (
        f.filename.startswith("<") or str(Path(f.filename).resolve()).startswith(_NOT_THE_USERS))]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {_first_line(error)}{where}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "(no message)")
