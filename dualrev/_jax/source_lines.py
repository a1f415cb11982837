"""Lines of the user's program, for error messages."""

from __future__ import annotations

import functools
import pathlib
import sys
import threading
from typing import Literal, TypeAlias

from jax._src import source_info_util as _source_info_util
from jax._src.source_info_util import NameStack as NameStack  # the scopes that an equation was traced in
from jax._src.source_info_util import SourceInfo as SourceInfo  # where the program stood when an operation was called

from dualrev._jax.custom_rules import WrappedFun
from dualrev._jax.jaxprs import Jaxpr
from dualrev._jax.traces import current_trace, is_staged_at_last

# Frames of the package are not the user's; what stands in dualrev.problems is, and so is a user's own rule.
for _path in pathlib.Path(__file__).parents[1].iterdir():
    if _path.name != "problems":
        _source_info_util.register_exclusion(str(_path))


#: Where jax keeps, for each thread, the line and the scopes that new equations get.
_here = _source_info_util._source_info_context


def source() -> SourceInfo:
    """Where the program stands now, which :func:`line_of` puts into words: half a microsecond."""
    return _source_info_util.current()


def line_of(source: SourceInfo) -> str:
    """``file:line (function)`` of the user's code at a :func:`source`, as jax would print it, or an empty string."""
    summary = _source_info_util.summarize(source)
    return "" if summary == "unknown" else summary


def user_frame() -> str:
    """``file:line (function)`` of the user's code that the program came from, or else of what runs now.

    What jax traces for a library's compiled function knows lines from there on only.
    """
    found = line_of(source())
    frame = None if found else sys._getframe(1)
    while frame is not None:
        if _source_info_util.is_user_filename(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
        frame = frame.f_back
    return found


def defined_at(fun: WrappedFun | Jaxpr) -> str:
    """``name at file:line`` of the user's function that a wrapped function calls, or that a jaxpr was traced from."""
    return str(fun.debug_info.func_src_info)


# ------------------------------------------------------------------------------------------------- equations of derivatives

#: ``"pull"``, ``"push"``, or ``"linearize"`` for an operation that is evaluated with what its pull needs.
Direction: TypeAlias = Literal["pull", "push", "linearize"]


class Mark:
    """A scope of equations that belong to the derivative of an operation.

    ``source`` is the line of the operation itself.  ``is_call``: the operation runs programs, whose operations have marks of their own.
    """

    __slots__ = ("direction", "is_call", "operation", "source")

    def __init__(self, direction: Direction, operation: str, source: SourceInfo | None, is_call: bool):
        self.direction = direction
        self.operation = operation
        self.source = source
        self.is_call = is_call

    def wrap(self, stack: list[str]) -> None:
        """Append the name of the scope to the names of those within it, as jax's own scopes do."""
        stack.append(str(self))

    @property
    def name(self) -> str:
        """What lowering calls the scope."""
        return str(self)

    def __str__(self) -> str:
        return f"{self.direction}({self.operation})"


class Batching:
    """What is common to scopes that tell the axes of a ``vmap`` (:class:`dualrev._jax.batches.Batch`)."""

    __slots__ = ()


class Marking:
    """``with Marking(direction) as marking``: equations that are traced after ``marking.at(operation, source)`` get a :class:`Mark`.

    They also get the line of ``source``, where it is given.  Nothing is done where nothing is traced: ``is_on`` is False.
    """

    __slots__ = ("_before", "direction", "is_on")

    def __init__(self, direction: Direction, is_on: bool | None = None):
        self.direction = direction
        self.is_on = is_staged_at_last(current_trace()) if is_on is None else is_on

    def __enter__(self) -> Marking:
        self._before = _here.context
        return self

    def at(self, operation: str, source: SourceInfo | None, is_call: bool = False) -> None:
        """From here on, equations belong to the derivative of this operation."""
        before = self._before
        scopes = outer = before.name_stack.stack
        traceback = before.traceback
        if source is not None:
            innermost = next((scope for scope in reversed(outer) if not isinstance(scope, Batching)), None)
            if isinstance(innermost, Mark) and not innermost.is_call:
                return  # a tape that the rule of an operation runs: it is the derivative of that operation
            own = source.name_stack.stack
            if own and isinstance(own[-1], Mark) and own[-1].direction == "linearize":
                own = own[:-1]  # it was recorded while the operation was evaluated
            scopes = outer + (own[len(outer):] if own[: len(outer)] == outer else own)
            traceback = source.traceback if has_line(source) else traceback
        stack = NameStack((*scopes, Mark(self.direction, operation, source, is_call)))  # type: ignore[arg-type]  # a scope of ours
        _here.context = SourceInfo(traceback, stack)

    def __exit__(self, *_: object) -> None:
        _here.context = self._before


class own_lines:
    """``with own_lines(fun):`` around a call of a function: if it is the user's, what it does gets the lines at which it stands."""

    __slots__ = ("_before", "fun")

    def __init__(self, fun: WrappedFun):
        self.fun = fun

    def __enter__(self) -> None:
        self._before = before = _here.context
        if before.traceback is not None and _is_of_user(self.fun):
            _here.context = SourceInfo(None, before.name_stack)

    def __exit__(self, *_: object) -> None:
        _here.context = self._before


def _is_of_user(fun: WrappedFun) -> bool:
    """Whether a function stands in a file of the user's."""
    path = defined_at(fun).rpartition(" at ")[2].rpartition(":")[0]
    return bool(path) and is_file_of_user(path)


_PACKAGE = str(pathlib.Path(__file__).parents[1])


def is_of_library(fun: WrappedFun | Jaxpr) -> bool:
    """Whether a function, or what a jaxpr was traced from, stands in a file of jax: its program is traced once for all who call it.

    The lines of the equations are those of the first call, and say nothing about others.
    """
    path = defined_at(fun).rpartition(" at ")[2].rpartition(":")[0]
    return bool(path) and not is_file_of_user(path) and not path.startswith(_PACKAGE)


def is_file_of_user(path: str) -> bool:
    """Whether a file is neither of jax nor of the package."""
    return bool(_source_info_util.is_user_filename(path))


@functools.cache
def _nowhere() -> SourceInfo:
    """A source without a line of the user's: where a thread begins."""
    found: list[SourceInfo] = []
    thread = threading.Thread(target=lambda: found.append(SourceInfo(source().traceback, NameStack())))
    thread.start()
    thread.join()
    return found[0]


class at_no_line:
    """``with at_no_line():`` around what is made once for all who use it: the line of the first one must not stand for the others'."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = _here.context
        _here.context = _nowhere()

    def __exit__(self, *_: object) -> None:
        _here.context = self._before


class here:
    """``with here():`` around what is staged: its operations have the line where the program stands, which staging would hide."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = before = _here.context
        _here.context = SourceInfo(source().traceback, before.name_stack)

    def __exit__(self, *_: object) -> None:
        _here.context = self._before


class replaying:
    """``with replaying() as replay``: after ``replay.at(source)``, an operation gets the line and the scopes of an equation.

    ``source`` is :func:`replayed`: what a library's compiled function was traced at is not the line of this call of it.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> replaying:
        self._before = _here.context
        return self

    def at(self, source: SourceInfo) -> None:
        before = self._before
        scopes = before.name_stack.stack + source.name_stack.stack
        _here.context = SourceInfo(source.traceback or before.traceback, NameStack(scopes))

    def __exit__(self, *_: object) -> None:
        _here.context = self._before


class Scope:
    """A scope of the package's own: what axis the ``vmap`` in it adds, or what number the equations in it compute.

    ``"directions"``: an axis of tangents or cotangents; ``"steps"``: of the steps of a loop.  ``"step"``: the number of a step of the
    user's loop that a step of a loop of ours stands for; ``"first"``: that of the first step of a block.
    """

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def wrap(self, stack: list[str]) -> None:
        stack.append(self.name)


class entering:
    """``with entering(scope):`` as :class:`within`, for any scope."""

    __slots__ = ("_before", "scope")

    def __init__(self, scope: object):
        self.scope = scope

    def __enter__(self) -> None:
        self._before = before = _here.context
        _here.context = SourceInfo(before.traceback, NameStack((*before.name_stack.stack, self.scope)))  # type: ignore[arg-type]

    def __exit__(self, *_: object) -> None:
        _here.context = self._before


class within(entering):
    """``with within(name):`` equations that are traced in the block get a :class:`Scope`."""

    __slots__ = ()

    def __init__(self, name: str):
        self.scope = Scope(name)


def enclosing() -> tuple[object, ...]:
    """The scopes that equations get now, outermost first."""
    return _here.context.name_stack.stack


def replayed(source: SourceInfo) -> SourceInfo:
    """The line and the scopes of an equation; without a line that is not the user's."""
    return source if has_line(source) else SourceInfo(None, source.name_stack)


def marks_of(source: SourceInfo) -> list[Mark]:
    """The marks of an equation, outermost first."""
    scopes: tuple[object, ...] = source.name_stack.stack
    return [scope for scope in scopes if isinstance(scope, Mark)]


def scope_of(source: SourceInfo) -> str:
    """The name of the innermost scope of the package's own, or an empty string."""
    return next((scope.name for scope in reversed(source.name_stack.stack) if isinstance(scope, Scope)), "")


def has_line(source: SourceInfo | None) -> bool:
    """Whether a frame of the user's is known."""
    return source is not None and _source_info_util.user_frame(source.traceback) is not None


def file_and_line(source: SourceInfo) -> tuple[str, int, str]:
    """The file, line and function of the user's code; ``("", 0, "")`` where it is not known."""
    frame = _source_info_util.user_frame(source.traceback)
    return ("", 0, "") if frame is None else (frame.file_name, frame.start_line, frame.function_name)
