"""``python -m dualrev run``: a script or module, as Python itself would run it, with dualrev's transforms in place of jax's."""

from __future__ import annotations

import argparse
import builtins
import contextlib
import importlib.util
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, cast

import jax

from dualrev.installed.replacing import installed
from dualrev.installed.transforms import TRANSFORMS

if TYPE_CHECKING:
    from importlib.abc import InspectLoader


class UsageError(Exception):
    """What was typed does not fit; the message says what to type."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"run: {message}; see python -m dualrev run --help")


def parser() -> argparse.ArgumentParser:
    made = _Parser(prog="python -m dualrev run", description="Run a Python script, or a module, in which jax.grad, jax.jvp and the "
                   "other transforms are dualrev's, in the libraries that it uses too.")
    made.add_argument("--transforms", metavar="NAMES", help=f"replace these alone: some of {','.join(TRANSFORMS)}")
    made.add_argument("--modules", metavar="NAMES", help="replace in calls from these modules alone")
    made.add_argument("--skip", metavar="NAMES", help="leave jax's transforms to these modules")
    made.add_argument("--report", action="store_true", help="at the end, print what was replaced where, on standard error")
    made.add_argument("-m", dest="is_module", action="store_true", help="what follows names a module, as for python -m")
    made.add_argument("program", nargs=argparse.REMAINDER, metavar="script.py [arguments]", help="the program and its arguments")
    return made


def run(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; the exit status of the program."""
    options = parser().parse_args(arguments)
    if not options.program:
        raise UsageError("run: no program is named; type python -m dualrev run script.py, or -m module")

    def names(given: str | None) -> tuple[str, ...] | None:
        return None if given is None else tuple([name.strip() for name in given.split(",") if name.strip()])

    try:
        block = installed(names(options.transforms), modules=names(options.modules), skip=names(options.skip) or ())
    except ValueError as error:
        raise UsageError(f"run: {error}") from error
    target, *rest = options.program
    with _own_program():
        find: Callable[[str], tuple[CodeType | bytes, ModuleType]] = _module if options.is_module else _script
        code, module = find(target)
        sys.argv = [module.__file__ or target if options.is_module else target, *rest]
        sys.modules["__main__"] = module
        with block as report, _environment_reaches_jax():
            status = _execute(code, module)
            _join_threads()
        if options.report:
            print(report, file=sys.stderr)
    return status


def _script(path: str) -> tuple[CodeType | bytes, ModuleType]:
    if Path(path).is_dir() or path.endswith((".zip", ".pyz")):
        sys.path.insert(0, path)
        return _named("__main__", path)
    try:
        with io.open_code(os.path.abspath(path)) as file:
            text = file.read()
    except OSError as error:
        raise UsageError(f"run: can't open '{path}': {error.strerror}") from error
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    module = ModuleType("__main__")
    module.__file__ = path
    return text, module


def _module(name: str) -> tuple[CodeType, ModuleType]:
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            return _named(f"{name}.__main__", name)
    except ModuleNotFoundError as error:
        raise UsageError(f"run: {error}") from error
    return _named(name, name)


def _named(name: str, asked: str) -> tuple[CodeType, ModuleType]:
    main = sys.modules.pop("__main__") if name == "__main__" else None  # else the search would find the one that runs
    try:
        spec = importlib.util.find_spec(name)
    finally:
        if main is not None:
            sys.modules["__main__"] = main
    loader = None if spec is None else cast("InspectLoader | None", spec.loader)
    code = None if loader is None else loader.get_code(name)
    if spec is None or code is None:
        raise UsageError(f"run: no code to run was found for '{asked}'")
    module = ModuleType("__main__")
    module.__spec__, module.__loader__, module.__package__ = spec, loader, spec.parent
    module.__file__ = spec.origin
    return code, module


def _execute(code: CodeType | bytes, module: ModuleType) -> int:
    vars(module).setdefault("__builtins__", builtins)
    try:
        exec(compile(code, str(module.__file__), "exec", dont_inherit=True) if isinstance(code, bytes) else code, vars(module))
    except SystemExit as error:
        if isinstance(error.code, int) or error.code is None:
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except Exception as error:  # shown as Python shows what a program does not catch: without the frames of this one
        error.__traceback__ = _without(error.__traceback__, __file__)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _without(traceback: TracebackType | None, file: str) -> TracebackType | None:
    while traceback is not None and traceback.tb_frame.f_code.co_filename == file:
        traceback = traceback.tb_next
    return traceback


@contextlib.contextmanager
def _own_program() -> Iterator[None]:
    """Put back afterwards what says which program is running."""
    main, argv, path = sys.modules["__main__"], sys.argv, list(sys.path)
    try:
        yield
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = main, argv, path


def _join_threads() -> None:
    """Wait for the program's threads, as Python does at the end, so that they see the same functions to theirs."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon and thread is not threading.main_thread():
            thread.join()


@contextlib.contextmanager
def _environment_reaches_jax() -> Iterator[None]:
    """Scripts set variables such as ``JAX_ENABLE_X64`` and then import jax, which is there already and has read them."""
    before, importing = dict(os.environ), builtins.__import__

    def first_import(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name.split(".")[0] == "jax" and builtins.__import__ is first_import:
            builtins.__import__ = importing
            for variable, text in os.environ.items():
                if variable.startswith("JAX_") and before.get(variable) != text:
                    _configure(variable.lower(), text)
        return importing(name, *args, **kwargs)

    builtins.__import__ = first_import
    try:
        yield
    finally:
        if builtins.__import__ is first_import:
            builtins.__import__ = importing


def _configure(name: str, text: str) -> None:
    """Set an option of jax as its variable says."""
    if name not in jax.config.values:
        return
    now = jax.config.values[name]
    readers: dict[type, Callable[[str], object]] = {bool: _truth, int: int, float: float}
    jax.config.update(name, readers.get(type(now), str)(text))


def _truth(text: str) -> bool:
    if text.lower() in ("y", "yes", "t", "true", "on", "1"):
        return True
    if text.lower() in ("n", "no", "f", "false", "off", "0"):
        return False
    raise ValueError(f"{text!r} is no truth value for a variable of jax; write 1 or 0")
