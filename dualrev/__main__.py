"""``python -m dualrev``: differentiate real problems, or a function of your own, with every engine and compare."""

from __future__ import annotations

import argparse
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
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.trees import PyTree
from dualrev.installed import running
from dualrev.problems import PROBLEMS
from dualrev.report import calibration, tables
from dualrev.report.measure import Flat, UnfitFunctionError, flatten, measure, stored
from dualrev.report.modes import modes

EPILOG = """\
examples:
  python -m dualrev                                                   the problems that come with the package
  python -m dualrev mymodel:loss --args "jnp.ones(3), 2.0"            a function of an importable module
  python -m dualrev path/to/model.py:loss --args "init(), jnp.eye(4)" of a file; its own names may stand in --args
  python -m dualrev mymodel:loss --args "jnp.ones(3)" --json          the same numbers for machines
  python -m dualrev --memory mymodel:loss --args "jnp.ones(3)"        what reverse mode stores: bytes, operation, line
  python -m dualrev --modes mymodel:loss --args "jnp.ones(3)"         how each operation goes through Laplacians, series, patterns
  python -m dualrev run script.py                                     a program with dualrev's transforms in place of jax's
  python -m dualrev calibrate [--dry-run]                             measure the constants of dualrev.time_model on this machine

Inputs are all floats in the arguments, however nested; integers and other values are held fixed.  Everything runs in float64.
exit status: 0; 1 if the engines or jax disagree; 2 if the function or its arguments do not fit.
"""


T = TypeVar("T")


class InputError(Exception):
    """What the user typed does not fit; the message says what to type."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see python -m dualrev --help")


def parser() -> Parser:
    made = Parser(prog="python -m dualrev", description=__doc__.split(":", 1)[1].strip().capitalize(), epilog=EPILOG,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("function", nargs="?", metavar="module:function",
                      help="a JAX function to differentiate: module:function or path/to/file.py:function (default: the "
                           "problems that come with the package)")
    made.add_argument("--args", metavar="EXPRESSIONS",
                      help="its arguments, as Python expressions: \"jnp.ones(3), 2.0, scale=1.5\"; jnp, np, jax and the names "
                           "of the function's module may be used")
    made.add_argument("--memory", action="store_true",
                      help="list every array that the reverse engine stores: its bytes, the operation that keeps it, the line")
    made.add_argument("--modes", action="store_true",
                      help="list the operations, and what the modes beside forward and reverse read of each: Laplacians, Taylor "
                           "series, sparsity patterns, elimination")
    made.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
    return made


# ---------------------------------------------------------------------------------------------------- the user's function


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


def study(target: str, expressions: str | None, by: Callable[[str, Flat], T]) -> T:
    """What ``by`` finds out about the user's function."""
    function, module = load(target)
    signature = call_signature(function)
    place, _, function_name = target.rpartition(":")
    named = f"{function_name}{'(...)' if signature is None else signature}"
    if expressions is None:
        if signature is not None and not signature.parameters:
            raise InputError(f"{named} takes no arguments, so there is nothing to differentiate by; give it a float parameter")
        raise InputError(f"{named} needs arguments; give them as Python expressions, such as --args \"jnp.ones(3), 2.0\"")
    args, kwargs = evaluate(expressions, module)
    if signature is not None:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(f"--args \"{expressions}\" does not fit {named}: {error}") from error
    shown = Path(place).stem if place.endswith(".py") else place
    try:
        return by(f"{shown}:{function_name}", flatten(function, args, kwargs))
    except UnfitFunctionError as error:
        raise InputError(f"{named} can't be compared: {error}") from error
    except Exception as error:
        raise InputError(f"{named} failed: {_told(error, getattr(module, '__file__', None))}") from error


_NOT_THE_USERS = tuple(
    str(Path(str(folder)).resolve()) + os.sep
    for folder in (Path(__file__).parent, *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), *site.getsitepackages())
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


# ------------------------------------------------------------------------------------------------------------ the command


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["run"]:
        try:
            return running.run(words[1:])
        except running.UsageError as error:
            print(f"dualrev: error: {error}", file=sys.stderr)
            return 2
    if words[:1] == ["calibrate"]:
        return calibration.run(words[1:])
    err = tables.console(stderr=True)
    try:
        options = parser().parse_args(words)
        if options.function is None and options.args is not None:
            raise InputError("--args belongs to a function; type module:function before it")
        if options.memory and options.modes:
            raise InputError("--memory and --modes are two tables; type one of them")
        jax.config.update("jax_enable_x64", True)
        problems = PROBLEMS if options.function is None else ()
        # What a user's function prints must not stand between the lines of JSON.
        with err.status("differentiating") as status, contextlib.redirect_stdout(sys.stderr):
            def every(by: Callable[[str, Flat], T]) -> list[T]:
                found = [] if options.function is None else [study(options.function, options.args, by)]
                for problem in problems:
                    status.update(f"differentiating: {problem.name}")
                    found.append(by(problem.name, flatten(problem.function, (problem.make_inputs(),), {})))
                return found

            memory = every(stored) if options.memory else []
            found_modes = every(modes) if options.modes else []
            measurements = [] if options.memory or options.modes else every(measure)
    except InputError as error:
        print(f"dualrev: error: {error}", file=sys.stderr)
        return 2
    if options.memory:
        if options.json:
            print(tables.memory_as_json(memory, problems))
        else:
            tables.show_memory(tables.console(), memory)
    elif options.modes:
        if options.json:
            print(tables.modes_as_json(found_modes, problems))
        else:
            tables.show_modes(tables.console(), found_modes)
    elif options.json:
        print(tables.as_json(measurements, problems))
    else:
        tables.show(tables.console(), measurements, problems)
    disagreeing = [measured.name for measured in measurements if not measured.agrees]
    if disagreeing:
        print(f"dualrev: the derivatives of {', '.join(disagreeing)} differ by more than rounding", file=sys.stderr)
    return 1 if disagreeing else 0


if __name__ == "__main__":
    sys.exit(main())
