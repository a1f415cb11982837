"""Lines of the user's program, for error messages."""

from __future__ import annotations

import pathlib
import sys

from jax._src import source_info_util as _source_info_util
from jax._src.source_info_util import SourceInfo as SourceInfo  # where the program stood when an operation was called

from dualrev._jax.custom_rules import WrappedFun
from dualrev._jax.jaxprs import Jaxpr

# Frames of the package are not the user's; what stands in dualrev.problems is, and so is a user's own rule.
for _path in pathlib.Path(__file__).parents[1].iterdir():
    if _path.name != "problems":
        _source_info_util.register_exclusion(str(_path))


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
